"""The cells of queued executions: writes them into the notebook, now or once it can be stored."""

from __future__ import annotations

import logging

from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.document import editing
from runtimed.errors import CellNotFound, StorageError
from runtimed.execution import programs
from runtimed.ids import CellId, ExecutionId, SessionId
from runtimed.protocol.execution_operations import Enqueue
from runtimed.storage.audit import Actor
from runtimed.storage.session_store import SessionStore

__all__ = ["QueuedCells"]

logger = logging.getLogger(__name__)


class QueuedCells:
    """The queued executions of a session whose cells are not written yet."""

    def __init__(self, notebook_id: SessionId, store: SessionStore, log: EventLog, document: SharedDocument) -> None:
        self._notebook_id = notebook_id
        self._store = store
        self._log = log
        self._document = document
        self._unwritten: dict[ExecutionId, tuple[Enqueue, Actor]] = {}
        self._misses_cells = False

    def add(self, request: Enqueue, actor: Actor) -> None:
        """Write the cell of an execution that was just queued, or leave it to `write`."""
        self._unwritten[ExecutionId(request.execution_id)] = request, actor
        try:
            self.write()
        except StorageError as exc:
            # The execution is queued nevertheless, so the request must not fail.
            logger.warning(
                "session %r: the cell of execution %s is written later: %s",
                self._notebook_id,
                request.execution_id,
                exc,
            )

    def restore(self) -> None:
        """Write the cells that an earlier daemon has queued and not written, or leave them to `write`."""
        self._misses_cells = True
        try:
            self.write()
        except StorageError as exc:
            logger.warning("session %r: cells of queued executions are written later: %s", self._notebook_id, exc)

    def write(self) -> None:
        """Write the cells of queued executions into the notebook.

        Raises:
            StorageError: If one cannot be stored, or the notebook cannot be read; the next call tries again.
        """
        if self._misses_cells:
            self._find_missing_cells()
        for execution_id, (request, actor) in list(self._unwritten.items()):
            try:
                with self._log.transaction():
                    self._write_cell(request, actor)
            except CellNotFound:
                logger.info("session %r: the cell of execution %s was deleted", self._notebook_id, execution_id)
            del self._unwritten[execution_id]

    def _find_missing_cells(self) -> None:
        # A cell that shows its execution was written for it, unless the document was set aside since.
        shown = {} if self._store.notebook.set_aside_at() else self._store.shown_by_cells()
        for row in self._store.unfinished_executions():
            if not row.has_cell or row.execution_id in self._unwritten or shown.get(row.cell_id) == row.execution_id:
                continue
            if self._document.content.cell(row.cell_id) is None:
                source, _program = programs.split(row.source)
                request = Enqueue(notebook_id="", execution_id=row.execution_id, cell_id=row.cell_id, source=source)
                self._unwritten[row.execution_id] = request, self._store.actor(row.author)
        self._misses_cells = False

    def _write_cell(self, request: Enqueue, actor: Actor) -> None:
        cell_id, source, author = CellId(request.cell_id), request.source, actor.client_id
        if source is not None:
            if self._document.content.cell(cell_id) is None:
                self._document.edit("added", actor, lambda cells: editing.add_cell(cells, cell_id, source, "code"))
            else:
                self._document.edit(
                    "source", actor, lambda cells: editing.set_source(cells, cell_id, source, base=None)
                )
        self._document.set_execution(cell_id, ExecutionId(request.execution_id), None, author=author)
