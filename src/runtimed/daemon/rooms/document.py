"""The document of a room: loaded when first needed, every edit committed with the event and note that tell of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final, Literal

from runtimed.daemon.rooms.events import EventLog
from runtimed.document.compaction import AUTHOR, Compaction
from runtimed.document.notebook import CellRecord, Edit, NotebookDocument
from runtimed.document.restoring import AUTHOR as RESTORER
from runtimed.document.restoring import Restored
from runtimed.document.stored import StoredRow
from runtimed.document.weight import HistoryWeight, weight_of
from runtimed.errors import CellNotFound, StorageError
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from runtimed.models import AuditAction
from runtimed.protocol.events import CellChanged
from runtimed.settings import COMPACT_AFTER, COMPACT_AFTER_MEMORY
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.session_store import SessionStore

__all__ = ["SharedDocument"]

logger = logging.getLogger(__name__)

MIN_GAIN: Final = 2
"""How many times the memory of what the document says its history takes before it is compacted for that: compacting
costs as much as writing all of it anew."""

SMALL: Final = 2**17
"""A stored document of at most this size, unpacked, in bytes, is loaded here once more after a daemon died meanwhile:
that takes less time than a process of its own takes to begin, and daemons that are killed often get on with it."""

PACKED: Final = 32
"""How many times larger than a snapshot the changes are that it holds: 1,500 cells of 60 code points take 36 KB."""

EditKind = Literal["added", "source", "moved", "deleted", "metadata", "type", "cleared"]

_ACTIONS: Final[dict[EditKind, AuditAction]] = {
    "added": "cell_added",
    "source": "cell_edited",
    "moved": "cell_moved",
    "deleted": "cell_deleted",
    "metadata": "cell_metadata_set",
    "type": "cell_type_set",
    "cleared": "outputs_cleared",
}
"""What the audit log calls an edit of a cell."""


class SharedDocument:
    """A notebook that several peers edit.

    Attributes:
        changes: How many changes are stored beside the snapshot, as far as the document was loaded.
        reshown: Cells that were given another execution, or none, or deleted; whoever has looked at them takes them
            out.
    """

    def __init__(
        self,
        notebook_id: SessionId,
        store: SessionStore,
        log: EventLog,
        clock: Callable[[], float],
        compact_after: int = COMPACT_AFTER,
        compact_after_memory: int | None = COMPACT_AFTER_MEMORY,
        on_doubt: Callable[[], None] = lambda: None,
    ) -> None:
        """Make it; nothing is loaded yet.

        Args:
            on_doubt: Called when the document may not be loaded here before a process of its own has loaded it; that
                process's finding is told by `found_healthy`, `found_damaged` or `not_verified`.
        """
        self._notebook_id = notebook_id
        self._store = store
        self._log = log
        self._clock = clock
        self._loaded: NotebookDocument | None = None
        self._stored = False
        self._is_marked = False  # as being loaded
        self._on_doubt = on_doubt
        self._doubt = "a daemon died while it loaded it" if _is_suspect(store) else None
        self._untold: StorageError | None = None
        self._compact_after = self._compact_at = compact_after
        self._compact_after_memory = self._compact_at_memory = (
            math.inf if compact_after_memory is None else float(compact_after_memory)
        )
        self.changes = 0
        self.reshown: set[CellId] = set()
        self._history = HistoryWeight()

    @property
    def content(self) -> NotebookDocument:
        """The document itself, for reading.

        Raises:
            StorageError: If what is stored cannot be loaded, or may not be before a process of its own has loaded it;
                or, once, that it was found damaged and set aside.
        """
        return self.load()

    def load(self) -> NotebookDocument:
        """Make sure that the document is loaded; not inside a transaction, as loading commits a mark of its own.

        Raises:
            StorageError: As `content`.
        """
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def cell(self, cell_id: str) -> CellRecord:
        """Return a cell.

        Raises:
            CellNotFound: If the document has none of this id.
        """
        record = self.content.cell(CellId(cell_id))
        if record is None:
            raise CellNotFound(f"Cell not found: {cell_id}", cell_id=cell_id)
        return record

    def edit(
        self, kind: EditKind, actor: Actor, make: Callable[[NotebookDocument], Edit], *, detail: str | None = None
    ) -> Edit:
        """Make one edit; when this returns it is committed and on its way to every subscriber.

        Args:
            kind: What the event will say.
            actor: The client whose edit it is.
            make: Makes the edit; it may refuse (CellNotFound, InvalidCell), then nothing has changed.
            detail: A word for the audit log.

        Raises:
            StorageError: If the edit cannot be stored; it is undone.
        """
        return self._commit(kind, actor.client_id, make, actor, detail)

    def set_execution(
        self, cell_id: CellId, execution_id: ExecutionId, execution_count: int | None, *, author: ClientId
    ) -> Edit:
        """Let a cell show an execution: an edit in all but that the audit log calls it none.

        Raises:
            StorageError: As `edit`.
        """
        return self._commit(
            "executed", author, lambda d: d.set_execution(cell_id, execution_id, execution_count, author=author)
        )

    def _commit(
        self,
        kind: EditKind | Literal["executed"],
        author: ClientId,
        make: Callable[[NotebookDocument], Edit],
        actor: Actor | None = None,
        detail: str | None = None,
    ) -> Edit:
        document = self.content
        try:
            edit = make(document)
        except StorageError:
            # Automerge may have broken it.
            self.forget()
            raise
        if not edit.change:
            return edit
        with self._log.transaction():
            # The document in memory would be ahead of what is stored, and later changes would build upon this one.
            self._log.if_rolled_back(self.forget)
            if not self._stored:
                # The document's beginning came from no change of a peer, so this snapshot, which has the first edit
                # already, is what there is to store.
                self._store.put_snapshot(document.save())
                self.changes = 0
                self._history = HistoryWeight()
            else:
                self._store.add_change(edit.change, author)
                self.changes += 1
                self._history.add(edit.change)
            now = self._clock()
            if kind != "executed":
                action = "metadata_set" if edit.cell_id is None else _ACTIONS[kind]
                self._store.note(
                    AuditRow(at=now, until=now, action=action, actor=actor, cell_id=edit.cell_id, detail=detail)
                )
            if edit.cell_id is not None and kind in ("executed", "cleared", "deleted"):
                record = document.cell(edit.cell_id)
                self._store.show_execution(edit.cell_id, None if record is None else record.execution_id)
                self.reshown.add(edit.cell_id)
            if edit.cell_id is not None:
                self._log.append(CellChanged(at=now, cell_id=edit.cell_id, change=kind, author=author))
            self._stored = True
        return edit

    def forget(self) -> None:
        """Let go of the document in memory, and of its compaction: it is loaded again when it is needed.

        Doing it twice is harmless.
        """
        self._loaded = None

    # Compaction

    @property
    def compaction_due(self) -> bool:
        """Whether the document is loaded and has so many changes, or such large ones, that it should be compacted."""
        if self._loaded is None:
            return False
        return self.changes >= self._compact_at or (
            self._history.bytes >= self._compact_at_memory and self._history.bytes >= MIN_GAIN * weight_of(self._loaded)
        )

    def postpone_compaction(self) -> None:
        """Let a tenth as much come again before the document is due: it cannot be compacted now."""
        self._compact_at = self.changes + max(self._compact_after // 10, 1)
        self._compact_at_memory = self._history.bytes + self._compact_after_memory / 10

    @property
    def loaded(self) -> NotebookDocument | None:
        """The document that peers edit, None while none is loaded."""
        return self._loaded

    def replace(self, compaction: Compaction, snapshot: bytes) -> None:
        """Put a compacted document in the place of the present one, with all that was edited meanwhile.

        Args:
            compaction: Of the document that is loaded.
            snapshot: The verified bytes of the changes that were taken from it first.

        Raises:
            StorageError: If it cannot be stored; then the old document stays, in memory and in storage.
        """
        for _ in compaction.catch_up():
            pass
        later = compaction.take_changes()
        with self._store.transaction():
            self._store.put_snapshot(snapshot)
            if later:
                self._store.add_change(later, AUTHOR)
        self._loaded = compaction.document
        self.changes = 1 if later else 0
        self._history = HistoryWeight([later])
        self._compact_at = self._compact_after
        self._compact_at_memory = self._compact_after_memory

    # Doubt

    @property
    def is_in_doubt(self) -> bool:
        """Whether it may not be loaded here before a process of its own has loaded it."""
        return self._doubt is not None

    def stored_rows(self) -> list[StoredRow]:
        """Return the document as it is stored.

        Raises:
            StorageError: If it cannot be read.
        """
        return [StoredRow(*row) for row in self._store.document_rows()]

    def found_healthy(self) -> None:
        """A process of its own has loaded it: so may this one.

        Raises:
            StorageError: If the mark of the load that did not end cannot be removed.
        """
        if not self._is_marked:
            self._store.end_load()
        self._doubt = None

    def not_verified(self, reason: str) -> None:
        """Nobody can say whether it is damaged: it stays where it is, and is not loaded."""
        self._doubt = reason

    def found_damaged(self, reason: str) -> None:
        """Set it aside; the session goes on with an empty one, and whoever loads it next is told.

        Raises:
            StorageError: If it cannot be set aside; it is as it was.
        """
        self._store.set_document_aside()
        self._stored = self._is_marked = False
        self._doubt = None
        self._untold = StorageError(
            f"The notebook of session {self._notebook_id!r} was set aside, because {reason}. Outputs are still there "
            "by execution id, the session goes on with an empty notebook, and `runtimed restore` brings the old one "
            "back if it is whole after all",
            notebook_id=self._notebook_id,
        )

    def acknowledge(self) -> None:
        """Tell nobody any more that it was set aside."""
        self._untold = None

    def restore(self, at: float, restored: Restored) -> None:
        """Put what was set aside back, merged with the present document as `document.restoring` describes it.

        Args:
            at: When it was set aside.
            restored: What came of both.

        Raises:
            StorageError: If it cannot be stored; then nothing has changed.
        """
        now = self._clock()
        with self._log.transaction():
            self._store.put_snapshot(restored.snapshot)
            self._store.forget_set_aside(at)
            for cell_id, execution_id in restored.cells:
                self._store.show_execution(cell_id, execution_id)
                self._log.append(CellChanged(at=now, cell_id=CellId(cell_id), change="added", author=RESTORER))
        self.forget()

    def _load(self) -> NotebookDocument:
        untold, self._untold = self._untold, None
        if untold is not None:
            raise untold
        if self._doubt is not None:
            raise self._doubtful(self._doubt)
        marked = self._mark_load()
        try:
            snapshot, changes = self._store.load_document()
            self._stored = snapshot is not None
            self.changes = len(changes)
            self._history = HistoryWeight()
            if snapshot is None and not changes:
                return NotebookDocument.create(self._notebook_id)
            document = NotebookDocument.load(snapshot, changes)
            self._history = HistoryWeight(changes)
        except (StorageError, MemoryError) as exc:
            # A disk's error and too little memory look like this, too: only a process of its own can tell.
            raise self._doubtful(str(exc) or "there is too little memory") from exc
        else:
            return document
        finally:
            if marked:
                self._unmark_load()

    def _doubtful(self, reason: str) -> StorageError:
        self._doubt = reason
        self._on_doubt()
        return StorageError(
            f"The notebook of session {self._notebook_id!r} cannot be read now, because {reason}. Nothing of it is "
            "lost; try again in a moment",
            notebook_id=self._notebook_id,
        )

    def _mark_load(self) -> bool:
        """Note that this load has begun until it has ended. On a full disk it is not noted: the mark might stay."""
        if not self._is_marked and self._store.has_room:
            self._store.begin_load()
            self._is_marked = True
        return self._is_marked

    def _unmark_load(self) -> None:
        try:
            self.tidy()
        except StorageError as exc:
            logger.warning("the document of session %r stays marked for now: %s", self._notebook_id, exc)

    def tidy(self) -> None:
        """Remove the mark of a load that has ended, if there was no room for that.

        Raises:
            StorageError: If there is none now.
        """
        if self._is_marked:
            self._store.end_load()
            self._is_marked = False


def _is_suspect(store: SessionStore) -> bool:
    """Whether daemons died while they loaded a document: of it, or of something else at the time."""
    deaths = store.unfinished_loads
    if deaths != 1:
        return deaths > 1
    snapshot, changes = store.document_sizes
    return PACKED * snapshot + changes > SMALL
