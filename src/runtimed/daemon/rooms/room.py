"""A room: one session as this daemon serves it, with its document, its log, what it hosts and the peers in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Hashable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import psutil

from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.hosting.kernel_start import KernelRequest
from runtimed.daemon.hosting.launcher import Owner, Place, living_epochs
from runtimed.daemon.hosting.pool import Pool
from runtimed.daemon.registry import Registry, check_kind
from runtimed.daemon.rooms.browser import RoomBrowser
from runtimed.daemon.rooms.consent import note_written
from runtimed.daemon.rooms.contents import RoomContents
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.document_work import DocumentWork
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.kernel import RoomKernel
from runtimed.daemon.rooms.pruning import delete_old
from runtimed.environments.maker import Environments
from runtimed.errors import SessionError, SessionNotFound, StorageError
from runtimed.ids import ClientId, SessionId, stored_name
from runtimed.lifecycle import Activity, Limits, SessionEvent, next_deadline
from runtimed.protocol.browser_operations import BrowserOperation, StartBrowser, StartBrowserReply
from runtimed.protocol.codec import pack, unpack
from runtimed.protocol.execution_operations import Enqueue
from runtimed.protocol.kernel_operations import StartKernelReply
from runtimed.protocol.operation import Edit, Operation, ReplyBody, read_reply
from runtimed.protocol.session_operations import Join, RestoreNotebookReply
from runtimed.settings import Settings
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.database import remove_database
from runtimed.storage.disk import check_room
from runtimed.storage.registry_store import SessionRow
from runtimed.storage.session_store import SessionStore

__all__ = ["Room", "database_path"]

INPUT_PATIENCE: Final = 30.0
"""Seconds that a cell which asks for input waits for its client to come back."""


class Room:
    """One session. Sync methods decide and commit; the few that wait for a kernel are coroutines."""

    def __init__(
        self,
        notebook_id: SessionId,
        settings: Settings,
        registry: Registry,
        environments: Environments,
        pool: Pool,
        demand: Demand,
        clock: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self.notebook_id = notebook_id
        self._report = report
        self._registry = registry
        self._clock = clock
        self._path = database_path(settings, notebook_id)
        self.store = SessionStore(self._path)
        if self.store.is_new and registry.find(notebook_id) is not None:
            report(f"Session {notebook_id!r} begins anew: there was nothing in {self._path}")
        if self.store.damaged_wal is not None:
            report(
                f"Session {notebook_id!r} has lost its latest changes; their write-ahead log is kept as "
                f"{self.store.damaged_wal}"
            )
        self.flow = Flow(demand, notebook_id)
        self.log = EventLog(self.store, self.flow, settings.limits.max_output_bytes, clock)
        self.document = SharedDocument(notebook_id, self.store, self.log, clock, on_doubt=self._doubted)
        self._work = DocumentWork(
            notebook_id,
            self._path,
            self.store,
            self.document,
            self.flow,
            report,
            settings.compact_after,
            settings.compact_after_memory,
        )
        self.contents = RoomContents(notebook_id, self.store, self.log, self.document, settings.limits.keep_days)
        self._trust = environments.trust
        self._settings = settings
        self._environments = environments
        self._pool = pool
        row = registry.find(notebook_id)
        # What has not begun is a notebook, until a browser is started there.
        self.hosted = self._browser() if row is not None and row.kind == "browser" else self._kernel()
        self._kind: Literal["kernel", "browser"] | None = None
        self._peers: dict[Hashable, tuple[ClientId, Join]] = {}
        self._left_at = clock()
        self._awaited: psutil.Process | None = None
        self._unanswered_since: float | None = None
        if self.document.is_in_doubt:
            # At once: whoever asks for something of this session then waits for what is found.
            self._doubted()

    # --- what it hosts ---

    def _kernel(self) -> RoomKernel:
        return RoomKernel(
            self.notebook_id,
            self._settings,
            self.store,
            self.log,
            self.document,
            self._environments,
            self._pool,
            self,
            self._clock,
        )

    def _browser(self) -> RoomBrowser:
        return RoomBrowser(self.notebook_id, self._settings, self.store, self.log, self._pool, self, self._clock)

    @property
    def kernel(self) -> RoomKernel:
        """The kernel of a kernel's session, and of one that has not begun.

        Raises:
            SessionError: If this is a browser's session.
        """
        if isinstance(self.hosted, RoomKernel):
            return self.hosted
        raise SessionError(f"Session {self.notebook_id!r} is a browser session", session_id=self.notebook_id)

    def _host_browser(self) -> RoomBrowser:
        """Return the browser of a browser's session, which may have begun just now."""
        if not isinstance(self.hosted, RoomBrowser):
            self.hosted.close()
            self.hosted = self._browser()
        return self.hosted

    # --- the document ---

    def _doubted(self) -> None:
        self._work.begin_reading()

    @property
    def is_reading(self) -> bool:
        """Whether the notebook is just being read from its document."""
        return self._work.is_reading

    def writes_document(self, now: float) -> bool:
        """Whether edits are to be written into the document; see `DocumentWork.is_due`."""
        return self._work.is_due(now)

    async def write_document(self, now: float) -> None:
        """Write them; see `DocumentWork.write`."""
        await self._work.write(now)

    async def restore(self, actor: Actor) -> RestoreNotebookReply:
        """Bring back what of the document was set aside; see `DocumentWork.restore`."""
        cells = await self._work.restore()
        now = self._clock()
        self.store.note(AuditRow(at=now, until=now, action="notebook_restored", actor=actor, detail=f"{cells} cells"))
        return RestoreNotebookReply(cells=cells)

    # --- peers ---

    @property
    def peers(self) -> int:
        """How many clients are here; one with several connections counts once."""
        return len({client_id for client_id, _join in self._peers.values()})

    def join(self, connection: Hashable, client_id: ClientId, request: Join) -> None:
        """A client is here as long as this connection lasts."""
        self._peers[connection] = client_id, request
        if request.ephemeral:
            self._awaited = None

    def leave(self, connection: Hashable) -> None:
        """A connection is gone; one that was never here changes nothing."""
        if self._peers.pop(connection, None) is not None:
            self._left_at = self._clock()

    # --- life ---

    def activate(self, actor: Actor) -> None:
        """Make the session active, as the client asked for it when it joined."""
        join = next((join for client, join in self._peers.values() if client == actor.client_id), None)
        if join is None:
            join = Join(notebook_id=self.notebook_id)
        self._registry.start(
            self.notebook_id,
            actor,
            Limits(
                timeout_minutes=join.timeout_minutes,
                max_duration_minutes=join.max_duration_minutes,
                ephemeral=join.ephemeral,
                keep_alive=join.keep_alive,
            ),
        )

    def check_kind(self, kind: Literal["kernel", "browser"]) -> None:
        """Refuse what is asked of sessions of one kind if this is one of another; it is neither before it is started.

        Raises:
            SessionError: If it is of another kind.
        """
        if self._kind == kind:
            return
        row = self._registry.find(self.notebook_id)
        if row is not None:
            check_kind(row, kind)
            # It never changes, and is asked for with nearly every request.
            self._kind = kind

    def begin(self, actor: Actor) -> None:
        """A document that is written to for the first time makes a session; an ended session stays ended."""
        if self._registry.find(self.notebook_id) is None:
            self.activate(actor)

    async def start_kernel(
        self, request: KernelRequest, actor: Actor, execution: Enqueue | None = None
    ) -> StartKernelReply:
        """Start a kernel unless one runs, and queue what it is started for; see `RoomKernel.start`."""
        if not self.kernel.exists:
            self.check_room()
        self.activate(actor)
        started = await self.kernel.start(request, actor, execution)
        return StartKernelReply(
            kernel_type=self.kernel.kernel_type or "",
            env_source=self.kernel.env_source or "",
            started=started,
            explained=self.kernel.explained,
        )

    async def start_browser(self, request: StartBrowser, actor: Actor) -> StartBrowserReply:
        """Start a browser unless one runs; see `RoomBrowser.start`.

        Raises:
            SessionError: If this is a kernel's session.
        """
        if isinstance(self.hosted, RoomBrowser):
            # One that has just died is replaced, and is no failure of this start.
            await self.hosted.await_adopted()
        if not self.hosted.exists:
            self.check_room()
        limits = Limits(
            timeout_minutes=request.timeout_minutes, max_duration_minutes=request.max_duration_minutes, ephemeral=False
        )
        row = self._registry.start(self.notebook_id, actor, limits, "browser")
        await self._host_browser().start(request)
        # Not whether this request did: it may be one that is sent again, after its first reply was lost.
        created = row.creator == actor.client_id
        return StartBrowserReply(created=created, new=created and row.created_at == row.started_at)

    async def ask_browser(self, operation: BrowserOperation, actor: Actor, request_id: int) -> ReplyBody:
        """Have the browser do something; see `RoomBrowser.ask`.

        Raises:
            SessionNotFound: If it was never started.
        """
        if self._registry.find(self.notebook_id) is None:
            raise SessionNotFound(
                f"Browser session {self.notebook_id!r} is not started; start() starts it", session_id=self.notebook_id
            )
        return await self._host_browser().ask(operation, actor, request_id)

    def check_room(self) -> None:
        """See that something new can be begun.

        Raises:
            StorageError: If the disk is full, or nearly so.
        """
        check_room(self._path.parent)

    async def stop(self, event: SessionEvent, actor: Actor | None = None) -> str | None:
        """End the session. The step is committed first, then what is hosted goes.

        Args:
            event: What ends it.
            actor: Who ends it; None if it ends by itself.

        Returns:
            What a dead host has left and cannot be read now; see `HostKeeper.waits`.
        """
        self._registry.end(self.notebook_id, event, actor)
        await self.await_host_end()
        return self.waits

    @property
    def waits(self) -> str | None:
        """See `HostKeeper.waits`."""
        return self.hosted.waits

    @property
    def has_host(self) -> bool:
        """Whether a host is here, or on its way, one that ends included."""
        return self.hosted.in_use

    async def await_host_end(self) -> None:
        """Return when what an ended session has hosted is gone."""
        await self.hosted.shutdown()

    async def detach(self) -> None:
        """Leave what is hosted running for the next daemon."""
        await self.hosted.detach()

    def deadline(self) -> tuple[float, SessionEvent] | None:
        """Return when the session ends by itself, and why; None for never."""
        row = self._registry.find(self.notebook_id)
        if row is None or row.status != "active":
            return None
        activity = Activity(
            started_at=row.started_at,
            used_at=row.last_accessed_at,
            peers=self.peers or self._may_come_back(),
            left_at=max(self._left_at, row.started_at),
            busy=self.hosted.busy,
        )
        return next_deadline(_limits(row), activity)

    def _may_come_back(self) -> bool:
        """Whether the client of an earlier daemon still lives, which notices at its next call that there is another."""
        if self._awaited is not None and not _lives(self._awaited):
            self._awaited = None
            self._left_at = self._clock()
        return self._awaited is not None

    def tidy(self) -> None:
        """Do what became due, or possible again.

        Raises:
            StorageError: If something cannot be stored yet; it is done the next time.
        """
        self._interrupt_unanswered()
        self.hosted.tidy()

    def _interrupt_unanswered(self) -> None:
        """Interrupt a cell that has waited too long for input from a client that is gone, if that holds others up.

        In a durable session somebody may come back, attach and answer.
        """
        if not isinstance(self.hosted, RoomKernel):
            return
        executions = self.hosted.executions
        asking = executions.asking
        if (
            asking is None
            or any(client_id == asking.client_id for client_id, _join in self._peers.values())
            or (not executions.waiting and not self._is_ephemeral())
        ):
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = self._clock()
        elif self._clock() - self._unanswered_since > INPUT_PATIENCE:
            self._unanswered_since = None
            executions.cancel(asking.execution_id)

    def _is_ephemeral(self) -> bool:
        row = self._registry.find(self.notebook_id)
        return row is not None and row.ephemeral

    def hosted_facts(self, **fields: Any) -> None:
        """See `HostedListener`."""
        self._registry.update(self.notebook_id, **fields)

    def hosted_used(self, at: float | None = None) -> None:
        """See `HostedListener`."""
        self._registry.touch(self.notebook_id, at)

    def hosted_lost(self, why: Literal["died", "host_lost"], error: str) -> None:
        """See `HostedListener`."""
        self._registry.end(self.notebook_id, SessionEvent(why), error=error)

    def hosted_found(self) -> None:
        """See `HostedListener`: a session that an earlier daemon had to give up goes on."""
        row = self._registry.find(self.notebook_id)
        if row is not None and row.status != "active":
            self._registry.start(self.notebook_id, self.store.actor(row.creator), _limits(row), row.kind)
            self.hosted_facts(
                host_epoch=row.host_epoch,
                host_dir=row.host_dir,
                kernel_type=row.kernel_type,
                env_source=row.env_source,
            )

    def hosted_fate(self) -> str:
        """See `HostedListener`."""
        row = self._registry.find(self.notebook_id)
        if row is None or row.status == "active":
            return "it is not started"
        return f"it is {row.status} ({row.close_reason})" + ("" if row.error is None else f": {row.error.rstrip('.')}")

    def hosted_problem(self, sentence: str) -> None:
        """See `HostedListener`."""
        self._report(sentence)

    def take_over(self, row: SessionRow) -> None:
        """Go on with a session of an earlier daemon: the client that started it has not left, though it is not here."""
        pid = self.store.actor(row.creator).pid
        if row.ephemeral and pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                # A later process may have got the number.
                if process.create_time() < row.started_at:
                    self._awaited = process

    def adopt(self, place: Place, owner: Owner, *, wanted: bool) -> asyncio.Task[None]:
        """Take over a host from an earlier daemon; see `Hosted.adopt`."""
        row = self._registry.find(self.notebook_id)
        if row is None and owner.kind == "browser":
            self._registry.start(self.notebook_id, self.store.actor(""), Limits(timeout_minutes=3.0), "browser")
        elif row is None:
            self.activate(self.store.actor(""))
        if wanted:
            self.hosted_facts(
                host_epoch=owner.epoch,
                host_dir=place,
                kernel_type=owner.kernel_type or None,
                env_source=owner.env_source or None,
            )
        hosted = self._host_browser() if owner.kind == "browser" else self.kernel
        return hosted.adopt(place, owner, None if row is None else row.host_pid, wanted=wanted)

    @property
    def hosts(self) -> Iterator[tuple[Place, int]]:
        """Give the place of each host here, and the number of its last event that is stored."""
        if self.hosted.stored_of_host is not None:
            yield self.hosted.stored_of_host

    @property
    def in_use(self) -> bool:
        """Whether closing it would be noticed."""
        return bool(self._peers) or self.log.watchers > 0 or self.hosted.in_use or self._work.is_busy

    def close(self) -> None:
        """Let go of what is hosted and of the files. Idempotent."""
        self.hosted.close()
        self._work.close()
        empty = False
        try:
            empty = self.store.is_empty and self._registry.find(self.notebook_id) is None
            kept = self.store.close()
        except StorageError as exc:
            self._report(f"Session {self.notebook_id!r} cannot be put away: {exc.message}")
            return
        if kept is not None:
            self._report(f"Session {self.notebook_id!r} begins anew: its database is damaged, and is kept as {kept}")
        elif empty:
            remove_database(self._path)

    def note_written(self, operation: Operation[Any]) -> None:
        """See `consent.note_written`; called before a client's text is written."""
        note_written(self._trust, self.document.content, operation)

    # --- what is too old ---

    def delete_old(self, before: float) -> Generator[None, None, None]:
        """Delete what is too old; see `pruning.delete_old`."""
        return delete_old(self.store, self.log, self.hosted.forget_execution, self._living_hosts, before)

    def _living_hosts(self) -> set[str] | None:
        epochs = living_epochs(self._pool.launcher)
        row = self._registry.find(self.notebook_id)
        if epochs is not None and row is not None and row.host_epoch is not None:
            epochs.add(row.host_epoch)
        return epochs

    def blobs(self) -> set[str]:
        """Return the blobs to which this session refers; see `SessionStore.blobs`."""
        return self.store.blobs()

    # --- resent requests ---

    def reply_to(self, client_id: ClientId, request_id: int, edit: Edit[ReplyBody]) -> ReplyBody | None:
        """Return the reply to an edit that was made already and whose reply got lost, None if it was not made."""
        reply = self.store.find_request(client_id, request_id)
        return None if reply is None else read_reply(edit, unpack(reply))

    def remember(self, client_id: ClientId, request_id: int, reply: ReplyBody) -> None:
        """Note the reply to an edit, in the transaction that makes it."""
        self.store.remember_request(client_id, request_id, pack(msgspec.to_builtins(reply, builtin_types=(bytes,))))


def database_path(settings: Settings, notebook_id: SessionId) -> Path:
    """Return where the database of a session is."""
    return settings.data_dir / "sessions" / f"{stored_name(notebook_id)}.db"


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _limits(row: SessionRow) -> Limits:
    return Limits(
        timeout_minutes=row.timeout_minutes,
        max_duration_minutes=row.max_duration_minutes,
        ephemeral=row.ephemeral,
        keep_alive=row.keep_alive,
    )
