"""What was set aside comes back with all that was written since, whatever the two have in common."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runtimed.document.cells import CellRecord
from runtimed.document.notebook import NotebookDocument
from runtimed.document.restoring import merge_present
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from tests.document.edited import EditedDocument

ME = ClientId("a" * 32)
ID = SessionId("n")


def document(*cells: tuple[str, str], **metadata: str) -> EditedDocument:
    made = EditedDocument.create(ID)
    for cell_id, source in cells:
        made.add_cell(CellId(cell_id), source, "code", None, author=ME)
    for key, value in metadata.items():
        made.set_entry(key, value, author=ME)
    return made


def restore(aside: EditedDocument, present: EditedDocument) -> tuple[NotebookDocument, list[CellRecord]]:
    found = NotebookDocument.load(aside.save(), [])
    return found, merge_present(found, NotebookDocument.load(present.save(), []))


def contents(document: NotebookDocument) -> list[tuple[str, str]]:
    return [(record.id, record.source) for record in document.cells()]


def test_without_anything_written_since_it_is_as_it_was():
    aside = document(("a", "1"), ("b", "2"), key="value")
    aside.set_execution(CellId("b"), ExecutionId("e"), 3, author=ME)
    found, cells = restore(aside, document())
    assert found.cells() == cells == aside.cells()
    assert found.all_metadata() == {"key": "value"}


def test_cells_written_since_follow_and_metadata_written_since_stays():
    aside, present = document(("a", "1"), ("b", "2"), x="old", y="old"), document(("c", "3"), ("d", "4"), x="new")
    found, cells = restore(aside, present)
    assert contents(found) == [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]
    assert [cell.id for cell in cells] == ["a", "b"]
    assert found.all_metadata() == {"x": "new", "y": "old"}


def test_a_cell_in_both_is_there_once_if_it_is_the_same_and_twice_if_it_differs():
    aside, present = document(("a", "same"), ("b", "before"), ("c", "3")), document(("b", "since"), ("a", "same"))
    found, cells = restore(aside, present)
    (first, before, since, last) = found.cells()
    assert [record.source for record in (first, before, since, last)] == ["same", "before", "since", "3"]
    assert (first.id, since.id, last.id) == ("a", "b", "c")
    assert before == replace(aside.cells()[1], id=before.id)
    assert cells == [before, last]


ids = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["1", "2"])), unique_by=lambda cell: cell[0])


@settings(max_examples=60)
@given(aside=ids, present=ids)
def test_no_source_is_ever_lost_and_the_present_cells_keep_their_ids(aside, present):
    found, cells = restore(document(*aside), document(*present))
    after = dict(contents(found))
    assert all(after[cell_id] == source for cell_id, source in present)
    new = dict(present)
    expected = [source for cell_id, source in aside if new.get(cell_id) != source]
    assert [record.source for record in cells] == expected
    assert len(found.cells()) == len(present) + len(expected)
    loaded = EditedDocument.load(found.save(), [])
    assert loaded.cells() == found.cells()
