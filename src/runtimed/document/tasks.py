"""What is done with documents: each task takes what is stored and returns what is to be stored. Nothing here stores.

Tasks run in a process of their own (`worker`): loading a document takes long, holds the GIL, and may crash.
"""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

from runtimed.document.compaction import write_anew
from runtimed.document.contents import CellRow, Contents, contents_of, decode_cell
from runtimed.document.notebook import NotebookDocument
from runtimed.document.restoring import merge_since
from runtimed.document.stored import StoredNotebook, StoredRow, load_stored
from runtimed.document.weight import HistoryWeight, weight_of
from runtimed.errors import StorageError
from runtimed.ids import CellId, SessionId

__all__ = ["ReadAll", "Restore", "Restored", "Task", "WriteAnew", "WritePending", "Written", "decode_task", "perform"]


MIN_GAIN: Final = 2
"""How many times the memory of what the document says its history takes before it is compacted for that: compacting
costs as much as writing all of it anew."""


class _Task(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One thing to do."""


class ReadAll(_Task, frozen=True):
    """Read what a notebook says, pending edits included; gives `Contents`."""

    stored: StoredNotebook


class WritePending(_Task, frozen=True):
    """Write the pending edits into the document, and compact it if that pays; gives `Written`.

    Attributes:
        compact_after: Changes beside the snapshot after which it pays.
        compact_after_memory: Bytes of memory, taken by the history, after which it pays; None for never.
    """

    stored: StoredNotebook
    compact_after: int
    compact_after_memory: int | None


class WriteAnew(_Task, frozen=True):
    """Write a document that says what rows say, without history; gives its snapshot.

    Attributes:
        cells: In their order.
    """

    notebook_id: SessionId
    cells: list[CellRow]
    metadata: dict[str, str]


class Restore(_Task, frozen=True):
    """Put a document that was set aside back, merged with the present one; gives `Restored`."""

    aside: list[StoredRow]
    present: StoredNotebook


Task = ReadAll | WritePending | WriteAnew | Restore


class Written(msgspec.Struct, frozen=True, array_like=True):
    """What takes the place of the pending edits.

    Attributes:
        snapshot: The whole document, if nothing of it was stored, or it is without its history now.
        changes: Else a change for each edit, in their order.
        is_compacted: Whether the history is gone.
    """

    snapshot: bytes | None
    changes: list[bytes] = []
    is_compacted: bool = False


class Restored(msgspec.Struct, frozen=True, array_like=True):
    """What restoring gave.

    Attributes:
        snapshot: The document with everything.
        contents: What it says.
        cells: The restored cells in their order.
    """

    snapshot: bytes
    contents: Contents
    cells: list[CellId]


_DECODER: Final = msgspec.msgpack.Decoder(Task)


def decode_task(data: bytes) -> Task:
    """Return the task that `msgspec.msgpack.encode` was given."""
    return _DECODER.decode(data)


def perform(task: Task) -> Contents | Written | bytes | Restored:
    """Do it.

    Raises:
        StorageError: If something that is stored is damaged, or says something else when it is loaded again.
    """
    match task:
        case ReadAll(stored=stored):
            document = stored.load()
            stored.write_pending(document)
            return contents_of(document)
        case WritePending():
            return _write_pending(task)
        case WriteAnew():
            cells = [decode_cell(row.data) for row in task.cells if _is_intact(row)]
            document = write_anew(task.notebook_id, cells, task.metadata)
            return _snapshot_of(document)
        case Restore(aside=aside, present=present):
            since = present.load()
            present.write_pending(since)
            document = load_stored(aside)
            restored = [record.id for record in merge_since(document, since)]
            return Restored(_snapshot_of(document), contents_of(document), restored)


def _is_intact(row: CellRow) -> bool:
    if zlib.crc32(row.data) != row.checksum:
        raise StorageError(f"cell {row.cell_id} is damaged: its bytes do not match their checksum")
    return True


def _write_pending(task: WritePending) -> Written:
    stored = task.stored
    document = stored.load()
    changes = stored.write_pending(document)
    if _compaction_pays(task, document, len(changes)):
        fresh = write_anew(stored.notebook_id, document.cells(), document.all_metadata())
        return Written(_snapshot_of(fresh), is_compacted=True)
    return Written(None, changes) if stored.rows else Written(_snapshot_of(document))


def _compaction_pays(task: WritePending, document: NotebookDocument, new: int) -> bool:
    changes = sum(row.kind == "change" for row in task.stored.rows) + new
    if not document.shows_all:
        return False
    if changes >= task.compact_after or task.compact_after_memory is None:
        return changes >= task.compact_after
    history = HistoryWeight(document.history()).bytes
    return history >= max(task.compact_after_memory, MIN_GAIN * weight_of(document))


def _snapshot_of(document: NotebookDocument) -> bytes:
    """Return the bytes of a document, which were loaded again and said the same."""
    snapshot = document.save()
    again = NotebookDocument.load(snapshot, [])
    same = again.heads == document.heads and again.notebook_id == document.notebook_id
    if not same or again.cells() != document.cells() or again.all_metadata() != document.all_metadata():
        raise StorageError("the document that was written says something else when it is loaded again")
    return snapshot
