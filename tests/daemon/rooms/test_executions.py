"""A long queue that is cancelled: decided at once and for good, told of in turns, whoever dies between."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.executions import SLICE, Executions
from runtimed.ids import ClientId, ExecutionId, SessionId
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Display, Finished
from runtimed.protocol.execution_operations import Enqueue
from runtimed.protocol.host_operations import Execute, HostInterrupt
from runtimed.storage.audit import Actor
from runtimed.storage.session_store import SessionStore
from tests.daemon.conftest import until

ANN, BOB = (Actor(ClientId(letter * 32), label=None, uid=0, pid=None) for letter in "ab")
MANY = 3 * SLICE + 7


class Room:
    """The executions of one session, with a host that is only told."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.begun: list[str] = []
        self.log = EventLog(SessionId("s"), store, Flow(Demand(), "s"), None, time.time)
        document = SharedDocument(SessionId("s"), store, self.log, time.time)
        self.executions = Executions(SessionId("s"), store, self.log, document, self.tell, time.time)

    def tell(self, operation: Execute | HostInterrupt, /) -> None:
        if isinstance(operation, Execute):
            self.begun.append(operation.execution_id)

    def queue(self, actor: Actor, name: str) -> str:
        self.executions.enqueue(
            Enqueue(notebook_id="s", execution_id=name, cell_id=f"cell-{name}", source="1"), "1", actor
        )
        return name

    def fail(self, name: str) -> None:
        event = Finished(at=1.0, execution_id=name, cell_id=f"cell-{name}", status="error")
        with self.log.transaction():
            self.log.append(event)
            self.executions.take(event)

    def ends(self) -> dict[str, str]:
        """The executions that ended, each with what those who wait for it are told."""
        events = [decode_event(body) for _, body in self.store.read_events(0, max_rows=10**6, max_bytes=2**30)]
        return {event.execution_id or "": event.message or "" for event in events if isinstance(event, Finished)}

    def unfinished(self) -> set[str]:
        return {row.execution_id for row in self.store.unfinished_executions()}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore(tmp_path / "s.db") as store:
        yield store


def in_a_loop(scenario: Callable[[], object]) -> None:
    async def run() -> None:
        scenario()
        await asyncio.sleep(0)

    asyncio.run(run())


def queued(room: Room) -> tuple[list[str], list[str]]:
    """Queue executions of two clients in turns, the first of which runs."""
    room.executions.kernel_ready()
    ours, others = [], []
    for number in range(MANY):
        ours.append(room.queue(ANN, f"ann-{number}"))
        others.append(room.queue(BOB, f"bob-{number}"))
    assert room.begun == ["ann-0"]
    return ours, others


def test_what_waits_behind_a_failure_is_cancelled_at_once_and_told_in_turns(store: SessionStore):
    async def scenario() -> None:
        room = Room(store)
        ours, others = queued(room)
        room.fail("ann-0")
        assert room.begun == ["ann-0", "bob-0"]
        assert room.unfinished() == set(others)
        assert room.ends().keys() == {"ann-0"}
        later = room.queue(ANN, "ann-later")
        await until(lambda: len(room.ends()) >= MANY, "not all are told")
        ends = room.ends()
        assert ends.keys() == set(ours)
        assert {ends[name] for name in ours[1:]} == {
            "Cancelled: an execution that the same client queued before it failed"
        }
        assert {row.status for name in ours[1:] if (row := store.execution(ExecutionId(name)))} == {"cancelled"}
        assert room.unfinished() == {*others, later}

    asyncio.run(scenario())


def test_what_was_cancelled_never_begins_though_the_daemon_dies_before_it_is_told(store: SessionStore):
    in_a_loop(lambda: _fails(Room(store)))
    told = Room(store).ends()
    assert len(told) < MANY

    async def next_daemon() -> None:
        room = Room(store)
        room.executions.restore()
        room.executions.resume(["bob-0"])
        room.executions.tidy()
        await until(lambda: len(room.ends()) >= MANY, "not all are told")
        assert room.ends().keys() == {f"ann-{number}" for number in range(MANY)}
        room.fail("bob-0")
        assert room.unfinished() == set()
        assert room.begun == []

    asyncio.run(next_daemon())


def _fails(room: Room) -> None:
    queued(room)
    room.fail("ann-0")


def test_a_kernel_that_ends_leaves_what_it_runs_to_its_host(store: SessionStore):
    async def scenario() -> None:
        room = Room(store)
        ours, others = queued(room)
        room.executions.kernel_ending("the kernel was shut down")
        assert room.unfinished() == {"ann-0"}
        next_one = room.queue(BOB, "for the next kernel")
        await until(lambda: len(room.ends()) >= 2 * MANY - 1, "not all are told")
        assert room.ends().keys() == {*ours, *others} - {"ann-0"}
        assert room.unfinished() == {"ann-0", next_one}

    asyncio.run(scenario())


def test_a_few_are_told_at_once(store: SessionStore):
    async def scenario() -> None:
        room = Room(store)
        room.executions.kernel_ready()
        for number in range(SLICE):
            room.queue(ANN, str(number))
        room.executions.kernel_ending("the kernel was shut down")
        assert len(room.ends()) == SLICE - 1

    asyncio.run(scenario())


def test_displays_of_the_running_kernel_are_known_to_the_next_daemon_whatever_they_weigh(store: SessionStore):
    async def scenario() -> None:
        room = Room(store)
        with room.log.transaction():
            for name in ("first", "second"):
                shown = display("display_data", name, value="x" * 1000)
                room.log.append(shown)
                room.executions.take(shown)
        room.executions.forget("second")

        again = Room(store)
        with again.log.transaction():
            update = display("update_display_data", "third", value="y")
            again.log.append(update)
            again.executions.take(update)
        events = [decode_event(body) for _, body in store.read_events(0, execution_id="first")]
        assert [event.kind for event in events if isinstance(event, Display)] == ["display_data", "update_display_data"]
        assert store.read_events(0, execution_id="second", max_rows=10)[1:] == []

        again.executions.kernel_gone("it died")
        assert store.displays() == []

    asyncio.run(scenario())


def display(kind: Literal["display_data", "update_display_data"], execution_id: str, *, value: str) -> Display:
    return Display(
        at=1.0,
        execution_id=execution_id,
        cell_id=f"cell-{execution_id}",
        kind=kind,
        data={"text/plain": value},
        display_id="d",
    )
