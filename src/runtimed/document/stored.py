"""A document as it is stored: snapshot, changes, and the edits that are not in it yet. Nothing here stores."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from runtimed.document.deltas import Delta, decode_delta
from runtimed.document.notebook import NotebookDocument
from runtimed.errors import StorageError
from runtimed.ids import ClientId, SessionId

__all__ = ["PendingEdit", "StoredNotebook", "StoredRow", "deltas_of", "load_stored"]


class StoredRow(NamedTuple):
    """One row of a stored document, unverified: its checksum may not match.

    Attributes:
        kind: A document has at most one snapshot, which comes first.
        name: Its name in error messages.
    """

    kind: Literal["snapshot", "change"]
    name: str
    checksum: int
    data: bytes


class PendingEdit(NamedTuple):
    """An acknowledged edit that is not in the document yet, unverified: its checksum may not match.

    Attributes:
        number: Number of the edit in the notebook; edits are applied in this order.
        delta: The encoded delta; see `decode_delta`.
    """

    number: int
    author: ClientId
    checksum: int
    delta: bytes


def deltas_of(edits: Sequence[PendingEdit]) -> Iterator[tuple[int, Delta]]:
    """Decode edits, in order; yield each with its number.

    Raises:
        StorageError: If one is damaged.
    """
    for edit in edits:
        if zlib.crc32(edit.delta) != edit.checksum:
            raise StorageError(f"edit {edit.number} is damaged: its bytes do not match their checksum")
        try:
            yield edit.number, decode_delta(edit.delta)
        except msgspec.MsgspecError as exc:
            raise StorageError(f"edit {edit.number} is unreadable: {exc}") from exc


class StoredNotebook(msgspec.Struct, frozen=True, array_like=True):
    """A stored document with its pending edits.

    Attributes:
        rows: Empty for a notebook whose very first edits are pending.
    """

    notebook_id: SessionId
    rows: list[StoredRow]
    pending: list[PendingEdit]

    def load(self) -> NotebookDocument:
        """Load the document without the pending edits.

        Raises:
            StorageError: As `load_stored`.
        """
        return load_stored(self.rows) if self.rows else NotebookDocument.create(self.notebook_id)

    def write_pending(self, document: NotebookDocument) -> list[bytes]:
        """Apply the pending edits to the document; return the change of each.

        Raises:
            StorageError: If an edit is damaged, or refers to a cell that the document does not have.
        """
        deltas = deltas_of(self.pending)
        return [
            document.apply(delta, author=edit.author)
            for edit, (_number, delta) in zip(self.pending, deltas, strict=True)
        ]


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
