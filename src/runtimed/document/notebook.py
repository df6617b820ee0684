"""The notebook as an Automerge document: edits that merge, reads that cost nothing. Nothing here waits or stores.

Root: `schema` Int · `notebook_id` Str · `metadata` map · `cells` map by cell id →
`{cell_type Str, source Text, position Str, execution_count Int|null, execution_id Str|null, metadata map}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from runtimed.document import positions, sources
from runtimed.document.changes import last_of, read_changes
from runtimed.document.checks import (
    check_cell_id,
    check_cell_metadata,
    check_cell_type,
    check_execution,
    check_index,
    check_metadata,
    check_source,
    check_whole_metadata,
)
from runtimed.document.engine import GENESIS, ROOT, Engine, Writer
from runtimed.document.mirror import CellNodes, CellRecord, Mirror
from runtimed.document.text_edit import TextEdit, apply_edits
from runtimed.errors import CellNotFound, StorageError
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from runtimed.models import CellType

__all__ = ["SCHEMA", "CellRecord", "Edit", "NotebookDocument"]

SCHEMA: Final = 1
"""Version of the layout that this module writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What an edit did.

    Attributes:
        change: The new Automerge change, to be stored; empty if the edit changed nothing.
        cell_id: The cell that was edited, None for the document's metadata.
        heads: The document's heads after it.
    """

    change: bytes
    cell_id: CellId | None
    heads: tuple[bytes, ...]


class NotebookDocument:
    """One notebook: cells and metadata with their history.

    Every edit is one change by its author's actor. After a StorageError in an edit the document must be loaded again.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mirror = Mirror(engine)

    @classmethod
    def create(cls, notebook_id: SessionId) -> NotebookDocument:
        """Return a new empty notebook; for one id it is always the same, byte for byte."""
        engine = Engine(GENESIS)
        with engine.write(f"notebook_id:{notebook_id}") as writer:
            writer.put(ROOT, "notebook_id", notebook_id)
        return cls(engine)

    @classmethod
    def load(cls, snapshot: bytes | None, changes: Sequence[bytes]) -> NotebookDocument:
        """Read a notebook from what `save` gave and the changes of the edits since.

        Raises:
            StorageError: If anything is damaged or missing, or was written by a newer version.
        """
        if not snapshot and not any(changes):
            raise StorageError("nothing is stored of this document; create it anew")
        try:
            later = read_changes(changes)
        except ValueError as exc:
            raise StorageError(f"a stored change is unreadable: {exc}") from exc
        engine = Engine((snapshot or b"") + b"".join(change.data for change in later))
        if not engine.knows(change.hash for change in last_of(later)):
            raise StorageError("stored changes cannot be applied: some that they build upon are missing")
        document = cls(engine)
        schema = document._mirror.schema
        if isinstance(schema, int) and schema > SCHEMA:
            raise StorageError(f"this document has schema {schema}, newer than {SCHEMA}: update runtimed to open it")
        return document

    def save(self) -> bytes:
        """Return the whole document with its history, packed: 20 ms for 1,000 cells."""
        return self._engine.save()

    @property
    def heads(self) -> tuple[bytes, ...]:
        """The hashes of the latest changes, sorted."""
        return tuple(sorted(self._engine.heads()))

    def history(self) -> list[bytes]:
        """Return all changes, each after those it depends on."""
        return self._engine.changes_since([])

    # Reading

    @property
    def notebook_id(self) -> SessionId | None:
        """The id that the document carries, None in a foreign one without."""
        return self._mirror.notebook_id

    def cell_ids(self) -> list[CellId]:
        """Return the ids of all cells in their order."""
        return self._mirror.ids()

    def cells(self) -> list[CellRecord]:
        """Return all cells in their order."""
        records = self._mirror.records
        return [records[cell_id] for _, cell_id in self._mirror.order]

    def cell(self, cell_id: CellId) -> CellRecord | None:
        """Return a cell, None if there is none of this id."""
        return self._mirror.records.get(cell_id)

    def metadata(self, key: str) -> str | None:
        """Return an entry of the document's metadata."""
        return self._mirror.metadata.get(key)

    def all_metadata(self) -> dict[str, str]:
        """Return a copy of the document's metadata."""
        return dict(self._mirror.metadata)

    @property
    def shows_all(self) -> bool:
        """Whether cells, metadata and id are all that was in the document when it was loaded.

        One that another program or a newer version wrote may hold more.
        """
        return self._mirror.shows_all

    # Cells

    def add_cell(
        self, cell_id: CellId, source: str, cell_type: CellType, index: int | None = None, *, author: ClientId
    ) -> Edit:
        """Add a cell in front of the one at `index`, or behind all; nothing happens if the id is there already.

        Raises:
            InvalidCell: If a value cannot be accepted.
        """
        check_cell_id(cell_id)
        check_source(source)
        check_cell_type(cell_type)
        if cell_id in self._mirror.records:
            return self._unchanged(cell_id)
        order = self.cell_ids()
        position, moved = self._place(order, check_index(index, len(order)))
        record = CellRecord(
            id=cell_id,
            cell_type=cell_type,
            source=source,
            position=position,
            execution_count=None,
            execution_id=None,
            metadata={},
        )
        return self._add(record, moved, author)

    def delete_cell(self, cell_id: CellId, *, author: ClientId) -> Edit:
        """Delete a cell.

        Raises:
            CellNotFound: If there is none of this id.
        """
        self._require(cell_id)
        before = self._engine.heads()
        with self._engine.write(author) as writer:
            if self._mirror.cells_node is not None:
                writer.delete(self._mirror.cells_node, cell_id)
        self._mirror.remove(cell_id)
        return self._edit(before, cell_id)

    def move_cell(self, cell_id: CellId, after: CellId | None, *, author: ClientId) -> Edit:
        """Move a cell behind another one, or in front of all.

        Raises:
            CellNotFound: If either cell does not exist.
        """
        record = self._require(cell_id)
        if after is not None:
            self._require(after)
        index = self._mirror.index(cell_id)
        order = self.cell_ids()
        if after == cell_id or (order[index - 1] if index else None) == after:
            return self._unchanged(cell_id)
        del order[index]
        position, moved = self._place(order, 0 if after is None else order.index(after) + 1)
        record = replace(record, position=position)
        before = self._engine.heads()
        with self._engine.write(author) as writer:
            self._put_positions(writer, [record, *moved])
        return self._changed(before, record, *moved)

    def set_cell_type(self, cell_id: CellId, cell_type: CellType, *, author: ClientId) -> Edit:
        """Make a cell code, markdown or raw.

        Raises:
            CellNotFound: If there is none of this id.
            InvalidCell: If there is no such type.
        """
        record = self._require(cell_id)
        if check_cell_type(cell_type) == record.cell_type:
            return self._unchanged(cell_id)
        before = self._engine.heads()
        with self._engine.write(author) as writer:
            writer.put(self._mirror.nodes[cell_id].cell, "cell_type", cell_type)
        return self._changed(before, replace(record, cell_type=cell_type))

    def set_execution(
        self, cell_id: CellId, execution_id: ExecutionId | None, execution_count: int | None, *, author: ClientId
    ) -> Edit:
        """Note a cell's latest execution and its `In[n]`.

        Raises:
            CellNotFound: If there is no such cell.
            InvalidCell: If a value cannot be accepted.
        """
        record = self._require(cell_id)
        check_execution(execution_id, execution_count)
        changed = replace(record, execution_id=execution_id, execution_count=execution_count)
        if changed == record:
            return self._unchanged(cell_id)
        cell = self._mirror.nodes[cell_id].cell
        before = self._engine.heads()
        with self._engine.write(author) as writer:
            if execution_id != record.execution_id:
                writer.put(cell, "execution_id", execution_id)
            if execution_count != record.execution_count:
                writer.put(cell, "execution_count", execution_count)
        return self._changed(before, changed)

    def set_cell_metadata(self, cell_id: CellId, key: str, value: str, *, author: ClientId) -> Edit:
        """Set an entry of a cell's metadata.

        Raises:
            CellNotFound: If there is no such cell.
            InvalidCell: If key or value cannot be accepted.
        """
        record = self._require(cell_id)
        check_cell_metadata(key, value)
        if record.metadata.get(key) == value:
            return self._unchanged(cell_id)
        check_whole_metadata({**record.metadata, key: value})
        nodes = self._mirror.nodes[cell_id]
        before = self._engine.heads()
        with self._engine.write(author) as writer:
            metadata = nodes.metadata if nodes.metadata is not None else writer.put_map(nodes.cell, "metadata")
            writer.put(metadata, key, value)
        nodes.metadata = metadata
        return self._changed(before, replace(record, metadata={**record.metadata, key: value}))

    def set_metadata(self, key: str, value: str, *, author: ClientId) -> Edit:
        """Set an entry of the document's metadata.

        Raises:
            SessionError: If key or value cannot be accepted.
        """
        check_metadata(key, value)
        if self._mirror.metadata.get(key) == value:
            return self._unchanged(None)
        before = self._engine.heads()
        metadata = self._mirror.metadata_node
        with self._engine.write(author) as writer:
            if metadata is None:
                metadata = writer.put_map(ROOT, "metadata")
            writer.put(metadata, key, value)
        self._mirror.metadata_node = metadata
        self._mirror.metadata[key] = value
        return self._edit(before, None)

    def put_cell(self, record: CellRecord, *, author: ClientId) -> Edit:
        """Make a cell exactly what another document holds of it, adding it if it is not there.

        Its values are not checked: they are in a document already.
        """
        former = self._mirror.records.get(record.id)
        if former is None:
            return self._add(record, (), author)
        nodes = self._mirror.nodes[record.id]
        before = self._engine.heads()
        if record.source != former.source:
            edits = sources.edits_since(former.source, record.source, None)
            sources.write(self._engine, nodes, former.source, record.source, edits, author)
        with self._engine.write(author) as writer:
            for field in ("cell_type", "position", "execution_count", "execution_id"):
                if getattr(record, field) != getattr(former, field):
                    writer.put(nodes.cell, field, getattr(record, field))
            if nodes.metadata is None:
                nodes.metadata = writer.put_map(nodes.cell, "metadata")
            _put_entries(writer, nodes.metadata, former.metadata, record.metadata)
        return self._changed(before, record)

    # Sources

    def set_source(self, cell_id: CellId, source: str, *, base: str | None, author: ClientId) -> Edit:
        """Give a cell a new source, keeping what others changed since `base`.

        Args:
            base: The text that the author knew when it wrote this one; None: it has seen all.

        Raises:
            CellNotFound: If there is no such cell.
            InvalidCell: If the source, or what it merges to, cannot be accepted.
        """
        record = self._require(cell_id)
        check_source(source)
        if source == record.source:
            return self._unchanged(cell_id)
        edits = sources.edits_since(record.source, source, base)
        return self._write_source(record, check_source(apply_edits(record.source, edits)), edits, author)

    def append_source(self, cell_id: CellId, text: str, *, author: ClientId) -> Edit:
        """Append to a cell's source; meant for streams of small pieces.

        Raises:
            CellNotFound: If there is no such cell.
            InvalidCell: If the text, or the source with it, cannot be accepted.
        """
        record = self._require(cell_id)
        source = check_source(record.source + check_source(text))
        return self._write_source(record, source, [TextEdit(len(record.source), 0, text)], author)

    def _write_source(self, record: CellRecord, source: str, edits: Sequence[TextEdit], author: ClientId) -> Edit:
        if source == record.source:
            return self._unchanged(record.id)
        before = self._engine.heads()
        sources.write(self._engine, self._mirror.nodes[record.id], record.source, source, edits, author)
        return self._changed(before, replace(record, source=source))

    # Order

    def _place(self, order: Sequence[CellId], index: int) -> tuple[str, list[CellRecord]]:
        """Return a position at `index` among these cells, and the cells that need another one to make it possible."""
        records = self._mirror.records
        low = records[order[index - 1]].position if index > 0 else None
        high = records[order[index]].position if index < len(order) else None
        try:
            return positions.between(low, high), []
        except ValueError:
            # Two neighbours at one position (made at the same time in two copies), or a foreign order.
            fresh = positions.spread(None, None, len(order) + 1)
            position = fresh.pop(index)
            return position, [
                replace(records[cell_id], position=other)
                for cell_id, other in zip(order, fresh, strict=True)
                if records[cell_id].position != other
            ]

    def _put_positions(self, writer: Writer, records: Sequence[CellRecord]) -> None:
        for record in records:
            writer.put(self._mirror.nodes[record.id].cell, "position", record.position)

    # Results

    def _add(self, record: CellRecord, moved: Sequence[CellRecord], author: ClientId) -> Edit:
        cells = self._mirror.cells_node
        before = self._engine.heads()
        with self._engine.write(author) as writer:
            if cells is None:
                cells = writer.put_map(ROOT, "cells")
            cell = writer.put_map(cells, record.id)
            writer.put(cell, "cell_type", record.cell_type)
            text = sources.put(writer, cell, record.source)
            writer.put(cell, "position", record.position)
            writer.put(cell, "execution_count", record.execution_count)
            writer.put(cell, "execution_id", record.execution_id)
            metadata = writer.put_map(cell, "metadata")
            _put_entries(writer, metadata, {}, record.metadata)
            self._put_positions(writer, moved)
        self._mirror.cells_node = cells
        self._mirror.nodes[record.id] = CellNodes(cell, text, metadata, is_plain=True)
        return self._changed(before, record, *moved)

    def _require(self, cell_id: CellId) -> CellRecord:
        record = self._mirror.records.get(cell_id)
        if record is None:
            raise CellNotFound(f"Cell not found: {cell_id}", cell_id=cell_id)
        return record

    def _unchanged(self, cell_id: CellId | None) -> Edit:
        return Edit(change=b"", cell_id=cell_id, heads=self.heads)

    def _changed(self, before: Sequence[bytes], record: CellRecord, *moved: CellRecord) -> Edit:
        """Take an edit of a cell into the mirror."""
        for changed in (*moved, record):
            self._mirror.put(changed)
        return self._edit(before, record.id)

    def _edit(self, before: Sequence[bytes], cell_id: CellId | None) -> Edit:
        change = b"".join(self._engine.changes_since(before))
        return Edit(change=change, cell_id=cell_id, heads=self.heads)


def _put_entries(writer: Writer, node: bytes, former: Mapping[str, str], entries: Mapping[str, str]) -> None:
    """Make a map hold exactly these entries."""
    for key in former.keys() - entries.keys():
        writer.delete(node, key)
    for key, value in entries.items():
        if former.get(key) != value:
            writer.put(node, key, value)
