"""The kernel of a room: how its host is started, found again, asked and buried."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from runtimed.daemon.executions import Executions
from runtimed.daemon.host_link import HostLink, new_host_folder, spawn_host
from runtimed.daemon.log import EventLog
from runtimed.daemon.shared_document import SharedDocument
from runtimed.environments.dependencies import NOTEBOOK_METADATA, Manager, named
from runtimed.environments.detection import Decision, decide
from runtimed.environments.facts import gather
from runtimed.environments.maker import Environments, Prepared
from runtimed.environments.recipes import Progress
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
from runtimed.host.bootstrap import PACKAGES, Bootstrap
from runtimed.ids import ClientId, HostEpoch, NotebookId, new_host_epoch
from runtimed.models import KernelStatus
from runtimed.protocol.codec import decode_event, pack, unpack
from runtimed.protocol.events import EnvProgress, Finished, KernelState
from runtimed.protocol.operations import (
    Enqueue,
    Execute,
    HostComplete,
    HostDetach,
    HostInput,
    HostInspect,
    HostInterrupt,
    HostRequest,
    HostRestart,
    HostShutdown,
    StartKernel,
)
from runtimed.settings import Settings
from runtimed.storage.registry_store import SessionRow
from runtimed.storage.session_store import SessionStore
from runtimed.storage.spool import Spool

__all__ = ["KernelListener", "RoomKernel"]

logger = logging.getLogger(__name__)

SHUTDOWN_DEADLINE: Final = 10.0
"""Seconds that a host gets to end its kernel and itself before it is killed."""

_NAMED: Final = ("current", "python:", "kernelspec:", "uv:prewarmed", "conda:prewarmed")
"""What environments begin with about which no document has a say."""


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
        listener: KernelListener,
        clock: Callable[[], float],
    ) -> None:
        self._notebook_id = notebook_id
        self._settings = settings
        self._store = store
        self._log = log
        self._document = document
        self._environments = environments
        self._listener = listener
        self._clock = clock
        self.executions = Executions(store, log, document, self._tell_host, clock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[Prepared | None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._link: HostLink | None = None
        self._ready: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._start_unwanted = False
        self._stopping = False
        self._rejoining = False
        self._pid: int | None = None
        self._host_pid: int | None = None
        self.status: KernelStatus = "not_started"
        self.kernel_type: str | None = None
        self.env_source: str | None = None

    # --- facts ---

    @property
    def exists(self) -> bool:
        """Whether a kernel runs or is being started; one that was told to end counts no more."""
        return self.status not in ("not_started", "dead") and not self._stopping

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits to run, a start included."""
        return self.executions.busy or self._starting is not None

    @property
    def pid(self) -> int | None:
        """The kernel's process id."""
        return self._pid

    # --- life ---

    async def start(self, request: StartKernel) -> bool:
        """Start a kernel unless there is one, and return when it is ready.

        Returns:
            Whether this call started it.

        Raises:
            KernelStartFailed: If it does not become ready; with the last lines of its standard error.
            SessionClosed: If somebody ended it before it was ready.
            EnvironmentFailed: If this environment cannot be had.
        """
        started = False
        if self._starting is None and not self.exists:
            self._start_unwanted = False
            self._starting = self._spawn(self._start(request))
            self._starting.add_done_callback(self._start_ended)
            started = True
        if self._starting is not None:
            # A client that leaves while it waits does not end the start: others may wait for it, too.
            await asyncio.shield(self._starting)
        return started

    async def _start(self, request: StartKernel) -> None:
        try:
            # The host of a kernel that died may be about to end.
            await self._host_end()
            self._check_still_wanted()
            self.status = "starting"
            decision = await self._decide(request)
            self.kernel_type, self.env_source = request.kernel_type, decision.source
            self._listener.kernel_facts(kernel_type=request.kernel_type, env_source=decision.source)
            # Between these two lines is the place to ask for consent: below, what others have named is installed.
            prepared = await self._prepare(decision, request)
            self._check_still_wanted()
        except RuntimedError as exc:
            self._kernel_is_gone(str(exc))
            self.status = "not_started"
            raise
        env_source = decision.source
        epoch = new_host_epoch()
        folder = new_host_folder(self._settings.hosts_dir)
        # Written before there is a host, so that a daemon that starts after this one died finds it.
        self._listener.kernel_facts(
            host_epoch=epoch, host_dir=str(folder), kernel_type=request.kernel_type, env_source=env_source
        )
        self._ready = asyncio.get_running_loop().create_future()
        try:
            self._host_pid = await spawn_host(
                Bootstrap(
                    folder=str(folder),
                    epoch=epoch,
                    data_dir=str(self._settings.data_dir),
                    socket_path=str(self._settings.socket_path),
                    blobs_dir=str(self._settings.data_dir / "blobs"),
                    kernel_type=request.kernel_type,
                    env_source=env_source,
                    interpreter=request.interpreter if prepared is None else prepared.interpreter,
                    environment=request.environment if prepared is None else prepared.environment,
                    marker="" if prepared is None else prepared.marker,
                    request=pack(msgspec.to_builtins(request)),
                    cwd=request.cwd,
                    notebook_label=self._notebook_id,
                )
            )
            self._listener.kernel_facts(host_pid=self._host_pid)
            self._attach_to(HostLink(folder, epoch, self))
            assert self._link is not None  # noqa: S101  # just set
            await self._link.open(after=0)
            if self._start_unwanted:
                self._link.tell(HostShutdown())
            await self._ready
        except (OSError, ConnectionLost, ProtocolError, KernelStartFailed) as exc:
            error = exc if isinstance(exc, KernelStartFailed) else KernelStartFailed(f"The kernel did not start: {exc}")
            if self.exists:
                self._kernel_is_gone(str(error))
                self.status = "dead"
            self._check_still_wanted()
            self._listener.kernel_lost("died", str(error))
            raise error from exc

    async def _decide(self, request: StartKernel) -> Decision:
        """Choose the environment: what is asked for, what the document says, what lies about.

        Raises:
            EnvironmentFailed: If what describes it cannot be understood.
        """
        metadata, first_cell = None, request.source
        if not request.env_source.startswith(_NAMED):
            content = self._document.content
            metadata = content.metadata(NOTEBOOK_METADATA)
            first_cell = next((cell.source for cell in content.cells() if cell.cell_type == "code"), first_cell)
        facts = await asyncio.to_thread(
            gather,
            asked=request.env_source,
            kernel_type=request.kernel_type,
            metadata=metadata,
            first_cell=first_cell,
            folder=request.cwd,
            environment=request.environment,
            interpreter=request.interpreter,
        )
        return decide(facts)

    async def _prepare(self, decision: Decision, request: StartKernel) -> Prepared | None:
        """Have the environment made; None for one that is there without us.

        Raises:
            EnvironmentFailed: If it cannot be had.
            SessionClosed: If the kernel was unwanted before it was made.
        """
        told = False

        def tell(progress: Progress) -> None:
            nonlocal told
            told = True
            self._tell_progress(progress)

        self._check_still_wanted()
        self._preparing = self._spawn(
            self._environments.prepare(decision, request.environment, request.interpreter, tell)
        )
        try:
            prepared = await self._preparing
        except asyncio.CancelledError:
            self._check_still_wanted()
            raise
        finally:
            self._preparing = None
        if told:
            tell(Progress(step="start", message=f"Starting the kernel in {decision.source}"))
        return prepared

    def _tell_progress(self, progress: Progress) -> None:
        event = EnvProgress(
            at=self._clock(),
            step=progress.step,
            message=progress.message,
            done=progress.done,
            total=progress.total,
        )
        try:
            with self._log.transaction():
                self._log.append(event)
        except StorageError as exc:
            # Others may wait for the same environment; it is made though this session cannot tell of it.
            logger.warning("session %r cannot store its progress: %s", self._notebook_id, exc)

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

    def _attach_to(self, link: HostLink) -> None:
        self._link = link
        self._gone = asyncio.get_running_loop().create_future()

    async def adopt(self, row: SessionRow) -> None:
        """Find the host that an earlier daemon left, and take what it has kept.

        If the host is dead its spool is read, and the room hears that the kernel is lost.
        """
        folder, epoch = Path(row.host_dir or ""), HostEpoch(row.host_epoch or "")
        self.kernel_type, self.env_source = row.kernel_type, row.env_source
        self._host_pid, self._pid = row.host_pid, row.kernel_pid
        self.status = "idle"
        self._attach_to(HostLink(folder, epoch, self))
        self.executions.write_missing_cells()
        try:
            assert self._link is not None  # noqa: S101  # just set
            reply = await self._link.open(after=self._store.last_event_of_host(epoch))
        except (OSError, ConnectionLost, ProtocolError) as exc:
            logger.warning("cannot adopt the host of session %r: %s", self._notebook_id, exc)
            self._rejoin_host()
        else:
            self._continue_with(reply)

    def _continue_with(self, reply: dict[str, Any]) -> None:
        """Bring the queue in step with what the host says it has, after a connection to it was made."""
        self._pid, self.env_source = reply["kernel_pid"], reply["env_source"]
        self._listener.kernel_facts(kernel_pid=self._pid, env_source=self.env_source)
        self.status = "busy" if reply["executions"] else "idle"
        self.executions.resume(reply["executions"])

    async def shutdown(self) -> None:
        """End the kernel and its host, even one that is still starting; without one, do nothing."""
        starting, self._start_unwanted = self._starting, True
        if self._preparing is not None:
            self._preparing.cancel()
        if self._link is not None:
            self._stopping = True
            if self._link.is_open:
                self._link.tell(HostShutdown())
            await self._host_end()
        if starting is not None:
            with contextlib.suppress(RuntimedError):
                await asyncio.shield(starting)
            await self._host_end()

    async def _host_end(self) -> None:
        """Wait until the present host, which is ending, is gone."""
        gone, link = self._gone, self._link
        if gone is None or link is None:
            return
        try:
            async with asyncio.timeout(SHUTDOWN_DEADLINE):
                await asyncio.shield(gone)
        except TimeoutError:
            logger.warning("the host in %s does not end; it is killed", link.folder)
            if self._host_pid is not None and link.is_alive():
                os.kill(self._host_pid, signal.SIGKILL)
            await gone

    async def restart(self) -> None:
        """Replace the kernel's process, and return when the new one is ready. Joins one that goes on.

        Its environment is what was asked for at the start means by now.

        Raises:
            NoKernel: If there is none.
            KernelStartFailed: If the new one does not become ready.
            EnvironmentFailed: If the environment cannot be had; the kernel runs on.
        """
        if self._restarting is None:
            self._restarting = self._spawn(self._restart())
            self._restarting.add_done_callback(self._restart_ended)
        await asyncio.shield(self._restarting)

    async def _restart(self) -> None:
        request, _marker = await self._asked_for(self._running_link())
        prepared = None
        if request is not None:
            decision = await self._decide_again(request)
            # As in `_start`, between these two lines is the place to ask for consent.
            prepared = await self._prepare(decision, request)
        if request is None or prepared is None:
            await self._running_link().ask(HostRestart())
            return
        await self._running_link().ask(
            HostRestart(
                marker=prepared.marker,
                interpreter=prepared.interpreter,
                env_source=decision.source,
                environment=prepared.environment,
            )
        )
        self.env_source = decision.source
        self._listener.kernel_facts(env_source=decision.source)

    def _restart_ended(self, task: asyncio.Task[None]) -> None:
        self._restarting = None
        if not task.cancelled():
            task.exception()  # it is raised to those who wait, who may be gone

    async def sync_environment(self) -> dict[str, Any]:
        """Add to the running kernel what the notebook names by now; else make the environment that a restart takes.

        Returns:
            The fields of `SyncEnvironmentResult`.

        Raises:
            NoKernel: If there is no kernel.
            EnvironmentFailed: If it cannot be had.
        """
        link = self._running_link()
        request, marker = await self._asked_for(link)
        decision = None if request is None else await self._decide_again(request)
        if request is None or decision is None or decision.recipe is None:
            why = "" if decision is None else f" ({decision.reason})"
            raise EnvironmentFailed(
                f"The kernel runs in the environment {self.env_source!r}{why}, where runtimed installs nothing; "
                'install there yourself, or shut the kernel down and start it with env_source="auto"',
                env_source=self.env_source,
            )
        variables, interpreter = request.environment, request.interpreter
        # As in `_start`, here is the place to ask for consent.
        addition = await self._environments.extend(
            decision, marker, link.folder / PACKAGES, variables, interpreter, self._tell_progress
        )
        if addition.obstacle is not None:
            await self._environments.prepare(decision, variables, interpreter, self._tell_progress)
        elif (await self._asked_for(self._running_link()))[1] != marker:
            # The kernel was restarted meanwhile, in another environment.
            return await self.sync_environment()
        return {
            "success": addition.obstacle is None,
            "synced_packages": list(addition.packages),
            "error": addition.obstacle and f"The kernel must be restarted: {addition.obstacle}",
            "needs_restart": addition.obstacle is not None,
        }

    @staticmethod
    async def _asked_for(link: HostLink) -> tuple[StartKernel | None, str]:
        """Return how the running kernel was asked for, if its host knows, and the marker of its environment."""
        reply = await link.ask(HostRequest())
        request = msgspec.convert(unpack(reply["request"]), StartKernel) if reply["request"] else None
        return request, reply["marker"]

    async def _decide_again(self, request: StartKernel) -> Decision:
        """Choose the environment for a kernel that runs: a plain one, with what the notebook names by now."""
        managers: tuple[Manager, ...] = ("uv", "conda")
        for manager in managers:
            if request.env_source == f"{manager}:prewarmed" and named(
                self._document.content.metadata(NOTEBOOK_METADATA), manager
            ):
                request = msgspec.structs.replace(request, env_source=f"{manager}:inline")
        return await self._decide(request)

    def interrupt(self) -> asyncio.Future[dict[str, Any]]:
        """Interrupt what runs.

        Raises:
            NoKernel: If there is no kernel.
        """
        link = self._running_link()
        self.executions.interrupting()
        return link.ask(HostInterrupt())

    def complete(self, code: str, cursor_pos: int) -> asyncio.Future[dict[str, Any]]:
        """Ask the kernel for completions; it answers while a cell runs."""
        return self._running_link().ask(HostComplete(code=code, cursor_pos=cursor_pos))

    def inspect(self, code: str, cursor_pos: int) -> asyncio.Future[dict[str, Any]]:
        """Ask the kernel about the object at a place in code."""
        return self._running_link().ask(HostInspect(code=code, cursor_pos=cursor_pos))

    def answer_input(self, execution_id: str, text: str) -> asyncio.Future[dict[str, Any]]:
        """Give the kernel the line that it waits for."""
        return self._running_link().ask(HostInput(execution_id=execution_id, text=text))

    async def detach(self) -> None:
        """Leave the kernel running for the next daemon; one that is about to end is waited for."""
        if self._stopping:
            await self._host_end()
        if self._link is not None and self._link.is_open:
            with contextlib.suppress(RuntimedError):
                await self._link.ask(HostDetach())
        self.close()

    def close(self) -> None:
        """Let go of the host; it lives on. Closing twice is harmless."""
        link, self._link = self._link, None
        for task in self._tasks:
            task.cancel()
        if link is not None:
            link.close()

    def _running_link(self) -> HostLink:
        if self._link is None or not self.exists:
            raise NoKernel("No kernel running", notebook_id=self._notebook_id)
        return self._link

    def _tell_host(self, operation: Execute | HostInterrupt) -> None:
        if self._link is not None:
            self._link.tell(operation)

    def enqueue(self, request: Enqueue, client_id: ClientId) -> None:
        """Queue an execution, once for each id; see `Executions.enqueue`.

        Raises:
            NoKernel: If there is no kernel.
        """
        if self.executions.is_known(request.execution_id):
            return
        if not self.exists:
            raise NoKernel("No kernel running", notebook_id=self._notebook_id)
        self.executions.enqueue(request, client_id)

    # --- what the host tells ---

    def host_events(self, events: list[tuple[int, bytes]]) -> None:
        """See `HostOwner`."""
        if self._link is None:
            raise StorageError("The room has let go of this host")
        with self._log.transaction():
            for n, body in events:
                event = decode_event(body)
                if self._log.append(event, body=body, host=(self._link.epoch, n)):
                    if isinstance(event, KernelState):
                        self._kernel_changed(event)
                    else:
                        self.executions.take(event)
                        if isinstance(event, Finished):
                            self._listener.kernel_used()

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
            case "restarting":
                self.executions.kernel_restarting()
            case "dead":
                reason = _describe_end(event)
                self._kernel_is_gone(reason)
                if self._ready is not None and not self._ready.done():
                    self._ready.set_exception(
                        KernelStartFailed(
                            f"The kernel did not start: {reason}",
                            exit_code=event.exit_code,
                            signal=event.signal,
                            stderr=event.stderr,
                        )
                    )
                elif not event.expected:
                    self._listener.kernel_lost("died", reason)
            case "busy":
                pass

    def _kernel_is_gone(self, reason: str) -> None:
        self._pid = None
        self._listener.kernel_facts(kernel_pid=None)
        self.executions.kernel_gone(reason)

    def host_gone(self, link: HostLink) -> None:
        """See `HostOwner`."""
        if link is self._link:
            self._rejoin_host()

    def _rejoin_host(self) -> None:
        """The connection to the host broke: make it again, or take what a dead host has left."""
        if self._link is None or self._rejoining:
            return
        if not self._link.is_alive():
            self._bury(self._link)
        else:
            self._rejoining = True
            self._spawn(self._keep_rejoining(self._link))

    async def _keep_rejoining(self, link: HostLink) -> None:
        delay = 0.01
        try:
            while link is self._link:
                # A host that is ending still holds its lock for some milliseconds.
                await asyncio.sleep(delay)
                delay = min(2 * delay, 1.0)
                if not link.is_alive():
                    self._bury(link)
                elif self.status != "dead":
                    with contextlib.suppress(OSError, ConnectionLost, ProtocolError):
                        self._continue_with(await link.open(after=self._store.last_event_of_host(link.epoch)))
                        return
        finally:
            self._rejoining = False

    def _bury(self, link: HostLink) -> None:
        """Read the spool of a host whose process is gone, and forget it."""
        self._take_what_is_left(link)
        self._link = None
        if self.status != "dead":
            reason = "The process that owned the kernel ended, and the kernel with it"
            self._kernel_is_gone(reason)
            self.status = "dead"
            with self._log.transaction():
                self._log.append(KernelState(at=self._clock(), status="dead", expected=self._stopping, reason=reason))
            if self._ready is not None and not self._ready.done():
                self._ready.set_exception(KernelStartFailed(f"The kernel did not start: {reason}"))
            elif not self._stopping:
                self._listener.kernel_lost("host_lost", reason)
        if self._stopping:
            self.status = "not_started"
            self._stopping = False
        self._listener.kernel_facts(host_epoch=None, host_dir=None, host_pid=None, kernel_pid=None)
        shutil.rmtree(link.folder, ignore_errors=True)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _take_what_is_left(self, link: HostLink) -> None:
        after: int | None = self._store.last_event_of_host(link.epoch)
        while after is not None:
            try:
                for n, body in Spool.read_dead(link.folder, after):
                    self.host_events([(n, body)])
                after = None
            except StorageError as exc:
                logger.error("lost an event that the host in %s had kept: %s", link.folder, exc)  # noqa: TRY400
                after = exc.data.get("n")

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _describe_end(event: KernelState) -> str:
    """Say in words how a kernel ended: reason, exit code or signal, and its last words."""
    if event.signal is not None:
        how = f"The kernel was ended by {signal.Signals(event.signal).name}"
    elif event.exit_code is not None:
        how = f"The kernel ended with exit code {event.exit_code}"
    else:
        how = "The kernel ended"
    sentence = f"{event.reason} ({how})" if event.reason else how
    return f"{sentence}. Its last words:\n{event.stderr.rstrip()}" if event.stderr.strip() else sentence
