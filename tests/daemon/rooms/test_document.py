"""The document in memory and the stored one: never do they tell two stories."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from automerge import core

from runtimed import AsyncSession
from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.document.engine import ROOT
from runtimed.document.notebook import Edit, NotebookDocument
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId, SessionId
from runtimed.storage.audit import Actor
from runtimed.storage.disk import no_room
from runtimed.storage.session_store import SessionStore
from tests.daemon.conftest import daemon_with_a_clock, until

ME = ClientId("a" * 32)
ACTOR = Actor(ME, label=None, uid=0, pid=None)
A = CellId("cell-a")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore(tmp_path / "s.db") as store:
        yield store


def open_document(store: SessionStore) -> tuple[SharedDocument, EventLog]:
    log = EventLog(store, Flow(Demand(), "shared"), None)
    return SharedDocument(SessionId("n"), store, log, time.time), log


def append(document: SharedDocument, text: str) -> None:
    document.edit("source", ACTOR, lambda d: d.append_source(A, text, author=ME))


def sources(document: SharedDocument) -> list[str]:
    return [record.source for record in document.content.cells()]


def add(document: SharedDocument, cell_id: CellId = A) -> None:
    document.edit("added", ACTOR, lambda d: d.add_cell(cell_id, "1", "code", author=ME))


def in_a_transaction_that_fails(log: EventLog, edit: Callable[[], None]) -> None:
    with log.transaction():
        edit()
        raise ZeroDivisionError


def test_an_edit_whose_transaction_failed_afterwards_is_undone_in_memory_too(store: SessionStore):
    document, log = open_document(store)
    add(document)
    with pytest.raises(ZeroDivisionError):
        in_a_transaction_that_fails(log, lambda: append(document, "2"))
    append(document, "3")
    assert sources(document) == sources(open_document(store)[0]) == ["13"]


def test_a_first_edit_whose_transaction_failed_afterwards_is_undone_in_memory_too(store: SessionStore):
    document, log = open_document(store)
    document.load()
    with pytest.raises(ZeroDivisionError):
        in_a_transaction_that_fails(log, lambda: add(document, CellId("other")))
    add(document)
    append(document, "3")
    assert sources(document) == sources(open_document(store)[0]) == ["13"]


def test_a_transaction_that_failed_without_an_edit_leaves_the_document_loaded(store: SessionStore):
    document, log = open_document(store)
    add(document)
    loaded = document.content
    with pytest.raises(ZeroDivisionError):
        in_a_transaction_that_fails(log, lambda: None)
    assert document.content is loaded


def test_a_document_that_automerge_broke_is_loaded_again(store: SessionStore):
    def break_it(document: NotebookDocument) -> Edit:
        with document._engine.write(ME) as writer:
            writer._transaction.put(ROOT, "n", core.ScalarType.Counter, 1)
        raise AssertionError("unreachable")

    document, _ = open_document(store)
    add(document)
    with pytest.raises(StorageError):
        document.edit("source", ACTOR, break_it)
    append(document, "2")
    assert sources(document) == ["12"]


class FullDisk(SessionStore):
    """A store on a disk that may have become full after a load began."""

    is_full = False

    def end_load(self) -> None:
        if self.is_full:
            raise no_room(Path("/full"))
        super().end_load()


def test_loads_whose_mark_cannot_be_removed_are_loads_all_the_same(tmp_path: Path):
    with contextlib.closing(FullDisk(tmp_path / "s.db")) as store:
        document, _log = open_document(store)
        add(document)
        append(document, "kept")
        store.is_full = True
        for _ in range(5):
            document.forget()
            assert sources(document) == ["1kept"]
        assert store.unfinished_loads == 1
        store.is_full = False
        document.tidy()
        assert store.unfinished_loads == 0


def test_a_running_cell_goes_on_after_its_document_was_forgotten(own_folder: Path):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon), AsyncSession("s") as session:
            await session.start_kernel()
            go_on = own_folder / "go on"
            waits = f"import os, time\nwhile not os.path.exists({str(go_on)!r}):\n    time.sleep(0.01)"
            first = await session.queue_cell(await session.create_cell(waits))
            second = await session.queue_cell(await session.create_cell("print('on')"))
            document = daemon.room("s").document
            await until(
                lambda: daemon.room("s").contents.find_executions(first)[0].status == "running",
                "the cell does not begin",
            )
            document.forget()
            go_on.touch()
            result = await session.wait(second, timeout_secs=20)
            assert (result.stdout, result.success, result.execution_count) == ("on\n", True, 2)
            assert [cell.execution_count for cell in await session.get_cells()] == [1, 2]

    asyncio.run(scenario())
