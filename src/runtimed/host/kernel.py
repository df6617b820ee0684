"""The host's conversation with its kernel: start, executions, questions, interrupt, restart, end.

Messages are handled one at a time, in order, in synchronous code; a message whose output cannot be stored (the disk is
full) stays at the head of the queue, and the kernel waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec

from runtimed.errors import KernelStartFailed, NoKernel, RuntimedError, StorageError
from runtimed.host.bootstrap import PACKAGES, Bootstrap
from runtimed.host.executions import Execution, Executions
from runtimed.host.lease import Lease
from runtimed.host.outbox import Outbox
from runtimed.host.process import (
    Ended,
    Guard,
    KernelCommand,
    KernelProcess,
    check_interpreter,
    find_command,
    missing_ipykernel,
)
from runtimed.host.questions import Questions
from runtimed.host.wire import ConnectionFile, KernelMessage, Wire
from runtimed.protocol.events import KernelState
from runtimed.protocol.operations import Execute, HostRestart

__all__ = ["Kernel", "Phase"]

logger = logging.getLogger(__name__)

START_TIMEOUT: Final = 60.0
"""Seconds in which a kernel must answer."""
LATE_OUTPUT: Final = 0.02
"""Seconds for outputs that come after an `idle` or a prompt though they were sent before (Deno's do, measured)."""
_POLITE: Final = 3.0
_POLITE_BUSY: Final = 1.0
_TERMINATE: Final = 0.5
_PROBE: Final = 0.25
_PROBES: Final = 20
_SETTLED: Final = 0.1
_REPLY_MISSING: Final = 2.0
_REPLY_MISSING_INTERRUPTED: Final = 0.5
_IDLE_MISSING: Final = 5.0
_QUIET: Final = 0.05


class Phase(Enum):
    """Where the kernel is in its life."""

    STARTING = "starting"
    READY = "ready"
    ENDING = "ending"
    DEAD = "dead"


class Kernel:
    """The one kernel of this host, through all its restarts.

    Args:
        bootstrap: What to start.
        outbox: Takes the events.
        store: Takes large values; may raise StorageError.
        guard: Takes the kernel along when the host dies.
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
        self._executions = Executions(store)
        self._inbox: deque[KernelMessage] = deque()
        self._questions: Questions | None = None
        self._process: KernelProcess | None = None
        self._wire: Wire | None = None
        self._command: KernelCommand | None = None
        self._phase = Phase.STARTING
        self._generation = 0
        self._status: str | None = None
        self._language: str | None = None
        self._info: dict[str, Any] | None = None
        self._output_works = False
        self._heard_at = 0.0
        self._fault: str | None = None  # why we ended the kernel ourselves
        self._stop_reason: str | None = None
        self._stop_expected = True
        self._stopping = False
        self._restart_asked = False
        self._restarted: asyncio.Future[None] | None = None
        self.dead = asyncio.Event()

    # --- the life of the kernel ---

    @property
    def pid(self) -> int | None:
        """The process id of the kernel, while it lives."""
        return None if self._process is None else self._process.pid

    @property
    def open_executions(self) -> list[str]:
        """The ids of the executions that were accepted and have not finished."""
        return list(self._executions.open)

    async def run(self) -> None:
        """Start the kernel, and again when a restart is asked for; return when it is dead for good."""
        while True:
            ended = await self._live_once()
            if not self._restart_asked or self._stopping:
                break
            self._restart_asked = False
            self._close_generation("The kernel was restarted", "", only_sent=True)
            self._generation += 1
        self._die(ended)

    async def _live_once(self) -> Ended | RuntimedError:
        """Start the kernel's process and see it through to its end, with all its output."""
        self._phase = Phase.STARTING
        self._fault = None
        if self._stopping:
            return NoKernel("It was stopped before it started")
        try:
            if self._command is None:
                self._command = find_command(self._bootstrap)
            if self._bootstrap.marker:
                _make_empty(Path(self._bootstrap.folder) / PACKAGES)
            connection = ConnectionFile(Path(self._bootstrap.folder), self._generation, self._command.name)
            connection.write()
            self._process = KernelProcess(self._command, connection.path, self._guard)
        except KernelStartFailed as exc:
            return exc
        except (OSError, ValueError) as exc:
            command = self._command.argv[0] if self._command is not None else self._bootstrap.env_source
            return KernelStartFailed(f"{command} cannot be started: {exc}")
        self._state("starting")
        self._wire = Wire(connection, self._receive, waits=self._command.waits)
        if self._outbox.stuck:
            self._wire.pause_output()
        self._outbox.flush()
        self._probe(self._generation, 0)
        timer = self._loop.call_later(START_TIMEOUT, self._start_took_too_long, self._generation)
        try:
            ended = await self._process.ended
            await self._drain(self._wire)
        finally:
            timer.cancel()
            self._wire.close()
            self._process = self._wire = None
            connection.remove()
        return ended

    async def _drain(self, wire: Wire) -> None:
        """Take in what the dead kernel has left in its sockets."""
        quiet_since = self._loop.time()
        while self._loop.time() - quiet_since < _QUIET:
            if wire.drain() or self._outbox.stuck:
                quiet_since = self._loop.time()
            await asyncio.sleep(0.005)

    def _die(self, ended: Ended | RuntimedError) -> None:
        """Say how it ended, for good."""
        reason, sentence = self._explain(ended)
        self._phase = Phase.DEAD
        exit_code, number, stderr = None, None, ""
        if isinstance(ended, Ended):
            exit_code, number = ended.exit_code, ended.signal
            stderr = "" if self._stopping else ended.stderr
        self._close_generation(sentence, stderr, only_sent=False)
        self._state(
            "dead",
            exit_code=exit_code,
            signal=number,
            stderr=stderr,
            expected=self._stopping and self._stop_expected,
            reason=reason,
        )
        self._outbox.flush()
        if self._restarted is not None and not self._restarted.done():
            error = KernelStartFailed(sentence, exit_code=exit_code, signal=number, stderr=stderr)
            self._restarted.set_exception(error)
            self._restarted.exception()  # whoever asked may be gone
        self.dead.set()

    def _explain(self, ended: Ended | RuntimedError) -> tuple[str | None, str]:
        """Return the reason, where there is more to say than exit code and signal, and a sentence in any case."""
        if self._stopping:
            return self._stop_reason, self._stop_reason or "The kernel was shut down"
        if isinstance(ended, RuntimedError):
            reason = ended.message
        elif self._fault is not None:
            reason = self._fault
        elif self._phase is Phase.STARTING:
            missing = None if self._command is None else missing_ipykernel(self._command, ended.stderr)
            reason = missing or f"The kernel ended while it started ({ended.sentence})"
        elif ended.exit_code == 0:
            reason = "The kernel ended itself (exit code 0), as exit() and quit() do"
        else:
            return None, f"The kernel died ({ended.sentence})"
        return reason, reason

    def _close_generation(self, sentence: str, stderr: str, *, only_sent: bool) -> None:
        """End everything that depended on the kernel's process, which is gone."""
        self._inbox.clear()
        for event in self._executions.died(sentence, stderr, time.time(), only_sent=only_sent):
            self._outbox.add(event)
        if self._questions is not None:
            self._questions.close(sentence)
            self._questions = None
        self._info = None
        self._executions.start_requests.clear()
        self._output_works = False
        self._outbox.flush()

    # --- start ---

    def _probe(self, generation: int, asked: int) -> None:
        """Ask for the kernel's info; its output channel is proven when the `status` of this comes, or a welcome."""
        if generation != self._generation or self._phase is not Phase.STARTING or self._wire is None:
            return
        if asked > _PROBES:
            logger.warning("the kernel publishes no status; going on without")
            self._output_works = True
            self._check_ready()
            return
        if asked == 0 or self._info is not None:
            self._executions.start_requests.add(self._wire.send("shell", "kernel_info_request", {}))
            asked += 1
        self._loop.call_later(_PROBE, self._probe, generation, asked)

    def _start_took_too_long(self, generation: int) -> None:
        if generation == self._generation and self._phase is Phase.STARTING and self._process is not None:
            self._fault = f"The kernel did not answer within {START_TIMEOUT:.0f} seconds"
            self._process.send_signal(signal.SIGKILL)

    def _check_ready(self) -> None:
        if self._phase is not Phase.STARTING or self._info is None or self._wire is None or not self._output_works:
            return
        self._phase = Phase.READY
        language = self._info.get("language_info")
        name = language.get("name") if isinstance(language, dict) else None
        self._language = name if isinstance(name, str) else None
        features = self._info.get("supported_features")
        has_subshells = isinstance(features, list) and "kernel subshells" in features
        self._questions = Questions(self._wire, has_subshells=has_subshells)
        if self._language == "python":
            self._executions.start_requests.add(None)  # ipykernel's output before it was asked for anything
        self._state("idle")
        for execution in self._executions.open.values():
            self._send(execution)
        self._outbox.flush()
        if self._restarted is not None and not self._restarted.done():
            self._restarted.set_result(None)
        self._restarted = None

    # --- what the daemon asks for ---

    def execute(self, request: Execute) -> None:
        """Execute code, when the kernel is ready; an id that was seen before does nothing.

        Raises:
            NoKernel: If the kernel is dead.
            KernelStartFailed: If its interpreter is gone; the kernel lives on.
        """
        if self._phase is Phase.DEAD or self._stopping:
            raise NoKernel("The kernel of this session has ended; start a new one", execution_id=request.execution_id)
        execution = self._executions.take(request)
        if execution is not None and self._phase is Phase.READY:
            self._send(execution)

    def _send(self, execution: Execution) -> None:
        if self._wire is None:
            return
        execution.sent = True
        request = execution.request
        self._wire.send(
            "shell",
            "execute_request",
            {
                "code": request.code,
                "silent": request.silent,
                "store_history": not request.silent,
                "user_expressions": {},
                "allow_stdin": request.stdin,
                "stop_on_error": False,
            },
            msg_id=execution.id,
        )

    def interrupt(self) -> None:
        """Interrupt what runs; with nothing running, nothing happens."""
        execution = self._executions.running or next(iter(self._executions.open.values()), None)
        if execution is None or self._phase is Phase.DEAD:
            return
        execution.interrupt = True
        self._interrupt_when_settled(execution)

    def _interrupt_when_settled(self, execution: Execution) -> None:
        """Interrupt when the kernel runs the user's code for sure; called again when more is known of that.

        ipykernel ignores the signal until it begins, and IPython's callbacks before the code swallow it (measured).
        """
        if execution.begun_at is not None:
            when = execution.begun_at + _SETTLED
        elif execution.busy_at is not None:
            when = execution.busy_at + 2 * _SETTLED  # a silent execution has no execute_input
        else:
            return
        if when > self._loop.time():
            self._loop.call_at(when, self._interrupt_now, execution)
        else:
            self._interrupt_now(execution)

    def _interrupt_now(self, execution: Execution) -> None:
        is_open = self._executions.open.get(execution.id) is execution and execution.reply is None
        if not execution.interrupt or not is_open or self._command is None:
            return
        execution.interrupt, execution.interrupted = False, True
        if self._command.interrupt_mode == "message" and self._wire is not None:
            self._wire.send("control", "interrupt_request", {})
        elif self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def answer(self, execution_id: str, text: str) -> None:
        """Answer the input request of an execution.

        Raises:
            RuntimedError: If it does not wait for input.
        """
        execution = self._executions.open.get(execution_id)
        if execution is None or execution.input_parent is None or self._wire is None:
            raise RuntimedError(f"The execution {execution_id} does not wait for input", execution_id=execution_id)
        parent, execution.input_parent = execution.input_parent, None
        self._wire.send("stdin", "input_reply", {"status": "ok", "value": text}, parent=parent)

    async def ask(self, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask the kernel something beside the executions; see `Questions.ask`.

        Raises:
            NoKernel: If it is not ready.
        """
        if self._phase is not Phase.READY or self._questions is None:
            raise NoKernel(f"The kernel cannot answer now ({self._phase.value})")
        return await self._questions.ask(msg_type, content)

    @property
    def bootstrap(self) -> Bootstrap:
        """What runs, or is being started."""
        return self._bootstrap

    def restart(self, request: HostRestart) -> Awaitable[None]:
        """Replace the kernel's process; what is executed from now on waits for the new one. Joins one that goes on.

        Args:
            request: In which environment.

        Returns:
            To be awaited: done when the new kernel is ready; raises KernelStartFailed if it does not start.

        Raises:
            NoKernel: If the kernel is dead.
            KernelStartFailed: If that environment is not there; the kernel runs on.
        """
        if self._phase is Phase.DEAD or self._stopping:
            raise NoKernel("The kernel of this session has ended; start a new one")
        if self._restarted is not None:
            return asyncio.shield(self._restarted)
        if request.marker:
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
        restarted = self._restarted = self._loop.create_future()
        self._restart_asked = True
        was_ready, self._phase = self._phase is Phase.READY, Phase.ENDING
        self._state("restarting")
        self._outbox.flush()
        return self._restart(restarted, polite=was_ready)

    async def _restart(self, restarted: asyncio.Future[None], *, polite: bool) -> None:
        await self._end_process(restart=True, polite=polite)
        await asyncio.shield(restarted)

    def stop(self, reason: str | None = None, *, expected: bool = True) -> Awaitable[object]:
        """End the kernel for good: politely, then by force. From now on nothing is executed.

        Returns:
            To be awaited: done when the kernel is dead and has been said to be. Harmless when it was already.
        """
        if self._phase is Phase.DEAD or self._stopping:
            return self.dead.wait()
        self._stopping = True
        self._stop_reason, self._stop_expected = reason, expected
        was_ready, self._phase = self._phase is Phase.READY, Phase.ENDING
        return self._stop(polite=was_ready)

    async def _stop(self, *, polite: bool) -> None:
        await self._end_process(restart=False, polite=polite)
        await self.dead.wait()

    def kill(self) -> None:
        """End the kernel for good, at once."""
        self._stopping = True
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    async def _end_process(self, *, restart: bool, polite: bool) -> None:
        process, wire = self._process, self._wire
        if process is None or wire is None:
            return
        if polite:
            is_busy = self._executions.running is not None
            if is_busy:
                self.interrupt()
            wire.send("control", "shutdown_request", {"restart": restart})
            await self._wait(process, _POLITE_BUSY if is_busy else _POLITE)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.ended.done():
                return
            process.send_signal(number)
            await self._wait(process, _TERMINATE)

    async def _wait(self, process: KernelProcess, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(process.ended)

    # --- what the kernel says ---

    def storage_changed(self) -> None:
        """Called when the outbox is stuck, and when it no longer is."""
        if self._wire is None:
            return
        if self._outbox.stuck:
            self._wire.pause_output()
            return
        self._handle_inbox()
        if not self._outbox.stuck:
            self._wire.resume_output()

    def _receive(self, messages: list[KernelMessage]) -> None:
        self._inbox.extend(messages)
        self._handle_inbox()

    def _handle_inbox(self) -> None:
        while self._inbox and not self._outbox.stuck:
            message = self._inbox[0]
            try:
                self._handle(message)
            except StorageError as exc:
                self._outbox.get_stuck(exc)
                break
            except Exception:
                # Whatever an odd kernel sent must not end the host, and with it the kernel.
                logger.exception("skipped a %s message", message["msg_type"])
            self._inbox.popleft()
        self._outbox.flush()

    def _handle(self, message: KernelMessage) -> None:
        match message["channel"]:
            case "iopub":
                self._heard_at = self._loop.time()
                self._handle_iopub(message)
            case "stdin":
                # The prompt takes another socket than the output that stands before it, and may be faster.
                self._loop.call_later(LATE_OUTPUT, self._receive, [{**message, "channel": "prompt"}])
            case "prompt":
                self._add(self._executions.heard(message, time.time()))
            case "shell" if message["msg_type"] == "execute_reply":
                execution = self._executions.open.get(message["parent_id"])
                if execution is not None and isinstance(message["content"], dict):
                    execution.reply = message["content"]
                    self._check_complete(execution)
                    if not execution.idle:
                        self._loop.call_later(_IDLE_MISSING, self._miss_idle, execution)
            case "shell" if message["msg_type"] == "kernel_info_reply" and isinstance(message["content"], dict):
                self._info = message["content"]
                self._check_ready()
            case "finish":
                execution = self._executions.open.get(message["parent_id"])
                if execution is not None and execution.is_complete:
                    self._finish(execution)
            case _ if self._questions is not None:
                self._questions.answered(message)

    def _handle_iopub(self, message: KernelMessage) -> None:
        msg_type = message["msg_type"]
        if msg_type == "status":
            content = message["content"]
            state = content.get("execution_state") if isinstance(content, dict) else None
            self._handle_status(state, message["parent_id"])
        elif msg_type == "iopub_welcome":
            self._output_works = True
            self._check_ready()
        else:
            self._add(self._executions.heard(message, time.time()))
            execution = self._executions.open.get(message["parent_id"])
            if execution is not None and msg_type == "execute_input":
                execution.begun_at = self._loop.time()
                if execution.interrupt:
                    self._interrupt_when_settled(execution)

    def _handle_status(self, state: object, parent_id: str | None) -> None:
        if parent_id is not None and parent_id in self._executions.start_requests:
            self._output_works = True
            self._check_ready()
            return
        execution = self._executions.open.get(parent_id or "")
        if execution is None:
            return
        if state == "busy":
            if self._status == "idle":
                self._state("busy")
            execution.busy_at = self._loop.time()
            if execution.interrupt:
                self._interrupt_when_settled(execution)
        elif state == "idle":
            execution.idle = True
            self._check_complete(execution)
            if execution.reply is None:
                patience = _REPLY_MISSING_INTERRUPTED if execution.interrupted else _REPLY_MISSING
                self._loop.call_later(patience, self._miss_reply, execution)

    def _check_complete(self, execution: Execution) -> None:
        if not execution.is_complete:
            return
        if self._language == "python":
            self._finish(execution)
        else:
            self._loop.call_later(LATE_OUTPUT, self._enqueue_finish, execution)

    def _enqueue_finish(self, execution: Execution) -> None:
        """Finish in turn: behind what has come meanwhile, and again later if the disk is full."""
        self._receive([{"channel": "finish", "msg_type": "finish", "parent_id": execution.id}])

    def _finish(self, execution: Execution) -> None:
        self._add(self._executions.finish(execution, time.time()))
        if not self._executions.open and self._status == "busy":
            self._state("idle")

    def _miss_reply(self, execution: Execution) -> None:
        """End an execution that has no reply: an interrupt that hits ipykernel's own code has this effect."""
        if execution.reply is not None or self._executions.open.get(execution.id) is not execution:
            return
        logger.warning("execution %s is over but was not replied to", execution.id)
        if execution.interrupted:
            execution.reply = {"status": "error", "ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
        else:
            evalue = "The kernel ended the execution without a reply"
            execution.reply = {"status": "error", "ename": "NoReply", "evalue": evalue, "traceback": []}
        self._enqueue_finish(execution)

    def _miss_idle(self, execution: Execution) -> None:
        """End an execution whose `idle` never came: a stock kernel drops output when its buffer is full."""
        if execution.idle or self._executions.open.get(execution.id) is not execution:
            return
        if self._outbox.stuck or self._inbox or self._loop.time() - self._heard_at < _IDLE_MISSING:
            self._loop.call_later(_IDLE_MISSING, self._miss_idle, execution)
            return
        logger.warning("execution %s was replied to but its end was not published", execution.id)
        execution.idle = True
        self._enqueue_finish(execution)

    # --- events ---

    def _add(self, events: list[Any]) -> None:
        for event in events:
            self._outbox.add(event)

    def _state(self, status: Any, **fields: Any) -> None:
        self._status = status
        self._outbox.add(
            KernelState(
                at=time.time(),
                status=status,
                pid=self.pid,
                generation=self._generation,
                language=self._language,
                **fields,
            )
        )


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
