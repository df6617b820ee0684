"""The kernel of a room: how it is started, asked and ended. What becomes of its host is `RoomHost`'s matter."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec

from runtimed.daemon.hosting.folder import Owner
from runtimed.daemon.hosting.hosted import RoomHost
from runtimed.daemon.hosting.kernel_start import HostStarter, KernelWanted
from runtimed.daemon.hosting.link import HostLink
from runtimed.daemon.hosting.pool import Pool
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.environment import KernelEnvironment
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.executions import Executions
from runtimed.daemon.trouble import Trouble
from runtimed.environments.decision import Decision, sentence
from runtimed.environments.maker import Environments, Prepared
from runtimed.errors import (
    ConnectionLost,
    EnvironmentFailed,
    KernelStartFailed,
    NoKernel,
    ProtocolError,
    RuntimedError,
    SessionClosed,
    StorageError,
)
from runtimed.host.bootstrap import PACKAGES
from runtimed.ids import HostEpoch, NotebookId
from runtimed.models import AuditAction, KernelStatus
from runtimed.protocol.client_operations import Enqueue, Inspect, StartKernel
from runtimed.protocol.codec import decode_event, unpack
from runtimed.protocol.events import Finished, KernelState
from runtimed.protocol.host_operations import (
    Execute,
    HostComplete,
    HostGetResultValue,
    HostGetVariable,
    HostInput,
    HostInspect,
    HostInterrupt,
    HostPutVariable,
    HostRequest,
    HostRestart,
    HostShutdown,
)
from runtimed.settings import Settings
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.disk import is_no_room, no_room
from runtimed.storage.session_store import SessionStore

__all__ = ["KernelListener", "RoomKernel"]

logger = logging.getLogger(__name__)


class KernelListener:
    """What the kernel tells its room."""

    def kernel_facts(self, **fields: Any) -> None:
        """Facts for the session's row in the registry."""
        raise NotImplementedError

    def kernel_used(self) -> None:
        """A start or an execution ended just now: from here on the session is idle."""
        raise NotImplementedError

    def kernel_lost(self, why: Literal["died", "host_lost"], error: str) -> None:
        """The kernel ended, and nobody had asked for it."""
        raise NotImplementedError

    def kernel_found(self) -> None:
        """The host that an earlier daemon had left answers, and is wanted."""
        raise NotImplementedError

    def kernel_problem(self, sentence: str) -> None:
        """Something is damaged or out of reach, and somebody should look after it."""
        raise NotImplementedError


