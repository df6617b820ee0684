"""Editing and reading one notebook document."""

from collections.abc import Callable
from typing import Any

import pytest

from runtimed.document.cells import CellRecord
from runtimed.document.checks import MAX_SOURCE, MAX_TEXT
from runtimed.errors import CellNotFound, InvalidCell, SessionError, StorageError
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId, new_client_id
from tests.document.edited import Edit, EditedDocument

ME, YOU = ClientId("a" * 32), new_client_id()
A, B, C = CellId("cell-a"), CellId("cell-b"), CellId("cell-c")
EVERY_UNICODE = "nul \0, é, e\u0301, 😀, \u202e, \ufffc, \ufeff, \r\n, \u2028, \x7f, 中"


@pytest.fixture
def document() -> EditedDocument:
    return EditedDocument.create(SessionId("a notebook"))


def record(cell_id: CellId, source: str = "", **fields: Any) -> CellRecord:
    values: dict[str, Any] = {
        "cell_type": "code",
        "position": "a0",
        "execution_count": None,
        "execution_id": None,
        "metadata": {},
    }
    return CellRecord(id=cell_id, source=source, **(values | fields))


def reloaded(document: EditedDocument) -> EditedDocument:
    return EditedDocument.load(document.save(), [])


def test_a_new_document_has_its_id_and_no_cells(document: EditedDocument):
    assert (document.notebook_id, document.cells(), document.cell_ids()) == (SessionId("a notebook"), [], [])
    assert reloaded(document).notebook_id == SessionId("a notebook")


def test_two_new_documents_of_one_id_are_the_same_byte_for_byte(document: EditedDocument):
    assert EditedDocument.create(SessionId("a notebook")).save() == document.save()


def test_the_first_change_never_changes(document: EditedDocument):
    from automerge import core

    from runtimed.document.engine import GENESIS

    genesis = core.Document(actor_id=b"runtimed-genesis")
    with genesis.transaction() as transaction:
        transaction.put(core.ROOT, "schema", core.ScalarType.Int, 1)
        transaction.put_object(core.ROOT, "metadata", core.ObjType.Map)
        transaction.put_object(core.ROOT, "cells", core.ObjType.Map)
    assert [bytes(change.bytes) for change in genesis.get_changes([])] == [GENESIS]
    assert document.history()[0] == GENESIS


def test_cells_are_added_at_the_end_or_at_an_index(document: EditedDocument):
    document.add_cell(B, "b", "code", author=ME)
    document.add_cell(C, "c", "markdown", None, author=ME)
    edit = document.add_cell(A, EVERY_UNICODE, "raw", 0, author=YOU)
    assert edit == Edit(change=document.history()[-1], cell_id=A, heads=document.heads)
    assert document.cells() == [
        record(A, EVERY_UNICODE, cell_type="raw", position="Zz"),
        record(B, "b"),
        record(C, "c", cell_type="markdown", position="a1"),
    ]
    assert document.cell(A) == document.cells()[0]
    assert reloaded(document).cells() == document.cells()


def test_adding_a_cell_that_is_there_does_nothing(document: EditedDocument):
    document.add_cell(A, "one", "code", author=ME)
    heads = document.heads
    assert document.add_cell(A, "two", "raw", 0, author=YOU) == Edit(change=b"", cell_id=A, heads=heads)
    assert document.cells() == [record(A, "one")]


def test_cells_are_moved_behind_another_one_or_to_the_front(document: EditedDocument):
    for cell_id in (A, B, C):
        document.add_cell(cell_id, "", "code", author=ME)
    document.move_cell(A, C, author=ME)
    assert document.cell_ids() == [B, C, A]
    document.move_cell(C, None, author=ME)
    assert document.cell_ids() == [C, B, A]
    document.move_cell(A, C, author=ME)
    assert document.cell_ids() == reloaded(document).cell_ids() == [C, A, B]


@pytest.mark.parametrize(("cell_id", "after"), [(A, None), (B, A), (B, B)])
def test_moving_a_cell_to_where_it_is_does_nothing(document: EditedDocument, cell_id: CellId, after: CellId | None):
    for each in (A, B, C):
        document.add_cell(each, "", "code", author=ME)
    assert document.move_cell(cell_id, after, author=ME) == Edit(change=b"", cell_id=cell_id, heads=document.heads)
    assert document.cell_ids() == [A, B, C]


