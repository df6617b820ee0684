"""A notebook's content as database rows, which are read without loading its document. Nothing here stores."""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

import msgspec

from runtimed.document.cells import CellRecord
from runtimed.document.notebook import NotebookDocument
from runtimed.ids import CellId

__all__ = ["CellRow", "Contents", "contents_of", "decode_cell", "row_of"]


class CellRow(NamedTuple):
    """A cell as a database row.

    Attributes:
        checksum: CRC-32 of `data`.
        data: The encoded cell; see `decode_cell`.
    """

    cell_id: CellId
    position: str
    checksum: int
    data: bytes


class Contents(msgspec.Struct, frozen=True, array_like=True):
    """The content of a notebook.

    Attributes:
        cells: In order.
        has_foreign_content: See `NotebookDocument.has_foreign_content`.
    """

    cells: list[CellRow]
    metadata: dict[str, str]
    has_foreign_content: bool = False


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(CellRecord)


def row_of(cell: CellRecord) -> CellRow:
    """Encode a cell as a row."""
    data = _ENCODER.encode(cell)
    return CellRow(cell.id, cell.position, zlib.crc32(data), data)


def decode_cell(data: bytes) -> CellRecord:
    """Decode the cell in a row's `data`.

    Raises:
        msgspec.MsgspecError: If the bytes are not an encoded cell.
    """
    return _DECODER.decode(data)


def contents_of(document: NotebookDocument) -> Contents:
    """Return the content of a document."""
    return Contents([row_of(cell) for cell in document.cells()], document.all_metadata(), document.has_foreign_content)
