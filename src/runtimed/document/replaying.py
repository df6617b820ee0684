"""Replays the edits of a notebook's history: what it said at a version. Nothing here stores or loads a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from runtimed.document.cells import CellRecord
from runtimed.document.deltas import CellAdded, CellDeleted, CellMoved, Delta, EntrySet
from runtimed.errors import StorageError
from runtimed.ids import CellId

__all__ = ["Replay"]


class Replay:
    """The content of a notebook, as plain values, which edits change.

    Attributes:
        records: The cells, in no order.
        metadata: The notebook's metadata.
    """

    def __init__(self, cells: Iterable[CellRecord] = (), metadata: Mapping[str, str] | None = None) -> None:
        self.records = {cell.id: cell for cell in cells}
        self.metadata = dict(metadata or {})

    def cells(self) -> list[CellRecord]:
        """Return the cells, in order."""
        return sorted(self.records.values(), key=lambda cell: (cell.position, cell.id))

    def apply(self, delta: Delta) -> None:
        """Apply an edit that was decided on this state.

        Raises:
            StorageError: If a cell that it refers to does not exist.
        """
        match delta:
            case CellAdded(cell=cell, moved=moved):
                self.records[cell.id] = cell
                self._move(moved)
            case CellDeleted(cell_id=cell_id):
                del self.records[self._require(cell_id).id]
            case CellMoved(positions=positions):
                self._move(positions)
            case EntrySet(key=key, value=value):
                if value is None:
                    self.metadata.pop(key, None)
                else:
                    self.metadata[key] = value
            case _:
                self.records[delta.cell_id] = delta.apply(self._require(delta.cell_id))

    def _move(self, positions: Mapping[CellId, str]) -> None:
        for cell_id, position in positions.items():
            self.records[cell_id] = msgspec.structs.replace(self._require(cell_id), position=position)

    def _require(self, cell_id: CellId) -> CellRecord:
        record = self.records.get(cell_id)
        if record is None:
            raise StorageError(f"a stored edit refers to cell {cell_id!r}, which the notebook did not have then")
        return record
