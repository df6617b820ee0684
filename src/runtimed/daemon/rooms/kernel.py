"""The kernel of a room: what `Hosted` leaves to a kernel, and its clients' requests."""

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
    ExecutionCancelled,
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
    """At most one kernel, and the executions for it."""

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
        self.executions = Executions(notebook_id, store, log, document, self._tell_host, clock)
        self._restarting: asyncio.Task[None] | None = None
        self._held: dict[str, tuple[Enqueue, Actor]] = {}
        self._joined: dict[str, ExecutionId] = {}
        self._cancelled: set[str] = set()
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
        """Whether `enqueue` serves an execution, which starts no kernel and awaits no start; else `start` does.

        Raises:
            InvalidArgument: If its id is another execution's.
            CellNotFound, InvalidCell: If the cell cannot be executed, so that no kernel is started for it.
            StorageError: If the disk is full.
        """
        if self.executions.is_known(execution):
            return True
        self._host.check_room()
        self.executions.source_of(execution)
        return self._starting is None and (self.exists or execution.kernel is None)

    async def start(self, request: KernelRequest, actor: Actor, execution: Enqueue | None = None) -> bool:
        """Start a kernel unless there is one; return when it is ready.

        Args:
            request: The kernel that is requested.
            actor: The client.
            execution: The execution that needs the kernel. It is queued once the kernel is ready, in the order of the
                calls. A start that fails or a call that is cancelled drops it.

        Returns:
            Whether this call started the kernel.

        Raises:
            CellNotFound, InvalidCell, NoKernel: If the cell or the kernel is gone by then.
            KernelStartFailed: If it does not become ready; with the last lines of its standard error.
            ExecutionCancelled: If the execution was cancelled meanwhile.
            SessionClosed: If a client ended it before it was ready.
            EnvironmentFailed: If its environment cannot be made, or needs consent.
            StorageError: If the disk is full.
        """
        started = self._begin(lambda: self._want(request, actor))
        if started:
            self._cancelled.clear()
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

    def cancel_held(self, execution_id: str) -> bool:
        """Cancel an execution that is held until the kernel is ready; return whether it was held."""
        if self._held.pop(execution_id, None) is None:
            return False
        self._cancelled.add(execution_id)
        return True

    def joined(self, execution: Enqueue) -> ExecutionId | None:
        """Return, once, the execution that an unqueued one duplicates; see `Enqueue.unless_queued`."""
        return self._joined.pop(execution.execution_id, None)

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        super()._start_ended(task)
        self._joined.clear()
        if self.exists:
            self._queue_held()
        self._held.clear()

    def _queue_held(self) -> None:
        """Queue the executions that were held during the start, before any later one."""
        held, self._held = self._held, {}
        for execution, actor in held.values():
            # The call that waits for the start queues it again, and gets the error.
            with contextlib.suppress(RuntimedError):
                self.enqueue(execution, actor)

    async def _want(self, request: KernelRequest, actor: Actor) -> KernelWanted:
        try:
            decision = await self._decide(request)
            await self.environment.check_consent(decision, request)
            prepared = await self._prepare(decision, request)
            self._check_still_wanted()
            self._note("kernel_start", actor, decision.source)
        except Exception as exc:  # an unforeseen one, too: otherwise the kernel would be starting for ever
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
        """Make the environment; see `KernelEnvironment.prepare`.

        Raises:
            EnvironmentFailed: If it cannot be made.
            SessionClosed: If a client ended the kernel meanwhile.
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
        """Replace the kernel's process; return when the new one is ready. Joins a restart in progress.

        The environment is chosen anew by the original request: document and project files may have changed.

        Raises:
            NoKernel: If there is none.
            KernelStartFailed: If the new one does not become ready.
            EnvironmentFailed: If the environment cannot be made, or needs consent; the kernel runs on.
            StorageError: If the disk is full; the kernel runs on.
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
            task.exception()  # raised to the waiting clients, who may be gone

    async def sync_environment(self, actor: Actor | None) -> SyncEnvironmentReply:
        """Add to the running kernel what the notebook names now; if impossible, make the environment for a restart.

        Args:
            actor: The client; None if the audit log has its request.

        Raises:
            NoKernel: If there is no kernel.
            EnvironmentFailed: If the environment cannot be made, or needs consent.
        """
        link = self._running_link()
        request, marker = await self._asked_for(link)
        decision = None
        if request is not None and self.kernel_type != "deno":
            decision = await self.environment.choose_again(request)
        if decision is not None and decision.recipe is None and (marker or not self.environment.is_named):
            # The notebook names nothing, or nothing any more.
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
        """Return the request that started the kernel, if its host knows it, and the marker of its environment."""
        reply = await link.ask(HostRequest())
        request = msgspec.convert(unpack(reply.request), KernelRequest) if reply.request else None
        return request, reply.marker

    def interrupt(self, actor: Actor) -> asyncio.Future[Done]:
        """Interrupt the running execution.

        Raises:
            NoKernel: If there is no kernel.
        """
        link = self._running_link()
        self._note("kernel_interrupt", actor)
        self.executions.interrupting()
        return link.ask(HostInterrupt())

    def ask(self, question: Question, **content: Any) -> asyncio.Future[KernelAnswer]:
        """Send the kernel a question beside its executions; see `KernelAsk`."""
        return self._running_link().ask(KernelAsk(msg_type=question, content=content))

    def send_comm(self, message: CommBody) -> asyncio.Future[Done]:
        """Send the kernel a comm message."""
        return self._running_link().ask(HostSendComm(message=message))

    def _follow_comms(self) -> None:
        """Tell the host whether any client wants comm messages."""
        if self._host.link is not None and self._host.link.is_attached:
            self._host.link.tell(HostFollowComms(wanted=self._log.wants_comms))

    def get_variable(self, name: str, *, arrow: bool) -> asyncio.Future[GetVariableReply]:
        """Request a variable from the kernel, which answers while a cell runs if it can."""
        return self._running_link().ask(HostGetVariable(name=name, arrow=arrow))

    def put_variable(self, name: str, pickled: bytes) -> asyncio.Future[Done]:
        """Set a variable of the kernel."""
        return self._running_link().ask(HostPutVariable(name=name, pickled=pickled))

    def result_value(self, execution_id: str) -> asyncio.Future[GetResultValueReply]:
        """Request the value of a result from the kernel's host."""
        return self._running_link().ask(HostGetResultValue(execution_id=execution_id))

    def answer_input(self, execution_id: str, text: str, actor: Actor) -> asyncio.Future[Done]:
        """Answer the input request of an execution."""
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
            # A full disk must not prevent the interrupt of the kernel that filled it.
            if "free" not in exc.data:
                raise
            logger.error("session %r: an audit entry is lost, %s: %s", self._notebook_id, row, exc)  # noqa: TRY400

    def _running_link(self) -> HostLink:
        if self._host.link is None or not self.exists:
            raise NoKernel("No kernel running", notebook_id=self._notebook_id)
        return self._host.link

    def _tell_host(self, operation: Execute | HostInterrupt) -> None:
        # Without a connection it is dropped: `Executions.resume` sends it after the reconnection.
        if self._host.link is not None and self._host.link.is_open:
            self._host.link.tell(operation)

    def enqueue(self, request: Enqueue, actor: Actor) -> None:
        """Queue an execution. Idempotent by its id; see `Executions.enqueue`.

        Raises:
            InvalidArgument: If its id is another execution's.
            CellNotFound, InvalidCell: If the cell cannot be executed.
            NoKernel: If there is no kernel.
            StorageError: If it cannot be stored; then it is not queued.
        """
        if self.executions.is_known(request):
            return
        if request.execution_id in self._cancelled:
            raise ExecutionCancelled("Cancelled before its kernel was ready", execution_id=request.execution_id)
        self._host.check_room()
        source = self.executions.source_of(request)
        if not self.exists:
            raise NoKernel("No kernel running", notebook_id=self._notebook_id)
        self._queue_held()
        # It was held itself, or the one that it duplicates was queued just now.
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

    # --- reports of the host ---

    def host_news(self, event: bytes) -> None:
        """See `HostOwner`: a kernel's host sends `Comm` and `CommsMissed` events."""
        self._log.tell(event)

    def _described(self, reply: AttachReply) -> None:
        self._pid, self.env_source = reply.kernel_pid, reply.env_source
        self._follow_comms()
        self.status = "busy" if reply.executions else "idle"

    def _facts(self) -> dict[str, Any]:
        return {"kernel_pid": self._pid, "env_source": self.env_source}

    def host_goes_on(self, reply: AttachReply) -> None:
        """See `HostOwner`: synchronises the queue with the host's executions."""
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
                # The host reports the end of the running execution next.
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
    """Return why an execution that waited for a failed start never begins."""
    return f"there is no kernel for it. {exc}"


def _describe_end(event: KernelState) -> str:
    """Return how a kernel ended, with the last lines of its standard error."""
    sentence = event.reason or "The kernel ended"
    return f"{sentence}. Its last words:\n{event.stderr.rstrip()}" if event.stderr.strip() else sentence
