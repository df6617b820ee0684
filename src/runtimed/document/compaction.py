"""Writes what a notebook says now into a fresh document, without its history. Nothing here waits or stores.

A document keeps every code point that was ever typed or deleted in it. What takes its place holds the same cells under
the same ids, at the same positions, with the same metadata. The two share no history, so changes made upon the one mean
nothing to the other: clients send operations, and no copy of a document may be edited elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from runtimed.document.cells import CellRecord
from runtimed.document.notebook import NotebookDocument
from runtimed.ids import ClientId, SessionId

__all__ = ["AUTHOR", "write_anew"]

AUTHOR: Final = ClientId("runtimed-compaction")
"""Whose changes a fresh document begins with."""


def write_anew(notebook_id: SessionId, cells: Iterable[CellRecord], metadata: Mapping[str, str]) -> NotebookDocument:
    """Return a new document that holds these cells and this metadata."""
    document = NotebookDocument.create(notebook_id)
    for cell in cells:
        document.put_cell(cell, author=AUTHOR)
    for key, value in metadata.items():
        document.set_metadata(key, value, author=AUTHOR)
    return document
