"""The notebook of a room, read and edited as rows; an edit is committed together with its event and audit entry.

No Automerge document is loaded here: a worker process writes the edits into it; see `document_work`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

from runtimed.daemon.rooms.events import EventLog
from runtimed.document import editing
from runtimed.document.cells import CellRecord
from runtimed.document.contents import CellRow, decode_cell
from runtimed.document.deltas import (
    CellAdded,
    CellDeleted,
    CellEntrySet,
    CellMoved,
    Delta,
    EntrySet,
    ExecutionSet,
    SourceEdited,
    TypeSet,
)
from runtimed.document.restoring import AUTHOR as RESTORER
from runtimed.document.tasks import Merged, Restored
from runtimed.errors import CellNotFound, StorageError
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from runtimed.models import AuditAction
from runtimed.protocol.document_operations import MergeCopyReply
from runtimed.protocol.events import CellChanged
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.notebook import NotebookTables
from runtimed.storage.session_store import SessionStore

__all__ = ["EditKind", "SharedDocument"]

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
"""Name of an edit of a cell in the audit log."""

_KINDS: Final[dict[type[Delta], EditKind]] = {
    CellAdded: "added",
    CellDeleted: "deleted",
    CellMoved: "moved",
    CellEntrySet: "metadata",
    EntrySet: "metadata",
    ExecutionSet: "cleared",
    SourceEdited: "source",
    TypeSet: "type",
}
"""Kind of each delta of a copy, which may only clear an execution."""

_DeltaT = TypeVar("_DeltaT", bound=Delta | None)


class SharedDocument:
    """A notebook that several peers edit.

    Attributes:
        edited_at: Unix time of the last edit, or of the opening if there was none since.
        reshown: Cells that show another execution or none, or were deleted, since the consumer last cleared this set.
    """

    def __init__(
        self,
        notebook_id: SessionId,
        store: SessionStore,
        log: EventLog,
        clock: Callable[[], float],
        on_doubt: Callable[[], None] = lambda: None,
    ) -> None:
        """Create it; nothing is read yet.

        Args:
            on_doubt: Called when the rows are needed and must be read from the document first. `found`, `not_found` or
                `lost` reports the outcome.
        """
        self._notebook_id = notebook_id
        self._store = store
        self._log = log
        self._clock = clock
        self._on_doubt = on_doubt
        self._doubt = None if store.notebook.is_ready else "it is being read"
        self._untold: StorageError | None = None
        store.notebook.on_damage = self.doubt
        self.edited_at = clock()
        self.reshown: set[CellId] = set()

    @property
    def content(self) -> NotebookTables:
        """The notebook itself, for reading.

        Raises:
            StorageError: If its rows must be read from the document first; or, once, because the document was damaged
                and set aside.
        """
        untold, self._untold = self._untold, None
        if untold is not None:
            raise untold
        if self._doubt is not None:
            self._on_doubt()
            raise StorageError(
                f"The notebook of session {self._notebook_id!r} cannot be read now, because {self._doubt}. Nothing of "
                "it is lost; try again in a moment",
                notebook_id=self._notebook_id,
            )
        return self._store.notebook

    def cell(self, cell_id: str) -> CellRecord:
        """Return a cell.

        Raises:
            CellNotFound: If the notebook has none with this id.
        """
        record = self.content.cell(CellId(cell_id))
        if record is None:
            raise CellNotFound(f"Cell not found: {cell_id}", cell_id=cell_id)
        return record

    def edit(
        self,
        kind: EditKind,
        actor: Actor,
        decide: Callable[[NotebookTables], _DeltaT],
        *,
        detail: str | None = None,
    ) -> _DeltaT:
        """Make one edit. On return it is committed and published to every subscriber.

        Args:
            kind: Kind of the edit, for its event and audit entry.
            actor: The client.
            decide: Returns the change, or None for no change. It may refuse (CellNotFound, InvalidCell).
            detail: Detail of the audit entry.

        Returns:
            What `decide` returned.

        Raises:
            StorageError: If the edit cannot be stored; nothing has changed.
        """
        return self._commit(kind, actor.client_id, decide(self.content), actor, detail)

    def merge(self, merged: Merged, actor: Actor) -> MergeCopyReply:
        """Take in a copy of the document, in the caller's transaction: its edits are the client's, and its changes
        go into the document as they are.

        Args:
            merged: What a worker found, which also wrote all pending edits.
            actor: The client.

        Returns:
            Which cells were changed.

        Raises:
            StorageError: If it cannot be stored.
        """
        notebook = self.content
        authors = [edit.author for edit in notebook.pending(-1)]
        for delta in merged.deltas:
            detail = delta.cell_type if isinstance(delta, TypeSet) else None
            self.edit(_KINDS[type(delta)], actor, lambda _cells, delta=delta: delta, detail=detail)  # type: ignore[misc]  # mypy infers no defaults
        copied = [(ClientId(author), change) for author, change in merged.copied]
        notebook.add_changes([*zip(authors, merged.changes, strict=True), *copied], notebook.last_edit)
        touched = {delta.cell_id: type(delta) for delta in reversed(merged.deltas) if delta.cell_id is not None}
        added = [cell_id for cell_id, kind in touched.items() if kind is CellAdded]
        deleted = [cell_id for cell_id, kind in touched.items() if kind is CellDeleted]
        changed = [cell_id for cell_id in touched if cell_id not in {*added, *deleted}]
        return MergeCopyReply(added=added[::-1], changed=changed[::-1], deleted=deleted[::-1])

    def set_execution(
        self, cell_id: CellId, execution_id: ExecutionId | None, execution_count: int | None, *, author: ClientId
    ) -> bool:
        """Let a cell show an execution, or only a count. Unlike `edit` it leaves no audit entry.

        Returns:
            Whether it showed another one.

        Raises:
            StorageError: If the edit cannot be stored; nothing has changed.
        """
        delta = editing.set_execution(self.content, cell_id, execution_id, execution_count)
        return self._commit("executed", author, delta) is not None

    def _commit(
        self,
        kind: EditKind | Literal["executed"],
        author: ClientId,
        delta: _DeltaT,
        actor: Actor | None = None,
        detail: str | None = None,
    ) -> _DeltaT:
        if delta is None:
            return delta
        now, cell_id = self._clock(), delta.cell_id
        with self._log.transaction():
            self._store.notebook.apply(delta, author, now)
            if kind != "executed":
                action = "metadata_set" if cell_id is None else _ACTIONS[kind]
                self._store.note(
                    AuditRow(at=now, until=now, action=action, actor=actor, cell_id=cell_id, detail=detail)
                )
            is_shown = isinstance(delta, CellAdded) and delta.cell.execution_id is not None
            if cell_id is not None and (is_shown or kind in ("executed", "cleared", "deleted")):
                record = self._store.notebook.cell(cell_id)
                self._store.show_execution(cell_id, None if record is None else record.execution_id)
                self.reshown.add(cell_id)
            if cell_id is not None:
                self._log.append(CellChanged(at=now, cell_id=cell_id, change=kind, author=author))
        self.edited_at = now
        return delta

    # --- rows that are missing or damaged ---

    @property
    def is_in_doubt(self) -> bool:
        """Whether the rows must be read from the document before they can be used."""
        return self._doubt is not None

    def doubt(self, reason: str) -> None:
        """Note that the rows are missing or damaged, and have them read from the document."""
        self._doubt = reason
        self._on_doubt()

    def found(self) -> None:
        """Note that the rows are complete."""
        self._doubt = None

    def not_found(self, reason: str) -> None:
        """Note that the document cannot be read now. Nothing is changed or removed."""
        self._doubt = reason

    def lost(self, reason: str) -> None:
        """Note that the document was set aside and left no rows. The next reader gets an error that says so."""
        self._doubt = None
        self._untold = StorageError(
            f"The notebook of session {self._notebook_id!r} was set aside, because {reason}. Outputs are still there "
            "by execution id, the session goes on with an empty notebook, and `runtimed restore` brings the old one "
            "back if it is whole after all",
            notebook_id=self._notebook_id,
        )

    def acknowledge(self) -> None:
        """Drop the error that `lost` keeps for the next reader."""
        self._untold = None

    def restore(self, at: float, restored: Restored) -> None:
        """Put back a document that was set aside, merged with the present one; see `document.restoring`.

        The caller stores the rows next. If this process dies before that, the next daemon reads them from the document.

        Args:
            at: Unix time at which it was set aside.
            restored: The merged document.

        Raises:
            StorageError: If it cannot be stored; nothing has changed.
        """
        notebook = self._store.notebook
        with self._log.transaction():
            notebook.put_snapshot(restored.snapshot, notebook.last_edit, begins_at=self._clock())
            notebook.drop_rows()
            notebook.forget_set_aside(at)

    def put_rows(self, rows: Sequence[CellRow]) -> None:
        """Store some cells of a notebook that is not ready, and which executions they show: retention keeps those.

        Raises:
            StorageError: If they cannot be stored.
        """
        with self._log.transaction():
            self._store.notebook.add_rows(rows)
            for row in rows:
                self._store.show_execution(row.cell_id, decode_cell(row.data).execution_id)

    def tell_restored(self, cells: Sequence[CellId]) -> None:
        """Publish an `added` event for each restored cell.

        Raises:
            StorageError: If the events cannot be stored.
        """
        now = self._clock()
        with self._log.transaction():
            for cell_id in cells:
                self._log.append(CellChanged(at=now, cell_id=cell_id, change="added", author=RESTORER))
