"""Restores a document that was set aside, merging the present one into it. Nothing here waits or stores.

The restored cells come first, with their history; the cells written since follow, in order. A cell that both documents
have with different content is kept twice: the present version under its id, the restored one under a new id before it.
For the notebook's metadata the present value wins.
"""

from __future__ import annotations

import hashlib
from typing import Final

from msgspec.structs import replace

from runtimed.document import positions
from runtimed.document.cells import CellRecord
from runtimed.document.notebook import NotebookDocument
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId

__all__ = ["AUTHOR", "merge_present"]

AUTHOR: Final = ClientId("runtimed-restore")
"""Author of the changes that merge the present document into the restored one."""


def merge_present(document: NotebookDocument, present: NotebookDocument) -> list[CellRecord]:
    """Merge the present document into one that was set aside; return the restored cells.

    Raises:
        StorageError: If the present document has foreign content, which would be lost.
    """
    if present.has_foreign_content:
        raise StorageError("the present document has content that this version does not know; nothing was restored")
    taken = {record.id for record in present.cells()} | set(document.cell_ids())
    last = max((record.position for record in document.cells() if positions.is_position(record.position)), default=None)
    for record in present.cells():
        former = document.cell(record.id)
        if former is None:
            position = last = positions.between(last, None)
        elif _content(former) == _content(record):
            position = former.position
        else:
            position = _right_behind(document, former)
            twin = _new_id(record.id, taken)
            taken.add(twin)
            document.put_cell(replace(former, id=twin), author=AUTHOR)
        document.put_cell(replace(record, position=position), author=AUTHOR)
    for key, value in present.all_metadata().items():
        if document.metadata(key) != value:
            document.set_metadata(key, value, author=AUTHOR)
    present_ids = set(present.cell_ids())
    return [record for record in document.cells() if record.id not in present_ids]


def _content(record: CellRecord) -> tuple[object, ...]:
    return record.cell_type, record.source, record.metadata


def _right_behind(document: NotebookDocument, record: CellRecord) -> str:
    """Return a position between a cell and the next higher one; several cells may share a position."""
    higher = (other.position for other in document.cells() if other.position > record.position)
    try:
        return positions.between(record.position, next(higher, None))
    except ValueError:  # another program wrote them
        return record.position


def _new_id(cell_id: CellId, taken: set[CellId]) -> CellId:
    """Return an unused id for the restored version of a cell; deterministic, so restoring again gives the same one."""
    number, found = 0, cell_id
    while found in taken:
        number += 1
        found = CellId(hashlib.sha256(f"{cell_id} restored {number}".encode(errors="surrogatepass")).hexdigest()[:32])
    return found
