"""Merges a notebook's file into its session, cell by cell: what each of them changed since both were the same.

Nothing here opens a file or knows a document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from runtimed.notebook_file.outputs import normal
from runtimed.notebook_file.reading import FileCell, NotebookFile

__all__ = ["CONFLICTS", "FileRecord", "Merge", "PutCell", "cells_with_new_outputs", "merge", "record_of"]

CONFLICTS: Final = ("runtimed", "conflicts")
"""Where in the notebook's metadata the file's values stay that the session has not taken."""

_NO_OUTPUTS: Final = ""
"""The digest of a cell that never ran."""


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a session knows of its file: digests of what it had when the session last read or wrote it.

    It is stored before the file is written, with what is replaced. So a process that dies in between leaves a file that
    is known, and so is what others make of it.

    Attributes:
        path: The file's real path.
        cells: Id of each cell, a digest of its content and one of its outputs, in the order of the file.
        metadata: A digest of each entry of the notebook's metadata.
        replaces: What the file has if it was not written after all; None once it is known to be written.
    """

    path: str
    cells: list[tuple[str, str, str]]
    metadata: dict[str, str]
    replaces: FileRecord | None = None

    @property
    def digest(self) -> str:
        """A digest of the whole file."""
        return _digest(self.cells, self.metadata)

    def knows(self, found: FileRecord) -> bool:
        """Whether a file has what this session has last read from it, or written into it."""
        known = [self.digest, *([] if self.replaces is None else [self.replaces.digest])]
        return found.path == self.path and found.digest in known

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
        order_conflict: Whether both moved cells; the session keeps its order.
        metadata_conflicts: Entries of the notebook's metadata that both changed. The session keeps its own, and the
            file's under CONFLICTS.
    """

    puts: list[PutCell] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    order: list[str] | None = None
    metadata: Mapping[str, Any] | None = None
    conflicts: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    order_conflict: bool = False
    metadata_conflicts: list[str] = field(default_factory=list)


class _Base:
    """What the file had: all of the versions of which it is unknown which one others have edited."""

    def __init__(self, base: FileRecord | None) -> None:
        versions = [one for one in (base, base and base.replaces) if one is not None]
        self.is_known = base is not None
        self.order = [] if base is None else [cell_id for cell_id, _, _ in base.cells]
        self.content: dict[str, set[str]] = {}
        self.outputs: dict[str, set[str]] = {}
        for version in versions:
            for cell_id, content, outputs in version.cells:
                self.content.setdefault(cell_id, set()).add(content)
                self.outputs.setdefault(cell_id, set()).add(outputs)
        everywhere = [{cell_id for cell_id, _, _ in version.cells} for version in versions]
        self.in_all = set.intersection(*everywhere) if everywhere else set[str]()
        self._metadata = [version.metadata for version in versions]

    def had_outputs(self, cell_id: str, digest: str) -> bool:
        """Whether the file had these outputs; none, if the cell is a new one."""
        return digest in self.outputs.get(cell_id, {_NO_OUTPUTS})

    def had_entry(self, key: str, digest: str | None) -> bool:
        """Whether the file had this entry of the metadata, or none for None."""
        return any(version.get(key) == digest for version in self._metadata)


def cells_with_new_outputs(base: FileRecord | None, session: NotebookFile, file: NotebookFile) -> list[str]:
    """Return the cells of the session whose outputs in the file are others than when both were the same.

    `merge` has to know what outputs the session has for them.
    """
    was, ours = _Base(base), {cell.id for cell in session.cells}
    return [cell.id for cell in file.cells if cell.id in ours and not was.had_outputs(cell.id, _outputs(cell))]


def merge(
    base: FileRecord | None, session: NotebookFile, file: NotebookFile, shown: Collection[str] = frozenset()
) -> Merge:
    """Decide what a session takes from its file: a three-way merge by cell id.

    What one side left as it was is taken from the other. Where both changed a cell, the session's version stays, and
    the file's stands behind it. Outputs come with a cell that is taken; where only they changed, and only in the file,
    the session takes them, too.

    Args:
        base: The file when both were the same; None if they never were: then whatever differs is a conflict.
            A file that is known is its own base, since it was not changed.
        session: What the session has.
        file: What the file has.
        shown: The cells of which the session's outputs are looked at, and known.
    """
    found, was = Merge(), _Base(base)
    ours = {cell.id: cell for cell in session.cells}
    after: str | None = None
    if base is None and session.cells and not any(cell.id in ours for cell in file.cells):
        after = session.cells[-1].id  # they have nothing in common: the file's cells follow
    for cell in file.cells:
        mine, theirs, before = ours.get(cell.id), _digest(*_content(cell)), was.content.get(cell.id, set())
        if mine is None:
            if theirs in before:  # deleted here
                continue
            found.puts.append(PutCell(cell, after, is_new=True))
        elif (present := _digest(*_content(mine))) != theirs and theirs not in before:
            if present in before:
                found.puts.append(PutCell(cell, after, is_new=False))
            else:
                twin = f"cell-{hashlib.sha256(f'{cell.id} {theirs}'.encode()).hexdigest()[:32]}"
                found.conflicts[cell.id] = twin
                if twin not in ours:
                    found.puts.append(PutCell(replace(cell, id=twin), cell.id, is_new=True))
        elif cell.id in shown and cell.cell_type == mine.cell_type and _takes_outputs(was, mine, cell):
            outputs = replace(mine, outputs=cell.outputs, execution_count=cell.execution_count)
            found.puts.append(PutCell(outputs, after, is_new=False))
        after = found.conflicts.get(cell.id, cell.id)
    theirs_all = [cell.id for cell in file.cells]
    for cell_id in [one for one in was.order if one in was.in_all and one in ours and one not in set(theirs_all)]:
        unchanged = _digest(*_content(ours[cell_id])) in was.content[cell_id]
        (found.deleted if unchanged else found.kept).append(cell_id)
    _merge_order(found, was.order, list(ours), theirs_all)
    _merge_metadata(found, was, session.metadata, file.metadata)
    return found


def _takes_outputs(was: _Base, mine: FileCell, theirs: FileCell) -> bool:
    """Whether outputs were changed in the file alone."""
    there, here = _outputs(theirs), _outputs(mine, is_normal=True)
    return there != here and was.had_outputs(mine.id, here) and not was.had_outputs(mine.id, there)


def _merge_order(found: Merge, was: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> None:
    common = set(was) & set(ours) & set(theirs)
    before, here, there = ([one for one in ids if one in common] for ids in (was, ours, theirs))
    if there in (before, here):
        return
    if here != before:
        found.order_conflict = True
        return
    new = {put.cell.id for put in found.puts}
    found.order = [one for one in theirs if one in common or one in new]


def _merge_metadata(found: Merge, was: _Base, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    mine, other = _entries(ours), _entries(theirs)
    merged = dict(ours)
    for key in sorted(mine.keys() | other.keys()):
        here, there = mine.get(key), other.get(key)
        if there == here or was.had_entry(key, there) or (there is None and not was.is_known):
            continue
        if here is None or was.had_entry(key, here):
            if there is None:
                del merged[key]
            else:
                merged[key] = theirs[key]
        elif there is not None:
            found.metadata_conflicts.append(key)
    if found.metadata_conflicts:
        own = merged.get(CONFLICTS[0])
        own = dict(own) if isinstance(own, Mapping) else {}
        kept = own.get(CONFLICTS[1])
        values = {key: theirs[key] for key in found.metadata_conflicts}
        own[CONFLICTS[1]] = {**(kept if isinstance(kept, Mapping) else {}), **values}
        merged[CONFLICTS[0]] = own
    if _entries(merged) != mine:
        found.metadata = merged


def record_of(path: str, notebook: NotebookFile, *, is_normal: bool = False) -> FileRecord:
    """Return the record of a session that has the content of this file.

    Args:
        path: The file's real path.
        notebook: Its content.
        is_normal: Whether all outputs are as a session writes them.
    """
    return FileRecord(
        path=path,
        cells=[(cell.id, _digest(*_content(cell)), _outputs(cell, is_normal=is_normal)) for cell in notebook.cells],
        metadata=_entries(notebook.metadata),
    )


def _content(cell: FileCell) -> Sequence[Any]:
    return cell.cell_type, cell.source, dict(cell.metadata), dict(cell.attachments)


def _outputs(cell: FileCell, *, is_normal: bool = False) -> str:
    """Return a digest of a cell's outputs and its number, the same for outputs that mean the same."""
    if not cell.outputs and cell.execution_count is None:
        return _NO_OUTPUTS
    return _digest(cell.execution_count, cell.outputs if is_normal else normal(cell.outputs))


def _entries(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {key: _digest(value) for key, value in metadata.items()}


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