def test_fields_of_a_cell_are_set_and_survive_storage(document: EditedDocument):
    document.add_cell(A, "1", "code", author=ME)
    document.set_cell_type(A, "markdown", author=ME)
    document.set_cell_metadata(A, "tags", '["x"]', author=ME)
    document.set_cell_metadata(A, EVERY_UNICODE, EVERY_UNICODE, author=ME)
    document.set_cell_metadata(A, "collapsed", "true", author=ME)
    document.set_cell_metadata(A, "collapsed", None, author=ME)
    document.set_execution(A, ExecutionId("e"), 3, author=ME)
    expected = record(
        A,
        "1",
        cell_type="markdown",
        execution_id="e",
        execution_count=3,
        metadata={"tags": '["x"]', EVERY_UNICODE: EVERY_UNICODE},
    )
    assert document.cell(A) == reloaded(document).cell(A) == expected
    document.set_execution(A, None, None, author=ME)
    assert (
        document.cell(A)
        == reloaded(document).cell(A)
        == record(A, "1", cell_type="markdown", metadata=expected.metadata)
    )


def test_metadata_of_the_document_is_set_and_survives_storage(document: EditedDocument):
    edit = document.set_entry("notebook_metadata", EVERY_UNICODE, author=ME)
    assert edit.cell_id is None
    assert document.metadata("notebook_metadata") == reloaded(document).metadata("notebook_metadata") == EVERY_UNICODE
    assert document.metadata("other") is None


def test_a_deleted_cell_is_gone_and_its_id_may_be_used_again(document: EditedDocument):
    document.add_cell(A, "1", "code", author=ME)
    document.delete_cell(A, author=ME)
    assert (document.cells(), document.cell(A)) == ([], None)
    document.add_cell(A, "2", "code", author=ME)
    assert document.cells() == reloaded(document).cells() == [record(A, "2")]


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document.set_source(A, "1", base=None, author=ME),
        lambda document: document.append_source(A, "", author=ME),
        lambda document: document.set_cell_type(A, "code", author=ME),
        lambda document: document.set_cell_metadata(A, "k", "v", author=ME),
        lambda document: document.set_cell_metadata(A, "not set", None, author=ME),
        lambda document: document.set_execution(A, None, None, author=ME),
        lambda document: document.set_entry("k", "v", author=ME),
    ],
)
def test_an_edit_that_changes_nothing_makes_no_change(document: EditedDocument, edit: Callable[[EditedDocument], Edit]):
    document.add_cell(A, "1", "code", author=ME)
    document.set_cell_metadata(A, "k", "v", author=ME)
    document.set_entry("k", "v", author=ME)
    heads = document.heads
    assert edit(document).change == b""
    assert document.heads == heads


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document.set_source(A, "1", base=None, author=ME),
        lambda document: document.append_source(A, "1", author=ME),
        lambda document: document.delete_cell(A, author=ME),
        lambda document: document.move_cell(A, None, author=ME),
        lambda document: document.move_cell(B, A, author=ME),
        lambda document: document.set_cell_type(A, "code", author=ME),
        lambda document: document.set_cell_metadata(A, "k", "v", author=ME),
        lambda document: document.set_execution(A, None, None, author=ME),
    ],
)
def test_an_unknown_cell_is_named_in_the_error(document: EditedDocument, edit: Callable[[EditedDocument], Edit]):
    document.add_cell(B, "", "code", author=ME)
    heads = document.heads
    with pytest.raises(CellNotFound, match=r"^Cell not found: cell-a$") as caught:
        edit(document)
    assert caught.value.cell_id == A
    assert document.heads == heads


