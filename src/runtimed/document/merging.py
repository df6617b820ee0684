"""Merges a copy of a notebook's document that was edited elsewhere. Nothing here waits or stores.

The changes that only the copy has are appended to the document as they are, each by its own actor, so an edit made here
meanwhile and one made there both stay, and merging the copy again finds nothing new. What they do to the notebook is
returned as deltas. A copy with anything that no notebook has is refused whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from runtimed.document import positions
from runtimed.document.cells import CellRecord
from runtimed.document.changes import RawChange, read_changes
from runtimed.document.checks import (
    MAX_TEXT,
    check_cell_id,
    check_cell_metadata,
    check_execution,
    check_metadata,
    check_new_id,
    check_source,
    check_whole_metadata,
)
from runtimed.document.deltas import (
    CellAdded,
    CellDeleted,
    CellEntrySet,
    CellMoved,
    Delta,
    EntrySet,
    ExecutionSet,
    SourceEdited,
    TypeSet,
)
from runtimed.document.notebook import NotebookDocument
from runtimed.document.text_edit import find_edit
from runtimed.errors import InvalidCell, NotebookFileError, SessionError, StorageError
from runtimed.ids import CellId, SessionId

__all__ = ["MergedCopy", "merge_copy"]

_ADVICE: Final = "export it again, and make the edits in the new copy"


class MergedCopy(msgspec.Struct, frozen=True, array_like=True):
    """What a copy adds to a document.

    Attributes:
        changes: The changes that only the copy has, each after those it depends on, with its actor in hexadecimal.
        deltas: What they do to the notebook, in order.
    """

    changes: list[tuple[str, bytes]]
    deltas: list[Delta]


def merge_copy(
    document: NotebookDocument, notebook_id: SessionId, copy: bytes, base: Sequence[bytes], *, is_compacted: bool
) -> MergedCopy:
    """Merge a copy into a document; the document itself is not changed.

    Args:
        document: The document.
        notebook_id: Its notebook.
        copy: The copy, as any Automerge saves it.
        base: Heads of what the document's history begins with; the copy must have them.
        is_compacted: Whether an earlier history was dropped.

    Raises:
        NotebookFileError: If it is no copy of this document, or has something that no notebook has.
    """
    theirs = _load(copy)
    if theirs.notebook_id != notebook_id:
        raise _refused(
            "it has no notebook"
            if theirs.notebook_id is None
            else f"it is a copy of the notebook {theirs.notebook_id!r}, not of {notebook_id!r}"
        )
    if not theirs.has_changes(base):
        raise _refused(
            "the session's history was dropped since the copy was made, and the two have nothing in common to merge "
            f"upon: {_ADVICE}"
            if is_compacted
            else f"it is a copy of another notebook with the name {notebook_id!r}"
        )
    ours = read_changes(document.history())
    known = {change.hash for change in ours}
    changes = [change for change in read_changes(theirs.history()) if change.hash not in known]
    merged = _with_changes(document, changes)
    _check_new_objects(document, theirs, changes)
    _check(document, merged)
    return MergedCopy(
        [(change.actor.hex(), change.data) for change in changes],
        list(_differences(document, merged)),
    )


def _load(copy: bytes) -> NotebookDocument:
    try:
        return NotebookDocument.load(copy, [])
    except StorageError as exc:
        if isinstance(exc.__cause__, MemoryError):
            raise
        raise _refused(f"it is no whole Automerge document that this version reads: {exc.message}") from exc


def _with_changes(document: NotebookDocument, changes: Sequence[RawChange]) -> NotebookDocument:
    """Return a copy of a document with more changes, read as it will be when it is stored."""
    try:
        return NotebookDocument.load(document.save(), [change.data for change in changes])
    except StorageError as exc:
        if isinstance(exc.__cause__, MemoryError):
            raise
        raise _refused(
            f"its changes contradict those that the session has, as after edits under one actor id in two places: "
            f"{exc.message}"
        ) from exc


def _check_new_objects(document: NotebookDocument, theirs: NotebookDocument, changes: Sequence[RawChange]) -> None:
    """Refuse a cell that the copy made under the id of one that the session has: the map of cells would hide one.

    A cell that the session deleted and made anew since, as a restored version does, is its own affair.
    """
    begins: dict[bytes, int] = {}
    for change in changes:
        begins[change.actor] = min(change.first_operation, begins.get(change.actor, change.first_operation))
    for cell_id in theirs.cell_ids():
        actor, number = made = theirs.object_of(cell_id)
        if document.cell(cell_id) is None or document.object_of(cell_id) == made:
            continue
        if actor in begins and number >= begins[actor]:
            raise _refused(
                f"its cell {cell_id!r} is another one than the session's, made anew under the same id, and one of the "
                "two would be lost: change cells in place, and give a new one an id of its own"
            )


def _check(document: NotebookDocument, merged: NotebookDocument) -> None:
    """Check what the merge changes."""
    if merged.foreign_content != document.foreign_content:
        raise _refused(f"with it, {merged.foreign_content}")
    try:
        for key, value in merged.all_metadata().items():
            if document.metadata(key) != value:
                check_metadata(key, value)
        for cell in merged.cells():
            former = document.cell(cell.id)
            if cell != former:
                _check_cell(former, cell, is_text=merged.has_text(cell.id))
    except (InvalidCell, SessionError) as exc:
        raise _refused(exc.message) from exc


def _check_cell(former: CellRecord | None, cell: CellRecord, *, is_text: bool) -> None:
    what = f"Cell {cell.id!r}"
    if former is None:
        check_new_id(check_cell_id(cell.id), "A cell id")
    if (former is None or cell.position != former.position) and not positions.is_position(cell.position):
        raise InvalidCell(f"{what} has the position {cell.position!r}, which is no fractional index")
    if former is None or cell.source != former.source:
        check_source(cell.source)
        if is_text and len(cell.source) > MAX_TEXT:
            raise InvalidCell(
                f"{what} has a text of {len(cell.source)} code points, and a text has at most {MAX_TEXT}: make it an "
                "immutable string"
            )
    check_execution(None, cell.execution_count)
    shown = None if former is None else former.execution_id
    counted = cell.execution_count if former is None else former.execution_count
    if cell.execution_id not in (None, shown) or cell.execution_count not in (None, counted):
        raise InvalidCell(f"{what} shows another execution; a copy may only clear it, with execution_id null")
    for key, value in cell.metadata.items():
        check_cell_metadata(key, value)
    check_whole_metadata(cell.metadata)


def _differences(document: NotebookDocument, merged: NotebookDocument) -> Iterator[Delta]:
    """Yield the deltas that turn the content of one document into that of another, each valid after those before."""
    cells = merged.cells()
    for cell_id in document.cell_ids():
        if merged.cell(cell_id) is None:
            yield CellDeleted(cell_id)
    for cell in cells:
        former = document.cell(cell.id)
        if former is None:
            yield CellAdded(cell)
        elif former != cell:
            yield from _changed(former, cell)
    for key, value in _entries(document.all_metadata(), merged.all_metadata()):
        yield EntrySet(key, value)


def _changed(former: CellRecord, cell: CellRecord) -> Iterator[Delta]:
    cell_id: CellId = cell.id
    if cell.source != former.source:
        yield SourceEdited(cell_id, *find_edit(former.source, cell.source))
    if cell.cell_type != former.cell_type:
        yield TypeSet(cell_id, cell.cell_type)
    for key, value in _entries(former.metadata, cell.metadata):
        yield CellEntrySet(cell_id, key, value)
    if cell.position != former.position:
        yield CellMoved(cell_id, {cell_id: cell.position})
    if (cell.execution_id, cell.execution_count) != (former.execution_id, former.execution_count):
        yield ExecutionSet(cell_id, cell.execution_id, cell.execution_count)


def _entries(former: Mapping[str, str], entries: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """Yield the keys whose values differ, with their new values; deletions first."""
    for key in sorted(former.keys() - entries.keys()):
        yield key, None
    for key, value in sorted(entries.items()):
        if former.get(key) != value:
            yield key, value


def _refused(why: str) -> NotebookFileError:
    return NotebookFileError(why, path=None)
