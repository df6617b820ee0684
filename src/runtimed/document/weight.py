"""Estimates the memory that loading a document with its history takes. Nothing here keeps a document.

Memory peaks while loading. Measured with automerge 0.2.0.dev4: each code point typed into a text, an operation of its
own, takes 100 bytes from a snapshot or 510 from changes, and 3 to 5 once loaded; each byte of a value written as a
whole (a source too long for a text) takes 2 to 3. The size of the stored changes tells little, as they are compressed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from runtimed.document.changes import read_changes
from runtimed.document.checks import MAX_TEXT
from runtimed.document.notebook import NotebookDocument

__all__ = ["HistoryWeight", "weight_of"]

_OPERATION: Final = 400
"""Memory per operation, in bytes."""

_BYTE: Final = 3
"""Memory per byte of a decompressed change, in bytes."""


class HistoryWeight:
    """Sums up the memory of one linear history.

    Attributes:
        bytes: Estimated memory. The operations of the latest change are counted with the next one.
    """

    def __init__(self, changes: Iterable[bytes] = ()) -> None:
        self.bytes = 0
        self._operations: int | None = None
        for change in changes:
            self.add(change)

    def add(self, data: bytes) -> None:
        """Add concatenated changes.

        Raises:
            ValueError: If they are damaged.
        """
        for change in read_changes([data]):
            before = change.first_operation if self._operations is None else self._operations
            self.bytes += _BYTE * change.size + _OPERATION * (change.first_operation - before)
            self._operations = change.first_operation


def weight_of(document: NotebookDocument) -> int:
    """Return the estimated memory of a document's sources without history, in bytes."""
    lengths = (len(record.source) for record in document.cells())
    return sum(length * (_OPERATION if length <= MAX_TEXT else _BYTE) for length in lengths)
