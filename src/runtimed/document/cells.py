"""A notebook's cells as plain values, and what an edit must be able to ask of them. Nothing here knows a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from runtimed.ids import CellId, ExecutionId
from runtimed.models import CellType

__all__ = ["CellRecord", "Cells", "Place"]

Place = tuple[str, CellId]
"""Where a cell is among the others: position, then id; places compare as the cells are ordered."""


class CellRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A cell as the notebook holds it.

    Attributes:
        position: Its place among the cells: compare as text, ties by id.
    """

    id: CellId
    cell_type: CellType
    source: str
    position: str
    execution_count: int | None
    execution_id: ExecutionId | None
    metadata: dict[str, str]


class Cells(Protocol):
    """The cells and metadata of a notebook, as they are now."""

    def cell(self, cell_id: CellId) -> CellRecord | None:
        """Return a cell, None if there is none of this id."""

    def metadata(self, key: str) -> str | None:
        """Return an entry of the notebook's metadata."""

    def count(self) -> int:
        """Return how many cells there are."""

    def place_at(self, index: int) -> Place | None:
        """Return the place of the cell at an index, counted from 0; -1 is the last one. None if there is none."""

    def place_behind(self, place: Place) -> Place | None:
        """Return the place of the first cell behind this place."""

    def places(self) -> Sequence[Place]:
        """Return the places of all cells in their order."""
