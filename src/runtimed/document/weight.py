"""About how much memory loading a document and its history takes, from what is stored. Nothing here keeps a document.

Loading needs most. Measured with automerge 0.2.0.dev4: 100 bytes in a snapshot and 510 in changes for each code point
that was typed into a text, which is an operation of its own, and 3 to 5 once it is loaded; 2 to 3 for each byte of a
value that is written as a whole, such as a source that is too long for a text. The stored changes say nothing of that:
they are packed, the more alike their values the smaller.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from runtimed.document.changes import read_changes
from runtimed.document.checks import MAX_TEXT
from runtimed.document.notebook import NotebookDocument

__all__ = ["HistoryWeight", "weight_of"]

_OPERATION: Final = 400
"""Bytes of memory for each operation."""

_BYTE: Final = 3
"""Bytes of memory for each byte of a change, unpacked."""


class HistoryWeight:
    """Adds up changes of one history, in which each change follows the one before.

    Attributes:
        bytes: About how much memory they take. What the latest one's operations take counts with the next one.
    """

    def __init__(self, changes: Iterable[bytes] = ()) -> None:
        self.bytes = 0
        self._operations: int | None = None
        for change in changes:
            self.add(change)

    def add(self, data: bytes) -> None:
        """Add changes, joined in their order.

        Raises:
            ValueError: If they are damaged.
        """
        for change in read_changes([data]):
            before = change.first_operation if self._operations is None else self._operations
            self.bytes += _BYTE * change.size + _OPERATION * (change.first_operation - before)
            self._operations = change.first_operation


def weight_of(document: NotebookDocument) -> int:
    """Return about how many bytes of memory the sources of a document would take without its history."""
    lengths = (len(record.source) for record in document.cells())
    return sum(length * (_OPERATION if length <= MAX_TEXT else _BYTE) for length in lengths)
