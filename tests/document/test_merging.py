"""Edits made at the same time, by clients of one document and in copies of it."""

import pytest

from runtimed.document.notebook import NotebookDocument
from runtimed.document.sources import MAX_TEXT
from runtimed.errors import ProtocolError
from runtimed.ids import CellId, ClientId, NotebookId

ME, YOU = ClientId("a" * 32), ClientId("b" * 32)
A, B, C, D = CellId("cell-a"), CellId("cell-b"), CellId("cell-c"), CellId("cell-d")
CODE = "import os\n\ndef f(x):\n    return x\n\nprint(f(1))\n"


def a_document(source: str = CODE) -> NotebookDocument:
    document = NotebookDocument.create(NotebookId("n"))
    document.add_cell(A, source, "code", author=ME)
    return document


def two_copies(source: str = CODE) -> tuple[NotebookDocument, NotebookDocument]:
    document = a_document(source)
    return document, NotebookDocument.load(document.save(), [])


def exchange(one: NotebookDocument, other: NotebookDocument) -> None:
    for_other, for_one = one.changes_since(other.heads), other.changes_since(one.heads)
    one.merge_changes(for_one)
    other.merge_changes(for_other)
    assert one.heads == other.heads
    assert one.cells() == other.cells()


def source_of(document: NotebookDocument) -> str:
    record = document.cell(A)
    assert record is not None
    return record.source


def test_a_source_set_by_one_who_saw_an_older_text_keeps_the_edits_of_the_others():
    document = a_document()
    seen = source_of(document)
    document.set_source(A, CODE.replace("os", "sys"), base=seen, author=YOU)
    document.set_source(A, CODE.replace("f(1)", "f(2)"), base=seen, author=ME)
    assert source_of(document) == CODE.replace("os", "sys").replace("f(1)", "f(2)")


def test_what_was_appended_meanwhile_stays_when_the_source_is_set():
    document = a_document("a\n")
    seen = source_of(document)
    document.append_source(A, "streamed\n", author=YOU)
    document.set_source(A, "b\n", base=seen, author=ME)
    assert source_of(document) == "b\nstreamed\n"


def test_setting_a_source_twice_from_the_same_base_is_harmless():
    document = a_document()
    seen = source_of(document)
    target = CODE.replace("os", "sys") + "# end\n"
    document.set_source(A, target, base=seen, author=ME)
    document.set_source(A, "# begin\n" + target, base=source_of(document), author=YOU)
    assert document.set_source(A, target, base=seen, author=ME).change == b""
    assert source_of(document) == "# begin\n" + target


def test_a_source_set_without_a_base_replaces_the_present_text():
    document = a_document()
    document.append_source(A, "more", author=YOU)
    document.set_source(A, "new", base=None, author=ME)
    assert source_of(document) == "new"


@pytest.mark.parametrize("first", ["x" * (MAX_TEXT + 1), "short"])
def test_a_source_that_was_too_long_to_merge_is_replaced(first: str):
    document = a_document(first)
    seen = source_of(document)
    document.set_source(A, "y" * (MAX_TEXT + 1), base=seen, author=YOU)
    document.set_source(A, first + "mine", base=seen, author=ME)
    assert source_of(document) == first + "mine"


def test_copies_of_a_document_merge_edits_of_one_source():
    one, other = two_copies()
    one.set_source(A, CODE.replace("os", "sys"), base=None, author=ME)
    other.set_source(A, CODE.replace("f(1)", "f(2)"), base=None, author=YOU)
    exchange(one, other)
    assert source_of(one) == CODE.replace("os", "sys").replace("f(1)", "f(2)")


def test_documents_made_apart_for_one_id_merge_their_cells():
    one, other = (NotebookDocument.create(NotebookId("n")) for _ in range(2))
    one.add_cell(A, "a", "code", author=ME)
    other.add_cell(B, "b", "code", author=YOU)
    exchange(one, other)
    assert [(record.id, record.source) for record in one.cells()] == [(A, "a"), (B, "b")]


def test_documents_of_two_ids_merge_and_agree_on_one():
    one, other = NotebookDocument.create(NotebookId("n")), NotebookDocument.create(NotebookId("m"))
    exchange(one, other)
    assert one.notebook_id == other.notebook_id
    assert one.notebook_id in ("n", "m")


def test_a_merge_tells_the_cells_it_touched_in_document_order():
    one, other = two_copies()
    one.add_cell(B, "", "code", author=ME)
    one.add_cell(C, "", "code", author=ME)
    other.merge_changes(one.changes_since(other.heads))
    heads = other.heads
    one.add_cell(D, "", "code", 0, author=ME)
    one.append_source(C, "x", author=ME)
    one.delete_cell(A, author=ME)
    assert other.merge_changes(one.changes_since(heads)) == [D, C, A]
    assert other.merge_changes(one.changes_since(heads)) == []
    assert other.merge_changes([]) == []


def test_cells_can_be_added_between_two_that_copies_put_at_the_same_place():
    one, other = two_copies()
    one.add_cell(B, "", "code", author=ME)
    other.add_cell(C, "", "code", author=YOU)
    exchange(one, other)
    positions = [record.position for record in one.cells()]
    assert positions[1] == positions[2]
    one.add_cell(D, "", "code", 2, author=ME)
    exchange(one, other)
    assert other.cell_ids() == [A, B, D, C]
    assert len({record.position for record in other.cells()}) == 4


def test_changes_are_applied_in_any_order_and_in_pieces_of_any_size():
    one, other = two_copies()
    changes = [one.append_source(A, text, author=ME).change for text in "abc"]
    other.merge_changes([b"".join(changes[1:]), changes[0]])
    assert other.heads == one.heads


def test_changes_that_build_upon_missing_ones_are_refused_and_leave_the_document_as_it_was():
    one, other = two_copies()
    heads = other.heads
    changes = [one.append_source(A, text, author=ME).change for text in "abc"]
    with pytest.raises(ProtocolError, match="lacks"):
        other.merge_changes(changes[1:])
    assert other.heads == heads
    assert other.merge_changes(changes[:1]) == [A]
    assert source_of(other) == CODE + "a"


@pytest.mark.parametrize("damage", ["cut", "flip", "junk"])
def test_damaged_changes_are_refused_and_leave_the_document_as_it_was(damage: str):
    one, other = two_copies()
    heads = other.heads
    change = one.append_source(A, "x", author=ME).change
    bad = {"cut": change[:-1], "flip": change[:-1] + bytes([change[-1] ^ 1]), "junk": b"junk"}[damage]
    with pytest.raises(ProtocolError, match="unreadable"):
        other.merge_changes([bad])
    assert other.heads == heads


def test_two_histories_of_one_author_are_refused_and_the_document_lives_on():
    one, other = two_copies()
    one.append_source(A, "one", author=ME)
    other.append_source(A, "other", author=ME)
    with pytest.raises(ProtocolError, match="duplicate seq"):
        other.merge_changes(one.changes_since(()))
    assert source_of(other) == CODE + "other"
    other.append_source(A, "!", author=YOU)
    assert NotebookDocument.load(other.save(), []).cells() == other.cells()
