"""A document that is edited as a daemon and its worker do it: decided upon what it says, then applied."""

from bisect import bisect_right
from dataclasses import dataclass

from runtimed.document import editing
from runtimed.document.cells import Place
from runtimed.document.deltas import Delta, decode_delta, encode_delta
from runtimed.document.notebook import NotebookDocument
from runtimed.ids import CellId, ClientId, ExecutionId
from runtimed.models import CellType

__all__ = ["Edit", "EditedDocument"]


@dataclass(frozen=True)
class Edit:
    """What an edit did: the new change, empty if it changed nothing, and the heads after it."""

    change: bytes
    cell_id: CellId | None
    heads: tuple[bytes, ...]


class EditedDocument(NotebookDocument):
    """A document with a method for each edit; implements `Cells`, so that they are decided upon it."""

    def count(self) -> int:
        return len(self._mirror.order)

    def places(self) -> list[Place]:
        return self._mirror.order

    def place_at(self, index: int) -> Place | None:
        order = self._mirror.order
        return order[index] if -len(order) <= index < len(order) else None

    def place_behind(self, place: Place) -> Place | None:
        order = self._mirror.order
        found = bisect_right(order, place)
        return order[found] if found < len(order) else None

    def add_cell(
        self, cell_id: CellId, source: str, cell_type: CellType, index: int | None = None, *, author: ClientId
    ) -> Edit:
        return self._do(editing.add_cell(self, cell_id, source, cell_type, index), cell_id, author)

    def delete_cell(self, cell_id: CellId, *, author: ClientId) -> Edit:
        return self._do(editing.delete_cell(self, cell_id), cell_id, author)

    def move_cell(self, cell_id: CellId, after: CellId | None, *, author: ClientId) -> Edit:
        return self._do(editing.move_cell(self, cell_id, after), cell_id, author)

    def set_cell_type(self, cell_id: CellId, cell_type: CellType, *, author: ClientId) -> Edit:
        return self._do(editing.set_cell_type(self, cell_id, cell_type), cell_id, author)

    def set_execution(
        self, cell_id: CellId, execution_id: ExecutionId | None, execution_count: int | None, *, author: ClientId
    ) -> Edit:
        return self._do(editing.set_execution(self, cell_id, execution_id, execution_count), cell_id, author)

    def set_cell_metadata(self, cell_id: CellId, key: str, value: str | None, *, author: ClientId) -> Edit:
        return self._do(editing.set_cell_metadata(self, cell_id, key, value), cell_id, author)

    def set_entry(self, key: str, value: str, *, author: ClientId) -> Edit:
        return self._do(editing.set_metadata(self, key, value), None, author)

    def set_source(self, cell_id: CellId, source: str, *, base: str | None, author: ClientId) -> Edit:
        return self._do(editing.set_source(self, cell_id, source, base=base), cell_id, author)

    def append_source(self, cell_id: CellId, text: str, *, author: ClientId) -> Edit:
        return self._do(editing.append_source(self, cell_id, text), cell_id, author)

    def _do(self, delta: Delta | None, cell_id: CellId | None, author: ClientId) -> Edit:
        if delta is None:
            return Edit(b"", cell_id, self.heads)
        assert delta.cell_id == cell_id
        change = self.apply(decode_delta(encode_delta(delta)), author=author)
        return Edit(change, cell_id, self.heads)
