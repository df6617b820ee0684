"""What a session takes from its file: each cell was left alone, changed here, changed there, or both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.notebook_file.merging import FileRecord, Merge, cells_with_new_outputs, merge, record_of
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
        "order_conflict": found.order_conflict,
        "metadata_conflicts": found.metadata_conflicts,
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
        (["a=1", "b=1"], ["b=1", "a=1"], ["b=1", "a=1"], {}),
        (["a=1", "b=1", "c=1"], ["b=1", "a=1", "c=1"], ["c=1", "a=1", "b=1"], {"order_conflict": True}),
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


def conflicts(**values: Any) -> dict[str, Any]:
    return {"runtimed": {"conflicts": values}}


@pytest.mark.parametrize(
    ("was", "here", "there", "expected"),
    [
        (None, {}, {"a": 1}, {"metadata": {"a": 1}}),
        (None, {"a": 1}, {"a": 1}, {}),
        (None, {"b": 1}, {"a": 1}, {"metadata": {"a": 1, "b": 1}}),
        (None, {"a": 1}, {"a": 2}, {"metadata_conflicts": ["a"], "metadata": {"a": 1, **conflicts(a=2)}}),
        ({"a": 1}, {"a": 1}, {"a": 2}, {"metadata": {"a": 2}}),
        ({"a": 1}, {"a": 2}, {"a": 1}, {}),
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, {"metadata": {"a": 2, "b": 2}}),
        ({"a": 1}, {"a": 1}, {}, {}),
        ({"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a": 1}, {"metadata": {"a": 1}}),
        ({"a": 1}, {"a": 2}, {}, {}),
        ({"a": 1}, {}, {"a": 2}, {"metadata": {"a": 2}}),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"metadata_conflicts": ["a"], "metadata": {"a": 2, **conflicts(a=3)}}),
    ],
)
def test_metadata_of_the_notebook_merge_entry_by_entry(was: Any, here: Any, there: Any, expected: dict[str, Any]):
    base = None if was is None else record(**was)
    assert told(merge(base, notebook(**here), notebook(**there))) == expected


def test_of_two_values_that_a_file_had_in_a_conflict_the_last_stays_beside_those_of_other_entries():
    here = notebook(a=1, b=1, **conflicts(a=2, c=0))
    found = merge(record(a=0, b=0), here, notebook(a=3, b=0))
    assert found.metadata is not None
    assert found.metadata["runtimed"] == {"conflicts": {"a": 3, "c": 0}}


def ran(cell: str, count: int, text: str) -> NotebookFile:
    """Make a notebook with one cell that has printed a text."""
    output = {"output_type": "stream", "name": "stdout", "text": text}
    (bare,) = notebook(cell).cells
    return NotebookFile(metadata={}, cells=(replace(bare, execution_count=count, outputs=(output,)),))


OLD, MINE, THEIRS, NONE = ran("a=1", 1, "old"), ran("a=1", 2, "mine"), ran("a=1", 1, "theirs"), notebook("a=1")


@pytest.mark.parametrize(
    ("was", "here", "there", "is_taken"),
    [
        (OLD, OLD, THEIRS, True),
        (OLD, OLD, NONE, True),
        (OLD, MINE, THEIRS, False),
        (OLD, MINE, OLD, False),
        (OLD, THEIRS, THEIRS, False),
        (OLD, OLD, ran("a=1", 1, "old\rold"), False),
        (NONE, NONE, THEIRS, True),
        (None, NONE, THEIRS, True),
        (None, MINE, THEIRS, False),
    ],
)
def test_outputs_that_only_the_file_has_changed_are_taken(
    was: NotebookFile | None, here: NotebookFile, there: NotebookFile, is_taken: bool
):
    base = None if was is None else record_of("/a.ipynb", was)
    shown = cells_with_new_outputs(base, here, there)
    puts = merge(base, here, there, shown).puts
    assert [(put.cell.outputs, put.cell.execution_count, put.is_new) for put in puts] == (
        [(there.cells[0].outputs, there.cells[0].execution_count, False)] if is_taken else []
    )


def test_outputs_are_taken_by_the_source_that_the_session_has():
    here = notebook("a=2")
    (put,) = merge(record("a=1"), here, ran("a=1", 1, "theirs"), ["a"]).puts
    assert (put.cell.source, put.cell.outputs[0]["text"]) == ("2", "theirs")


@pytest.mark.parametrize("is_written", [True, False])
def test_a_save_that_may_not_have_been_written_takes_nothing_back(is_written: bool):
    before, saved = record("a=1", "b=1", t=1), notebook("a=2", "b=1", "c=new", t=2)
    base = msgspec.structs.replace(record_of("/a.ipynb", saved), replaces=before)
    there = notebook("a=2", "b=edited", "c=new", t=2) if is_written else notebook("a=1", "b=edited", t=1)
    assert told(merge(base, saved, there)) == {"puts": ["b=edited"]}


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
