"""The history of a notebook: what is kept of each edit, and what of an earlier release."""

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from runtimed.document import editing
from runtimed.document.deltas import CellAdded, CellDeleted, EntrySet, ExecutionSet, SourceEdited, TypeSet, decode_delta
from runtimed.document.notebook import NotebookDocument
from runtimed.document.tasks import ReadVersion, Rebuild, perform
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId, ExecutionId
from runtimed.protocol.document_operations import VersionContent
from runtimed.storage.history import HistoryBase
from runtimed.storage.notebook import NotebookTables
from runtimed.storage.session_store import SCHEMA_VERSION, SessionStore
from tests.document.test_properties import EDITS, Model
from tests.storage.test_notebook import ANN, ID, EditedTables, alter, cell, document_of, write_pending

BOB = ClientId("bob")
NEWEST = 2**63 - 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.db"


def edited(notebook: NotebookTables) -> None:
    """Six edits of two clients."""
    notebook.apply(CellAdded(cell("a", cell_type="markdown")), ANN, 1.0)
    notebook.apply(SourceEdited(CellId("a"), 0, 1, "xyz"), BOB, 2.0)
    notebook.apply(ExecutionSet(CellId("a"), ExecutionId("e"), None), BOB, 3.0)
    notebook.apply(EntrySet("k", "v"), ANN, 4.0)
    notebook.apply(TypeSet(CellId("a"), "raw"), ANN, 5.0)
    notebook.apply(CellDeleted(CellId("a")), BOB, 6.0)


EDITED: list[Any] = [
    (6, 6.0, BOB, "cell_deleted", "a", None),
    (5, 5.0, ANN, "cell_type_set", "a", "raw"),
    (4, 4.0, ANN, "metadata_set", None, "k"),
    (2, 2.0, BOB, "cell_edited", "a", "+3 -1"),
    (1, 1.0, ANN, "cell_added", "a", "markdown"),
]


@pytest.mark.parametrize("written", range(7))
def test_an_edit_is_in_the_history_whether_it_is_in_the_document_or_not(path: Path, written: int):
    with SessionStore(path) as store:
        edited(store.notebook)
        if written % 2:
            store.notebook.put_snapshot(b"", written, begins_at=None)
        else:
            store.notebook.add_changes([], written)
        history = store.notebook.history
        assert history.page(NEWEST, 9) == (EDITED, None)
        assert history.page(NEWEST, 9, "a") == ([edit for edit in EDITED if edit[4]], None)
        assert history.page(NEWEST, 9, "b") == ([], None)
        pages, before = [], NEWEST
        for _ in range(3):
            page, following = history.page(before, 2)
            pages.append(page)
            before = following or 0
        assert pages == [EDITED[:2], EDITED[2:4], EDITED[4:]]
        assert [(edit.number, edit.author) for edit in history.deltas(1, 5, 9)] == [
            (2, BOB),
            (3, BOB),
            (4, ANN),
            (5, ANN),
        ]
        assert [edit.number for edit in history.deltas(1, 6, 3)] == [2, 3, 4]
        assert [edit.number for edit in history.deltas(0, 6, 9, "a")] == [1, 2, 3, 5, 6]
        (third,) = history.deltas(2, 3, 1)
        assert decode_delta(third.delta) == ExecutionSet(CellId("a"), ExecutionId("e"), None)
        assert history.base() is None


def test_a_history_that_begins_anew_has_lost_what_was_before(path: Path):
    with SessionStore(path) as store:
        edited(store.notebook)
        store.notebook.add_changes([], 2)
        store.notebook.put_snapshot(b"", 4, begins_at=9.0)
        history = store.notebook.history
        assert history.base() == HistoryBase(4, 9.0, 0)
        assert history.page(NEWEST, 9) == (EDITED[:2], None)
        assert [edit.number for edit in history.deltas(0, 9, 9)] == [5, 6]


