"""A document's cells and metadata in plain Python, updated with each edit: reading needs no call into automerge.

Another program may have written the document. Any content is readable: what is not a cell or metadata is skipped.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Set
from dataclasses import dataclass
from typing import Final, cast, get_args

from runtimed.document.cells import CellRecord, Place
from runtimed.document.engine import ROOT, Engine, Node
from runtimed.ids import CellId, ExecutionId, SessionId
from runtimed.models import CellType

__all__ = ["CellNodes", "Mirror"]

_CELL_TYPES: Final = frozenset(get_args(CellType))
_ROOT_FIELDS: Final = frozenset(("schema", "notebook_id", "metadata", "cells"))
_CELL_FIELDS: Final = frozenset(("cell_type", "source", "position", "execution_count", "execution_id", "metadata"))


@dataclass(slots=True)
class CellNodes:
    """Automerge's object ids of a cell; None for a source that is not a text, or metadata that are not a map.

    Attributes:
        is_plain: Whether the source is known to have one element for each code point.
    """

    cell: bytes
    source: bytes | None
    metadata: bytes | None
    is_plain: bool


class Mirror:
    """The content of a document, read once; the owner updates it with each edit.

    Attributes:
        cells_node: The map of cells; None in a foreign document without one.
        metadata_node: The map of the notebook's metadata, likewise.
        foreign_content: What else the document held when it was read, the first such thing, as part of a sentence;
            None if there was nothing.
    """

    def __init__(self, engine: Engine) -> None:
        self.records: dict[CellId, CellRecord] = {}
        self.nodes: dict[CellId, CellNodes] = {}
        self.order: list[Place] = []
        self.foreign_content: str | None = None
        root = engine.items(ROOT)
        self.schema = root.get("schema")
        notebook_id = root.get("notebook_id")
        self.notebook_id = SessionId(notebook_id) if isinstance(notebook_id, str) else None
        if self.notebook_id is None:
            self._note_foreign("it has no notebook_id")
        self._check_fields("its root", root.keys(), _ROOT_FIELDS)
        self.metadata_node = _map_id(root.get("metadata"))
        self.metadata = self._texts(engine, self.metadata_node, "its metadata")
        self.cells_node = _map_id(root.get("cells"))
        if self.cells_node is None:
            self._note_foreign("it has no map of cells")
        for key, value in engine.items(self.cells_node).items() if self.cells_node is not None else ():
            cell = _map_id(value)
            if cell is not None:
                self._read_cell(engine, CellId(key), cell)
            else:
                self._note_foreign(f"cell {key!r} is no map")
        self.order.sort()

    def put(self, record: CellRecord) -> None:
        """Add or replace a cell."""
        former = self.records.get(record.id)
        if former is None or former.position != record.position:
            if former is not None:
                self._leave_order(former)
            insort(self.order, (record.position, record.id))
        self.records[record.id] = record

    def remove(self, cell_id: CellId) -> None:
        """Remove a cell."""
        self._leave_order(self.records.pop(cell_id))
        del self.nodes[cell_id]

    def _leave_order(self, record: CellRecord) -> None:
        del self.order[bisect_left(self.order, (record.position, record.id))]

    def _read_cell(self, engine: Engine, cell_id: CellId, cell: bytes) -> None:
        values = engine.items(cell)
        source = values.get("source")
        source_node = source.id if isinstance(source, Node) and source.kind == "text" else None
        metadata_node = _map_id(values.get("metadata"))
        cell_type, position = _text(engine, values.get("cell_type")), _text(engine, values.get("position"))
        count, execution_id = values.get("execution_count"), _text(engine, values.get("execution_id"))
        content = _text(engine, source)
        self.nodes[cell_id] = CellNodes(cell, source_node, metadata_node, is_plain=False)
        record = CellRecord(
            id=cell_id,
            # A cell of an unknown type is shown as it is and never executed.
            cell_type=cast("CellType", cell_type) if isinstance(cell_type, str) and cell_type in _CELL_TYPES else "raw",
            source=content if isinstance(content, str) else "",
            position=position if isinstance(position, str) else "",
            execution_count=count if isinstance(count, int) and not isinstance(count, bool) else None,
            execution_id=ExecutionId(execution_id) if isinstance(execution_id, str) else None,
            metadata=self._texts(engine, metadata_node, f"the metadata of cell {cell_id!r}"),
        )
        self.records[cell_id] = record
        self.order.append((record.position, cell_id))
        self._check_fields(f"cell {cell_id!r}", values.keys(), _CELL_FIELDS)
        read = {"cell_type": cell_type, "position": position, "source": content}
        for field, value in {**read, "execution_count": count, "execution_id": execution_id}.items():
            if value != getattr(record, field):
                self._note_foreign(f"cell {cell_id!r} has another kind of {field}")

    def _texts(self, engine: Engine, node: bytes | None, what: str) -> dict[str, str]:
        """Return the texts in a map; other values are skipped."""
        if node is None:
            self._note_foreign(f"{what} are no map")
            return {}
        texts = {}
        for key, value in engine.items(node).items():
            text = _text(engine, value)
            if isinstance(text, str):
                texts[key] = text
            else:
                self._note_foreign(f"{what} have {key!r}, which is no text")
        return texts

    def _check_fields(self, what: str, found: Set[str], fields: Set[str]) -> None:
        if missing := sorted(fields - found):
            self._note_foreign(f"{what} has no {missing[0]}")
        if unknown := sorted(found - fields):
            self._note_foreign(f"{what} has {unknown[0]!r}, which no notebook has")

    def _note_foreign(self, what: str) -> None:
        if self.foreign_content is None:
            self.foreign_content = what


def _text(engine: Engine, value: object) -> object:
    """Return the content of a text, which is what JavaScript makes of a string; any other value as it is."""
    return engine.text(value.id) if isinstance(value, Node) and value.kind == "text" else value


def _map_id(value: object) -> bytes | None:
    return value.id if isinstance(value, Node) and value.kind == "map" else None
