"""Deltas: decided edits of a notebook, which are stored, then applied to the rows and to the document.

A delta is valid for the state of the notebook that it was decided on: deltas are applied in order, each exactly once.
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
    """A cell was added.

    Attributes:
        moved: New positions of other cells, where there was no position between its neighbours.
    """

    cell: CellRecord
    moved: dict[CellId, str] = {}

    @property
    def cell_id(self) -> CellId:
        """Id of the new cell."""
        return self.cell.id


class CellDeleted(_Delta, frozen=True):
    """A cell was deleted."""

    cell_id: CellId


class CellMoved(_Delta, frozen=True):
    """A cell was moved.

    Attributes:
        positions: New positions of this cell, and of others where there was no position between its neighbours.
    """

    cell_id: CellId
    positions: dict[CellId, str]


class TypeSet(_Delta, frozen=True):
    """A cell's type was changed."""

    cell_id: CellId
    cell_type: CellType

    def apply(self, cell: CellRecord) -> CellRecord:
        """Return the changed cell."""
        return msgspec.structs.replace(cell, cell_type=self.cell_type)


class ExecutionSet(_Delta, frozen=True):
    """A cell's latest execution was set; None for none."""

    cell_id: CellId
    execution_id: ExecutionId | None
    execution_count: int | None

    def apply(self, cell: CellRecord) -> CellRecord:
        """Return the changed cell."""
        return msgspec.structs.replace(cell, execution_id=self.execution_id, execution_count=self.execution_count)


class CellEntrySet(_Delta, frozen=True):
    """A value of a cell's metadata was set, or deleted if it is None."""

    cell_id: CellId
    key: str
    value: str | None

    def apply(self, cell: CellRecord) -> CellRecord:
        """Return the changed cell."""
        metadata = {key: value for key, value in cell.metadata.items() if key != self.key}
        if self.value is not None:
            metadata[self.key] = self.value
        return msgspec.structs.replace(cell, metadata=metadata)


class SourceEdited(_Delta, frozen=True):
    """A cell's source was edited: `deleted` code points from `start` on were replaced by `inserted`."""

    cell_id: CellId
    start: int
    deleted: int
    inserted: str

    def apply(self, cell: CellRecord) -> CellRecord:
        """Return the changed cell."""
        edit = TextEdit(self.start, self.deleted, self.inserted)
        return msgspec.structs.replace(cell, source=apply_edits(cell.source, [edit]))


class EntrySet(_Delta, frozen=True):
    """A value of the notebook's metadata was set, or deleted if it is None."""

    key: str
    value: str | None

    @property
    def cell_id(self) -> None:
        """None: this edit belongs to no cell."""
        return


CellFieldSet = TypeSet | ExecutionSet | CellEntrySet | SourceEdited
"""Edits of one cell that leave its position as it is."""

Delta = CellAdded | CellDeleted | CellMoved | CellFieldSet | EntrySet

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Delta)


def encode_delta(delta: Delta) -> bytes:
    """Encode a delta for storage."""
    return _ENCODER.encode(delta)


def decode_delta(data: bytes) -> Delta:
    """Decode a stored delta.

    Raises:
        msgspec.DecodeError: If the bytes are not an encoded delta.
    """
    return _DECODER.decode(data)
