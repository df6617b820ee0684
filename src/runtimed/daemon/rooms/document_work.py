"""The work on a session's Automerge document: writes edits into it, reads lost rows from it, compacts and restores it.

Each task runs in a worker process (`worker`), one at a time. Edits never wait for one: they are stored before they are
acknowledged, and the task of a dead worker is repeated. Only a document that a worker found damaged is set aside.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from runtimed.daemon.flow import Flow
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.worker import Finding, Judgement, work_on
from runtimed.document.contents import Contents
from runtimed.document.stored import StoredNotebook
from runtimed.document.tasks import MergeCopy, Merged, ReadAll, Rebuild, Restore, Restored, Task, WritePending, Written
from runtimed.errors import NotebookFileError, SessionError, StorageError
from runtimed.ids import SessionId
from runtimed.settings import COMPACT_AFTER, COMPACT_AFTER_MEMORY
from runtimed.storage.aside import databases_aside, document_aside, forget_document, note_document, shown_code
from runtimed.storage.session_store import SessionStore

__all__ = ["DocumentWork"]

logger = logging.getLogger(__name__)

REST: Final = 30.0
"""Seconds without an edit after which pending edits are written. A write starts a process, and nothing waits for it."""

MANY: Final = 1000
"""Number of pending edits from which they are written at once, and largest number of edits in one run of a worker."""

RETRY: Final = 5.0
"""Seconds from a failed read of the document to the earliest next one, which a request triggers."""

PATIENCE: Final = 60.0
"""Seconds from a failed write of the document to the next attempt."""

ATTEMPTS: Final = 3
"""Largest number of attempts to restore a document, or to merge a copy. An edit of the notebook during one invalidates
it."""

SLICE: Final = 200
"""Cells that are stored or published in one slice. Then everything else on the event loop has its turn."""


T = TypeVar("T")


class DocumentWork:
    """The background work on one session's document."""

    def __init__(
        self,
        notebook_id: SessionId,
        path: Path,
        store: SessionStore,
        document: SharedDocument,
        flow: Flow,
        report: Callable[[str], None],
        compact_after: int = COMPACT_AFTER,
        compact_after_memory: int | None = COMPACT_AFTER_MEMORY,
    ) -> None:
        self._notebook_id = notebook_id
        self._path = path
        self._store = store
        self._document = document
        self._flow = flow
        self._report = report
        self._compact_after = compact_after
        self._compact_after_memory = compact_after_memory
        self._reading: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._read_at = -RETRY
        self._not_before = 0.0
        self._clear_notes()

    @property
    def is_reading(self) -> bool:
        """Whether the notebook is being read from its document; requests for the session wait meanwhile."""
        return self._reading is not None

    @property
    def is_busy(self) -> bool:
        """Whether work that needs the database is in progress."""
        return self._lock.locked() or self._reading is not None

    def close(self) -> None:
        """Stop reading. Idempotent."""
        if self._reading is not None:
            self._reading.cancel()

    # --- reading ---

    def begin_reading(self) -> None:
        """Read the notebook from its document, unless a read is in progress or has just failed."""
        if self._reading is None and time.monotonic() - self._read_at >= RETRY:
            self._flow.hold()
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        notebook = self._store.notebook
        try:
            async with self._lock:
                if notebook.needs_rebuild:
                    self._delete_damaged_rows("there is no other copy")
                    return
                if notebook.is_ready:
                    await self._write_backlog()
                logger.info("reading the notebook of session %r from its document", self._notebook_id)
                finding = await self._work_on(ReadAll(self._stored()))
                if finding.judgement is Judgement.HEALTHY:
                    await self._put_contents(msgspec.msgpack.decode(finding.answer, type=Contents))
                    self._document.found()
                    logger.info("read the notebook of session %r from its document", self._notebook_id)
                elif finding.judgement is Judgement.UNKNOWN:
                    self._document.not_found(finding.reason)
                    self._report(f"The notebook of session {self._notebook_id!r} cannot be read now: {finding.reason}")
                else:
                    self._set_aside(finding.reason)
        except (StorageError, OSError) as exc:
            self._document.not_found(str(exc))
            if self._store.is_closed:
                return
            logger.error("cannot read the notebook of session %r: %s", self._notebook_id, exc)  # noqa: TRY400
        finally:
            self._read_at = time.monotonic()
            self._reading = None
            self._flow.release()

    async def _put_contents(self, contents: Contents) -> None:
        """Store the document's content as rows, in slices. After a crash the next daemon reads the document again."""
        notebook = self._store.notebook
        notebook.drop_rows()
        for start in range(0, len(contents.cells), SLICE):
            self._document.put_rows(contents.cells[start : start + SLICE])
            await asyncio.sleep(0)
        notebook.complete_rows(contents.metadata)

    def _stored(self, max_pending: int = -1) -> StoredNotebook:
        notebook = self._store.notebook
        return StoredNotebook(self._notebook_id, notebook.rows(), notebook.pending(max_pending))

    async def _work_on(self, task: Task) -> Finding:
        finding = await work_on(task)
        if self._store.is_closed:
            raise StorageError(f"session {self._notebook_id!r} was closed meanwhile")
        return finding

    async def read(self, make: Callable[[], Awaitable[Task]]) -> bytes:
        """Have a worker perform a task that only reads; return its answer.

        Args:
            make: Makes the task, from rows that no other work changes meanwhile.

        Raises:
            StorageError: If it cannot be read.
        """
        async with self._lock:
            finding = await self._work_on(await make())
        if finding.judgement is not Judgement.HEALTHY:
            raise StorageError(
                f"The history of session {self._notebook_id!r} cannot be read: {finding.reason}. The cells are not "
                "affected",
                notebook_id=self._notebook_id,
            )
        return finding.answer

    # --- damage ---

    def _set_aside(self, reason: str) -> None:
        """Set the document aside; the notebook keeps the content of its rows.

        Raises:
            StorageError: If it cannot be set aside; nothing has changed.
        """
        notebook = self._store.notebook
        # The note comes first: if this process dies in between, the next opening removes the needless note.
        note_document(self._path, self._notebook_id, reason, time.time())
        notebook.set_aside()
        logger.error("the document of session %r was set aside: %s", self._notebook_id, reason)
        if not notebook.is_ready and not notebook.count():
            notebook.complete_rows({})
            self._document.lost(reason)
        elif self._document.is_in_doubt:
            self._delete_damaged_rows(reason)

    def _delete_damaged_rows(self, reason: str) -> None:
        lost = self._store.notebook.delete_damaged_rows()
        self._document.found()
        if lost:
            self._report(f"Session {self._notebook_id!r} has lost what was damaged, {', '.join(lost)}: {reason}")

    def _clear_notes(self) -> None:
        """Make the note beside the database agree with the documents that are set aside in it."""
        there = self._store.notebook.set_aside_at()
        try:
            if not there:
                forget_document(self._path)
            elif document_aside(self._path) is None:
                note_document(self._path, self._notebook_id, "an earlier daemon left no reason", there[-1])
        except (StorageError, OSError) as exc:
            logger.warning("session %r: the note about its document is out of date: %s", self._notebook_id, exc)

    # --- writing ---

    def is_due(self, now: float) -> bool:
        """Whether pending edits are to be written into the document now.

        Args:
            now: The Unix time.
        """
        if self._lock.locked() or self._document.is_in_doubt or now < self._not_before:
            return False
        pending = self._store.notebook.pending_count
        return pending >= min(MANY, self._compact_after) or (pending > 0 and now - self._document.edited_at >= REST)

    async def write(self, now: float) -> None:
        """Write pending edits into the document, and compact it if its history has become too large.

        A failure is logged; nothing is due for PATIENCE seconds then.

        Args:
            now: The Unix time.
        """
        try:
            async with self._lock:
                await self._write_pending()
        except (StorageError, OSError) as exc:
            if self._store.is_closed:
                logger.info("session %r was closed while its document was written", self._notebook_id)
                return
            self._not_before = now + PATIENCE
            logger.error(  # noqa: TRY400  # a sentence
                "cannot write the edits of session %r into its document yet: %s", self._notebook_id, exc
            )

    async def _write_pending(self) -> None:
        notebook, began = self._store.notebook, time.monotonic()
        if notebook.needs_rebuild:
            await self._rebuild()
            return
        stored, changes = self._stored(MANY), notebook.change_count
        finding = await self._work_on(WritePending(stored, self._compact_after, self._compact_after_memory))
        if finding.judgement is Judgement.UNKNOWN:
            raise StorageError(finding.reason)
        if finding.judgement is Judgement.DAMAGED:
            self._set_aside(finding.reason)
            await self._rebuild()
            return
        written = msgspec.msgpack.decode(finding.answer, type=Written)
        upto = stored.pending[-1].number if stored.pending else 0
        if written.snapshot is None:
            authors = (edit.author for edit in stored.pending)
            notebook.add_changes(zip(authors, written.changes, strict=True), upto)
        else:
            notebook.put_snapshot(written.snapshot, upto, begins_at=time.time() if written.is_compacted else None)
        if written.is_compacted:
            logger.info(
                "compacted the document of session %r: dropped %d changes in %.1f s",
                self._notebook_id,
                changes + len(stored.pending),
                time.monotonic() - began,
            )

    async def complete(self) -> None:
        """Write all edits so far into the document.

        Raises:
            StorageError: If it cannot be written.
        """
        notebook, upto = self._store.notebook, self._store.notebook.last_edit
        async with self._lock:
            # Edits that come meanwhile may wait.
            while notebook.needs_rebuild or not notebook.rows() or notebook.first_pending <= upto:
                await self._write_pending()

    async def _write_backlog(self) -> None:
        """Write pending edits until so few are left that reading them with the document takes no time."""
        notebook = self._store.notebook
        while notebook.needs_rebuild or notebook.pending_count > MANY:
            await self._write_pending()

    async def _rebuild(self) -> None:
        """Replace a document that was set aside by a new one with the content of the rows.

        Raises:
            StorageError: If that fails; the next write tries again.
        """
        notebook = self._store.notebook
        upto = notebook.last_edit
        finding = await self._work_on(Rebuild(self._notebook_id, notebook.cell_rows(), notebook.all_metadata()))
        if finding.judgement is not Judgement.HEALTHY:
            raise StorageError(f"a new document cannot be written: {finding.reason}")
        notebook.put_snapshot(msgspec.msgpack.decode(finding.answer, type=bytes), upto, begins_at=time.time())

    # --- restoring ---

    async def restore(self) -> int:
        """Restore every document that was set aside and is whole; return the number of restored cells.

        Raises:
            SessionError: If none was set aside.
            StorageError: If one cannot be restored; it stays set aside, and the present document is unchanged.
        """
        notebook = self._store.notebook
        if not notebook.set_aside_at():
            raise self._nothing_to_restore()
        if self._reading is not None:
            await asyncio.wait({self._reading})
        self._document.acknowledge()
        cells = 0
        self._flow.hold()
        try:
            async with self._lock:
                # The latest first: each restored document's cells come before the present ones.
                for at in reversed(notebook.set_aside_at()):
                    cells += await self._restore_one(at)
        finally:
            self._flow.release()
            if not self._store.is_closed:
                self._clear_notes()
        return cells

    def _nothing_to_restore(self) -> SessionError:
        kept = databases_aside(self._path)
        if not kept:
            text = f"Nothing of the notebook of session {self._notebook_id!r} was set aside"
        else:
            text = (
                f"The whole database of session {self._notebook_id!r} was found damaged and is kept as {kept[-1]}; it "
                "cannot be brought back, and the session goes on with an empty notebook. "
                f"{shown_code(kept[-1])}; copy what you need into new cells"
            )
        return SessionError(text, notebook_id=self._notebook_id)

    async def _restore_one(self, at: float) -> int:
        notebook = self._store.notebook
        for _ in range(ATTEMPTS):
            await self._write_backlog()
            edited = notebook.last_edit
            finding = await self._work_on(Restore(notebook.rows_set_aside(at), self._stored()))
            if finding.judgement is not Judgement.HEALTHY:
                raise StorageError(
                    f"The notebook of session {self._notebook_id!r} that was set aside cannot be brought back: "
                    f"{finding.reason}. It is kept as it is",
                    notebook_id=self._notebook_id,
                )
            if notebook.last_edit == edited:
                restored = msgspec.msgpack.decode(finding.answer, type=Restored)
                self._document.restore(at, restored)
                self._document.not_found("it is being put back")
                await self._put_contents(restored.contents)
                self._document.found()
                for start in range(0, len(restored.cells), SLICE):
                    self._document.tell_restored(restored.cells[start : start + SLICE])
                    await asyncio.sleep(0)
                logger.info("restored %d cells of session %r", len(restored.cells), self._notebook_id)
                return len(restored.cells)
        raise StorageError(
            f"The notebook of session {self._notebook_id!r} is edited all the time; nothing was brought back",
            notebook_id=self._notebook_id,
        )

    # --- merging ---

    async def merge(self, copy: bytes, commit: Callable[[Merged], T]) -> T:
        """Merge a copy of the document that was edited elsewhere.

        Edits go on meanwhile; if there was one, the session's other requests wait for the next attempt.

        Args:
            copy: The copy.
            commit: Stores what was found, in one transaction.

        Returns:
            What `commit` returned.

        Raises:
            NotebookFileError: If it is refused; nothing has changed.
            StorageError: If it cannot be read or stored now; nothing has changed.
        """
        notebook, is_held = self._store.notebook, False
        try:
            async with self._lock:
                for _ in range(ATTEMPTS):
                    await self._write_backlog()
                    if not notebook.rows():
                        await self._write_pending()
                    edited = notebook.last_edit
                    finding = await self._work_on(MergeCopy(self._stored(), notebook.base_rows(), copy))
                    if finding.judgement is not Judgement.HEALTHY:
                        raise StorageError(
                            f"Nothing was merged into the notebook of session {self._notebook_id!r}: {finding.reason}",
                            notebook_id=self._notebook_id,
                        )
                    merged = msgspec.msgpack.decode(finding.answer, type=Merged)
                    if merged.refusal is not None:
                        raise NotebookFileError(merged.refusal, path=None)
                    if notebook.last_edit == edited:
                        return commit(merged)
                    if not is_held:
                        is_held = True
                        self._flow.hold()
        finally:
            if is_held:
                self._flow.release()
        raise StorageError(
            f"The notebook of session {self._notebook_id!r} is edited all the time; nothing was merged",
            notebook_id=self._notebook_id,
        )
