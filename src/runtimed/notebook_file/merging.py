"""Merges a notebook's file into its session, cell by cell: what each of them changed since both were the same.

Nothing here opens a file or knows a document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from runtimed.notebook_file.reading import FileCell, NotebookFile

__all__ = ["FileRecord", "Merge", "PutCell", "merge", "record_of"]


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a session knows of its file: its content when the two were the same, without outputs.

    It is stored before the file is written. So a process that dies in between leaves a file that is known.

    Attributes:
        path: The file's real path.
        cells: Id and digest of each cell, in the order of the file.
        metadata: A digest of the notebook's metadata.
        replaces: A digest of what the file had before it was last written; None if there was none.
    """

    path: str
    cells: list[tuple[str, str]]
    metadata: str
    replaces: str | None = None

    @property
    def digest(self) -> str:
        """A digest of the content."""
        return _digest(self.cells, self.metadata)

    def knows(self, found: FileRecord) -> bool:
        """Whether a file has what this session has last read from it, or written into it."""
        return found.path == self.path and found.digest in (self.digest, self.replaces)

    def text(self) -> str:
        """Return the record as JSON text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def of_text(cls, text: str | None) -> FileRecord | None:
        """Return the record in a text; None if there is none, or nothing that is one."""
        try:
            return None if text is None else msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError:
            return None


@dataclass(frozen=True, slots=True)
class PutCell:
    """A cell of the file that the session gets: a new one, or the new content of one that it has.

    Attributes:
        after: The cell behind which a new one stands; None for the front.
    """

    cell: FileCell
    after: str | None
    is_new: bool


@dataclass(slots=True)
class Merge:
    """What a session takes from its file. Ids are those of the file.

    Attributes:
        puts: Cells to add or replace, in this order.
        deleted: Cells to delete: gone from the file, and unchanged in the session.
        order: All cells of the file, in the order that the session takes; None if it keeps its own.
        metadata: The notebook's metadata to take; None if the session keeps its own.
        conflicts: Cells that both changed, each with the id under which the file's version stands behind it.
        kept: Cells that are gone from the file, and were changed in the session: they stay.
        metadata_conflict: Whether both changed the notebook's metadata; the session keeps its own.
    """

    puts: list[PutCell] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    order: list[str] | None = None
    metadata: Mapping[str, Any] | None = None
    conflicts: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    metadata_conflict: bool = False


def merge(base: FileRecord | None, session: NotebookFile, file: NotebookFile) -> Merge:
    """Decide what a session takes from its file: a three-way merge by cell id.

    What one side left as it was is taken from the other. Where both changed a cell, the session's version stays, and
    the file's stands behind it. Outputs come with a cell that is taken, and are the session's otherwise.

    Args:
        base: The file when both were the same; None if they never were: then whatever differs is a conflict.
            A file that is known is its own base, since it was not changed.
        session: What the session has; outputs are not looked at.
        file: What the file has.
    """
    found = Merge()
    was = {} if base is None else dict(base.cells)
    ours = {cell.id: cell for cell in session.cells}
    after: str | None = None
    if base is None and session.cells and not any(cell.id in ours for cell in file.cells):
        after = session.cells[-1].id  # they have nothing in common: the file's cells follow
    for cell in file.cells:
        mine, theirs, before = ours.get(cell.id), _digest(*_content(cell)), was.get(cell.id)
        if mine is None:
            if before == theirs:  # deleted here
                continue
            found.puts.append(PutCell(cell, after, is_new=True))
        elif (present := _digest(*_content(mine))) not in (theirs, before) and before != theirs:
            twin = f"cell-{hashlib.sha256(f'{cell.id} {theirs}'.encode()).hexdigest()[:32]}"
            found.conflicts[cell.id] = twin
            if twin not in ours:
                found.puts.append(PutCell(replace(cell, id=twin), cell.id, is_new=True))
        elif present != theirs and before == present:
            found.puts.append(PutCell(cell, after, is_new=False))
        after = found.conflicts.get(cell.id, cell.id)
    theirs_all = [cell.id for cell in file.cells]
    for cell_id in [one for one in was if one in ours and one not in set(theirs_all)]:
        unchanged = _digest(*_content(ours[cell_id])) == was[cell_id]
        (found.deleted if unchanged else found.kept).append(cell_id)
    _merge_order(found, list(was), list(ours), theirs_all)
    _merge_metadata(found, None if base is None else base.metadata, session.metadata, file.metadata)
    return found


def _merge_order(found: Merge, was: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> None:
    common = set(was) & set(ours) & set(theirs)
    before, here, there = ([one for one in ids if one in common] for ids in (was, ours, theirs))
    if there != before and here == before:
        new = {put.cell.id for put in found.puts}
        found.order = [one for one in theirs if one in common or one in new]


def _merge_metadata(found: Merge, was: str | None, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    mine, other = _digest(dict(ours)), _digest(dict(theirs))
    if other in (mine, was):
        return
    if mine == was or not ours:
        found.metadata = theirs
    else:
        found.metadata_conflict = True


def record_of(path: str, notebook: NotebookFile) -> FileRecord:
    """Return the record of a session that has the content of this file.

    Args:
        path: The file's real path.
        notebook: Its content.
    """
    return FileRecord(
        path=path,
        cells=[(cell.id, _digest(*_content(cell))) for cell in notebook.cells],
        metadata=_digest(dict(notebook.metadata)),
    )


def _content(cell: FileCell) -> Sequence[Any]:
    return cell.cell_type, cell.source, dict(cell.metadata), dict(cell.attachments)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