WRONG: Any = 1
BAD_EDITS: list[tuple[type[Exception], str, Callable[[EditedDocument], object]]] = [
    (InvalidCell, "source must be a str", lambda d: d.add_cell(B, WRONG, "code", author=ME)),
    (InvalidCell, "source must be a str", lambda d: d.set_source(A, WRONG, base=None, author=ME)),
    (InvalidCell, "source must be a str", lambda d: d.append_source(A, WRONG, author=ME)),
    (InvalidCell, "lone surrogate at 1", lambda d: d.add_cell(B, "a\ud800", "code", author=ME)),
    (InvalidCell, "lone surrogate at 1", lambda d: d.set_source(A, "a\udfff", base=None, author=ME)),
    (InvalidCell, "lone surrogate at 0", lambda d: d.append_source(A, "\ud800", author=ME)),
    (InvalidCell, "at most 10485760 bytes", lambda d: d.add_cell(B, "x" * (MAX_SOURCE + 1), "code", author=ME)),
    (InvalidCell, "at most 10485760 bytes", lambda d: d.append_source(A, "é" * (MAX_SOURCE // 2), author=ME)),
    (InvalidCell, "code, markdown or raw", lambda d: d.add_cell(B, "", WRONG, author=ME)),
    (InvalidCell, "code, markdown or raw", lambda d: d.set_cell_type(A, WRONG, author=ME)),
    (InvalidCell, "from 0 to 1", lambda d: d.add_cell(B, "", "code", 2, author=ME)),
    (InvalidCell, "from 0 to 1", lambda d: d.add_cell(B, "", "code", -1, author=ME)),
    (InvalidCell, "from 0 to 1", lambda d: d.add_cell(B, "", "code", True, author=ME)),
    (InvalidCell, "cell id must not be empty", lambda d: d.add_cell(CellId(""), "", "code", author=ME)),
    (InvalidCell, "cell id may have at most", lambda d: d.add_cell(CellId("x" * 1025), "", "code", author=ME)),
    (InvalidCell, "execution count must be", lambda d: d.set_execution(A, None, 2**53, author=ME)),
    (InvalidCell, "execution count must be", lambda d: d.set_execution(A, None, True, author=ME)),
    (InvalidCell, "execution id must be a str", lambda d: d.set_execution(A, WRONG, 1, author=ME)),
    (InvalidCell, "metadata must not be empty", lambda d: d.set_cell_metadata(A, "", "v", author=ME)),
    (InvalidCell, "json.dumps", lambda d: d.set_cell_metadata(A, "k", WRONG, author=ME)),
    (SessionError, "must be a str, not int", lambda d: d.set_entry(WRONG, "v", author=ME)),
    (SessionError, "json.dumps", lambda d: d.set_entry("k", WRONG, author=ME)),
    (SessionError, "lone surrogate", lambda d: d.set_entry("k", "\ud800", author=ME)),
]


@pytest.mark.parametrize(("error", "message", "edit"), BAD_EDITS)
def test_a_value_that_cannot_be_accepted_is_refused_with_a_sentence_and_changes_nothing(
    document: EditedDocument,
    error: type[Exception],
    message: str,
    edit: Callable[[EditedDocument], object],
):
    document.add_cell(A, "1", "code", author=ME)
    heads = document.heads
    with pytest.raises(error, match=message):
        edit(document)
    assert (document.heads, document.cells()) == (heads, [record(A, "1")])
    document.append_source(A, "2", author=ME)
    assert reloaded(document).cells() == [record(A, "12")]


@pytest.mark.parametrize("author", ["", "0" * 32, "A" * 32, "not hex", "\ud800", "x" * 500])
def test_any_text_may_name_an_author(document: EditedDocument, author: str):
    document.add_cell(A, "1", "code", author=ClientId(author))
    assert reloaded(document).cells() == [record(A, "1")]


def test_a_source_crosses_the_length_up_to_which_it_merges_in_both_directions(document: EditedDocument):
    long, short = "é" * (MAX_TEXT + 1), "short"
    document.add_cell(A, long, "code", author=ME)
    for source in (short, long, long + "x", "y" * MAX_TEXT):
        document.set_source(A, source, base=None, author=ME)
        assert document.cell(A) == reloaded(document).cell(A) == record(A, source)
    document.append_source(A, "zz", author=ME)
    document.append_source(A, "z", author=ME)
    assert document.cell(A) == reloaded(document).cell(A) == record(A, "y" * MAX_TEXT + "zzz")


def test_a_source_of_ten_million_bytes_is_kept(document: EditedDocument):
    document.add_cell(A, "x" * MAX_SOURCE, "code", author=ME)
    assert reloaded(document).cell(A) == record(A, "x" * MAX_SOURCE)


def test_a_document_is_loaded_from_a_snapshot_and_the_changes_since(document: EditedDocument):
    document.add_cell(A, "1", "code", author=ME)
    snapshot = document.save()
    changes = [document.append_source(A, str(n), author=ME).change for n in range(5)]
    assert all(changes)
    loaded = EditedDocument.load(snapshot, changes)
    assert (loaded.cells(), loaded.heads) == ([record(A, "101234")], document.heads)
    assert EditedDocument.load(snapshot, [b"".join(changes)]).heads == document.heads
    assert EditedDocument.load(None, document.history()).heads == document.heads


def test_stored_changes_of_which_one_is_missing_are_refused(document: EditedDocument):
    snapshot = document.save()
    changes = [document.add_cell(cell_id, "", "code", author=ME).change for cell_id in (A, B, C)]
    with pytest.raises(StorageError, match="missing"):
        EditedDocument.load(snapshot, changes[1:])
    with pytest.raises(StorageError):
        EditedDocument.load(None, changes)


def test_damaged_bytes_are_refused(document: EditedDocument):
    document.add_cell(A, "1", "code", author=ME)
    snapshot, change = document.save(), document.append_source(A, "2", author=ME).change
    for bad_snapshot, bad_changes in [
        (None, []),
        (b"", []),
        (b"junk", []),
        (snapshot[:-1], []),
        (snapshot + b"x", []),
        (snapshot, [b"junk"]),
        (snapshot, [change[:-1]]),
        (snapshot, [change, change[:20]]),
    ]:
        with pytest.raises(StorageError):
            EditedDocument.load(bad_snapshot, bad_changes)
