"""Sizes of cells in replies, and pieces of a cell that is too large for one. Nothing here knows a connection."""

from __future__ import annotations

import hashlib
from typing import Final

from runtimed.document.cells import CellRecord
from runtimed.protocol.codec import pack
from runtimed.protocol.document_operations import GetContentReply

__all__ = ["PIECE", "REPLY_BUDGET", "content_page", "content_size", "fixed_size", "page_of"]

REPLY_BUDGET: Final = 2**20
"""Bytes of sources, metadata and events at which a reply about cells ends. The client requests the rest."""

PIECE: Final = 2**20
"""Bytes of a cell's content in one reply."""

_FRAME: Final = 256
"""Largest overhead of a cell in a reply beside its texts, in bytes."""


def content_size(record: CellRecord) -> int:
    """Return the bytes of a cell's source and metadata."""
    return _size(record.source) + sum(_size(key) + _size(value) for key, value in record.metadata.items())


def fixed_size(record: CellRecord) -> int:
    """Return an upper bound for the bytes that a cell takes in a reply without source and metadata."""
    return _FRAME + _size(record.id) + _size(record.position) + _size(record.execution_id or "")


def content_page(record: CellRecord, offset: int) -> GetContentReply:
    """Return the piece of a cell's packed source and metadata that begins at a byte offset."""
    return page_of(pack({"source": record.source, "metadata": dict(record.metadata)}), offset)


def page_of(whole: bytes, offset: int) -> GetContentReply:
    """Return the piece of something that begins at a byte offset."""
    sha256 = hashlib.sha256(whole).hexdigest()
    return GetContentReply(piece=whole[offset : offset + PIECE], size=len(whole), sha256=sha256)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
