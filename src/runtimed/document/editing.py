"""Turns requested edits into deltas, given the notebook's current state. Nothing here changes anything.

Each function returns None where the notebook is already as requested, so resent edits are idempotent.
"""

from __future__ import annotations

from collections.abc import Mapping

from runtimed.document import positions
from runtimed.document.cells import CellRecord, Cells, Place
from runtimed.document.checks import (
    MAX_TEXT,
    check_cell_id,
    check_cell_metadata,
    check_cell_type,
    check_execution,
    check_index,
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
    EntrySet,
    ExecutionSet,
    SourceEdited,
    TypeSet,
)
from runtimed.document.text_edit import apply_edits, carry_over, find_edit, find_edits
from runtimed.errors import CellNotFound
from runtimed.ids import CellId, ExecutionId
from runtimed.models import CellType

__all__ = [
    "add_cell",
    "append_source",
    "create_cell",
    "delete_cell",
    "delete_metadata",
    "insert_cell",
    "move_cell",
    "set_cell_metadata",
    "set_cell_type",
    "set_execution",
    "set_metadata",
    "set_source",
]


def add_cell(
    cells: Cells, cell_id: str, source: str, cell_type: CellType, index: int | None = None
) -> CellAdded | None:
    """Add a cell in front of the one at `index`, or append it; None if its id exists already.

    Raises:
        InvalidCell: If a value is invalid.
    """
    new = check_cell_id(cell_id)
    check_source(source)
    check_cell_type(cell_type)
    if cells.cell(new) is not None:
        return None
    if index is None:
        low, high = cells.place_at(-1), None
    else:
        check_index(index, cells.count())
        low, high = cells.place_at(index - 1) if index else None, cells.place_at(index)
    return _added(cells, low, high, new, source, cell_type, {})


def create_cell(
    cells: Cells, cell_id: str, source: str, cell_type: CellType, index: int | None = None
) -> CellAdded | None:
    """Add a cell whose id a client chose; see `add_cell`, which also adds cells of stored executions.

    Raises:
        InvalidCell: If a value is invalid, or the id unfit for people.
    """
    if cells.cell(check_cell_id(cell_id)) is None:
        check_new_id(cell_id, "A cell id")
    return add_cell(cells, cell_id, source, cell_type, index)


def insert_cell(
    cells: Cells, cell_id: str, source: str, cell_type: CellType, metadata: Mapping[str, str], after: str | None
) -> CellAdded | None:
    """Add a cell with metadata behind another one; None if its id exists already.

    Args:
        cells: The notebook.
        cell_id: The new cell's id.
        source: Its source.
        cell_type: Its type.
        metadata: Its metadata, as JSON texts.
        after: The cell behind which it stands; the front for None, the end for one that does not exist.

    Raises:
        InvalidCell: If a value is invalid.
    """
    new = check_cell_id(cell_id)
    check_source(source)
    check_cell_type(cell_type)
    for key, value in metadata.items():
        check_cell_metadata(key, value)
    check_whole_metadata(metadata)
    if cells.cell(new) is not None:
        return None
    before = None if after is None else cells.cell(CellId(after))
    low = cells.place_at(-1) if after is not None and before is None else None if before is None else _place(before)
    high = cells.place_at(0) if low is None else cells.place_behind(low)
    return _added(cells, low, high, new, source, cell_type, metadata)


def delete_cell(cells: Cells, cell_id: str) -> CellDeleted:
    """Delete a cell.

    Raises:
        CellNotFound: If there is no such cell.
    """
    return CellDeleted(_require(cells, cell_id).id)


def move_cell(cells: Cells, cell_id: str, after: str | None) -> CellMoved | None:
    """Move a cell behind another one, or to the front if `after` is None.

    Raises:
        CellNotFound: If either cell does not exist.
    """
    record = _require(cells, cell_id)
    low = None if after is None else _place(_require(cells, after))
    high = cells.place_at(0) if low is None else cells.place_behind(low)
    if after == cell_id or high == _place(record):
        return None
    position, moved = _between(cells, low, high, record.id)
    return CellMoved(record.id, {record.id: position, **moved})


def set_cell_type(cells: Cells, cell_id: str, cell_type: CellType) -> TypeSet | None:
    """Change a cell's type to code, markdown or raw.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If there is no such type.
    """
    record = _require(cells, cell_id)
    return None if check_cell_type(cell_type) == record.cell_type else TypeSet(record.id, cell_type)


