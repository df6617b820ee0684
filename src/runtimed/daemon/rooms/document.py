"""The notebook of a room: read and edited as rows, every edit committed with the event and note that tell of it.

No document is loaded here: what was edited is written into it by a process of its own; see `document_work`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

from runtimed.daemon.rooms.events import EventLog
from runtimed.document import editing
from runtimed.document.cells import CellRecord
from runtimed.document.contents import CellRow, decode_cell
from runtimed.document.deltas import Delta
from runtimed.document.restoring import AUTHOR as RESTORER
from runtimed.document.tasks import Restored
from runtimed.errors import CellNotFound, StorageError
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from runtimed.models import AuditAction
from runtimed.protocol.events import CellChanged
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.notebook import NotebookTables
from runtimed.storage.session_store import SessionStore

__all__ = ["SharedDocument"]

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

_DeltaT = TypeVar("_DeltaT", bound=Delta | None)


class SharedDocument:
    """A notebook that several peers edit.

    Attributes:
        edited_at: When it was edited last, in Unix time; when it was opened if it was not edited since.
        reshown: Cells that were given another execution, or none, or deleted; whoever has looked at them takes them
            out.
    """

    def __init__(
        self,
        notebook_id: SessionId,
        store: SessionStore,
        log: EventLog,
        clock: Callable[[], float],
        on_doubt: Callable[[], None] = lambda: None,
    ) -> None:
        """Make it; nothing is read yet.

        Args:
            on_doubt: Called when somebody asks for the notebook and its rows do not say what is in it: they are to be
                read from the document; `found` and `not_found` tell how that ended.
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
            StorageError: If its rows are to be read from the document first; or, once, that the document was found
                damaged and set aside with what it said.
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
            CellNotFound: If the notebook has none of this id.
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
        """Make one edit; when this returns it is committed and on its way to every subscriber.

        Args:
            kind: What the event will say.
            actor: The client whose edit it is.
            decide: Decides what it does; it may refuse (CellNotFound, InvalidCell), then nothing has changed.
            detail: A word for the audit log.

        Returns:
            What was done, None if the notebook said it already.

        Raises:
            StorageError: If the edit cannot be stored; nothing has changed.
        """
        return self._commit(kind, actor.client_id, decide(self.content), actor, detail)

    def set_execution(
        self, cell_id: CellId, execution_id: ExecutionId, execution_count: int | None, *, author: ClientId
    ) -> None:
        """Let a cell show an execution: an edit in all but that the audit log calls it none.

        Raises:
            StorageError: As `edit`.
        """
        self._commit("executed", author, editing.set_execution(self.content, cell_id, execution_id, execution_count))

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
            self._store.notebook.apply(delta, author)
            if kind != "executed":
                action = "metadata_set" if cell_id is None else _ACTIONS[kind]
                self._store.note(
                    AuditRow(at=now, until=now, action=action, actor=actor, cell_id=cell_id, detail=detail)
                )
            if cell_id is not None and kind in ("executed", "cleared", "deleted"):
                record = self._store.notebook.cell(cell_id)
                self._store.show_execution(cell_id, None if record is None else record.execution_id)
                self.reshown.add(cell_id)
            if cell_id is not None:
                self._log.append(CellChanged(at=now, cell_id=cell_id, change=kind, author=author))
        self.edited_at = now
        return delta

    # Doubt

    @property
    def is_in_doubt(self) -> bool:
        """Whether its rows are to be read from the document."""
        return self._doubt is not None

    def doubt(self, reason: str) -> None:
        """Its rows do not say what is in it, or not any more."""
        self._doubt = reason
        self._on_doubt()

    def found(self) -> None:
        """The rows say what is in it."""
        self._doubt = None

    def not_found(self, reason: str) -> None:
        """Nobody can say what is in it: everything stays where it is."""
        self._doubt = reason

    def lost(self, reason: str) -> None:
        """The document was set aside, and no row says what was in it: whoever asks for the notebook next is told."""
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
        """Put the document that was set aside back, merged with the present one as `document.restoring` describes it.

        Its rows are to be stored next; whoever opens the session before that reads them from the document.

        Args:
            at: When it was set aside.
            restored: What came of both.

        Raises:
            StorageError: If it cannot be stored; then nothing has changed.
        """
        notebook = self._store.notebook
        with self._log.transaction():
            notebook.put_snapshot(restored.snapshot, notebook.last_edit)
            notebook.drop_rows()
            notebook.forget_set_aside(at)

    def put_rows(self, rows: Sequence[CellRow]) -> None:
        """Store some of the cells of a notebook that is not ready, and what they show: old outputs stay for that.

        Raises:
            StorageError: If it cannot be stored.
        """
        with self._log.transaction():
            self._store.notebook.add_rows(rows)
            for row in rows:
                self._store.show_execution(row.cell_id, decode_cell(row.data).execution_id)

    def tell_restored(self, cells: Sequence[CellId]) -> None:
        """Tell of restored cells.

        Raises:
            StorageError: If it cannot be stored.
        """
        now = self._clock()
        with self._log.transaction():
            for cell_id in cells:
                self._log.append(CellChanged(at=now, cell_id=cell_id, change="added", author=RESTORER))
