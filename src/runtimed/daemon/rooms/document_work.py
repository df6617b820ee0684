"""Keeps a room's document: writes into it what was edited, reads from it what the rows do not say, compacts, restores.

Each task runs in a process of its own (`worker`), one at a time. Edits wait for none: they are stored when they are
acknowledged, and a process that dies is started again with the same. Nothing is set aside but what such a process has
found damaged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from runtimed.daemon.flow import Flow
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.worker import Finding, Judgement, work_on
from runtimed.document.contents import Contents
from runtimed.document.stored import StoredNotebook
from runtimed.document.tasks import ReadAll, Rebuild, Restore, Restored, Task, WritePending, Written
from runtimed.errors import SessionError, StorageError
from runtimed.ids import SessionId
from runtimed.settings import COMPACT_AFTER, COMPACT_AFTER_MEMORY
from runtimed.storage.aside import databases_aside, document_aside, forget_document, note_document, shown_code
from runtimed.storage.session_store import SessionStore

__all__ = ["DocumentWork"]

logger = logging.getLogger(__name__)

REST: Final = 30.0
"""Seconds without an edit after which the document is written: each time takes a process, and nothing waits for it."""

MANY: Final = 1000
"""Pending edits that are written although more are made; more than so many are written in several runs."""

RETRY: Final = 5.0
"""Seconds after which a document that could not be read is tried again, when somebody asks for it."""

PATIENCE: Final = 60.0
"""Seconds after which a document that could not be written is tried again."""

ATTEMPTS: Final = 3
"""How often restoring begins anew because the notebook was edited meanwhile."""

SLICE: Final = 200
"""Cells that are stored or told of before others have their turn."""


class DocumentWork:
    """The work on one session's document."""

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
        """Whether requests for the session wait until its notebook is read."""
        return self._reading is not None

    @property
    def is_busy(self) -> bool:
        """Whether anything goes on here that needs the database."""
        return self._lock.locked() or self._reading is not None

    def close(self) -> None:
        """Read nothing any more. Closing twice is harmless."""
        if self._reading is not None:
            self._reading.cancel()

    # --- reading ---

    def begin_reading(self) -> None:
        """Read the notebook from its document, unless that goes on or has just failed."""
        if self._reading is None and time.monotonic() - self._read_at >= RETRY:
            self._flow.hold()
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        notebook = self._store.notebook
        try:
            async with self._lock:
                if notebook.needs_rebuild:
                    self._keep_intact("nothing else says what was in them")
                    return
                if notebook.is_ready:
                    await self._write_backlog()
                logger.info("the notebook of session %r is read from its document", self._notebook_id)
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
            logger.error("the notebook of session %r is not read: %s", self._notebook_id, exc)  # noqa: TRY400
        finally:
            self._read_at = time.monotonic()
            self._reading = None
            self._flow.release()

    async def _put_contents(self, contents: Contents) -> None:
        """Store what the document says as rows, others between. Dying meanwhile, the next daemon reads it again."""
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

    # --- damage ---

    def _set_aside(self, reason: str) -> None:
        """Set the document aside; the notebook goes on with what its rows say.

        Raises:
            StorageError: If it cannot be set aside; it is as it was.
        """
        notebook = self._store.notebook
        # The note comes first: dying in between leaves one too many, which the next opening of it removes.
        note_document(self._path, self._notebook_id, reason, time.time())
        notebook.set_aside()
        logger.error("the document of session %r was set aside: %s", self._notebook_id, reason)
        if not notebook.is_ready and not notebook.count():
            notebook.complete_rows({})
            self._document.lost(reason)
        elif self._document.is_in_doubt:
            self._keep_intact(reason)

    def _keep_intact(self, reason: str) -> None:
        lost = self._store.notebook.delete_damaged_rows()
        self._document.found()
        if lost:
            self._report(f"Session {self._notebook_id!r} has lost what was damaged, {', '.join(lost)}: {reason}")

    def _clear_notes(self) -> None:
        """Let the note beside the database say what is in it."""
        there = self._store.notebook.set_aside_at()
        try:
            if not there:
                forget_document(self._path)
            elif document_aside(self._path) is None:
                note_document(self._path, self._notebook_id, "an earlier daemon did so, and left no reason", there[-1])
        except (StorageError, OSError) as exc:
            logger.warning("session %r: %s", self._notebook_id, exc)

    # --- writing ---

    def is_due(self, now: float) -> bool:
        """Whether edits are to be written into the document.

        Args:
            now: The Unix time.
        """
        if self._lock.locked() or self._document.is_in_doubt or now < self._not_before:
            return False
        pending = self._store.notebook.pending_count
        return pending >= min(MANY, self._compact_after) or (pending > 0 and now - self._document.edited_at >= REST)

    async def write(self, now: float) -> None:
        """Write what was edited into the document, and compact it if its history has become too large.

        Args:
            now: The Unix time. After a failure, which the log tells, nothing is due for a while.
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
                "the edits of session %r are written into its document later: %s", self._notebook_id, exc
            )

    async def _write_pending(self) -> None:
        notebook, began = self._store.notebook, time.monotonic()
        if notebook.needs_rebuild:
            await self._write_anew()
            return
        stored, changes = self._stored(MANY), notebook.change_count
        finding = await self._work_on(WritePending(stored, self._compact_after, self._compact_after_memory))
        if finding.judgement is Judgement.UNKNOWN:
            raise StorageError(finding.reason)
        if finding.judgement is Judgement.DAMAGED:
            self._set_aside(finding.reason)
            await self._write_anew()
            return
        written = msgspec.msgpack.decode(finding.answer, type=Written)
        upto = stored.pending[-1].number if stored.pending else 0
        if written.snapshot is None:
            authors = (edit.author for edit in stored.pending)
            notebook.add_changes(zip(authors, written.changes, strict=True), upto)
        else:
            notebook.put_snapshot(written.snapshot, upto)
        if written.is_compacted:
            logger.info(
                "compacted the document of session %r: %d changes less in %.1f s",
                self._notebook_id,
                changes + len(stored.pending),
                time.monotonic() - began,
            )

    async def _write_backlog(self) -> None:
        """Write so many pending edits that reading those that are left takes no time."""
        notebook = self._store.notebook
        while notebook.needs_rebuild or notebook.pending_count > MANY:
            await self._write_pending()

    async def _write_anew(self) -> None:
        """Put a document that says what the rows say in the place of one that was set aside.

        Raises:
            StorageError: If that fails; it is tried again.
        """
        notebook = self._store.notebook
        upto = notebook.last_edit
        finding = await self._work_on(Rebuild(self._notebook_id, notebook.cell_rows(), notebook.all_metadata()))
        if finding.judgement is not Judgement.HEALTHY:
            raise StorageError(f"a new document cannot be written: {finding.reason}")
        notebook.put_snapshot(msgspec.msgpack.decode(finding.answer, type=bytes), upto)

    # --- restoring ---

    async def restore(self) -> int:
        """Bring back every document that was set aside and is whole, and return how many cells that gave.

        Raises:
            SessionError: If there is none.
            StorageError: If one cannot be brought back; it is kept as it is, and the present document, too.
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
                # The latest first: each puts its cells before those that are there.
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
                logger.info("%d cells of session %r were brought back", len(restored.cells), self._notebook_id)
                return len(restored.cells)
        raise StorageError(
            f"The notebook of session {self._notebook_id!r} is edited all the time; nothing was brought back",
            notebook_id=self._notebook_id,
        )
