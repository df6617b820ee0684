"""What a notebook says, as the rows in which it is stored for reading. Nothing here stores."""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

import msgspec

from runtimed.document.cells import CellRecord
from runtimed.document.notebook import NotebookDocument
from runtimed.ids import CellId

__all__ = ["CellRow", "Contents", "contents_of", "decode_cell", "row_of"]


class CellRow(NamedTuple):
    """A cell as it is stored.

    Attributes:
        checksum: CRC-32 of `data`.
        data: What `decode_cell` decodes.
    """

    cell_id: CellId
    position: str
    checksum: int
    data: bytes


class Contents(msgspec.Struct, frozen=True, array_like=True):
    """All of a notebook.

    Attributes:
        cells: In their order.
        shows_all: Whether the document holds nothing else; see `NotebookDocument.shows_all`.
    """

    cells: list[CellRow]
    metadata: dict[str, str]
    shows_all: bool = True


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(CellRecord)


def row_of(cell: CellRecord) -> CellRow:
    """Return the row of a cell."""
    data = _ENCODER.encode(cell)
    return CellRow(cell.id, cell.position, zlib.crc32(data), data)


def decode_cell(data: bytes) -> CellRecord:
    """Return the cell whose row holds these bytes.

    Raises:
        msgspec.MsgspecError: If they are no bytes of a cell.
    """
    return _DECODER.decode(data)


def contents_of(document: NotebookDocument) -> Contents:
    """Return what a document says."""
    return Contents([row_of(cell) for cell in document.cells()], document.all_metadata(), document.shows_all)
