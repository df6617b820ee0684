"""The life of a host's kernel: start, restart, end. The `Conversation` handles the messages in between."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec

from runtimed.errors import KernelStartFailed, NoKernel, RuntimedError
from runtimed.host.bootstrap import PACKAGES, Bootstrap
from runtimed.host.conversation import Conversation
from runtimed.host.guard import Guard
from runtimed.host.kernel_end import ask_to_end, drain, explain, force_to_end
from runtimed.host.lease import Lease
from runtimed.host.memory import Fence, build_fence, find_mechanisms
from runtimed.host.outbox import Outbox
from runtimed.host.process import (
    Ended,
    KernelCommand,
    KernelProcess,
    check_interpreter,
    find_command,
)
from runtimed.host.spare import Spare
from runtimed.host.variables import Variables
from runtimed.host.wire import ConnectionFile, Wire
from runtimed.protocol.comms import CommBody
from runtimed.protocol.events import KernelState
from runtimed.protocol.host_operations import Execute, HostBecome, HostRestart

__all__ = ["Kernel", "Phase"]

logger = logging.getLogger(__name__)

START_TIMEOUT: Final = 60.0
"""Seconds within which a kernel must answer."""
_PROBE: Final = 0.25
_PROBES: Final = 20


class Phase(Enum):
    """States of the kernel's life."""

    SPARE = "spare"
    STARTING = "starting"
    READY = "ready"
    ENDING = "ending"
    DEAD = "dead"


