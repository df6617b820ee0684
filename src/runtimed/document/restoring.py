"""Puts a document that was set aside back into the place of what was written since. Nothing here waits or stores.

The restored cells come first, as they were, with their history; the cells written since follow them, in their order.
A cell that is in both and differs is kept twice: as written since under its id, as it was under a new one before it. An
entry of the notebook's metadata stays as it was written since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from runtimed.document import positions
from runtimed.document.notebook import CellRecord, NotebookDocument
from runtimed.document.stored import StoredRow, load_stored
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId

__all__ = ["AUTHOR", "Restored", "decode_pair", "decode_restored", "encode_pair", "encode_restored", "merged"]

AUTHOR: Final = ClientId("runtimed-restore")
"""Whose changes put what was written since behind what is restored."""


class Restored(msgspec.Struct, frozen=True, array_like=True):
    """What restoring gave.

    Attributes:
        snapshot: The document with everything, verified.
        cells: The restored cells in their order, each with the execution that it shows.
    """

    snapshot: bytes
    cells: list[tuple[str, str | None]]


_PAIR: Final = msgspec.msgpack.Decoder(tuple[list[StoredRow], list[StoredRow]])
_RESTORED: Final = msgspec.msgpack.Decoder(Restored)


def encode_pair(aside: Sequence[StoredRow], present: Sequence[StoredRow]) -> bytes:
    """Return the bytes that another process decodes with `decode_pair`."""
    return msgspec.msgpack.encode((aside, present))


def decode_pair(data: bytes) -> tuple[list[StoredRow], list[StoredRow]]:
    """Return what `encode_pair` was given."""
    return _PAIR.decode(data)


def encode_restored(snapshot: bytes, cells: Sequence[CellRecord]) -> bytes:
    """Return the bytes that `decode_restored` decodes."""
    return msgspec.msgpack.encode(Restored(snapshot, [(record.id, record.execution_id) for record in cells]))


def decode_restored(data: bytes) -> Restored:
    """Return what `encode_restored` was given."""
    return _RESTORED.decode(data)


def merged(aside: Sequence[StoredRow], present: Sequence[StoredRow]) -> tuple[NotebookDocument, list[CellRecord]]:
    """Return the document with all that both hold, and the cells that come from the one that was set aside.

    Raises:
        StorageError: If one of the two cannot be loaded, or the present one holds more than a notebook.
    """
    document = load_stored(aside)
    if not present:
        return document, document.cells()
    since = load_stored(present)
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
    return document, [record for record in document.cells() if record.id not in written_since]


def _content(record: CellRecord) -> tuple[object, ...]:
    return record.cell_type, record.source, dict(record.metadata)


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
