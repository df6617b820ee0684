"""The notebook as tables: what its rows say, what its document says, and what is on its way from one to the other."""

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimed.document import editing
from runtimed.document.cells import CellRecord
from runtimed.document.contents import Contents, row_of
from runtimed.document.deltas import CellAdded, CellDeleted, CellMoved, Delta, EntrySet, SourceEdited, TypeSet
from runtimed.document.notebook import NotebookDocument
from runtimed.document.stored import StoredNotebook
from runtimed.document.tasks import ReadAll, Rebuild, WritePending, Written, perform
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId, SessionId
from runtimed.storage.notebook import NotebookTables
from runtimed.storage.session_store import SessionStore
from tests.document.test_properties import EDITS, Model

ANN = ClientId("ann")
ID = SessionId("n")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.db"


def cell(name: str, position: str = "a0", source: str = "1", **fields: Any) -> CellRecord:
    values: dict[str, Any] = {"cell_type": "code", "execution_count": None, "execution_id": None, "metadata": {}}
    return CellRecord(id=CellId(name), position=position, source=source, **(values | fields))


def alter(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


class EditedTables:
    """Rows with the methods that a model edits."""

    def __init__(self, notebook: NotebookTables) -> None:
        self.notebook = notebook

    def __getattr__(self, name: str) -> Any:
        if hasattr(self.notebook, name):
            return getattr(self.notebook, name)
        decide = getattr(editing, "set_metadata" if name == "set_entry" else name)

        def edit(*args: Any, author: ClientId, **how: Any) -> Any:
            delta = decide(self.notebook, *args, **how)
            if delta is not None:
                self.notebook.apply(delta, author, 1.0)
            return EditMade()

        return edit


class EditMade:
    change = b""


def stored(notebook: NotebookTables, edits: int = -1) -> StoredNotebook:
    return StoredNotebook(ID, notebook.rows(), notebook.pending(edits))


def write_pending(notebook: NotebookTables, edits: int) -> None:
    task = stored(notebook, edits)
    found = perform(WritePending(task, 1_000_000, None))
    assert isinstance(found, Written)
    upto = task.pending[-1].number if task.pending else 0
    if found.snapshot is not None:
        notebook.put_snapshot(found.snapshot, upto, begins_at=None)
    else:
        notebook.add_changes(
            [(edit.author, change) for edit, change in zip(task.pending, found.changes, strict=True)], upto
        )


def put(notebook: NotebookTables, contents: Contents) -> None:
    notebook.add_rows(contents.cells)
    notebook.complete_rows(contents.metadata)


def document_of(notebook: NotebookTables) -> NotebookDocument:
    document = stored(notebook).load()
    stored(notebook).write_pending(document)
    return document


@settings(max_examples=50)
@given(st.lists(st.tuples(EDITS, st.sampled_from([None, None, None, 1, 3, -1, "anew"])), max_size=30))
def test_rows_and_document_say_the_same_however_far_the_document_is(edits: list[tuple[Any, Any]]):
    with tempfile.TemporaryDirectory() as folder, SessionStore(Path(folder) / "s.db") as store:
        notebook, model = store.notebook, Model()
        for edit, then in edits:
            model.apply(EditedTables(notebook), edit)  # type: ignore[arg-type]  # it has the same methods
            model.check(EditedTables(notebook))  # type: ignore[arg-type]  # the same
            if then == "anew":
                snapshot = perform(Rebuild(ID, notebook.cell_rows(), notebook.all_metadata()))
                assert isinstance(snapshot, bytes)
                notebook.put_snapshot(snapshot, notebook.last_edit, begins_at=1.0)
            elif then is not None:
                write_pending(notebook, then)
        document = document_of(notebook)
        assert document.cells() == list(notebook.cells())
        assert document.all_metadata() == notebook.all_metadata()
        assert [(cell.position, cell.id) for cell in document.cells()] == notebook.places()
        contents = perform(ReadAll(stored(notebook)))
        assert isinstance(contents, Contents)
        notebook.drop_rows()
        assert not notebook.is_ready
        put(notebook, contents)
        assert document.cells() == list(notebook.cells())


def test_what_is_no_text_names_nothing(path: Path):
    with SessionStore(path) as store:
        assert store.notebook.cell(CellId("\ud800")) is None
        assert store.notebook.metadata("\ud800") is None


def test_a_counter_that_is_no_number_lets_the_rows_be_read_again(path: Path):
    with SessionStore(path) as store:
        store.notebook.apply(CellAdded(cell("a")), ANN, 1.0)
    alter(path, "UPDATE counters SET value = 'abc' WHERE name = 'cells'")
    with SessionStore(path) as store:
        assert not store.notebook.is_ready


def test_a_new_notebook_is_ready_and_empty_until_it_is_edited(path: Path):
    with SessionStore(path) as store:
        assert (store.notebook.is_ready, store.notebook.is_empty, store.notebook.last_edit) == (True, True, 0)
        store.notebook.apply(EntrySet("k", "v"), ANN, 1.0)
        assert not store.notebook.is_empty
    with SessionStore(path) as store:
        assert (store.notebook.metadata("k"), store.notebook.pending_count) == ("v", 1)


def test_an_edit_of_a_cell_that_is_not_there_changes_nothing(path: Path):
    with SessionStore(path) as store:
        for delta in (TypeSet(CellId("x"), "raw"), CellMoved(CellId("x"), {CellId("x"): "a0"})):
            with pytest.raises(StorageError, match="does not have cell 'x'"):
                store.notebook.apply(delta, ANN, 1.0)
        assert store.notebook.is_empty


def test_edits_leave_the_queue_with_what_takes_their_place(path: Path):
    with SessionStore(path) as store:
        notebook = store.notebook
        for number in range(1, 6):
            notebook.apply(EntrySet("k", str(number)), ANN, 1.0)
        assert [edit.number for edit in notebook.pending(3)] == [1, 2, 3]
        notebook.add_changes([(ANN, b"one"), (ClientId("bob"), b"two")], 2)
        assert [edit.number for edit in notebook.pending(-1)] == [3, 4, 5]
        assert [(row.kind, row.name, row.data) for row in notebook.rows()] == [
            ("change", "change 1", b"one"),
            ("change", "change 2", b"two"),
        ]
        notebook.put_snapshot(b"whole", 4, begins_at=None)
        assert [(row.kind, row.data) for row in notebook.rows()] == [("snapshot", b"whole")]
        assert (notebook.pending_count, notebook.last_edit, notebook.change_count) == (1, 5, 0)
    with SessionStore(path) as store:
        store.notebook.put_snapshot(b"whole again", 5, begins_at=None)
        store.notebook.apply(EntrySet("k", "6"), ANN, 1.0)
        assert [edit.number for edit in store.notebook.pending(-1)] == [6]


def test_cells_are_read_page_by_page_in_their_order(path: Path):
    ids = [f"c{n:04}" for n in range(700)]
    with SessionStore(path) as store:
        put(store.notebook, Contents([row_of(cell(name, f"b{name}")) for name in ids], {}))
        for start in (0, 1, 8, 699, 700):
            assert [found.id for found in store.notebook.cells(start)] == ids[start:]
        assert store.notebook.cell_ids("c06") == ids[600:700]
        assert store.notebook.place_at(-1) == ("bc0699", "c0699")
        assert (store.notebook.place_at(700), store.notebook.count()) == (None, 700)


def test_sources_are_found_by_what_they_contain(path: Path):
    with SessionStore(path) as store:
        for n, (source, kind) in enumerate([("# /// é\n1", "code"), ("2", "code"), ("# /// é", "raw")]):
            store.notebook.apply(CellAdded(cell(str(n), f"a{n}", source, cell_type=kind)), ANN, 1.0)
        assert store.notebook.codes("/// é") == ["# /// é\n1"]
        assert store.notebook.has_source("2")
        assert not store.notebook.has_source("# ///")


DAMAGE = [
    "UPDATE cells SET data = x'00' WHERE cell_id = 'a'",
    "UPDATE cells SET checksum = checksum + 1 WHERE cell_id = 'a'",
    "UPDATE cells SET data = 'text' WHERE cell_id = 'a'",
    "UPDATE cells SET data = (SELECT data FROM cells WHERE cell_id = 'b'),"
    " checksum = (SELECT checksum FROM cells WHERE cell_id = 'b') WHERE cell_id = 'a'",
]


@pytest.mark.parametrize("statement", DAMAGE)
def test_a_damaged_cell_is_named_and_nothing_else_is_lost_with_it(path: Path, statement: str):
    with SessionStore(path) as store:
        for name in ("a", "b"):
            store.notebook.apply(CellAdded(cell(name, f"a{ord(name) - 97}")), ANN, 1.0)
    alter(path, statement)
    with SessionStore(path) as store:
        told: list[str] = []
        store.notebook.on_damage = told.append
        for read in (lambda: store.notebook.cell(CellId("a")), lambda: list(store.notebook.cells())):
            with pytest.raises(StorageError, match="cell a in .* is damaged"):
                read()
        assert told == ["cell a is damaged: its bytes do not match their checksum"] * 2
        assert store.notebook.cell(CellId("b")) == cell("b", "a1")
        assert store.notebook.delete_damaged_rows() == ["cell a"]
        assert list(store.notebook.cells()) == [cell("b", "a1")]


def test_a_damaged_entry_of_the_metadata_is_named(path: Path):
    with SessionStore(path) as store:
        store.notebook.apply(EntrySet("k", "v"), ANN, 1.0)
        store.notebook.apply(EntrySet("l", "w"), ANN, 1.0)
    alter(path, "UPDATE metadata SET value = x'00' WHERE key = 'k'")
    with SessionStore(path) as store:
        with pytest.raises(StorageError, match="entry 'k'"):
            store.notebook.metadata("k")
        assert store.notebook.metadata("l") == "w"
        assert store.notebook.delete_damaged_rows() == ["metadata 'k'"]
        assert store.notebook.all_metadata() == {"l": "w"}


def test_a_document_set_aside_is_kept_as_it_was(path: Path):
    with SessionStore(path) as store:
        notebook = store.notebook
        notebook.put_snapshot(b"whole", 0, begins_at=None)
        notebook.add_changes([(ANN, b"one"), (ClientId("bob"), b"two")], 0)
        notebook.apply(CellAdded(cell("a")), ANN, 1.0)
        assert notebook.set_aside() == 3
        assert (notebook.rows(), notebook.needs_rebuild) == ([], True)
        assert list(notebook.cells()) == [cell("a")]
        (then,) = notebook.set_aside_at()
        assert [(row.kind, row.name, row.data) for row in notebook.rows_set_aside(then)] == [
            ("snapshot", "snapshot", b"whole"),
            ("change", "change 2", b"one"),
            ("change", "change 3", b"two"),
        ]
        assert notebook.set_aside() == 0
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT kind, author, data FROM set_aside ORDER BY id").fetchall()
    ((at,),) = connection.execute("SELECT DISTINCT at FROM set_aside").fetchall()
    connection.close()
    assert rows == [("snapshot", None, b"whole"), ("change", "ann", b"one"), ("change", "bob", b"two")]
    assert at > 1.6e9
    with SessionStore(path) as store:
        store.notebook.put_snapshot(b"new", 1, begins_at=None)
        assert (store.notebook.needs_rebuild, store.notebook.pending_count) == (False, 0)
        store.notebook.forget_set_aside(at)
        assert store.notebook.set_aside_at() == []


def test_what_is_no_bytes_has_a_checksum_that_matches_nothing(path: Path):
    with SessionStore(path) as store:
        store.notebook.put_snapshot(b"whole", 0, begins_at=None)
        store.notebook.apply(CellDeleted(CellId("x")), ANN, 1.0)
    alter(path, "UPDATE snapshot SET data = 'whole'")
    alter(path, "UPDATE pending SET delta = 'text'")
    with SessionStore(path) as store:
        assert [(row.data, row.checksum) for row in store.notebook.rows()] == [(b"", -1)]
        assert [(edit.delta, edit.checksum) for edit in store.notebook.pending(-1)] == [(b"", -1)]


@pytest.mark.parametrize(
    "delta",
    [
        CellAdded(cell("a", source="é😀\0", metadata={"k": "v"}), {CellId("b"): "a1"}),
        CellDeleted(CellId("a")),
        SourceEdited(CellId("a"), 1, 2, "é"),
        EntrySet("k", "v"),
    ],
)
def test_an_edit_comes_back_as_it_was_decided(path: Path, delta: Delta):
    from runtimed.document.deltas import decode_delta, encode_delta

    assert decode_delta(encode_delta(delta)) == delta
