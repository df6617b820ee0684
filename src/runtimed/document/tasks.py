"""Tasks on whole documents: each takes stored rows and returns the rows to store. Nothing here stores.

A task runs in a process of its own (`worker`), because loading a document is slow, holds the GIL, and may crash.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

from runtimed.document.blaming import Blame, blame
from runtimed.document.cells import CellRecord
from runtimed.document.compaction import rebuild
from runtimed.document.contents import CellRow, Contents, contents_of, decode_cell
from runtimed.document.deltas import Delta
from runtimed.document.merging import merge_copy
from runtimed.document.notebook import NotebookDocument
from runtimed.document.replaying import Replay
from runtimed.document.restoring import merge_present
from runtimed.document.stored import PendingEdit, StoredNotebook, StoredRow, deltas_of, load_stored
from runtimed.document.weight import HistoryWeight, weight_of
from runtimed.errors import NotebookFileError, StorageError
from runtimed.ids import CellId, SessionId
from runtimed.protocol.document_operations import BlameContent, StoredCell, VersionContent

__all__ = [
    "BlameCell",
    "MergeCopy",
    "Merged",
    "ReadAll",
    "ReadVersion",
    "Rebuild",
    "Restore",
    "Restored",
    "Task",
    "WritePending",
    "Written",
    "decode_task",
    "perform",
]


MIN_GAIN: Final = 2
"""Least ratio of the history's memory to the content's for a compaction that saves memory: below it, rebuilding the
content costs more than it gains."""


class _Task(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One task."""


class ReadAll(_Task, frozen=True):
    """Read a notebook's content, pending edits included. Returns `Contents`."""

    stored: StoredNotebook


class WritePending(_Task, frozen=True):
    """Apply the pending edits to the document, and compact it if that pays. Returns `Written`.

    Attributes:
        compact_after: Number of changes since the snapshot from which compaction pays.
        compact_after_memory: Memory of the history from which compaction pays, in bytes; None for never.
    """

    stored: StoredNotebook
    compact_after: int
    compact_after_memory: int | None


class Rebuild(_Task, frozen=True):
    """Make a document without history from the notebook's rows. Returns its snapshot.

    Attributes:
        cells: In order.
    """

    notebook_id: SessionId
    cells: list[CellRow]
    metadata: dict[str, str]


class Restore(_Task, frozen=True):
    """Restore a document that was set aside, merged with the present one. Returns `Restored`."""

    aside: list[StoredRow]
    present: StoredNotebook


class MergeCopy(_Task, frozen=True):
    """Merge a copy that was edited elsewhere into the document, behind the pending edits. Returns `Merged`.

    Attributes:
        stored: The document; it has rows.
        base: The document that the history begins with; empty for an empty notebook.
        copy: The copy.
    """

    stored: StoredNotebook
    base: list[StoredRow]
    copy: bytes


class ReadVersion(_Task, frozen=True):
    """Read what the notebook said at a version. Returns `VersionContent`.

    Attributes:
        base: The document that the history begins with; empty for an empty notebook.
        edits: All edits since, up to the version.
    """

    base: list[StoredRow]
    edits: list[PendingEdit]


class BlameCell(_Task, frozen=True):
    """Find out which edit wrote each line of a cell. Returns `BlameContent`.

    Attributes:
        base: The document that the history begins with; empty for an empty notebook.
        base_version: Its version.
        edits: The edits of the cell since, at least, up to the version that is asked for.
        cell_id: The cell.
    """

    base: list[StoredRow]
    base_version: int
    edits: list[PendingEdit]
    cell_id: CellId


Task = ReadAll | WritePending | Rebuild | Restore | MergeCopy | ReadVersion | BlameCell


class Written(msgspec.Struct, frozen=True, array_like=True):
    """Result of `WritePending`: the rows that replace the pending edits.

    Attributes:
        snapshot: The whole document, if it is new or was compacted; else None.
        changes: Without a snapshot, the change of each edit, in order.
        is_compacted: Whether the history was dropped.
    """

    snapshot: bytes | None
    changes: list[bytes] = []
    is_compacted: bool = False


class Restored(msgspec.Struct, frozen=True, array_like=True):
    """Result of `Restore`.

    Attributes:
        snapshot: The merged document.
        contents: Its content.
        cells: Ids of the restored cells, in order.
    """

    snapshot: bytes
    contents: Contents
    cells: list[CellId]


class Merged(msgspec.Struct, frozen=True, array_like=True):
    """Result of `MergeCopy`.

    Attributes:
        refusal: Why nothing is merged, as part of a sentence; None if something is.
        changes: The change of each pending edit, in order.
        copied: The changes of the copy, each with its actor.
        deltas: What those do to the notebook, in order.
    """

    refusal: str | None = None
    changes: list[bytes] = []
    copied: list[tuple[str, bytes]] = []
    deltas: list[Delta] = []


