"""Copies of a document that were edited elsewhere: their edits are taken in, or nothing is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from automerge import core

from runtimed.document.changes import read_changes
from runtimed.document.checks import MAX_TEXT
from runtimed.document.compaction import rebuild
from runtimed.document.deltas import CellDeleted, EntrySet, SourceEdited
from runtimed.document.merging import MergedCopy, merge_copy
from runtimed.document.notebook import NotebookDocument
from runtimed.document.replaying import Replay
from runtimed.errors import NotebookFileError
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from tests.document.edited import EditedDocument

ID = SessionId("n")
ME, OTHER = ClientId("a" * 32), ClientId("b" * 32)
A, B = CellId("cell-a"), CellId("cell-b")
BASE = NotebookDocument.create(ID).heads
Put = core.ScalarType


def a_document() -> EditedDocument:
    document = EditedDocument.create(ID)
    document.add_cell(A, "one\ntwo\n", "code", author=ME)
    document.add_cell(B, "b", "markdown", author=ME)
    document.set_entry("k", "v", author=ME)
    return document


def copy_of(document: NotebookDocument) -> EditedDocument:
    return EditedDocument.load(document.save(), [])


def merged(document: NotebookDocument, copy: bytes) -> MergedCopy:
    return merge_copy(document, ID, copy, BASE, is_compacted=False)


def taken(document: NotebookDocument, found: MergedCopy) -> NotebookDocument:
    """Return the document with a copy, after a check that the deltas say the same as the changes."""
    after = NotebookDocument.load(document.save(), [change for _actor, change in found.changes])
    replay = Replay(document.cells(), document.all_metadata())
    for delta in found.deltas:
        replay.apply(delta)
    assert (replay.cells(), replay.metadata) == (after.cells(), after.all_metadata())
    return after


def test_an_edit_here_and_one_in_the_copy_both_stay():
    document = a_document()
    copy = copy_of(document)
    copy.set_source(A, "zero\none\ntwo\n", base=None, author=OTHER)
    copy.delete_cell(B, author=OTHER)
    document.set_source(A, "one\ntwo\nthree\n", base=None, author=ME)
    document.set_entry("k", "w", author=ME)
    found = merged(document, copy.save())
    assert found.deltas == [CellDeleted(B), SourceEdited(A, 0, 0, "zero\n")]
    assert [actor for actor, _change in found.changes] == [OTHER, OTHER]
    (cell,) = taken(document, found).cells()
    assert cell.source == "zero\none\ntwo\nthree\n"


def test_a_copy_that_was_merged_has_nothing_new():
    document = a_document()
    copy = copy_of(document)
    copy.set_entry("k", "w", author=OTHER)
    found = merged(document, copy.save())
    assert found.deltas == [EntrySet("k", "w")]
    assert merged(taken(document, found), copy.save()) == MergedCopy([], [])
    assert merged(document, document.save()) == MergedCopy([], [])


@pytest.mark.parametrize("seed", range(20))
def test_random_edits_on_both_sides_come_to_the_same(seed: int):
    numbers = random.Random(seed)
    here = a_document()
    for _ in range(6):
        there = copy_of(here)
        for side, author in ((here, ME), (there, OTHER)) * 4:
            edit_at_random(numbers, side, author)
        found = merged(here, there.save())
        back = merge_copy(there, ID, here.save(), BASE, is_compacted=False)
        after = taken(here, found)
        assert (after.heads, after.cells()) == (taken(there, back).heads, taken(there, back).cells())
        assert merged(after, there.save()) == MergedCopy([], [])
        here = copy_of(after)


def edit_at_random(numbers: random.Random, document: EditedDocument, author: ClientId) -> None:
    cells = document.cells()
    cell = numbers.choice(cells) if cells else None
    if cell is None or numbers.random() < 0.2:
        new = CellId(f"{author[0]}{numbers.randrange(10**9)}")
        document.add_cell(new, "new\n", "code", numbers.randint(0, len(cells)), author=author)
        return
    place = numbers.randint(0, len(cell.source))
    match numbers.choice(["source", "source", "source", "type", "move", "delete", "metadata", "entry"]):
        case "source":
            cut = cell.source[place + numbers.randint(0, 3) :]
            text = cell.source[:place] + numbers.choice(["é", "x = 1\n", "😀"]) + cut
            document.set_source(cell.id, text, base=None, author=author)
        case "type":
            document.set_cell_type(cell.id, numbers.choice(["code", "raw"]), author=author)
        case "move":
            document.move_cell(cell.id, numbers.choice(cells).id, author=author)
        case "delete":
            document.delete_cell(cell.id, author=author)
        case "metadata":
            document.set_cell_metadata(cell.id, "k", numbers.choice(["1", "2", None]), author=author)
        case "entry":
            document.set_entry("k", str(numbers.random()), author=author)


def test_what_javascript_makes_of_strings_is_read_as_one():
    def write(transaction: Any, _cells: bytes, cell: bytes) -> None:
        for key, value in (("cell_type", "raw"), ("position", "a5")):
            transaction.splice_text(transaction.put_object(cell, key, core.ObjType.Text), 0, 0, value)

    document = a_document()
    after = taken(document, merged(document, written(document, write)))
    assert [(cell.id, cell.cell_type, cell.position) for cell in after.cells()] == [
        (B, "markdown", "a1"),
        (A, "raw", "a5"),
    ]
    assert not after.has_foreign_content


def written(document: NotebookDocument, write: Callable[[Any, bytes, bytes], object]) -> bytes:
    """Return a copy that another program changed, which is given its cells and its first cell."""
    copy: Any = core.Document.load(document.save())
    copy.set_actor(b"javascript")
    with copy.transaction() as transaction:
        cells = transaction.get(core.ROOT, "cells")[1]
        write(transaction, cells, transaction.get(cells, A)[1])
    return bytes(copy.save())


def add(transaction: Any, cells: bytes, cell_id: str, **values: Any) -> None:
    cell = transaction.put_object(cells, cell_id, core.ObjType.Map)
    fields = {"cell_type": "code", "position": "a5", "source": "", "execution_count": None, "execution_id": None}
    for key, value in {**fields, **values}.items():
        kind = {str: Put.Str, int: Put.Int, type(None): Put.Null}[type(value)]
        transaction.put(cell, key, kind, value)
    transaction.put_object(cell, "metadata", core.ObjType.Map)


def put_text(transaction: Any, node: bytes, key: str, text: str) -> None:
    transaction.splice_text(transaction.put_object(node, key, core.ObjType.Text), 0, 0, text)


REFUSED: list[tuple[Callable[[Any, bytes, bytes], object], str]] = [
    (lambda t, _cells, cell: t.put(cell, "cell_type", Put.Int, 1), "with it, cell 'cell-a' has another kind of cell_t"),
    (lambda t, _cells, cell: t.put(cell, "cell_type", Put.Str, "query"), "cell 'cell-a' has another kind of cell_type"),
    (lambda t, _cells, cell: t.put(cell, "source", Put.Null, None), "cell 'cell-a' has another kind of source"),
    (lambda t, _cells, cell: t.put(cell, "colour", Put.Str, "red"), "cell 'cell-a' has 'colour', which no notebook"),
    (lambda t, _cells, cell: t.delete(cell, "metadata"), "the metadata of cell 'cell-a' are no map"),
    (lambda t, _cells, cell: t.put(t.get(cell, "metadata")[1], "k", Put.Int, 1), "'cell-a' have 'k', which is no text"),
    (lambda t, cells, _cell: t.put(cells, "c", Put.Str, "x"), "cell 'c' is no map"),
    (lambda t, _cells, _cell: t.delete(core.ROOT, "cells"), "it has no map of cells|its root has no cells"),
    (lambda t, _cells, _cell: t.put(core.ROOT, "schema", Put.Int, 9), "this document has schema 9, newer"),
    (lambda t, _cells, _cell: t.put(core.ROOT, "notebook_id", Put.Str, "m"), "it is a copy of the notebook 'm'"),
    (lambda t, _cells, _cell: t.delete(core.ROOT, "notebook_id"), "it has no notebook"),
    (lambda t, cells, _cell: add(t, cells, "two\nlines"), "A cell id"),
    (lambda t, cells, _cell: add(t, cells, "x" * 2000), "A cell id may have at most 1024 bytes"),
    (lambda t, cells, _cell: add(t, cells, "c", position="b"), "Cell 'c' has the position 'b', which is no fractional"),
    (lambda t, cells, _cell: add(t, cells, "c", execution_count=-1), "An execution count must be"),
    (lambda t, cells, _cell: add(t, cells, "c", execution_id="e"), "Cell 'c' shows another execution"),
    (lambda t, cells, _cell: add(t, cells, A), "cell 'cell-a' is another one than the session's, made anew"),
    (lambda t, _cells, cell: t.put(cell, "execution_count", Put.Int, 7), "Cell 'cell-a' shows another execution"),
    (lambda t, _cells, cell: put_text(t, cell, "source", "x" * (MAX_TEXT + 1)), "a text has at most 100000"),
    (lambda t, _cells, cell: t.put(cell, "source", Put.Str, "x" * (10 * 2**20 + 1)), "A cell's source may have at"),
    (
        lambda t, _cells, cell: t.put(t.get(cell, "metadata")[1], "x" * 2000, Put.Str, "1"),
        "A key of a cell's metadata may have at most",
    ),
    (
        lambda t, _cells, cell: [t.put(t.get(cell, "metadata")[1], k, Put.Str, "x" * 6_000_000) for k in "ab"],
        "A cell's metadata may have at most",
    ),
    (
        lambda t, _cells, _cell: t.put(t.get(core.ROOT, "metadata")[1], "x" * 2000, Put.Str, "1"),
        "A metadata key may have at most",
    ),
]


@pytest.mark.parametrize(("write", "sentence"), REFUSED, ids=[sentence for _write, sentence in REFUSED])
def test_what_no_notebook_has_is_refused(write: Callable[[Any, bytes, bytes], object], sentence: str):
    document = a_document()
    with pytest.raises(NotebookFileError, match=sentence):
        merged(document, written(document, write))


def test_a_cell_made_on_both_sides_under_one_id_is_refused():
    document = a_document()
    for author in (OTHER, ClientId("0" * 32)):  # whichever of the two automerge would show
        copy = copy_of(document)
        copy.add_cell(CellId("c"), "there", "code", author=author)
        here = copy_of(document)
        here.add_cell(CellId("c"), "here", "code", author=ME)
        with pytest.raises(NotebookFileError, match="'c' is another one than the session's"):
            merged(here, copy.save())


def test_a_cell_that_was_deleted_and_restored_here_does_not_keep_an_older_copy_out():
    document = a_document()
    document.add_cell(CellId("theirs"), "", "code", author=OTHER)
    copy = copy_of(document)
    copy.set_source(B, "there", base=None, author=OTHER)
    for cell_id in (A, CellId("theirs")):
        document.delete_cell(cell_id, author=ME)
        document.add_cell(cell_id, "again", "code", author=ME)
    after = taken(document, merged(document, copy.save()))
    assert {cell.id: cell.source for cell in after.cells()} == {A: "again", B: "there", "theirs": "again"}


def test_a_copy_may_clear_what_a_cell_shows():
    document = a_document()
    document.set_execution(A, ExecutionId("e"), 3, author=ME)

    def write(transaction: Any, _cells: bytes, cell: bytes) -> None:
        transaction.put(cell, "execution_id", Put.Null, None)
        transaction.put(cell, "execution_count", Put.Null, None)

    cell = taken(document, merged(document, written(document, write))).cell(A)
    assert cell is not None
    assert (cell.execution_id, cell.execution_count) == (None, None)


@pytest.mark.parametrize("cut", [0, 1, 8, 60, -1])
def test_what_is_no_whole_document_is_refused(cut: int):
    document = a_document()
    with pytest.raises(NotebookFileError, match=r"no whole Automerge document|has no notebook|another notebook"):
        merged(document, document.save()[:cut])


def test_a_document_with_a_changed_byte_is_refused():
    document = a_document()
    data = bytearray(document.save())
    data[len(data) // 2] ^= 1
    with pytest.raises(NotebookFileError, match="no whole Automerge document"):
        merged(document, bytes(data))


def test_a_copy_from_before_a_compaction_is_refused():
    before = a_document()
    document = rebuild(ID, before.cells(), before.all_metadata())
    for copy in (before.save(), NotebookDocument.create(ID).save()):
        with pytest.raises(NotebookFileError, match="history was dropped since the copy was made"):
            merge_copy(document, ID, copy, document.heads, is_compacted=True)


def test_a_document_that_another_program_made_under_this_name_is_refused():
    made = core.Document()
    with made.transaction() as transaction:
        transaction.put(core.ROOT, "notebook_id", Put.Str, ID)
    with pytest.raises(NotebookFileError, match="another notebook with the name 'n'"):
        merged(a_document(), bytes(made.save()))


def test_edits_under_one_actor_id_in_two_places_are_refused():
    document = a_document()
    copy = copy_of(document)
    copy.set_entry("k", "there", author=ME)
    document.set_entry("k", "here", author=ME)
    with pytest.raises(NotebookFileError, match="contradict those that the session has"):
        merged(document, copy.save())


def test_a_change_says_who_made_it():
    (change,) = read_changes([a_document().history()[-1]])
    assert change.actor == b"\xaa" * 16


def test_an_identity_is_the_same_in_each_copy():
    document = a_document()
    copy = copy_of(document)
    copy.add_cell(CellId("c"), "", "code", author=ClientId("0" * 32))  # its actor comes before the others
    copy = copy_of(copy)
    assert {cell.id: copy.object_of(cell.id) for cell in document.cells()} == {
        cell.id: document.object_of(cell.id) for cell in document.cells()
    }
    assert document.object_of(A) != document.object_of(B)
