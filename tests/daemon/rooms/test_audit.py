"""The log of who did what, through deaths of the daemon, damage, and clocks that are set back."""

import asyncio
import os
import signal
import threading
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed import Client, Session, StorageError
from runtimed.daemon.flow import Demand
from runtimed.daemon.hosting.local import LocalLauncher
from runtimed.daemon.hosting.pool import Pool
from runtimed.daemon.registry import Registry
from runtimed.daemon.rooms.audit import SLICE, log_page
from runtimed.daemon.rooms.room import Room
from runtimed.document import editing
from runtimed.environments.maker import Environments
from runtimed.environments.trust import Trust
from runtimed.ids import CellId, ClientId, SessionId, stored_name
from runtimed.models import Attribution
from runtimed.protocol.execution_operations import Enqueue
from runtimed.settings import read_settings
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.registry_store import RegistryStore
from runtimed.storage.session_store import SessionStore
from tests.conftest import processes_of, wait_until

pytestmark = pytest.mark.slow

ANN = Actor(ClientId("ann"), label="Ann", uid=1000, pid=17)


def kill_daemon() -> None:
    status = Client().status()
    if status is not None:
        os.kill(status.pid, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(status.pid), "the daemon lives on")


def test_each_acknowledged_edit_is_told_once_through_deaths_of_the_daemon(data_dir):
    with Session("s", label="writer") as session:
        cell_id = session.create_cell()
        done = threading.Event()

        def write() -> None:
            for _ in range(600):
                session.append_source(cell_id, "x")
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        while not done.wait(0.05):
            kill_daemon()
        writer.join()

        assert session.get_cell_source(cell_id) == "x" * 600
        entries = Client().sessions.log("s", page_size=1000)
        assert sum(entry.count for entry in entries if entry.action == "cell_edited") == 600
        assert {entry.label for entry in entries} == {"writer"}


def test_the_log_and_the_last_edits_are_there_with_the_next_daemon(data_dir):
    with Session("s", label="first") as session:
        session.create_cell("1")
        session.run("print(1)")
        before = session.get_cells()
        session.stop()
    entries = Client().sessions.log("s")
    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "the daemon lives on")

    with Session("s", label="second") as session:
        assert session.get_cells() == before
        assert [cell.last_edit is not None for cell in before] == [True, True]
        assert Client().sessions.log("s") == entries


def test_a_client_that_ends_the_daemon_ends_its_sessions(data_dir):
    with Session("s") as session:
        session.create_cell("1")
    Client(label="a person").shutdown()
    with Session("other") as other:
        other.create_cell("1")

    entry = Client().sessions.log("s")[0]
    assert (entry.action, entry.detail, entry.label, entry.pid) == (
        "session_closed",
        "stopped",
        "a person",
        os.getpid(),
    )


def test_the_steps_of_a_life_survive_damage_to_all_that_was_done_in_it(data_dir):
    with Session("s") as session:
        session.create_cell("1")
        session.stop()
    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "the daemon lives on")
    database = data_dir / "sessions" / f"{stored_name(SessionId('s'))}.db"
    database.write_bytes(b"x" * database.stat().st_size)
    database.with_name(database.name + "-wal").unlink(missing_ok=True)
    with Session("other") as other:
        other.create_cell("1")

    with pytest.raises(StorageError, match="set aside"):
        Client().sessions.log("s")

    assert [entry.action for entry in Client().sessions.log("s")] == ["session_closed", "session_started"]
    assert list(database.parent.glob("*.damaged-*"))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(tmp_path))
    return tmp_path / "sessions" / f"{stored_name(SessionId('s'))}.db"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with RegistryStore(tmp_path / "registry.db") as store:
        yield Registry(store, lambda: 5.0, 10)


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    return Environments(tmp_path / "environments", Trust(tmp_path / "trust"))


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_cell_that_a_dead_daemon_owed_is_written_for_the_client_that_asked_for_it(
    path, registry, environments, is_noted
):
    with SessionStore(path) as store:
        store.add_execution("e", "c", "ann", "1 + 1", queued_at=1.0)
        if is_noted:
            store.note(AuditRow(at=1.0, until=1.0, action="execution_queued", actor=ANN, cell_id=CellId("c")))
    settings = read_settings()
    room = Room(
        SessionId("s"),
        settings,
        registry,
        environments,
        Pool(settings, LocalLauncher(settings)),
        Demand(),
        lambda: 5.0,
        pytest.fail,
    )

    room.kernel.executions.restore()

    known = ANN if is_noted else Actor(ClientId("ann"), label=None, uid=os.getuid(), pid=None)
    newest = next(room.contents.audit())
    assert (newest.action, newest.actor, newest.at, newest.cell_id) == ("cell_added", known, 5.0, "c")
    cells = room.contents.stored_cells(0, outputs=True).cells
    edit = Attribution(
        at=datetime.fromtimestamp(5.0, UTC), client_id="ann", label=known.label, uid=known.uid, pid=known.pid
    )
    assert [cell.last_edit for cell in cells] == [edit]
    room.close()