_DECODER: Final = msgspec.msgpack.Decoder(Task)


def decode_task(data: bytes) -> Task:
    """Decode a task that `msgspec.msgpack.encode` encoded."""
    return _DECODER.decode(data)


def perform(task: Task) -> Contents | Written | bytes | Restored | Merged | VersionContent | BlameContent:
    """Perform a task.

    Raises:
        StorageError: If a stored row is damaged, or the resulting document differs when it is loaded again.
    """
    match task:
        case ReadAll(stored=stored):
            document = stored.load()
            stored.write_pending(document)
            return contents_of(document)
        case WritePending():
            return _write_pending(task)
        case Rebuild():
            cells = [decode_cell(row.data) for row in task.cells if _is_intact(row)]
            document = rebuild(task.notebook_id, cells, task.metadata)
            return _snapshot_of(document)
        case Restore(aside=aside, present=present):
            since = present.load()
            present.write_pending(since)
            document = load_stored(aside)
            restored = [record.id for record in merge_present(document, since)]
            return Restored(_snapshot_of(document), contents_of(document), restored)
        case MergeCopy():
            return _merge_copy(task)
        case ReadVersion(base=base, edits=edits):
            replay = _begin(base)
            for _number, delta in deltas_of(edits):
                replay.apply(delta)
            return VersionContent(
                cells=[_stored_cell(cell) for cell in replay.cells()], metadata=_sorted(replay.metadata)
            )

        case BlameCell(base=base, cell_id=cell_id):
            cell = _begin(base).records.get(cell_id)
            before = None if cell is None else Blame(cell.source, task.base_version)
            found = blame(before, cell_id, deltas_of(task.edits))
            return BlameContent() if found is None else BlameContent(source=found.source, versions=found.versions)


def _merge_copy(task: MergeCopy) -> Merged:
    stored, notebook_id = task.stored, task.stored.notebook_id
    document = stored.load()
    changes = stored.write_pending(document)
    base = load_stored(task.base) if task.base else NotebookDocument.create(notebook_id)
    try:
        found = merge_copy(document, notebook_id, task.copy, base.heads, is_compacted=bool(task.base))
    except NotebookFileError as exc:
        return Merged(exc.message)
    return Merged(None, changes, found.changes, found.deltas)


def _begin(base: list[StoredRow]) -> Replay:
    if not base:
        return Replay()
    document = load_stored(base)
    return Replay(document.cells(), document.all_metadata())


def _stored_cell(record: CellRecord) -> StoredCell:
    return StoredCell(
        id=record.id,
        cell_type=record.cell_type,
        source=record.source,
        execution_count=record.execution_count,
        execution_id=record.execution_id,
        metadata=_sorted(record.metadata),
        position=record.position,
    )


def _sorted(entries: Mapping[str, str]) -> dict[str, str]:
    """Return entries in an order that does not depend on the edits: each run of the task gives the same bytes."""
    return dict(sorted(entries.items()))


def _is_intact(row: CellRow) -> bool:
    if zlib.crc32(row.data) != row.checksum:
        raise StorageError(f"cell {row.cell_id} is damaged: its bytes do not match their checksum")
    return True


def _write_pending(task: WritePending) -> Written:
    stored = task.stored
    document = stored.load()
    changes = stored.write_pending(document)
    if _compaction_pays(task, document, len(changes)):
        fresh = rebuild(stored.notebook_id, document.cells(), document.all_metadata())
        return Written(_snapshot_of(fresh), is_compacted=True)
    return Written(None, changes) if stored.rows else Written(_snapshot_of(document))


def _compaction_pays(task: WritePending, document: NotebookDocument, new: int) -> bool:
    changes = sum(row.kind == "change" for row in task.stored.rows) + new
    if document.has_foreign_content:
        return False
    if changes >= task.compact_after or task.compact_after_memory is None:
        return changes >= task.compact_after
    history = HistoryWeight(document.history()).bytes
    return history >= max(task.compact_after_memory, MIN_GAIN * weight_of(document))


def _snapshot_of(document: NotebookDocument) -> bytes:
    """Return the bytes of a document, after verifying that they load to the same content."""
    snapshot = document.save()
    again = NotebookDocument.load(snapshot, [])
    same = again.heads == document.heads and again.notebook_id == document.notebook_id
    if not same or again.cells() != document.cells() or again.all_metadata() != document.all_metadata():
        raise StorageError("the document that was written has other content when it is loaded again")
    return snapshot
