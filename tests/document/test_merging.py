"""Edits that clients of one document make at the same time."""

import pytest

from runtimed.document.checks import MAX_TEXT
from runtimed.ids import CellId, ClientId, SessionId
from tests.document.edited import EditedDocument

ME, YOU = ClientId("a" * 32), ClientId("b" * 32)
A = CellId("cell-a")
CODE = "import os\n\ndef f(x):\n    return x\n\nprint(f(1))\n"


def a_document(source: str = CODE) -> EditedDocument:
    document = EditedDocument.create(SessionId("n"))
    document.add_cell(A, source, "code", author=ME)
    return document


def source_of(document: EditedDocument) -> str:
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
