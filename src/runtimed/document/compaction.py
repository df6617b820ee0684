"""Compacts a document: writes the current content into a fresh one without history. Nothing here waits or stores.

A document keeps every code point that was ever typed or deleted in it. The fresh one has the same cells with the same
ids and positions, and the same metadata. The two share no history, so they can never merge: clients send operations,
and a copy of the old one that was edited elsewhere is refused (`merging`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from runtimed.document.cells import CellRecord
from runtimed.document.notebook import NotebookDocument
from runtimed.ids import ClientId, SessionId

__all__ = ["AUTHOR", "rebuild"]

AUTHOR: Final = ClientId("runtimed-compaction")
"""Author of the changes that make a fresh document."""


def rebuild(notebook_id: SessionId, cells: Iterable[CellRecord], metadata: Mapping[str, str]) -> NotebookDocument:
    """Return a new document with these cells and this metadata."""
    document = NotebookDocument.create(notebook_id)
    for cell in cells:
        document.put_cell(cell, author=AUTHOR)
    for key, value in metadata.items():
        document.set_metadata(key, value, author=AUTHOR)
    return document
