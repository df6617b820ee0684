"""Which edit wrote each line of a cell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.document.blaming import Blame, blame
from runtimed.document.deltas import CellAdded, CellDeleted, Delta, SourceEdited, TypeSet
from runtimed.document.text_edit import apply_edits, find_edit
from runtimed.ids import CellId
from tests.storage.test_notebook import cell

A, B = CellId("a"), CellId("b")


@pytest.mark.parametrize(
    ("before", "after", "versions"),
    [
        ("", "x", [2]),
        ("x", "", [2]),
        ("x", "xy", [2]),
        ("one\ntwo\nthree", "one\ntwo!\nthree", [1, 2, 1]),
        ("one\ntwo\nthree", "one\n\ntwo\nthree", [1, 2, 1, 1]),
        ("one\ntwo\nthree", "zero\none\ntwo\nthree", [2, 1, 1, 1]),
        ("one\ntwo\nthree", "one\ntwo\nthree\nfour", [1, 1, 1, 2]),
        ("one\ntwo\nthree\n", "one\ntwo\nthree\nfour\n", [1, 1, 1, 2, 1]),
        ("one\ntwo\nthree", "one\nthree", [1, 1]),
        ("one\ntwo\nthree", "two\nthree", [1, 1]),
        ("one\ntwo\nthree", "one\ntwo", [1, 1]),
        ("one\ntwo\nthree", "onetwo\nthree", [2, 1]),
        ("one\ntwo\nthree", "on\ne\ntwo\nthree", [2, 2, 1, 1]),
        # One edit from the first change to the last one: what is between them stays whose it was.
        ("one\ntwo\nthree\nfour\nfive", "1\ntwo\nthree\nfour\n5", [2, 1, 1, 1, 2]),
        ("x\nx\nx", "x\nx\nx\nx", [1, 1, 1, 2]),
        ("é😀\nb", "é😀\nB", [1, 2]),
    ],
)
def test_an_edit_has_the_lines_that_it_wrote_or_changed(before: str, after: str, versions: list[int]):
    found = Blame(before, 1)
    found.edit(SourceEdited(A, *find_edit(before, after)), 2)
    assert (found.source, found.versions) == (after, versions)


def test_the_edits_of_one_cell_are_replayed_from_its_addition_on():
    deltas: list[tuple[int, Delta]] = [
        (1, CellAdded(cell("a", source="old"))),
        (2, CellAdded(cell("b", source="other"))),
        (3, CellDeleted(A)),
        (4, CellAdded(cell("a", source="x\ny"))),
        (5, TypeSet(A, "raw")),
        (6, SourceEdited(B, 0, 0, "\n\n")),
        (7, SourceEdited(A, 1, 0, "!")),
    ]

    def versions(cell_id: CellId, upto: int) -> list[int] | None:
        found = blame(None, cell_id, deltas[:upto])
        return None if found is None else found.versions

    assert [versions(A, upto) for upto in range(8)] == [None, [1], [1], None, [4, 4], [4, 4], [4, 4], [7, 4]]
    assert versions(B, 7) == [6, 6, 2]
    base = blame(Blame("one\ntwo", 9), A, [(10, SourceEdited(A, 0, 1, "O"))])
    assert base is not None
    assert base.versions == [10, 9]


TEXTS = st.text(st.sampled_from("ab\n"), max_size=12)


@given(TEXTS, st.lists(TEXTS, max_size=8))
def test_each_line_is_of_a_version_that_had_it(first: str, others: list[str]):
    texts = [first, *others]
    found = Blame(first, 0)
    for version, text in enumerate(others, 1):
        edit = find_edit(found.source, text)
        assert apply_edits(found.source, [edit]) == text
        found.edit(SourceEdited(A, *edit), version)
        assert found.source == text
        lines = text.split("\n")
        assert len(found.versions) == len(lines)
        assert all(line in texts[one].split("\n") for line, one in zip(lines, found.versions, strict=True))
