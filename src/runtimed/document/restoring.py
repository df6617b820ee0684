"""Puts a document that was set aside back into the place of what was written since. Nothing here waits or stores.

The restored cells come first, as they were, with their history; the cells written since follow them, in their order.
A cell that is in both and differs is kept twice: as written since under its id, as it was under a new one before it. An
entry of the notebook's metadata stays as it was written since.
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

__all__ = ["AUTHOR", "merge_since"]

AUTHOR: Final = ClientId("runtimed-restore")
"""Whose changes put what was written since behind what is restored."""


def merge_since(document: NotebookDocument, since: NotebookDocument) -> list[CellRecord]:
    """Put what was written since into a document that was set aside; return the cells that come from the latter.

    Raises:
        StorageError: If `since` holds more than a notebook, which would be lost.
    """
    if not since.shows_all:
        raise StorageError("the present document holds something that this version does not know; nothing is restored")
    taken = {record.id for record in since.cells()} | set(document.cell_ids())
    last = max((record.position for record in document.cells() if positions.is_position(record.position)), default=None)
    for record in since.cells():
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
    for key, value in since.all_metadata().items():
        if document.metadata(key) != value:
            document.set_metadata(key, value, author=AUTHOR)
    written_since = set(since.cell_ids())
    return [record for record in document.cells() if record.id not in written_since]


def _content(record: CellRecord) -> tuple[object, ...]:
    return record.cell_type, record.source, record.metadata


def _right_behind(document: NotebookDocument, record: CellRecord) -> str:
    """Return a position between a cell and the next one; several cells may have one position."""
    higher = (other.position for other in document.cells() if other.position > record.position)
    try:
        return positions.between(record.position, next(higher, None))
    except ValueError:  # another program wrote them
        return record.position


def _new_id(cell_id: CellId, taken: set[CellId]) -> CellId:
    """Return an id for the former cell of this id, the same one however often this is done."""
    number, found = 0, cell_id
    while found in taken:
        number += 1
        found = CellId(hashlib.sha256(f"{cell_id} restored {number}".encode(errors="surrogatepass")).hexdigest()[:32])
    return found