class RoomKernel:
    """At most one kernel, and the executions that are meant for it."""

    def __init__(
        self,
        notebook_id: NotebookId,
        settings: Settings,
        store: SessionStore,
        log: EventLog,
        document: SharedDocument,
        environments: Environments,
        pool: Pool,
        listener: KernelListener,
        clock: Callable[[], float],
    ) -> None:
        self._notebook_id = notebook_id
        self._settings = settings
        self._store = store
        self._log = log
        self._document = document
        self.environment = KernelEnvironment(notebook_id, document, log, environments, clock)
        self._listener = listener
        self._clock = clock
        self._starter = HostStarter(notebook_id, settings, pool, listener.kernel_facts)
        self.executions = Executions(store, log, document, self._tell_host, clock)
        self._host = RoomHost(notebook_id, settings, store, log.flow, self)
        self._starting: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._start_unwanted = False
        self._trouble = Trouble()
        self._pid: int | None = None
        self.status: KernelStatus = "not_started"
        self.kernel_type: str | None = None
        self.env_source: str | None = None
        self.explained: str | None = None

    # --- facts ---

    @property
    def exists(self) -> bool:
        """Whether a kernel runs or is being started; one that was told to end counts no more."""
        return self.status not in ("not_started", "dead") and not self._host.stopping

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits to run, a start included."""
        return self.executions.busy or self._starting is not None

    @property
    def in_use(self) -> bool:
        """Whether there is a kernel, a host that still ends, or anything to run."""
        return self.exists or self.busy or self._host.link is not None

    @property
    def stored_of_host(self) -> tuple[Path, int] | None:
        """The host's folder and the number of its last event that is stored here; None without a host."""
        return self._host.stored

    @property
    def pid(self) -> int | None:
        """The kernel's process id."""
        return self._pid

    @property
    def waits(self) -> str | None:
        """See `RoomHost.waits`."""
        return self._host.waits

    @property
    def has_ended(self) -> bool:
        """See `HostUser`."""
        return self.status == "dead"

    # --- life ---

    async def start(self, request: StartKernel, actor: Actor) -> bool:
        """Start a kernel unless there is one, and return when it is ready.

        Returns:
            Whether this call started it.

        Raises:
            KernelStartFailed: If it does not become ready; with the last lines of its standard error.
            SessionClosed: If somebody ended it before it was ready.
            EnvironmentFailed: If this environment cannot be had.
            StorageError: If there is no room for it.
        """
        started = False
        if self._starting is None and not self.exists:
            self._start_unwanted = False
            self._starting = self._host.spawn(self._start(request, actor))
            self._starting.add_done_callback(self._start_ended)
            started = True
        if self._starting is not None:
            # A client that leaves while it waits does not end the start: others may wait for it, too.
            await asyncio.shield(self._starting)
        return started

    async def _start(self, request: StartKernel, actor: Actor) -> None:
        # The host of a kernel that died may be about to end.
        await self._host.wait_ended()
        self._check_still_wanted()
        self._host.check_gone("kernel")
        self.status = "starting"
        try:
            decision = await self._decide(request)
            await self.environment.check_consent(decision, request)
            prepared = await self._prepare(decision, request)
            self._check_still_wanted()
            self._note("kernel_start", actor, decision.source)
        except Exception as exc:  # one that nobody foresaw, too: else this session would be starting for ever
            self.status = "not_started"
            with self._trouble.noted(f"what session {self._notebook_id!r} had queued"):
                self._kernel_is_gone(str(exc), _no_kernel(exc))
            raise
        try:
            await self._start_host(
                KernelWanted(
                    request=request,
                    kernel_type=self.kernel_type or "",
                    env_source=decision.source,
                    prepared=prepared,
                )
            )
        except (OSError, ConnectionLost, ProtocolError, KernelStartFailed, StorageError) as exc:
            self._start_failed(exc)

    def _start_failed(self, exc: Exception) -> NoReturn:
        """Forget a kernel that did not start, and tell why."""
        if isinstance(exc, KernelStartFailed | StorageError):
            error: RuntimedError = exc
        elif is_no_room(exc):
            error = no_room(self._settings.hosts_dir, exc)
        else:
            error = KernelStartFailed(f"The kernel did not start: {exc}")
        existed = self.exists
        try:
            if existed:
                self.status = "dead"
                self._kernel_is_gone(str(error), _no_kernel(error))
            if not self._start_unwanted:
                self._listener.kernel_lost("died", str(error))
        except StorageError as trouble:
            logger.error(  # noqa: TRY400  # the disk is full, which is no news here
                "session %r: it cannot be stored that its kernel did not start: %s", self._notebook_id, trouble
            )
        self._check_still_wanted()
        raise error from exc

    async def _start_host(self, wanted: KernelWanted) -> None:
        self._ready = asyncio.get_running_loop().create_future()
        host = await self._starter.start(wanted)
        link = self._host.attach_to(host.folder, host.epoch, host.pid)
        await link.open(after=0)
        try:
            self._listener.kernel_facts(host_pid=host.pid)
        except StorageError:
            link.tell(HostShutdown())
            raise
        if self._start_unwanted:
            link.tell(HostShutdown())
        await self._ready
        self._starter.is_ready(host)

    async def _decide(self, request: StartKernel) -> Decision:
        decision = await self.environment.choose(request)
        self.kernel_type = "deno" if decision.source == "deno" else request.kernel_type
        self.env_source, self.explained = decision.source, sentence(decision)
        self._listener.kernel_facts(kernel_type=self.kernel_type, env_source=decision.source)
        return decision

    async def _prepare(self, decision: Decision, request: StartKernel) -> Prepared | None:
        """Have the environment made; see `KernelEnvironment.prepare`.

        Raises:
            EnvironmentFailed: If it cannot be had.
            SessionClosed: If the kernel was unwanted before it was made.
        """
        self._check_still_wanted()
        try:
            return await self.environment.prepare(decision, request)
        except asyncio.CancelledError:
            self._check_still_wanted()
            raise

    def _check_still_wanted(self) -> None:
        if self._start_unwanted:
            raise SessionClosed(
                f"Session {self._notebook_id!r} was stopped, or its kernel shut down, before the kernel had started",
                notebook_id=self._notebook_id,
            )

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        self._listener.kernel_used()
        if not task.cancelled():
            task.exception()  # it is raised to those who wait; without them it is told by the registry

    def adopt(self, folder: Path, owner: Owner, host_pid: int | None, *, wanted: bool) -> asyncio.Task[None]:
        """Take over the host that an earlier daemon left; from now on there is a kernel, though it may not answer yet.

        If the host is dead its spool is read, and the room hears that the kernel is lost.

        Args:
            folder: The host's.
            owner: What it works for.
            host_pid: Its process, if known.
            wanted: False for one whose session has ended: it is told to end as well.

        Returns:
            Ends when the host has answered or is known to be dead. That may be never: a stopped process does neither.
        """
        # First: there is no kernel, and so nothing waits for one, if this fails.
        self.executions.restore()
        self.kernel_type, self.env_source = owner.kernel_type, owner.env_source
        self.status = "idle"
        link = self._host.attach_to(folder, HostEpoch(owner.epoch), host_pid)
        if not wanted:
            self._host.stopping = True
            self._host.spawn(self.shutdown())
        return self._host.find_again(link)

    async def shutdown(self, actor: Actor | None = None) -> None:
        """End the kernel and its host, even one that is still starting; without one, do nothing.

        Args:
            actor: Who asks for this and nothing more; None where it is part of the session's end.
        """
        if actor is not None and (self.exists or self._starting is not None):
            self._note("kernel_shutdown", actor)
        starting, self._start_unwanted = self._starting, True
        self.environment.cancel()
        if self._host.link is not None:
            with self._trouble.noted(f"the end of what session {self._notebook_id!r} has queued"):
                self.executions.kernel_ending("the kernel was shut down")
        await self._host.end(starting)

    async def restart(self, actor: Actor) -> None:
        """Replace the kernel's process, and return when the new one is ready. Joins one that goes on.

        Its environment is what was asked for at the start means by now.

        Raises:
            NoKernel: If there is none.
            KernelStartFailed: If the new one does not become ready.
            EnvironmentFailed: If the environment cannot be had; the kernel runs on.
            StorageError: If the disk is full; then it stays.
        """
        if self._restarting is None:
            self._running_link()
            self._host.check_room()
            self._note("kernel_restart", actor)
            self._restarting = self._host.spawn(self._restart())
            self._restarting.add_done_callback(self._restart_ended)
        await asyncio.shield(self._restarting)

    async def _restart(self) -> None:
        request, _marker = await self._asked_for(self._running_link())
        if request is None or self.kernel_type == "deno":
            await self._running_link().ask(HostRestart())
            return
        decision = await self.environment.choose_again(request)
        prepared = await self._prepare(decision, request)
        wanted = KernelWanted(
            request=request, kernel_type=self.kernel_type or "", env_source=decision.source, prepared=prepared
        )
        await self._running_link().ask(
            HostRestart(
                marker=wanted.marker,
                interpreter=wanted.interpreter,
                env_source=wanted.env_source,
                environment=wanted.environment,
            )
        )
        self.env_source, self.explained = decision.source, sentence(decision)
        self._listener.kernel_facts(env_source=decision.source)

    def _restart_ended(self, task: asyncio.Task[None]) -> None:
        self._restarting = None
        if not task.cancelled():
            task.exception()  # it is raised to those who wait, who may be gone

    async def sync_environment(self, actor: Actor | None) -> dict[str, Any]:
        """Add to the running kernel what the notebook names by now; else make the environment that a restart takes.

        Args:
            actor: Who asks for this; None if that was noted.

        Returns:
            The fields of `SyncEnvironmentResult`.

        Raises:
            NoKernel: If there is no kernel.
            EnvironmentFailed: If it cannot be had.
        """
        link = self._running_link()
        request, marker = await self._asked_for(link)
        decision = None
        if request is not None and self.kernel_type != "deno":
            decision = await self.environment.choose_again(request)
        if decision is not None and decision.recipe is None and (marker or not self.environment.is_named):
            # Nothing is asked for any more, or nothing ever was.
            return _synced(f"{decision.source} would take the place of {self.env_source}" if marker else None)
        if request is None or decision is None or decision.recipe is None:
            why = "" if decision is None else f" ({decision.reason})"
            raise EnvironmentFailed(
                f"The kernel runs in the environment {self.env_source!r}{why}, where runtimed installs nothing; "
                'install there yourself, or shut the kernel down and start it with env_source="auto"',
                env_source=self.env_source,
            )
        if actor is not None:
            self._note("environment_sync", actor)
        addition = await self.environment.extend(decision, marker, link.folder / PACKAGES, request)
        if addition.obstacle is None and (await self._asked_for(self._running_link()))[1] != marker:
            # The kernel was restarted meanwhile, in another environment.
            return await self.sync_environment(None)
        return _synced(addition.obstacle, addition.packages)

    @staticmethod
    async def _asked_for(link: HostLink) -> tuple[StartKernel | None, str]:
        """Return how the running kernel was asked for, if its host knows, and the marker of its environment."""
        reply = await link.ask(HostRequest())
        request = msgspec.convert(unpack(reply["request"]), StartKernel) if reply["request"] else None
        return request, reply["marker"]

    def interrupt(self, actor: Actor) -> asyncio.Future[dict[str, Any]]:
        """Interrupt what runs.

        Raises:
            NoKernel: If there is no kernel.
        """
        link = self._running_link()
        self._note("kernel_interrupt", actor)
        self.executions.interrupting()
        return link.ask(HostInterrupt())

    def complete(self, code: str, cursor_pos: int) -> asyncio.Future[dict[str, Any]]:
        """Ask the kernel for completions; it answers while a cell runs."""
        return self._running_link().ask(HostComplete(code=code, cursor_pos=cursor_pos))

    def inspect(self, operation: Inspect) -> asyncio.Future[dict[str, Any]]:
        """Ask the kernel about the object at a place in code."""
        request = HostInspect(code=operation.code, cursor_pos=operation.cursor_pos, detail_level=operation.detail_level)
        return self._running_link().ask(request)

    def get_variable(self, name: str) -> asyncio.Future[dict[str, Any]]:
        """Ask the kernel for a variable; it answers while a cell runs, if it can."""
        return self._running_link().ask(HostGetVariable(name=name))

    def put_variable(self, name: str, pickled: bytes) -> asyncio.Future[dict[str, Any]]:
        """Set a variable of the kernel."""
        return self._running_link().ask(HostPutVariable(name=name, pickled=pickled))

    def result_value(self, execution_id: str) -> asyncio.Future[dict[str, Any]]:
        """Ask the kernel's host for the value of a result."""
        return self._running_link().ask(HostGetResultValue(execution_id=execution_id))

    def answer_input(self, execution_id: str, text: str, actor: Actor) -> asyncio.Future[dict[str, Any]]:
        """Give the kernel the line that it waits for."""
        link = self._running_link()
        row = self._store.execution(execution_id)
        if row is not None:
            self._note("kernel_input", actor, cell_id=row.cell_id, execution_id=row.execution_id)
        return link.ask(HostInput(execution_id=execution_id, text=text))

    def _note(self, action: AuditAction, actor: Actor, detail: str | None = None, **ids: Any) -> None:
        now = self._clock()
        row = AuditRow(at=now, until=now, action=action, actor=actor, detail=detail, **ids)
        try:
            self._store.note(row)
        except StorageError as exc:
            # A kernel that has filled the disk can be interrupted.
            if "free" not in exc.data:
                raise
            logger.error("session %r: %s was not noted: %s", self._notebook_id, row, exc)  # noqa: TRY400

    async def detach(self) -> None:
        """Leave the kernel running for the next daemon; one that is about to end is waited for."""
        await self._host.detach()

    def close(self) -> None:
        """Let go of the host; it lives on. Closing twice is harmless."""
        self._host.close()

    def _running_link(self) -> HostLink:
        if self._host.link is None or not self.exists:
            raise NoKernel("No kernel running", notebook_id=self._notebook_id)
        return self._host.link

    def _tell_host(self, operation: Execute | HostInterrupt) -> None:
        # Without a connection to it, the host is told when there is one again.
        if self._host.link is not None and self._host.link.is_open:
            self._host.link.tell(operation)

    def enqueue(self, request: Enqueue, actor: Actor) -> None:
        """Queue an execution, once for each id; see `Executions.enqueue`.

        Raises:
            CellNotFound, InvalidCell: If the cell cannot be executed.
            NoKernel: If there is no kernel.
            StorageError: If it cannot be stored; then it is not queued.
        """
        if self.executions.is_known(request.execution_id):
            return
        self._host.check_room()
        # First: nobody should start a kernel for what cannot run.
        source = self.executions.source_of(request)
        if not self.exists:
            raise NoKernel("No kernel running", notebook_id=self._notebook_id)
        self.executions.enqueue(request, source, actor)

    # --- what the host tells ---

    def host_news(self, event: bytes) -> None:
        """See `HostOwner`: the host of a kernel has none."""

    def host_answers(self, link: HostLink, reply: dict[str, Any]) -> None:
        """See `HostUser`: the queue is brought in step with what the host says it has."""
        if not self._host.stopping:
            self._listener.kernel_found()
        self._pid, self.env_source = reply["kernel_pid"], reply["env_source"]
        self._listener.kernel_facts(kernel_pid=self._pid, host_pid=link.host_pid, env_source=self.env_source)
        self.status = "busy" if reply["executions"] else "idle"
        if self._host.stopping:
            link.tell(HostShutdown())
        else:
            self.executions.resume(reply["executions"])

    def host_goes_on(self, reply: dict[str, Any]) -> None:
        """See `HostOwner`."""
        if self.status in ("idle", "busy") and not self._host.stopping:
            self.status = "busy" if reply["executions"] else "idle"
            self.executions.resume(reply["executions"])

    def host_events(self, epoch: HostEpoch, events: list[tuple[int, bytes]]) -> None:
        """See `HostOwner`."""
        self._document.load()
        status = self.status
        try:
            with self._log.transaction():
                for n, body in events:
                    event = decode_event(body)
                    if self._log.append(event, body=body, host=(epoch, n)):
                        if isinstance(event, KernelState):
                            self._kernel_changed(event)
                        else:
                            self.executions.take(event)
                            if isinstance(event, Finished):
                                self._listener.kernel_used()
        except StorageError:
            # They come again; until then nothing of this has happened.
            self.status = status
            raise

    def _kernel_changed(self, event: KernelState) -> None:
        self.status = event.status
        match event.status:
            case "starting":
                self._pid = event.pid
                self.executions.kernel_started()
                self._listener.kernel_facts(kernel_pid=event.pid)
            case "idle":
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
                self.executions.kernel_ready()
            case "restarting" if event.keeps_queue:
                self.executions.kernel_replaced()
            case "restarting":
                self.executions.kernel_ending("the kernel was restarted")
            case "dead":
                reason = _describe_end(event)
                self._forget_process()
                # How what it ran has ended, its host tells next.
                if self._ready is not None and not self._ready.done():
                    error = KernelStartFailed(
                        f"The kernel did not start: {reason}",
                        exit_code=event.exit_code,
                        signal=event.signal,
                        stderr=event.stderr,
                    )
                    self.executions.kernel_ending(_no_kernel(error))
                    self._ready.set_exception(error)
                else:
                    self.executions.kernel_ending("the kernel ended")
                    if not event.expected:
                        self._listener.kernel_lost("died", reason)
            case "busy":
                pass

    def _kernel_is_gone(self, reason: str, waiting: str = "the kernel ended") -> None:
        self._forget_process()
        self.executions.kernel_gone(reason, waiting)

    def _forget_process(self) -> None:
        self._pid = None
        self._listener.kernel_facts(kernel_pid=None)

    def host_out_of_reach(self, link: HostLink, error: ProtocolError) -> None:
        """See `HostUser`."""
        reason = (
            f"The kernel lives on, but its host, process {link.host_pid}, cannot be taken over: {error.message}. What "
            f"it prints is kept in {link.folder}; `kill {link.host_pid}` ends both"
        )
        self.host_problem(reason)
        self._kernel_is_gone(reason)
        self._say_dead(reason)
        self._listener.kernel_lost("host_lost", reason)

    def host_died(self) -> None:
        """See `HostUser`."""
        reason = "The process that owned the kernel ended, and the kernel with it"
        self._kernel_is_gone(reason)
        if self.status != "dead":
            is_starting = self._ready is not None and not self._ready.done()
            if not is_starting and not self._host.stopping:
                self._listener.kernel_lost("host_lost", reason)
            self._say_dead(reason)
            if self._ready is not None and is_starting:
                self._ready.set_exception(KernelStartFailed(f"The kernel did not start: {reason}"))

    def host_forgotten(self, *, wanted: bool) -> None:
        """See `HostUser`."""
        self._listener.kernel_facts(host_epoch=None, host_dir=None, host_pid=None, kernel_pid=None)
        if wanted:
            self.status = "not_started"

    def host_problem(self, sentence: str) -> None:
        """See `HostUser`."""
        self._listener.kernel_problem(f"Session {self._notebook_id!r}: {sentence}")

    def _say_dead(self, reason: str) -> None:
        with self._log.transaction():
            self._log.append(KernelState(at=self._clock(), status="dead", expected=self._host.stopping, reason=reason))
        self.status = "dead"


def _synced(obstacle: str | None, packages: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "success": obstacle is None,
        "synced_packages": list(packages),
        "error": obstacle and f"The kernel must be restarted: {obstacle}",
        "needs_restart": obstacle is not None,
    }


def _no_kernel(exc: Exception) -> str:
    """Say why what was queued during a start that failed never begins."""
    return f"there is no kernel for it. {exc}"


def _describe_end(event: KernelState) -> str:
    """Say in words how a kernel ended, and its last ones."""
    sentence = event.reason or "The kernel ended"
    return f"{sentence}. Its last words:\n{event.stderr.rstrip()}" if event.stderr.strip() else sentence