class Kernel:
    """The one kernel of this host, through all its restarts.

    Args:
        bootstrap: What to start.
        outbox: Takes the events.
        store: Stores large values; may raise StorageError.
        guard: Kills the kernel when the host dies.
        lease: Holds the kernel's environment.
    """

    def __init__(
        self, bootstrap: Bootstrap, outbox: Outbox, store: Callable[[bytes], str], guard: Guard, lease: Lease
    ) -> None:
        self._bootstrap = bootstrap
        self._outbox = outbox
        self._guard = guard
        self._lease = lease
        self._loop = asyncio.get_running_loop()
        self._conversation = Conversation(outbox, store, self)
        self.variables = Variables(self.ask, self._is_launched, self._conversation.results)
        self._process: KernelProcess | None = None
        self._wire: Wire | None = None
        self._command: KernelCommand | None = None
        self._phase = Phase.SPARE if bootstrap.spare else Phase.STARTING
        self._spare: Spare | None = None
        self._generation = 0
        self._status: str | None = None
        self._fault: str | None = None  # why this host ended the kernel
        self._stop_reason: str | None = None
        self._stop_expected = True
        self._stopping = False
        self._restart_asked = False
        self._restarted: asyncio.Future[None] | None = None
        self._exiting: asyncio.Task[None] | None = None
        self.owned = asyncio.Event()
        """Set once a spare has become a session's kernel."""
        self.dead = asyncio.Event()

    # --- the life of the kernel ---

    @property
    def pid(self) -> int | None:
        """The process id of the living kernel."""
        return None if self._process is None else self._process.pid

    @property
    def label(self) -> str:
        """See `Owned`."""
        return self._bootstrap.notebook_label

    @property
    def is_spare(self) -> bool:
        """Whether it belongs to no session yet; then it reports nothing."""
        return self._phase is Phase.SPARE

    @property
    def open_executions(self) -> list[str]:
        """Ids of the executions that were accepted and have not finished."""
        return self._conversation.open_executions

    async def run(self) -> None:
        """Start the kernel, and again at each restart; return when it is dead for good."""
        if self.is_spare and not await self._wait_for_owner():
            self.dead.set()
            return
        while True:
            ended = await self._live_once()
            if not self._restart_asked or self._stopping:
                break
            self._restart_asked = False
            self._conversation.close("The kernel was restarted", "", only_sent=True)
            self._generation += 1
        self._die(ended)

    async def _wait_for_owner(self) -> bool:
        """Keep a process ready for a session; return whether a session took it. The end of a spare is not reported."""
        try:
            self._spare = Spare(find_command(self._bootstrap), self._guard, self._build_fence())
        except (KernelStartFailed, OSError, ValueError) as exc:
            logger.warning("no spare can be made: %s", exc)
            return False
        process = self._process = self._spare.process
        owned: asyncio.Future[Any] = self._loop.create_task(self.owned.wait())
        await asyncio.wait([owned, process.ended], return_when=asyncio.FIRST_COMPLETED)
        owned.cancel()
        if self.owned.is_set() and not self._stopping:
            return True
        self._stopping = True
        process.send_signal(signal.SIGKILL)
        ended = await process.ended
        self._spare.close()
        logger.info("the spare ends (%s) %s", ended.sentence, ended.stderr)
        return False

    async def warm(self) -> None:
        """Return when this spare has imported all that a kernel needs.

        Raises:
            NoKernel: If it is no spare, or has ended.
        """
        if self._spare is None or not await self._spare.warm():
            raise NoKernel("This is no spare kernel, or it has ended")

    async def become(self, owner: HostBecome) -> None:
        """Become the kernel of a session.

        Raises:
            NoKernel: If this is no spare, or one that has ended or does not answer. It must be ended then.
            KernelStartFailed: If its interpreter is gone.
        """
        spare = self._spare
        if spare is None or not self.is_spare or self._stopping:
            raise NoKernel("This is no spare kernel, or it has ended")
        bootstrap = msgspec.structs.replace(
            self._bootstrap,
            spare=False,
            kernel_type=owner.kernel_type,
            env_source=owner.env_source,
            request=owner.request,
            environment=owner.environment,
            cwd=owner.cwd,
            notebook_label=owner.notebook_label,
            inherited=owner.inherited,
        )
        command = find_command(bootstrap)
        try:
            self._make_packages()
            await spare.become(command, ConnectionFile(Path(bootstrap.folder), self._generation, command.name))
        except OSError as exc:  # TimeoutError is an OSError
            raise NoKernel(f"This spare kernel cannot be used: {exc}") from exc
        if self._stopping or spare.process.ended.done():
            raise NoKernel("This spare kernel has just ended")
        self._bootstrap, self._command = bootstrap, command
        self._phase = Phase.STARTING
        self.owned.set()
        logger.info("this spare is the kernel of the session %r now", owner.notebook_label)

    async def _live_once(self) -> Ended | RuntimedError:
        """Start the kernel's process and follow it to its end, with all its output."""
        self._phase = Phase.STARTING
        self._fault = None
        if self._stopping:
            return NoKernel("It was stopped before it started")
        try:
            if self._command is None:
                self._command = find_command(self._bootstrap)
            spare, self._spare = self._spare, None
            if spare is not None and spare.connection is not None:
                connection, self._process = spare.connection, spare.process
            else:
                self._make_packages()
                connection = ConnectionFile(
                    Path(self._bootstrap.folder), self._generation, self._command.name, self._command.transport
                )
                connection.write()
                self._process = KernelProcess(self._command, connection.path, self._guard, self._build_fence())
        except KernelStartFailed as exc:
            return exc
        except (OSError, ValueError) as exc:
            command = self._command.argv[0] if self._command is not None else self._bootstrap.env_source
            return KernelStartFailed(f"{command} cannot be started: {exc}")
        self._state("starting")
        self._wire = Wire(connection, self._conversation.receive, waits=self._command.waits, soon=spare is not None)
        self._conversation.open(self._wire, self._send_interrupt)
        self._set_reading()
        self._outbox.flush()
        self._probe(self._generation, 0)
        timer = self._loop.call_later(START_TIMEOUT, self._start_took_too_long, self._generation)
        try:
            ended = await self._process.ended
            self._set_reading()
            await drain(self._wire, self._outbox)
        finally:
            timer.cancel()
            self._conversation.hang_up()
            self._wire.close()
            self._process = self._wire = None
            connection.remove()
        return ended

    def _make_packages(self) -> None:
        """Create an empty folder for packages added to a kernel whose environment runtimed made."""
        if self._bootstrap.marker:
            folder = Path(self._bootstrap.folder) / PACKAGES
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)

    def _build_fence(self) -> Fence:
        limit, name = self._bootstrap.max_memory, f"{self._bootstrap.epoch}-{self._generation}"
        if limit is None:
            return Fence()
        return build_fence(limit, name, Path(self._bootstrap.folder), find_mechanisms())

    def _die(self, ended: Ended | RuntimedError) -> None:
        """Report its final end."""
        reason, sentence = self._explain(ended)
        self._phase = Phase.DEAD
        exit_code, number, stderr = None, None, ""
        if isinstance(ended, Ended):
            exit_code, number = ended.exit_code, ended.signal
            stderr = "" if self._stopping else ended.stderr
        # First: who sees an execution end may at once ask for the kernel's status, or for a new kernel.
        self._state(
            "dead",
            exit_code=exit_code,
            signal=number,
            stderr=stderr,
            expected=self._stopping and self._stop_expected,
            reason=reason,
        )
        of_code: dict[str, int | None] = {}
        if isinstance(ended, Ended) and not (self._stopping or self._fault or ended.over_limit):
            of_code = {"exit_code": exit_code, "signal": number}
        self._conversation.close(sentence, stderr, only_sent=False, **of_code)
        self._outbox.flush()
        if self._restarted is not None and not self._restarted.done():
            error = KernelStartFailed(sentence, exit_code=exit_code, signal=number, stderr=stderr)
            self._restarted.set_exception(error)
            self._restarted.exception()  # the waiter may be gone
        self.dead.set()

    def _explain(self, ended: Ended | RuntimedError) -> tuple[str | None, str]:
        """Return the reason, which is None for a requested end, and a sentence in any case."""
        if self._stopping:
            return self._stop_reason, self._stop_reason or "The kernel was shut down"
        if isinstance(ended, RuntimedError):
            reason = ended.message
        elif self._fault is not None:
            reason = self._fault
        else:
            starts = self._command if self._phase is Phase.STARTING else None
            reason = explain(ended, self._bootstrap.max_memory, starts)
        return reason, reason

    def _state(self, status: Any, **fields: Any) -> None:
        self._status = status
        self._outbox.add(
            KernelState(
                at=time.time(),
                status=status,
                pid=self.pid,
                generation=self._generation,
                language=self._conversation.language,
                **fields,
            )
        )

    # --- its start ---

    def _probe(self, generation: int, asked: int) -> None:
        """Ask for the kernel's info until the kernel has proven that its output arrives."""
        if generation != self._generation or self._phase is not Phase.STARTING or self._wire is None:
            return
        if asked > _PROBES:
            logger.warning("the kernel publishes no status; it is used without one")
            self._conversation.do_without_status()
            return
        if asked == 0 or self._conversation.has_info:
            self._conversation.ask_info()
            asked += 1
        self._loop.call_later(_PROBE, self._probe, generation, asked)

    def _start_took_too_long(self, generation: int) -> None:
        if generation == self._generation and self._phase is Phase.STARTING and self._process is not None:
            self._fault = f"The kernel did not answer within {START_TIMEOUT:.0f} seconds"
            self._process.send_signal(signal.SIGKILL)

    def kernel_answered(self) -> None:
        """See `ConversationListener`."""
        if self._phase is not Phase.STARTING or self._wire is None or not self._conversation.is_proven:
            return
        self._phase = Phase.READY
        self._wire.protect()
        self._conversation.get_ready()
        self._state("idle")
        self._conversation.send_waiting()
        self._outbox.flush()
        if self._restarted is not None and not self._restarted.done():
            self._restarted.set_result(None)
        self._restarted = None

    def kernel_works(self, *, busy: bool) -> None:
        """See `ConversationListener`."""
        before, after = ("idle", "busy") if busy else ("busy", "idle")
        if self._status == before:
            self._state(after)

    def kernel_exits(self) -> bool:
        """See `ConversationListener`: as in Jupyter, a fresh kernel takes the place of one that `exit()` ended."""
        if self._phase is Phase.READY and not self._stopping:
            self._exiting = self._loop.create_task(self._replace(keeps_queue=True))
            self._exiting.add_done_callback(lambda task: task.cancelled() or task.exception())  # the state tells of it
        return self._restart_asked and not self._stopping

    # --- its work ---

    def execute(self, request: Execute) -> None:
        """Execute code once the kernel is ready. Idempotent by the execution's id.

        Raises:
            NoKernel: If the kernel is dead.
        """
        if self._phase is Phase.DEAD or self._stopping:
            raise NoKernel("The kernel of this session has ended; start a new one", execution_id=request.execution_id)
        self._conversation.execute(request, now=self._phase is Phase.READY)

    def interrupt(self) -> None:
        """Interrupt the running execution; harmless without one."""
        self._conversation.interrupt()

    def _send_interrupt(self) -> None:
        if self._command is not None and self._command.interrupt_mode == "message" and self._wire is not None:
            self._wire.send("control", "interrupt_request", {})
        elif self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def answer(self, execution_id: str, text: str) -> None:
        """Answer the input request of an execution.

        Raises:
            RuntimedError: If the execution does not wait for input.
        """
        self._conversation.answer(execution_id, text)

    async def ask(self, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask the kernel a question beside the executions; see `Questions.ask`.

        Raises:
            NoKernel: If the kernel is not ready.
        """
        self._check_ready()
        return await self._conversation.ask(msg_type, content)

    def send_comm(self, message: CommBody) -> None:
        """Send the kernel a comm message, which it handles after the running execution.

        Raises:
            NoKernel: If the kernel is not ready.
            ProtocolError: If the message is malformed.
        """
        self._check_ready()
        self._conversation.send_comm(message)

    def follow_comms(self, *, wanted: bool) -> None:
        """See `Conversation.follow_comms`."""
        self._conversation.follow_comms(wanted=wanted)

    def _check_ready(self) -> None:
        if self._phase is not Phase.READY:
            what_next = "start a new one" if self._phase in (Phase.ENDING, Phase.DEAD) else "ask again when it is ready"
            raise NoKernel(f"The kernel cannot answer now: it is {self._phase.value}; {what_next}")

    def _is_launched(self) -> bool:
        return self._command is not None and self._command.is_launched

    def storage_changed(self) -> None:
        """Called when the outbox becomes stuck or crowded, and when it no longer is."""
        self._conversation.go_on()
        self._set_reading()

    def _set_reading(self) -> None:
        """Pause output while the outbox is full, if the kernel waits for its reader; others drop unread output."""
        if self._wire is None or self._command is None:
            return
        # A kernel that is ending prints little, and must not block on that until it is killed.
        ends = self._process is None or self._process.ended.done()
        waits = self._command.waits and self._phase in (Phase.STARTING, Phase.READY) and not ends
        if self._outbox.stuck or (self._outbox.crowded and waits):
            self._wire.pause_output()
        else:
            self._wire.resume_output()

    # --- its end ---

    @property
    def bootstrap(self) -> Bootstrap:
        """The configuration that runs, or is being started."""
        return self._bootstrap

    def restart(self, request: HostRestart) -> Awaitable[None]:
        """Replace the kernel's process. Later executions wait for the new one. Joins a restart in progress.

        Args:
            request: The new environment.

        Returns:
            An awaitable that is done when the new kernel is ready; raises KernelStartFailed if it does not start.

        Raises:
            NoKernel: If the kernel is dead.
            KernelStartFailed: If the environment does not exist; the kernel runs on.
        """
        if self._phase is Phase.DEAD or self._stopping:
            raise NoKernel("The kernel of this session has ended; start a new one")
        if self._restarted is not None:
            return asyncio.shield(self._restarted)
        if request.env_source:
            bootstrap = msgspec.structs.replace(
                self._bootstrap,
                marker=request.marker,
                interpreter=request.interpreter,
                env_source=request.env_source,
                environment=request.environment,
            )
            command = find_command(bootstrap)
            self._lease.take(request.marker)
            self._bootstrap, self._command = bootstrap, command
        elif self._command is not None and self._command.waits:
            # Its environment may be gone: better no restart than no kernel.
            check_interpreter(self._command.argv[0])
        return self._replace(keeps_queue=False)

    def _replace(self, *, keeps_queue: bool) -> Coroutine[Any, Any, None]:
        restarted = self._restarted = self._loop.create_future()
        self._restart_asked = True
        was_ready, self._phase = self._phase is Phase.READY, Phase.ENDING
        self._state("restarting", keeps_queue=keeps_queue)
        self._outbox.flush()
        return self._restart(restarted, polite=was_ready)

    async def _restart(self, restarted: asyncio.Future[None], *, polite: bool) -> None:
        self._set_reading()
        await self._end_process(restart=True, polite=polite)
        await asyncio.shield(restarted)

    def stop(self, reason: str | None = None, *, expected: bool = True) -> Awaitable[object]:
        """End the kernel for good, gracefully and then by force. Nothing is executed any more. Idempotent.

        Returns:
            An awaitable that is done when the kernel is dead and its end was reported.
        """
        if self._phase is Phase.DEAD or self._stopping:
            return self.dead.wait()
        if self.is_spare:
            self.kill()
            return self.dead.wait()
        self._stopping = True
        self._stop_reason, self._stop_expected = reason, expected
        was_ready, self._phase = self._phase is Phase.READY, Phase.ENDING
        return self._stop(polite=was_ready)

    async def _stop(self, *, polite: bool) -> None:
        self._set_reading()
        await self._end_process(restart=False, polite=polite)
        await self.dead.wait()

    def kill(self) -> None:
        """Kill the kernel for good."""
        self._stopping = True
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    async def _end_process(self, *, restart: bool, polite: bool) -> None:
        if self._process is None or self._wire is None:
            return
        if polite:
            is_busy = self._conversation.is_working
            if is_busy:
                self.interrupt()
            await ask_to_end(self._process, self._wire, restart=restart, is_busy=is_busy)
        else:
            await force_to_end(self._process)
