"""A document as it is stored, and the edits that are not written into it yet. Nothing here stores."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from runtimed.document.deltas import decode_delta
from runtimed.document.notebook import NotebookDocument
from runtimed.errors import StorageError
from runtimed.ids import ClientId, SessionId

__all__ = ["PendingEdit", "StoredNotebook", "StoredRow", "load_stored"]


class StoredRow(NamedTuple):
    """One row of a document, exactly as it was read: its checksum may be of something else.

    Attributes:
        kind: A document has at most one snapshot, which comes first.
        name: What to call it.
    """

    kind: Literal["snapshot", "change"]
    name: str
    checksum: int
    data: bytes


class PendingEdit(NamedTuple):
    """An edit that a document does not have yet, exactly as it was read.

    Attributes:
        number: Its number among the edits of the notebook; they are written in this order.
        delta: What `encode_delta` gave.
    """

    number: int
    author: ClientId
    checksum: int
    delta: bytes


class StoredNotebook(msgspec.Struct, frozen=True, array_like=True):
    """A document with its pending edits.

    Attributes:
        rows: Nothing for a notebook whose first edits are pending.
    """

    notebook_id: SessionId
    rows: list[StoredRow]
    pending: list[PendingEdit]

    def load(self) -> NotebookDocument:
        """Load the document as it is stored, without the pending edits.

        Raises:
            StorageError: As `load_stored`.
        """
        return load_stored(self.rows) if self.rows else NotebookDocument.create(self.notebook_id)

    def write_pending(self, document: NotebookDocument) -> list[bytes]:
        """Write the pending edits into the document; return the change of each.

        Raises:
            StorageError: If one is damaged, or is none of this document.
        """
        changes = []
        for edit in self.pending:
            if zlib.crc32(edit.delta) != edit.checksum:
                raise StorageError(f"edit {edit.number} is damaged: its bytes do not match their checksum")
            try:
                delta = decode_delta(edit.delta)
            except msgspec.MsgspecError as exc:
                raise StorageError(f"edit {edit.number} is unreadable: {exc}") from exc
            changes.append(document.apply(delta, author=edit.author))
        return changes


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