@settings(max_examples=50)
@given(st.lists(st.tuples(EDITS, st.sampled_from([None, None, None, 1, 3, -1, "anew"])), max_size=30))
def test_each_version_is_what_the_rows_said(edits: list[tuple[Any, Any]]):
    with tempfile.TemporaryDirectory() as folder, SessionStore(Path(folder) / "s.db") as store:
        notebook, model = store.notebook, Model()
        said: dict[int, tuple[list[Any], dict[str, str]]] = {0: ([], {})}
        for edit, then in edits:
            model.apply(EditedTables(notebook), edit)  # type: ignore[arg-type]  # it has the same methods
            said[notebook.last_edit] = list(notebook.cells()), notebook.all_metadata()
            if then == "anew":
                snapshot = perform(Rebuild(ID, notebook.cell_rows(), notebook.all_metadata()))
                assert isinstance(snapshot, bytes)
                notebook.put_snapshot(snapshot, notebook.last_edit, begins_at=1.0)
            elif then is not None:
                write_pending(notebook, then)
        base = notebook.history.base()
        for version, (cells, metadata) in said.items():
            after = 0 if base is None else base.number
            if version < after:
                continue
            found = perform(ReadVersion(notebook.base_rows(), notebook.history.deltas(after, version, 99)))
            assert isinstance(found, VersionContent)
            assert [
                (one.id, one.cell_type, one.source, one.position, one.execution_count, one.execution_id, one.metadata)
                for one in found.cells
            ] == [astuple(one) for one in cells]
            assert found.metadata == metadata


def test_entries_of_the_notebook_that_are_deleted_are_missing_in_rows_document_and_versions(path: Path):
    with SessionStore(path) as store:
        notebook = store.notebook
        notebook.apply(EntrySet("k", "v"), ANN, 1.0)
        delta = editing.delete_metadata(notebook, "k")
        assert delta is not None
        notebook.apply(delta, BOB, 2.0)
        assert editing.delete_metadata(notebook, "k") is None
        assert notebook.all_metadata() == document_of(notebook).all_metadata() == {}
        write_pending(notebook, 9)
        assert NotebookDocument.load(notebook.rows()[0].data, []).all_metadata() == {}
        found = perform(ReadVersion([], notebook.history.deltas(0, 2, 9)))
        assert isinstance(found, VersionContent)
        assert found.metadata == {}


def test_a_damaged_edit_spoils_the_versions_behind_it_alone(path: Path):
    with SessionStore(path) as store:
        edited(store.notebook)
    alter(path, "UPDATE pending SET delta = substr(delta, 1, 5) WHERE id = 4")
    with SessionStore(path) as store:
        history = store.notebook.history
        assert isinstance(perform(ReadVersion([], history.deltas(0, 3, 9))), VersionContent)
        with pytest.raises(StorageError, match="edit 4 is damaged"):
            perform(ReadVersion([], history.deltas(0, 4, 9)))


def test_a_damaged_entry_is_left_out_and_named(path: Path, caplog: pytest.LogCaptureFixture):
    with SessionStore(path) as store:
        edited(store.notebook)
        store.notebook.add_changes([], 4)
    alter(path, "UPDATE history SET at = 2.5 WHERE id = 2")
    alter(path, "UPDATE pending SET action = 'cell_sold' WHERE id = 5")
    with SessionStore(path) as store:
        assert store.notebook.history.page(NEWEST, 9) == ([EDITED[0], EDITED[2], EDITED[4]], None)
    assert [record.getMessage().split(": ")[-1] for record in caplog.records] == [
        "edit 5 of the history is damaged and left out",
        "edit 2 of the history is damaged and left out",
    ]


def test_the_history_of_an_upgraded_notebook_begins_with_its_document(path: Path):
    with SessionStore(path) as store:
        edited(store.notebook)
        store.notebook.put_snapshot(b"whole", 2, begins_at=None)
        store.notebook.add_changes([(ANN, b"one"), (ANN, b"two")], 4)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE history")
        connection.execute("DROP TABLE history_base")
        for column in ("at", "action", "cell", "detail", "entry"):
            connection.execute(f"ALTER TABLE pending DROP COLUMN {column}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION - 1}")
    connection.close()
    with SessionStore(path) as store:
        store.notebook.apply(EntrySet("k", "w"), BOB, 7.0)
        history = store.notebook.history
        base = history.base()
        assert base is not None
        assert base[0::2] == (4, 2)
        assert history.page(NEWEST, 9) == ([(7, 7.0, BOB, "metadata_set", None, "k")], None)
        assert [edit.number for edit in history.deltas(4, 9, 9)] == [5, 6, 7]
        assert [edit.number for edit in history.deltas(4, 9, 9, "a")] == [5, 6]
