"""A room: one live session with its notebook, event log, kernel or browser, and peers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Hashable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.hosting.kernel_start import KernelRequest
from runtimed.daemon.hosting.launcher import Owner, Place, living_epochs
from runtimed.daemon.hosting.pool import Pool
from runtimed.daemon.registry import Registry
from runtimed.daemon.rooms.browser import RoomBrowser
from runtimed.daemon.rooms.cell_pages import page_of
from runtimed.daemon.rooms.consent import note_written
from runtimed.daemon.rooms.contents import RoomContents
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.document_work import DocumentWork
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.history import RoomHistory
from runtimed.daemon.rooms.importing import HasBlob, import_outputs
from runtimed.daemon.rooms.kernel import RoomKernel
from runtimed.daemon.rooms.presence import Presence
from runtimed.daemon.rooms.pruning import delete_old
from runtimed.daemon.rooms.registration import Registration, limits_of
from runtimed.document.tasks import Merged
from runtimed.environments.maker import Environments
from runtimed.errors import SessionError, SessionNotFound, StorageError
from runtimed.ids import ClientId, SessionId, stored_name
from runtimed.lifecycle import Activity, Limits, SessionEvent, next_deadline
from runtimed.protocol.browser_operations import BrowserOperation, StartBrowser, StartBrowserReply
from runtimed.protocol.codec import pack, unpack
from runtimed.protocol.document_operations import (
    GetContentReply,
    ImportOutputs,
    ImportOutputsReply,
    MergeCopyReply,
    RestoreVersionReply,
)
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
"""Seconds for which a cell's input request waits for its client to come back."""


