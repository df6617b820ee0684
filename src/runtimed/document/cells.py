"""A notebook's cells as plain values, and the read interface for deciding edits. Nothing here knows a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from runtimed.ids import CellId, ExecutionId
from runtimed.models import CellType

__all__ = ["CellRecord", "Cells", "Place"]

Place = tuple[str, CellId]
"""Sort key of a cell: its position, then its id."""


class CellRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A cell of the notebook, without outputs.

    Attributes:
        position: Fractional index (see `positions`): cells are sorted by it as text, ties by id.
        metadata: Values as JSON texts; see `entries`.
    """

    id: CellId
    cell_type: CellType
    source: str
    position: str
    execution_count: int | None
    execution_id: ExecutionId | None
    metadata: dict[str, str]


class Cells(Protocol):
    """Read access to the current cells and metadata of a notebook."""

    def cell(self, cell_id: CellId) -> CellRecord | None:
        """Return a cell, None if there is none of this id."""

    def metadata(self, key: str) -> str | None:
        """Return a value of the notebook's metadata, None if the key is not set."""

    def count(self) -> int:
        """Return the number of cells."""

    def place_at(self, index: int) -> Place | None:
        """Return the place of the cell at an index, from 0; -1 is the last cell. None if there is no such cell."""

    def place_behind(self, place: Place) -> Place | None:
        """Return the place of the first cell behind a place, None if it is the last."""

    def places(self) -> Sequence[Place]:
        """Return the places of all cells, in order."""
