"""Edits of a notebook that have been decided: they are stored, and applied to rows and to documents alike.

What a delta says holds for the notebook as it was when it was decided: deltas are applied in their order, each once.
"""

from __future__ import annotations

from typing import Final

import msgspec

from runtimed.document.cells import CellRecord
from runtimed.document.text_edit import TextEdit, apply_edits
from runtimed.ids import CellId, ExecutionId
from runtimed.models import CellType

__all__ = [
    "CellAdded",
    "CellDeleted",
    "CellEntrySet",
    "CellFieldSet",
    "CellMoved",
    "Delta",
    "EntrySet",
    "ExecutionSet",
    "SourceEdited",
    "TypeSet",
    "decode_delta",
    "encode_delta",
]


class _Delta(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One edit."""


class CellAdded(_Delta, frozen=True):
    """A new cell, and the cells that got another position to make place for it."""

    cell: CellRecord
    moved: dict[CellId, str] = {}

    @property
    def cell_id(self) -> CellId:
        """The new cell."""
        return self.cell.id


class CellDeleted(_Delta, frozen=True):
    """A cell is gone."""

    cell_id: CellId


class CellMoved(_Delta, frozen=True):
    """A cell has another position, and so have others to make place for it."""

    cell_id: CellId
    positions: dict[CellId, str]


class TypeSet(_Delta, frozen=True):
    """A cell is of another type."""

    cell_id: CellId
    cell_type: CellType

    def apply(self, cell: CellRecord) -> CellRecord:
        """Return the cell as it is afterwards."""
        return msgspec.structs.replace(cell, cell_type=self.cell_type)


class ExecutionSet(_Delta, frozen=True):
    """A cell shows another execution, or none."""

    cell_id: CellId
    execution_id: ExecutionId | None
    execution_count: int | None

    def apply(self, cell: CellRecord) -> CellRecord:
        """Return the cell as it is afterwards."""
        return msgspec.structs.replace(cell, execution_id=self.execution_id, execution_count=self.execution_count)


class CellEntrySet(_Delta, frozen=True):
    """A cell's metadata has another value under a key."""

    cell_id: CellId
    key: str
    value: str

    def apply(self, cell: CellRecord) -> CellRecord:
        """Return the cell as it is afterwards."""
        return msgspec.structs.replace(cell, metadata={**cell.metadata, self.key: self.value})


class SourceEdited(_Delta, frozen=True):
    """In a cell's source, `deleted` code points from `start` on were replaced."""

    cell_id: CellId
    start: int
    deleted: int
    inserted: str

    def apply(self, cell: CellRecord) -> CellRecord:
        """Return the cell as it is afterwards."""
        edit = TextEdit(self.start, self.deleted, self.inserted)
        return msgspec.structs.replace(cell, source=apply_edits(cell.source, [edit]))


class EntrySet(_Delta, frozen=True):
    """The notebook's metadata has another value under a key."""

    key: str
    value: str

    @property
    def cell_id(self) -> None:
        """No cell."""
        return


CellFieldSet = TypeSet | ExecutionSet | CellEntrySet | SourceEdited
"""What leaves a cell where it is."""

Delta = CellAdded | CellDeleted | CellMoved | CellFieldSet | EntrySet

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Delta)


def encode_delta(delta: Delta) -> bytes:
    """Return the bytes that `decode_delta` decodes."""
    return _ENCODER.encode(delta)


def decode_delta(data: bytes) -> Delta:
    """Return what `encode_delta` was given.

    Raises:
        msgspec.DecodeError: If these are no bytes of a delta.
    """
    return _DECODER.decode(data)