class Room:
    """One live session. Plain methods decide and commit; coroutines wait for a kernel, browser or worker process."""

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
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.notebook_id = notebook_id
        self._report = report
        self._clock = clock
        self._path = database_path(settings, notebook_id)
        self.store = SessionStore(self._path, notebook_id)
        self._registration = Registration(notebook_id, registry, self.store, report)
        self._presence = Presence(clock)
        if self.store.is_new and registry.find(notebook_id) is not None:
            report(f"Session {notebook_id!r} begins anew: there was nothing in {self._path}")
        if self.store.damaged_wal is not None:
            report(
                f"Session {notebook_id!r} has lost its latest changes; their write-ahead log is kept as "
                f"{self.store.damaged_wal}"
            )
        self.flow = Flow(demand, notebook_id)
        self.log = EventLog(notebook_id, self.store, self.flow, settings.limits.max_output_bytes, clock, on_change)
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
        self.history = RoomHistory(notebook_id, self.store, self.document, self._work)
        self._rewriting = asyncio.Lock()
        self._trust = environments.trust
        self._settings = settings
        self._environments = environments
        self._pool = pool
        row = self._registration.row
        # A session that has not begun is a kernel session, until a browser is started in it.
        self.hosted = self._browser() if row is not None and row.kind == "browser" else self._kernel()
        self._unanswered_since: float | None = None
        if self.document.is_in_doubt:
            # At once: requests for this session wait until the notebook is read.
            self._doubted()

    # --- the kernel or browser ---

    def _kernel(self) -> RoomKernel:
        return RoomKernel(
            self.notebook_id,
            self._settings,
            self.store,
            self.log,
            self.document,
            self._environments,
            self._pool,
            self._registration,
            self._clock,
        )

    def _browser(self) -> RoomBrowser:
        listener = self._registration
        return RoomBrowser(self.notebook_id, self._settings, self.store, self.log, self._pool, listener, self._clock)

    @property
    def kernel(self) -> RoomKernel:
        """The kernel of a kernel session, or of one that has not begun.

        Raises:
            SessionError: If this is a browser session.
        """
        if isinstance(self.hosted, RoomKernel):
            return self.hosted
        raise SessionError(f"Session {self.notebook_id!r} is a browser session", session_id=self.notebook_id)

    def _host_browser(self) -> RoomBrowser:
        """Return the browser; a session that has just begun as a browser session gets one instead of its kernel."""
        if not isinstance(self.hosted, RoomBrowser):
            self.hosted.close()
            self.hosted = self._browser()
        return self.hosted

    # --- the document ---

    def _doubted(self) -> None:
        self._work.begin_reading()

    @property
    def is_reading(self) -> bool:
        """Whether the notebook is being read from its document."""
        return self._work.is_reading

    def writes_document(self, now: float) -> bool:
        """Whether pending edits are to be written into the document; see `DocumentWork.is_due`."""
        return self._work.is_due(now)

    async def write_document(self, now: float) -> None:
        """Write pending edits into the document; see `DocumentWork.write`."""
        await self._work.write(now)

    async def document_page(self, offset: int) -> GetContentReply:
        """Return a piece of the Automerge document; at its beginning, the document has all edits so far.

        Raises:
            StorageError: If it cannot be written or read.
        """
        notebook = self.document.content
        if offset == 0:
            await self._work.complete()
        return page_of(b"".join(row.data for row in notebook.rows()), offset)

    async def restore(self, actor: Actor) -> RestoreNotebookReply:
        """Restore the documents that were set aside; see `DocumentWork.restore`."""
        cells = await self._work.restore()
        now = self._clock()
        self.store.note(AuditRow(at=now, until=now, action="notebook_restored", actor=actor, detail=f"{cells} cells"))
        return RestoreNotebookReply(cells=cells)

    async def restore_version(self, version: int, actor: Actor, request_id: int) -> RestoreVersionReply:
        """Restore a version of the notebook; see `RoomHistory.restore`. A resent request is deduplicated."""
        async with self._rewriting:
            stored = self.store.find_request(actor.client_id, request_id)
            if stored is not None:
                return msgspec.convert(unpack(stored), RestoreVersionReply)
            self.check_room()
            self.begin(actor)
            reply = RestoreVersionReply(edits=await self.history.restore(version, actor))
            now = self._clock()
            with self.log.transaction():
                self.store.note(
                    AuditRow(at=now, until=now, action="notebook_restored", actor=actor, detail=f"version {version}")
                )
                self.remember(actor.client_id, request_id, reply)
            return reply

    async def merge_copy(self, copy: bytes, actor: Actor, request_id: int) -> MergeCopyReply:
        """Merge a copy of the document; see `DocumentWork.merge`. A resent request is deduplicated."""
        async with self._rewriting:
            stored = self.store.find_request(actor.client_id, request_id)
            if stored is not None:
                return msgspec.convert(unpack(stored), MergeCopyReply)
            self.check_room()

            def commit(merged: Merged) -> MergeCopyReply:
                self.begin(actor)
                with self.log.transaction():
                    reply = self.document.merge(merged, actor)
                    self.remember(actor.client_id, request_id, reply)
                return reply

            return await self._work.merge(copy, commit)

    def import_outputs(self, operation: ImportOutputs, actor: Actor, has_blob: HasBlob) -> ImportOutputsReply:
        """Store some of the outputs of a cell that is imported next; see `importing.import_outputs`."""
        self.check_room()
        self.begin(actor)
        with self.log.transaction():
            stored = import_outputs(self.kernel.executions, has_blob, operation, actor)
        return ImportOutputsReply(stored=stored)

    # --- peers ---

    @property
    def peers(self) -> int:
        """Number of clients here. A client with several connections counts once."""
        return self._presence.peers

    def join(self, connection: Hashable, client_id: ClientId, request: Join) -> None:
        """Register a client for as long as this connection lasts."""
        self._presence.join(connection, client_id, request)

    def leave(self, connection: Hashable) -> None:
        """Forget a connection that has ended. Harmless if it never joined."""
        self._presence.leave(connection)

    def is_written(self, path: str) -> bool:
        """Whether an editor that is here writes this notebook file itself."""
        return self._presence.is_written(path)

    # --- life ---

    def activate(self, actor: Actor) -> None:
        """Make the session active, with the limits that the client gave when it joined."""
        self._registration.activate(actor, self._presence.join_of(actor.client_id))

    def check_kind(self, kind: Literal["kernel", "browser"]) -> None:
        """Refuse an operation for sessions of another kind; see `Registration.check_kind`.

        Raises:
            SessionError: If the session is of another kind.
        """
        self._registration.check_kind(kind)

    def begin(self, actor: Actor) -> None:
        """Make the session active if it never was: its first edit begins it. An ended session stays ended."""
        if self._registration.row is None:
            self.activate(actor)

    async def start_kernel(
        self, request: KernelRequest, actor: Actor, execution: Enqueue | None = None
    ) -> StartKernelReply:
        """Start a kernel unless one runs, and queue the execution that needs it; see `RoomKernel.start`."""
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
            SessionError: If this is a kernel session.
        """
        if isinstance(self.hosted, RoomBrowser):
            # A browser that has just died is replaced; its death must not fail this start.
            await self.hosted.await_adopted()
        if not self.hosted.exists:
            self.check_room()
        limits = Limits(
            timeout_minutes=request.timeout_minutes, max_duration_minutes=request.max_duration_minutes, ephemeral=False
        )
        row = self._registration.activate_browser(actor, limits)
        await self._host_browser().start(request)
        # By the creator, not by what this request did: it may be resent, after its first reply was lost.
        created = row.creator == actor.client_id
        return StartBrowserReply(created=created, new=created and row.created_at == row.started_at)

    async def ask_browser(self, operation: BrowserOperation, actor: Actor, request_id: int) -> ReplyBody:
        """Have the browser perform an operation; see `RoomBrowser.ask`.

        Raises:
            SessionNotFound: If the session was never started.
        """
        if self._registration.row is None:
            raise SessionNotFound(
                f"Browser session {self.notebook_id!r} is not started; start() starts it", session_id=self.notebook_id
            )
        return await self._host_browser().ask(operation, actor, request_id)

    def check_room(self) -> None:
        """Check the disk's free space before something new begins.

        Raises:
            StorageError: If the disk is full, or nearly so.
        """
        check_room(self._path.parent)

    async def stop(self, event: SessionEvent, actor: Actor | None = None) -> str | None:
        """End the session. The step is committed first; then the kernel or browser ends.

        Args:
            event: What ends it.
            actor: The client that ends it; None if it ends by itself.

        Returns:
            What a dead host has left that cannot be read yet; see `HostKeeper.waits`.
        """
        self._registration.end(event, actor)
        await self.await_host_end()
        return self.waits

    @property
    def waits(self) -> str | None:
        """See `HostKeeper.waits`."""
        return self.hosted.waits

    @property
    def has_host(self) -> bool:
        """Whether there is a host, a starting or ending one included."""
        return self.hosted.in_use

    async def await_host_end(self) -> None:
        """End the kernel or browser of an ended session; return when it is gone. Idempotent."""
        await self.hosted.shutdown()

    async def detach(self) -> None:
        """Leave the kernel or browser running for the next daemon."""
        await self.hosted.detach()

    def deadline(self) -> tuple[float, SessionEvent] | None:
        """Return when the session ends by itself, and why; None for never."""
        row = self._registration.row
        if row is None or row.status != "active":
            return None
        activity = Activity(
            started_at=row.started_at,
            used_at=row.last_accessed_at,
            peers=self.peers or self._presence.may_come_back(),
            left_at=max(self._presence.left_at, row.started_at),
            busy=self.hosted.busy,
        )
        return next_deadline(limits_of(row), activity)

    def tidy(self) -> None:
        """Do what is due, or possible again.

        Raises:
            StorageError: If something cannot be stored yet; the next call does it.
        """
        self._interrupt_unanswered()
        self.hosted.tidy()

    def _interrupt_unanswered(self) -> None:
        """Interrupt a cell that waits for input from a client that is gone, if executions wait behind it.

        With nothing behind it, it goes on in a durable session: somebody may come back, attach and answer.
        """
        if not isinstance(self.hosted, RoomKernel):
            return
        executions = self.hosted.executions
        asking = executions.asking
        if (
            asking is None
            or self._presence.is_here(asking.client_id)
            or (not executions.waiting and not self._registration.is_ephemeral)
        ):
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = self._clock()
        elif self._clock() - self._unanswered_since > INPUT_PATIENCE:
            self._unanswered_since = None
            executions.cancel(asking.execution_id)

    def take_over(self, row: SessionRow) -> None:
        """Continue a session of an earlier daemon: while the process that started it lives, it counts as a peer."""
        pid = self.store.actor(row.creator).pid
        if row.ephemeral and pid is not None:
            self._presence.await_process(pid, row.started_at)

    def adopt(self, place: Place, owner: Owner, *, wanted: bool) -> asyncio.Task[None]:
        """Adopt the host of an earlier daemon; see `Hosted.adopt`."""
        row = self._registration.row
        if row is None and owner.kind == "browser":
            self._registration.activate_browser(self.store.actor(""), Limits(timeout_minutes=3.0))
        elif row is None:
            self.activate(self.store.actor(""))
        if wanted:
            self._registration.hosted_facts(
                host_epoch=owner.epoch,
                host_dir=place,
                kernel_type=owner.kernel_type or None,
                env_source=owner.env_source or None,
            )
        hosted = self._host_browser() if owner.kind == "browser" else self.kernel
        return hosted.adopt(place, owner, None if row is None else row.host_pid, wanted=wanted)

    @property
    def hosts(self) -> Iterator[tuple[Place, int]]:
        """Yield the place of each host here, and the number of its last stored event."""
        if self.hosted.stored_of_host is not None:
            yield self.hosted.stored_of_host

    @property
    def in_use(self) -> bool:
        """Whether it must stay open: it has peers, streams, a host, or work in progress."""
        return self.peers > 0 or self.log.watchers > 0 or self.hosted.in_use or self._is_busy

    @property
    def _is_busy(self) -> bool:
        return self._work.is_busy or self._rewriting.locked()

    def close(self) -> None:
        """Detach from the host and close the files. Idempotent."""
        self.hosted.close()
        self._work.close()
        empty = False
        try:
            empty = self.store.is_empty and self._registration.row is None
            kept = self.store.close()
        except StorageError as exc:
            self._report(f"The database of session {self.notebook_id!r} cannot be closed: {exc.message}")
            return
        if kept is not None:
            self._report(f"Session {self.notebook_id!r} begins anew: its database is damaged, and is kept as {kept}")
        elif empty:
            remove_database(self._path)

    def note_written(self, operation: Operation[Any]) -> None:
        """Store the consent that a client gives with an operation; see `consent.note_written`."""
        note_written(self._trust, self.document.content, operation)

    # --- retention ---

    def delete_old(self, before: float) -> Generator[None, None, None]:
        """Delete old data, in small steps; see `pruning.delete_old`."""
        return delete_old(self.store, self.log, self.hosted.forget_execution, self._living_hosts, before)

    def _living_hosts(self) -> set[str] | None:
        epochs = living_epochs(self._pool.launcher)
        row = self._registration.row
        if epochs is not None and row is not None and row.host_epoch is not None:
            epochs.add(row.host_epoch)
        return epochs

    def blobs(self) -> set[str]:
        """Return the blobs to which this session refers; see `SessionStore.blobs`."""
        return self.store.blobs()

    # --- resent requests ---

    def reply_to(self, client_id: ClientId, request_id: int, edit: Edit[ReplyBody]) -> ReplyBody | None:
        """Return the stored reply to an edit that a client sends again; None if the edit was not made."""
        reply = self.store.find_request(client_id, request_id)
        return None if reply is None else read_reply(edit, unpack(reply))

    def remember(self, client_id: ClientId, request_id: int, reply: ReplyBody) -> None:
        """Store the reply to an edit, in the edit's transaction."""
        self.store.remember_request(client_id, request_id, pack(msgspec.to_builtins(reply, builtin_types=(bytes,))))


def database_path(settings: Settings, notebook_id: SessionId) -> Path:
    """Return the path of a session's database."""
    return settings.data_dir / "sessions" / f"{stored_name(notebook_id)}.db"
