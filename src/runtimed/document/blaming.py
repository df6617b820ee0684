"""Finds out which edit wrote each line of a cell's source. Nothing here stores or loads a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtimed.document.deltas import CellAdded, CellDeleted, Delta, SourceEdited
from runtimed.document.text_edit import find_edits
from runtimed.ids import CellId

__all__ = ["Blame", "blame"]


class Blame:
    """A source, whose lines are separated by `\\n`, and the version that wrote each line.

    Attributes:
        source: The source.
        versions: One for each line; an empty source is one line.
    """

    def __init__(self, source: str, version: int) -> None:
        self.source = source
        self.versions = [version] * (source.count("\n") + 1)

    def edit(self, edit: SourceEdited, version: int) -> None:
        """Apply an edit. Lines that it replaces by equal ones keep their versions."""
        removed = self.source[edit.start : edit.start + edit.deleted]
        for start, deleted, inserted in reversed(find_edits(removed, edit.inserted)):
            self._replace(edit.start + start, edit.start + start + deleted, inserted, version)

    def _replace(self, start: int, end: int, inserted: str, version: int) -> None:
        source = self.source
        first = source.count("\n", 0, start)
        last = first + source.count("\n", start, end) + 1
        begin = source.rfind("\n", 0, start) + 1
        after = source.find("\n", end)
        before = source[begin:start], source[end : after if after >= 0 else len(source)]
        old = source[begin : end + len(before[1])].split("\n")
        new = (before[0] + inserted + before[1]).split("\n")
        same = _common(old, new)
        rest = min(_common(old[::-1], new[::-1]), len(old) - same, len(new) - same)
        self.versions[first + same : last - rest] = [version] * (len(new) - same - rest)
        self.source = source[:start] + inserted + source[end:]


def blame(found: Blame | None, cell_id: CellId, deltas: Iterable[tuple[int, Delta]]) -> Blame | None:
    """Apply edits to a cell, in order.

    Args:
        found: The cell before them; None if it did not exist.
        cell_id: The cell.
        deltas: Edits with their versions; those of other cells are skipped.

    Returns:
        The cell behind them; None if it does not exist.
    """
    for version, delta in deltas:
        if delta.cell_id != cell_id:
            continue
        match delta:
            case CellAdded(cell=cell):
                found = Blame(cell.source, version)
            case CellDeleted():
                found = None
            case SourceEdited() if found is not None:
                found.edit(delta, version)
    return found


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many lines are equal from the beginning on."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (line, its) in pairs if line != its), min(len(one), len(other)))
