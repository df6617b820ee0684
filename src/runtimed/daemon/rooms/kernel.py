"""The kernel of a room: what is its own in the life of what has a host, and what is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from runtimed.daemon.hosting.hosted import Hosted, HostedListener
from runtimed.daemon.hosting.kernel_start import KernelRequest, KernelWanted
from runtimed.daemon.hosting.launcher import Owner
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
    EnvironmentFailed,
    KernelStartFailed,
    NoKernel,
    RuntimedError,
    StorageError,
)
from runtimed.ids import ExecutionId, SessionId
from runtimed.models import AuditAction, KernelStatus, SyncEnvironmentResult
from runtimed.protocol.codec import unpack
from runtimed.protocol.comms import CommBody
from runtimed.protocol.events import Event, Finished, KernelState
from runtimed.protocol.execution_operations import Enqueue
from runtimed.protocol.host_operations import (
    AttachReply,
    Execute,
    HostFollowComms,
    HostGetResultValue,
    HostGetVariable,
    HostInput,
    HostInterrupt,
    HostPutVariable,
    HostRequest,
    HostRestart,
    HostSendComm,
    KernelAsk,
    Question,
)
from runtimed.protocol.kernel_operations import SyncEnvironmentReply
from runtimed.protocol.replies import Done, GetResultValueReply, GetVariableReply, KernelAnswer
from runtimed.settings import Settings
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.session_store import SessionStore

__all__ = ["RoomKernel"]

logger = logging.getLogger(__name__)


class RoomKernel(Hosted):
    """At most one kernel, and the executions that are meant for it."""

    what = "kernel"
    start_error = KernelStartFailed
    start_errors = (KernelStartFailed, StorageError)
    status: KernelStatus

    def __init__(
        self,
        notebook_id: SessionId,
        settings: Settings,
        store: SessionStore,
        log: EventLog,
        document: SharedDocument,
        environments: Environments,
        pool: Pool,
        listener: HostedListener,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(notebook_id, settings, store, log, pool, listener, clock)
        self._log = log
        self._document = document
        self.environment = KernelEnvironment(notebook_id, document, log, environments, clock)
        self.executions = Executions(store, log, document, self._tell_host, clock)
        self._restarting: asyncio.Task[None] | None = None
        self._held: dict[str, tuple[Enqueue, Actor]] = {}
        self._joined: dict[str, ExecutionId] = {}
        self._trouble = Trouble()
        log.on_comms = self._follow_comms
        self.kernel_type: str | None = None
        self.env_source: str | None = None
        self.explained: str | None = None

    @property
    def works(self) -> bool:
        """See `Hosted`: whether anything runs or waits to run."""
        return self.executions.busy

    # --- life ---

    def takes_at_once(self, execution: Enqueue) -> bool:
        """Whether an execution has nothing to do with the start of a kernel; else see `start`.

        Raises:
            RuntimedError: If its id is another execution's.
            CellNotFound, InvalidCell: If the cell cannot be executed: nobody should start a kernel for it.
            StorageError: If the execution cannot be stored.
        """
        if self.executions.is_known(execution):
            return True
        self._host.check_room()
        self.executions.source_of(execution)
        return self._starting is None and (self.exists or execution.kernel is None)

    async def start(self, request: KernelRequest, actor: Actor, execution: Enqueue | None = None) -> bool:
        """Start a kernel unless there is one, and return when it is ready.

        Args:
            request: How it is asked for.
            actor: Who asks.
            execution: What it is started for. It is queued when the kernel is ready, in the order of the calls. A start
                that fails, and a call that is cancelled, leave nothing of it.

        Returns:
            Whether this call started it.

        Raises:
            CellNotFound, InvalidCell, NoKernel: If the cell, or the kernel, is gone by then.
            KernelStartFailed: If it does not become ready; with the last lines of its standard error.
            SessionClosed: If somebody ended it before it was ready.
            EnvironmentFailed: If this environment cannot be had.
            StorageError: If there is no room for it.
        """
        started = self._begin(lambda: self._want(request, actor))
        if execution is None:
            await self._await_start()
            return started
        self._held[execution.execution_id] = execution, actor
        try:
            await self._await_start()
        finally:
            self._held.pop(execution.execution_id, None)
        if execution.execution_id not in self._joined:
            self.enqueue(execution, actor)
        return started

    def joined(self, execution: Enqueue) -> ExecutionId | None:
        """Return, once, the execution in whose favour this one was not queued; see `Enqueue.unless_queued`."""
        return self._joined.pop(execution.execution_id, None)

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        super()._start_ended(task)
        self._joined.clear()
        if self.exists:
            self._queue_held()
        self._held.clear()

    def _queue_held(self) -> None:
        """Queue what was held until now, before anything that came later."""
        held, self._held = self._held, {}
        for execution, actor in held.values():
            # Whoever waits for the start queues it again, and hears of the error.
            with contextlib.suppress(RuntimedError):
                self.enqueue(execution, actor)

    async def _want(self, request: KernelRequest, actor: Actor) -> KernelWanted:
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
        return self._wanted(request, decision, prepared)

    def _wanted(self, request: KernelRequest, decision: Decision, prepared: Prepared | None) -> KernelWanted:
        return KernelWanted(
            notebook_id=self._notebook_id,
            settings=self._settings,
            request=request,
            kernel_type=self.kernel_type or "",
            env_source=decision.source,
            prepared=prepared,
        )

    def _say_not_started(self, error: RuntimedError) -> None:
        if self.exists:
            self.status = "dead"
            self._kernel_is_gone(str(error), _no_kernel(error))

    async def _decide(self, request: KernelRequest) -> Decision:
        decision = await self.environment.choose(request)
        self.kernel_type = "deno" if decision.source == "deno" else request.kernel_type
        self.env_source, self.explained = decision.source, sentence(decision)
        self._listener.hosted_facts(kernel_type=self.kernel_type, env_source=decision.source)
        return decision

    async def _prepare(self, decision: Decision, request: KernelRequest) -> Prepared | None:
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

    def _adopted(self, owner: Owner) -> None:
        self.executions.restore()
        self.kernel_type, self.env_source = owner.kernel_type, owner.env_source
        self.status = "idle"

    async def shutdown(self, actor: Actor | None = None) -> None:
        """See `Hosted`."""
        if actor is not None and (self.exists or self._starting is not None):
            self._note("kernel_shutdown", actor)
        await super().shutdown()

    def _will_end(self) -> None:
        self.environment.cancel()
        if self._host.link is not None:
            with self._trouble.noted(f"the end of what session {self._notebook_id!r} has queued"):
                self.executions.kernel_ending("the kernel was shut down")

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
        wanted = self._wanted(request, decision, prepared)
        await self._running_link().ask(
            HostRestart(
                marker=wanted.marker,
                interpreter=wanted.interpreter,
                env_source=wanted.env_source,
                environment=wanted.environment,
            )
        )
        self.env_source, self.explained = decision.source, sentence(decision)
        self._listener.hosted_facts(env_source=decision.source)

    def _restart_ended(self, task: asyncio.Task[None]) -> None:
        self._restarting = None
        if not task.cancelled():
            task.exception()  # it is raised to those who wait, who may be gone

    async def sync_environment(self, actor: Actor | None) -> SyncEnvironmentReply:
        """Add to the running kernel what the notebook names by now; else make the environment that a restart takes.

        Args:
            actor: Who asks for this; None if that was noted.

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
        folder = self._launcher.packages_dir(link.place)
        if folder is None:
            return _synced("nothing can be added from here to a kernel that runs elsewhere")
        addition = await self.environment.extend(decision, marker, folder, request)
        if addition.obstacle is None and (await self._asked_for(self._running_link()))[1] != marker:
            # The kernel was restarted meanwhile, in another environment.
            return await self.sync_environment(None)
        return _synced(addition.obstacle, addition.packages)

    @staticmethod
    async def _asked_for(link: HostLink) -> tuple[KernelRequest | None, str]:
        """Return how the running kernel was asked for, if its host knows, and the marker of its environment."""
        reply = await link.ask(HostRequest())
        request = msgspec.convert(unpack(reply.request), KernelRequest) if reply.request else None
        return request, reply.marker

    def interrupt(self, actor: Actor) -> asyncio.Future[Done]:
        """Interrupt what runs.

        Raises:
            NoKernel: If there is no kernel.
        """
        link = self._running_link()
        self._note("kernel_interrupt", actor)
        self.executions.interrupting()
        return link.ask(HostInterrupt())

    def ask(self, question: Question, **content: Any) -> asyncio.Future[KernelAnswer]:
        """Ask the kernel something that is no execution; see `KernelAsk`."""
        return self._running_link().ask(KernelAsk(msg_type=question, content=content))

    def send_comm(self, message: CommBody) -> asyncio.Future[Done]:
        """Send the kernel a message of a comm."""
        return self._running_link().ask(HostSendComm(message=message))

    def _follow_comms(self) -> None:
        """Tell the host whether anybody wants the messages of comms."""
        if self._host.link is not None and self._host.link.is_attached:
            self._host.link.tell(HostFollowComms(wanted=self._log.wants_comms))

    def get_variable(self, name: str) -> asyncio.Future[GetVariableReply]:
        """Ask the kernel for a variable; it answers while a cell runs, if it can."""
        return self._running_link().ask(HostGetVariable(name=name))

    def put_variable(self, name: str, pickled: bytes) -> asyncio.Future[Done]:
        """Set a variable of the kernel."""
        return self._running_link().ask(HostPutVariable(name=name, pickled=pickled))

    def result_value(self, execution_id: str) -> asyncio.Future[GetResultValueReply]:
        """Ask the kernel's host for the value of a result."""
        return self._running_link().ask(HostGetResultValue(execution_id=execution_id))

    def answer_input(self, execution_id: str, text: str, actor: Actor) -> asyncio.Future[Done]:
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
            RuntimedError: If its id is another execution's.
            CellNotFound, InvalidCell: If the cell cannot be executed.
            NoKernel: If there is no kernel.
            StorageError: If it cannot be stored; then it is not queued.
        """
        if self.executions.is_known(request):
            return
        self._host.check_room()
        source = self.executions.source_of(request)
        if not self.exists:
            raise NoKernel("No kernel running", notebook_id=self._notebook_id)
        self._queue_held()
        # What came before it may have been queued just now, or it was held itself.
        if self.executions.is_known(request):
            return
        queued = self.executions.queued_already(request)
        if queued is not None:
            self._joined[request.execution_id] = queued
            return
        self.executions.enqueue(request, source, actor)

    def tidy(self) -> None:
        """See `Hosted`."""
        self.executions.tidy()

    def forget_execution(self, execution_id: str) -> None:
        """See `Hosted`."""
        self.executions.forget(execution_id)

    # --- what the host tells ---

    def host_news(self, event: bytes) -> None:
        """See `HostOwner`: that of a kernel is a `Comm`."""
        self._log.tell(event)

    def _described(self, reply: AttachReply) -> None:
        self._pid, self.env_source = reply.kernel_pid, reply.env_source
        self._follow_comms()
        self.status = "busy" if reply.executions else "idle"

    def _facts(self) -> dict[str, Any]:
        return {"kernel_pid": self._pid, "env_source": self.env_source}

    def host_goes_on(self, reply: AttachReply) -> None:
        """See `HostOwner`: the queue is brought in step with what the host says it has."""
        if self.status in ("idle", "busy") and not self._host.stopping:
            self.status = "busy" if reply.executions else "idle"
            self.executions.resume(reply.executions)

    def _take(self, event: Event) -> None:
        if isinstance(event, KernelState):
            self._kernel_changed(event)
        else:
            self.executions.take(event)
            if isinstance(event, Finished):
                self._listener.hosted_used()

    def _kernel_changed(self, event: KernelState) -> None:
        self.status = event.status
        match event.status:
            case "starting":
                self._pid = event.pid
                self.executions.kernel_started()
                self._listener.hosted_facts(kernel_pid=event.pid)
            case "idle":
                if self._ready is not None and self._is_starting:
                    self._ready.set_result(None)
                    self._follow_comms()
                self.executions.kernel_ready()
            case "restarting" if event.keeps_queue:
                self.executions.kernel_replaced()
            case "restarting":
                self.executions.kernel_ending("the kernel was restarted")
            case "dead":
                reason = _describe_end(event)
                self._forget_process()
                # How what it ran has ended, its host tells next.
                if self._ready is not None and self._is_starting:
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
                        self._listener.hosted_lost("died", reason)
            case "busy":
                pass

    def _kernel_is_gone(self, reason: str, waiting: str = "the kernel ended") -> None:
        self._forget_process()
        self.executions.kernel_gone(reason, waiting)

    def _forget_process(self) -> None:
        self._pid = None
        self._listener.hosted_facts(kernel_pid=None)

    def _is_gone(self, reason: str) -> None:
        self._kernel_is_gone(reason)

    def _dead_event(self, reason: str) -> KernelState:
        return KernelState(at=self._clock(), status="dead", expected=self._host.stopping, reason=reason)


def _synced(obstacle: str | None, packages: Sequence[str] = ()) -> SyncEnvironmentReply:
    return SyncEnvironmentReply(
        result=SyncEnvironmentResult(
            success=obstacle is None,
            synced_packages=tuple(packages),
            error=obstacle and f"The kernel must be restarted: {obstacle}",
            needs_restart=obstacle is not None,
        )
    )


def _no_kernel(exc: Exception) -> str:
    """Say why what was queued during a start that failed never begins."""
    return f"there is no kernel for it. {exc}"


def _describe_end(event: KernelState) -> str:
    """Say in words how a kernel ended, and its last ones."""
    sentence = event.reason or "The kernel ended"
    return f"{sentence}. Its last words:\n{event.stderr.rstrip()}" if event.stderr.strip() else sentence
