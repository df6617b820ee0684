"""The notebook that a room serves: an edit is stored with all that tells of it, or not at all."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.document import editing
from runtimed.errors import CellNotFound, StorageError
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from runtimed.storage.audit import Actor
from runtimed.storage.session_store import SessionStore

ME = ClientId("a" * 32)
ACTOR = Actor(ME, label=None, uid=0, pid=None)
A = CellId("cell-a")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore(tmp_path / "s.db") as store:
        yield store


def open_document(store: SessionStore) -> tuple[SharedDocument, EventLog]:
    log = EventLog(SessionId("n"), store, Flow(Demand(), "shared"), None)
    return SharedDocument(SessionId("n"), store, log, time.time), log


def append(document: SharedDocument, text: str) -> None:
    document.edit("source", ACTOR, lambda cells: editing.append_source(cells, A, text))


def sources(document: SharedDocument) -> list[str]:
    return [record.source for record in document.content.cells()]


def add(document: SharedDocument, cell_id: CellId = A) -> None:
    document.edit("added", ACTOR, lambda cells: editing.add_cell(cells, cell_id, "1", "code"))


def in_a_transaction_that_fails(log: EventLog, edit: Callable[[], None]) -> None:
    with log.transaction():
        edit()
        raise ZeroDivisionError


def test_an_edit_whose_transaction_failed_afterwards_is_undone(store: SessionStore):
    document, log = open_document(store)
    add(document)
    with pytest.raises(ZeroDivisionError):
        in_a_transaction_that_fails(log, lambda: append(document, "2"))
    append(document, "3")
    assert sources(document) == sources(open_document(store)[0]) == ["13"]
    assert (store.notebook.pending_count, log.last) == (2, 2)


def test_an_edit_that_changes_nothing_leaves_no_trace(store: SessionStore):
    document, log = open_document(store)
    add(document)
    add(document)
    assert (store.notebook.pending_count, log.last, len(list(store.audit()))) == (1, 1, 1)


def test_a_cell_and_what_it_shows_are_stored_together(store: SessionStore):
    document, _log = open_document(store)
    add(document)
    document.set_execution(A, ExecutionId("e"), 3, author=ME)
    assert store.shown_execution(A) == "e"
    assert document.cell(A).execution_count == 3
    document.edit("cleared", ACTOR, lambda cells: editing.set_execution(cells, A, None, None))
    assert store.shown_execution(A) is None
    document.edit("deleted", ACTOR, lambda cells: editing.delete_cell(cells, A))
    with pytest.raises(CellNotFound):
        document.cell(A)
    assert document.reshown == {A}


def test_a_notebook_in_doubt_is_neither_read_nor_edited(store: SessionStore):
    document, _log = open_document(store)
    add(document)
    document.doubt("a row is damaged")
    for use in (lambda: document.content, lambda: append(document, "2"), lambda: document.cell(A)):
        with pytest.raises(StorageError, match="cannot be read now, because a row is damaged. Nothing of it is lost"):
            use()
    document.found()
    assert sources(document) == ["1"]


def test_that_a_notebook_was_lost_is_told_once(store: SessionStore):
    document, _log = open_document(store)
    document.lost("it is damaged")
    with pytest.raises(StorageError, match="was set aside, because it is damaged"):
        document.content.cell(A)
    assert sources(document) == []
