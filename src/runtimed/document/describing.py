"""Describes deltas for people: what kind of edit each is. Nothing here changes a notebook."""

from __future__ import annotations

from typing import assert_never

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
from runtimed.models import EditAction

__all__ = ["describe"]


def describe(delta: Delta) -> tuple[EditAction, str | None]:
    """Return the action and the detail of an edit; see `NotebookEdit`."""
    match delta:
        case CellAdded(cell=cell):
            return "cell_added", cell.cell_type
        case CellDeleted():
            return "cell_deleted", None
        case CellMoved():
            return "cell_moved", None
        case TypeSet(cell_type=cell_type):
            return "cell_type_set", cell_type
        case ExecutionSet(execution_id=None, execution_count=None):
            return "outputs_cleared", None
        case ExecutionSet():
            return "cell_executed", None
        case CellEntrySet(key=key):
            return "cell_metadata_set", key
        case SourceEdited(deleted=deleted, inserted=inserted):
            return "cell_edited", f"+{len(inserted)} -{deleted}"
        case EntrySet(key=key):
            return "metadata_set", key
        case _:
            assert_never(delta)
