"""What a session takes from its file: each cell was left alone, changed here, changed there, or both."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.notebook_file.merging import FileRecord, Merge, merge, record_of
from runtimed.notebook_file.reading import FileCell, NotebookFile


def notebook(*cells: str, **metadata: Any) -> NotebookFile:
    """Make a notebook of texts such as `a=1`: the cell `a` with the source `1`."""
    return NotebookFile(
        metadata=metadata,
        cells=tuple(FileCell(id=one[0], cell_type="code", source=one[2:]) for one in cells),
    )


def record(*cells: str, **metadata: Any) -> FileRecord:
    return record_of("/a.ipynb", notebook(*cells, **metadata))


def told(found: Merge) -> dict[str, Any]:
    """Return what is not empty, with each put as a text such as `+b=2 after a`."""
    puts = [
        f"+{put.cell.id}={put.cell.source} after {put.after}" if put.is_new else f"{put.cell.id}={put.cell.source}"
        for put in found.puts
    ]
    whole = {
        "puts": puts,
        "deleted": found.deleted,
        "order": found.order,
        "metadata": found.metadata,
        "conflicts": list(found.conflicts),
        "kept": found.kept,
        "metadata_conflict": found.metadata_conflict,
    }
    return {key: value for key, value in whole.items() if value}


@pytest.mark.parametrize(
    ("was", "here", "there", "expected"),
    [
        (None, [], ["a=1", "b=2"], {"puts": ["+a=1 after None", "+b=2 after a"]}),
        (None, ["a=1"], ["a=1"], {}),
        (None, ["x=1", "y=2"], ["a=1", "b=2"], {"puts": ["+a=1 after y", "+b=2 after a"]}),
        (["a=1"], ["a=2"], ["a=1"], {}),
        (["a=1"], ["a=1"], ["a=2"], {"puts": ["a=2"]}),
        (["a=1"], ["a=2"], ["a=2"], {}),
        (["a=1"], [], ["a=1"], {}),
        (["a=1"], [], ["a=2"], {"puts": ["+a=2 after None"]}),
        (["a=1", "b=1"], ["a=1", "b=1"], ["b=1"], {"deleted": ["a"]}),
        (["a=1"], ["a=2"], [], {"kept": ["a"]}),
        (["a=1"], ["a=1", "x=new"], ["a=1", "b=2"], {"puts": ["+b=2 after a"]}),
        (["a=1", "b=1"], ["b=1", "a=1"], ["a=1", "b=1"], {}),
        (["a=1", "b=1"], ["a=1", "b=1"], ["b=1", "c=2", "a=1"], {"puts": ["+c=2 after b"], "order": ["b", "c", "a"]}),
    ],
)
def test_what_one_side_left_alone_is_taken_from_the_other(
    was: list[str] | None, here: list[str], there: list[str], expected: dict[str, Any]
):
    base = None if was is None else record(*was)
    assert told(merge(base, notebook(*here), notebook(*there))) == expected


@pytest.mark.parametrize("base", [record("a=1", "b=1"), None])
def test_where_both_changed_a_cell_the_file_s_version_stands_behind_it_once(base: FileRecord | None):
    here, there = notebook("a=here", "b=1"), notebook("a=there", "b=1")
    found = merge(base, here, there)
    (put,) = found.puts
    assert found.conflicts == {"a": put.cell.id}
    assert (put.cell.source, put.after, put.is_new) == ("there", "a", True)
    merged = NotebookFile(metadata={}, cells=(here.cells[0], put.cell, here.cells[1]))
    assert merge(base, merged, there).puts == []


@pytest.mark.parametrize(
    ("was", "here", "there", "expected"),
    [
        (None, {}, {"a": 1}, {"metadata": {"a": 1}}),
        (None, {"a": 1}, {"a": 1}, {}),
        (None, {"a": 1}, {"a": 2}, {"metadata_conflict": True}),
        ({"a": 1}, {"a": 1}, {"a": 2}, {"metadata": {"a": 2}}),
        ({"a": 1}, {"a": 2}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"metadata_conflict": True}),
    ],
)
def test_metadata_of_the_notebook_merge_as_a_whole(was: Any, here: Any, there: Any, expected: dict[str, Any]):
    base = None if was is None else record(**was)
    assert told(merge(base, notebook(**here), notebook(**there))) == expected


CELLS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("12")), unique_by=lambda cell: cell[0], max_size=4)
NOTEBOOKS = CELLS.map(lambda cells: notebook(*("=".join(cell) for cell in cells)))


@given(st.none() | NOTEBOOKS, NOTEBOOKS, NOTEBOOKS)
def test_no_edit_of_either_side_is_lost(was: NotebookFile | None, here: NotebookFile, there: NotebookFile):
    base = None if was is None else record_of("/a.ipynb", was)
    found = merge(base, here, there)
    before = {} if was is None else {cell.id: cell.source for cell in was.cells}
    after = {cell.id: cell.source for cell in here.cells if cell.id not in found.deleted}
    after |= {put.cell.id: put.cell.source for put in found.puts}
    for side in (here, there):
        for cell in side.cells:
            if before.get(cell.id) != cell.source:
                twin = found.conflicts.get(cell.id, cell.id)
                assert cell.source in (after[cell.id], after.get(twin))


def test_a_record_is_a_text_of_its_own():
    known = record("a=1", "é=2", title="x")
    assert FileRecord.of_text(known.text()) == known
    assert [FileRecord.of_text(text) for text in (None, "", "{}", "[1]")] == [None] * 4
