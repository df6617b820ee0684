"""Random edits: the document against a model."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from tests.document.edited import EditedDocument

AUTHORS = [ClientId("a" * 32), ClientId("b" * 32)]
TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(["a = 1\nb = 2\nc = 3\n", "a = 1\nc = 3\n", "a\0b", "😀é\r\n"]))
EDITS = st.tuples(
    st.sampled_from(
        ["add", "add", "set", "set", "append", "delete", "move", "type", "execution", "cell_metadata", "metadata"]
    ),
    st.integers(0, 1_000),
    st.integers(0, 1_000),
    TEXTS,
    st.sampled_from(["code", "markdown", "raw"]),
)


@dataclass
class ModelCell:
    id: CellId
    cell_type: str
    source: str
    execution: tuple[str | None, int | None] = (None, None)
    metadata: dict[str, str] = field(default_factory=dict)


class Model:
    """What a notebook should be: a list of cells."""

    def __init__(self) -> None:
        self.cells: list[ModelCell] = []
        self.metadata: dict[str, str] = {}
        self.added = 0

    def apply(self, document: EditedDocument, edit: tuple[str, int, int, str, Any]) -> bytes:
        """Make one edit in the document and in the model."""
        kind, one, other, text, cell_type = edit
        author = AUTHORS[one % 2]
        if kind == "metadata":
            self.metadata["k"] = text
            return document.set_entry("k", text, author=author).change
        if kind == "add" or not self.cells:
            index = one % (len(self.cells) + 1)
            cell = ModelCell(CellId(f"cell-{other}-{self.added}"), cell_type, text)
            self.added += 1
            self.cells.insert(index, cell)
            return document.add_cell(cell.id, text, cell_type, index, author=author).change
        cell = self.cells[one % len(self.cells)]
        match kind:
            case "set":
                cell.source = text
                return document.set_source(cell.id, text, base=None, author=author).change
            case "append":
                cell.source += text
                return document.append_source(cell.id, text, author=author).change
            case "delete":
                self.cells.remove(cell)
                return document.delete_cell(cell.id, author=author).change
            case "move":
                self.cells.remove(cell)
                index = other % (len(self.cells) + 1)
                after = self.cells[index - 1].id if index else None
                self.cells.insert(index, cell)
                return document.move_cell(cell.id, after, author=author).change
            case "type":
                cell.cell_type = cell_type
                return document.set_cell_type(cell.id, cell_type, author=author).change
            case "execution":
                cell.execution = (text or "e", other)
                return document.set_execution(cell.id, ExecutionId(text or "e"), other, author=author).change
            case _:
                cell.metadata["k"] = text
                return document.set_cell_metadata(cell.id, "k", text, author=author).change

    def check(self, document: EditedDocument) -> None:
        assert document.metadata("k") == self.metadata.get("k")
        assert document.cell_ids() == [cell.id for cell in self.cells]
        assert [
            ModelCell(
                record.id,
                record.cell_type,
                record.source,
                (record.execution_id, record.execution_count),
                dict(record.metadata),
            )
            for record in document.cells()
        ] == self.cells


@given(st.lists(EDITS, max_size=30), st.integers(0, 30))
def test_a_document_holds_what_its_edits_say_in_memory_and_when_it_is_loaded(edits: list[Any], saved_after: int):
    document = EditedDocument.create(SessionId("n"))
    model = Model()
    snapshot = document.save()
    changes: list[bytes] = []
    for number, edit in enumerate(edits):
        if number == saved_after:
            snapshot, changes = document.save(), []
        change = model.apply(document, edit)
        changes += [change] if change else []
        model.check(document)
    for loaded in (EditedDocument.load(snapshot, changes), EditedDocument.load(document.save(), [])):
        model.check(loaded)
        assert (loaded.cells(), loaded.heads) == (document.cells(), document.heads)


@given(TEXTS, TEXTS, TEXTS)
def test_a_source_merged_from_any_base_is_what_the_document_then_holds(base: str, theirs: str, mine: str):
    document = EditedDocument.create(SessionId("n"))
    cell_id = CellId("c")
    document.add_cell(cell_id, base, "code", author=AUTHORS[0])
    document.set_source(cell_id, theirs, base=base, author=AUTHORS[1])
    document.set_source(cell_id, mine, base=base, author=AUTHORS[0])
    merged = document.cell(cell_id)
    assert EditedDocument.load(document.save(), []).cell(cell_id) == merged
    if theirs == base:
        assert merged is not None
        assert merged.source == mine