def test_an_edit_that_cannot_be_stored_is_not_told(path, registry, environments):
    settings = read_settings()
    room = Room(
        SessionId("s"),
        settings,
        registry,
        environments,
        Pool(settings, LocalLauncher(settings)),
        Demand(),
        lambda: 5.0,
        pytest.fail,
    )
    room.begin(ANN)
    request = Enqueue(notebook_id="s", execution_id="e", cell_id="c", source="1")
    room.document.edit("added", ANN, lambda cells: editing.add_cell(cells, CellId("c"), "1", "code"))

    def edit_and_fail() -> None:
        room.document.edit("deleted", ANN, lambda cells: editing.delete_cell(cells, CellId("c")))
        room.kernel.executions.enqueue(request, "1", ANN)
        raise KeyError

    with pytest.raises(KeyError), room.log.transaction():
        edit_and_fail()

    assert [row.action for row in room.contents.audit()] == ["cell_added"]
    room.close()


@st.composite
def halves(draw: st.DrawFn) -> tuple[list[AuditRow], list[AuditRow]]:
    times = st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0]), max_size=8)
    steps = [AuditRow(at=at, until=at, action="session_started", count=n) for n, at in enumerate(draw(times))]
    work = [AuditRow(at=at, until=at, action="kernel_interrupt", count=n) for n, at in enumerate(draw(times))]
    return steps, work


def given_one_by_one(rows: list[AuditRow]) -> Generator[AuditRow, None, None]:
    yield from rows


@given(halves(), st.integers(1, 5))
def test_pages_fit_together_and_each_half_keeps_its_order_even_if_the_clock_was_set_back(both, page_size):
    steps, work = both
    pages = [asyncio.run(log_page(steps, given_one_by_one(work), page, page_size)) for page in range(1, 20)]
    found = [entry for page in pages for entry in page]

    assert [e.count for e in found if e.action == "session_started"] == [row.count for row in steps]
    assert [e.count for e in found if e.action == "kernel_interrupt"] == [row.count for row in work]
    assert found == asyncio.run(log_page(steps, given_one_by_one(work), 1, 100))


def test_others_have_their_turns_while_many_pages_are_passed_over():
    work = [AuditRow(at=float(-n), until=float(-n), action="kernel_interrupt", count=n) for n in range(5 * SLICE)]
    turns = 0

    async def scenario() -> None:
        nonlocal turns
        reading = asyncio.create_task(log_page([], given_one_by_one(work), 4 * SLICE, 1))
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        assert [entry.count for entry in reading.result()] == [4 * SLICE - 1]

    asyncio.run(scenario())
    assert turns >= 4


def test_the_two_halves_are_one_story_by_their_times():
    steps = [AuditRow(at=at, until=at, action="session_started") for at in (4.0, 1.0)]
    work = [AuditRow(at=at, until=at, action="kernel_interrupt") for at in (5.0, 4.0, 2.0, 1.0)]

    page = asyncio.run(log_page(steps, given_one_by_one(work), 1, 100))
    found = [(entry.at.timestamp(), entry.action) for entry in page]

    assert found == [
        (5.0, "kernel_interrupt"),
        (4.0, "kernel_interrupt"),
        (4.0, "session_started"),
        (2.0, "kernel_interrupt"),
        (1.0, "kernel_interrupt"),
        (1.0, "session_started"),
    ]
