"""Writes what a notebook says now into a fresh document, without its history, in steps. Nothing here waits or stores.

A document keeps every code point that was ever typed or deleted in it. What takes its place holds the same cells under
the same ids, at the same positions, with the same metadata; edits that are made meanwhile are found by comparing the
two again. They share no history, so changes made upon the one mean nothing to the other: clients send operations, and
no copy of a document may be edited elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Final

from runtimed.document.checks import MAX_TEXT
from runtimed.document.notebook import CellRecord, NotebookDocument
from runtimed.document.sources import is_written_anew
from runtimed.document.text_edit import find_edit
from runtimed.errors import StorageError
from runtimed.ids import ClientId

__all__ = ["AUTHOR", "FINGERPRINT_SIZE", "PIECE", "Compaction", "fingerprint"]

AUTHOR: Final = ClientId("runtimed-compaction")
"""Whose changes a fresh document begins with."""

PIECE: Final = 500
"""Code points of a source that are written in one step: inserting takes 0.5 ms, deleting 5 ms. A source that is
a plain Str is written as a whole."""

FINGERPRINT_SIZE: Final = 32
"""Length of a fingerprint, in bytes."""


class Compaction:
    """A fresh document of a notebook, and the changes that made it.

    Attributes:
        source: The document with its history; it may be edited between two steps.
        document: The fresh one. It says what `source` says after a pass of `catch_up` during which nothing was edited.
    """

    def __init__(self, source: NotebookDocument, *, piece: int = PIECE) -> None:
        """Begin with an empty document.

        Raises:
            StorageError: If the document holds more than a notebook, which would be lost.
        """
        if source.notebook_id is None or not source.shows_all:
            raise StorageError(
                "this document holds something that this version of runtimed did not write and does not know; its "
                "history is kept, so that nothing of it is lost"
            )
        self.source = source
        self.document = NotebookDocument.create(source.notebook_id)
        self._piece = piece
        self._changes = self.document.history()

    def take_changes(self) -> bytes:
        """Return the changes since the last call, the first ones included, joined in their order."""
        taken = b"".join(self._changes)
        self._changes.clear()
        return taken

    def catch_up(self) -> Generator[None, None, None]:
        """Write what differs when this pass begins, pausing after each piece; later edits are for the next pass."""
        source, fresh = self.source, self.document
        cells = [record for record in source.cells() if fresh.cell(record.id) is not record]
        gone = [cell_id for cell_id in fresh.cell_ids() if source.cell(cell_id) is None]
        # Entries are never removed from a document's metadata, only set.
        entries = [entry for entry in source.all_metadata().items() if fresh.metadata(entry[0]) != entry[1]]
        for cell_id in gone:
            self._changes.append(fresh.delete_cell(cell_id, author=AUTHOR).change)
            yield
        for record in cells:
            for step in self._steps_to(record):
                self._changes.append(fresh.put_cell(step, author=AUTHOR).change)
                yield
        for key, value in entries:
            self._changes.append(fresh.set_metadata(key, value, author=AUTHOR).change)
            yield

    def _steps_to(self, record: CellRecord) -> Iterator[CellRecord]:
        """Give what the fresh cell is to be, step by step, the record itself last."""
        former = self.document.cell(record.id)
        present = former.source if former is not None else ""
        if len(record.source) <= MAX_TEXT:
            # A plain Str cannot be edited piece by piece.
            present = present if len(present) <= MAX_TEXT else ""
            if is_written_anew(find_edit(present, record.source).deleted, record.source):
                present = ""
            while (following := self._towards(record.source, present)) != record.source:
                yield replace(record, source=following)
                present = following
        yield record

    def _towards(self, target: str, present: str) -> str:
        """Return a text on the way from the present one to the target, at most a piece away."""
        start, deleted, inserted = find_edit(present, target)
        # Deleting comes first, so that no text on the way is longer than both.
        deleted = min(deleted, self._piece)
        inserted = inserted[: self._piece - deleted]
        return present[:start] + inserted + present[start + deleted :]


def fingerprint(document: NotebookDocument) -> Generator[None, None, bytes]:
    """Say in FINGERPRINT_SIZE bytes what a document says at the first step, pausing after each cell.

    Two documents have the same one if they have the same latest changes, id and metadata, and the same cells in every
    field; for processes of one Python only.
    """
    cells = document.cells()
    beginning = (document.heads, document.notebook_id, sorted(document.all_metadata().items()))
    digest = hashlib.sha256(repr(beginning).encode())
    for record in cells:
        fields = (record.id, record.cell_type, record.source, record.position)
        latest = (record.execution_count, record.execution_id, sorted(record.metadata.items()))
        digest.update(repr((fields, latest)).encode())
        yield
    return digest.digest()
