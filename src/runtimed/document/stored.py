"""A document as it is stored: rows with checksums, and how they travel to another process. Nothing here stores."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from runtimed.document.notebook import NotebookDocument
from runtimed.errors import StorageError

__all__ = ["StoredRow", "decode_stored", "encode_stored", "load_stored"]


class StoredRow(NamedTuple):
    """One row, exactly as it was read: its checksum may be of something else.

    Attributes:
        kind: A document has at most one snapshot, which comes first.
        name: What to call it.
    """

    kind: Literal["snapshot", "change"]
    name: str
    checksum: int
    data: bytes


_DECODER: Final = msgspec.msgpack.Decoder(list[StoredRow])


def encode_stored(rows: Sequence[StoredRow]) -> bytes:
    """Return the bytes that another process decodes with `decode_stored`."""
    return msgspec.msgpack.encode(rows)


def decode_stored(data: bytes) -> list[StoredRow]:
    """Return what `encode_stored` was given."""
    return _DECODER.decode(data)


def load_stored(rows: Sequence[StoredRow]) -> NotebookDocument:
    """Load a document from its rows.

    Raises:
        StorageError: If a row does not match its checksum, or as `NotebookDocument.load`.
    """
    for row in rows:
        if zlib.crc32(row.data) != row.checksum:
            raise StorageError(f"{row.name} is damaged: its bytes do not match their checksum")
    snapshot = next((row.data for row in rows if row.kind == "snapshot"), None)
    return NotebookDocument.load(snapshot, [row.data for row in rows if row.kind == "change"])