def set_execution(
    cells: Cells, cell_id: str, execution_id: ExecutionId | None, execution_count: int | None
) -> ExecutionSet | None:
    """Set a cell's latest execution and its count, the `In[n]`.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If a value is invalid.
    """
    record = _require(cells, cell_id)
    check_execution(execution_id, execution_count)
    if (record.execution_id, record.execution_count) == (execution_id, execution_count):
        return None
    return ExecutionSet(record.id, execution_id, execution_count)


def set_cell_metadata(cells: Cells, cell_id: str, key: str, value: str | None) -> CellEntrySet | None:
    """Set a value of a cell's metadata, as JSON text; None deletes the key.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If key or value is invalid, or all of the cell's metadata becomes too large.
    """
    record = _require(cells, cell_id)
    check_cell_metadata(key, value)
    if record.metadata.get(key) == value:
        return None
    if value is not None:
        check_whole_metadata({**record.metadata, key: value})
    return CellEntrySet(record.id, key, value)


def delete_metadata(cells: Cells, key: str) -> EntrySet | None:
    """Delete a value of the notebook's metadata."""
    return None if cells.metadata(key) is None else EntrySet(key, None)


def set_metadata(cells: Cells, key: str, value: str) -> EntrySet | None:
    """Set a value of the notebook's metadata.

    Raises:
        SessionError: If key or value is invalid.
    """
    check_metadata(key, value)
    return None if cells.metadata(key) == value else EntrySet(key, value)


def set_source(cells: Cells, cell_id: str, source: str, *, base: str | None) -> SourceEdited | None:
    """Replace a cell's source: a three-way merge of `base`, the new source and the present one.

    Args:
        cells: The notebook.
        cell_id: The cell.
        source: The new source.
        base: The source that the author started from; None replaces the present one without a merge.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If the source, or the result of the merge, is invalid.
    """
    record = _require(cells, cell_id)
    present, wanted = record.source, check_source(source)
    # For a text that is too long to merge, the last writer wins.
    if base not in (None, present) and max(len(base or ""), len(present), len(source)) <= MAX_TEXT:
        wanted = check_source(apply_edits(present, carry_over(find_edits(base or "", source), base or "", present)))
    return _edited(record, wanted)


def append_source(cells: Cells, cell_id: str, text: str) -> SourceEdited | None:
    """Append text to a cell's source; None if the text is empty.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If the text, or the source with it, is invalid.
    """
    record = _require(cells, cell_id)
    check_source(record.source + check_source(text))
    return SourceEdited(record.id, len(record.source), 0, text) if text else None


def _edited(record: CellRecord, source: str) -> SourceEdited | None:
    return None if source == record.source else SourceEdited(record.id, *find_edit(record.source, source))


def _between(cells: Cells, low: Place | None, high: Place | None, cell_id: CellId) -> tuple[str, dict[CellId, str]]:
    """Return a position for a cell between two places, and new positions of other cells where there is none."""
    try:
        return positions.between(low and low[0], high and high[0]), {}
    except ValueError:
        # Two neighbours have one position (from concurrent edits in two copies), or another program wrote them.
        others = [place for place in cells.places() if place[1] != cell_id]
        index = 0 if low is None else others.index(low) + 1
        fresh = positions.spread(None, None, len(others) + 1)
        position = fresh.pop(index)
        return position, {other: new for (former, other), new in zip(others, fresh, strict=True) if former != new}


def _place(record: CellRecord) -> Place:
    return record.position, record.id


def _require(cells: Cells, cell_id: str) -> CellRecord:
    record = cells.cell(CellId(cell_id))
    if record is None:
        raise CellNotFound(f"Cell not found: {cell_id}", cell_id=cell_id)
    return record


def _added(
    cells: Cells,
    low: Place | None,
    high: Place | None,
    cell_id: CellId,
    source: str,
    cell_type: CellType,
    metadata: Mapping[str, str],
) -> CellAdded:
    """Return the change that adds a cell between two places."""
    position, moved = _between(cells, low, high, cell_id)
    record = CellRecord(
        id=cell_id,
        cell_type=cell_type,
        source=source,
        position=position,
        execution_count=None,
        execution_id=None,
        metadata=dict(metadata),
    )
    return CellAdded(record, moved)
