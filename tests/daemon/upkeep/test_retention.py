"""What is too old goes, what somebody refers to stays; with a clock that the test moves, real hosts and kernels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtimed import AsyncSession, RuntimedError, StorageError
from runtimed.client.aio import AsyncConnection
from runtimed.client.flows import Flow, follow_events
from runtimed.client.identity import Identity
from runtimed.daemon.serving.daemon import ROOM_REST, Daemon
from runtimed.daemon.serving.overview import daemon_status
from runtimed.daemon.upkeep.retention import EVERY, GRACE
from runtimed.ids import SessionId, stored_name
from runtimed.protocol.codec import decode_event, encode_event
from runtimed.protocol.events import Display, Finished, KernelState, Stream
from runtimed.protocol.execution_operations import Subscribe
from runtimed.protocol.session_operations import Join
from runtimed.storage.registry_store import RegistryStore
from runtimed.storage.session_store import SessionStore
from runtimed.storage.spool import Spool
from tests.daemon.conftest import Clock, daemon_with_a_clock, look, until
from tests.old_sessions import closed_row

DAY = 86400.0
LARGE = "from IPython.display import display\ndisplay({{'text/plain': {!r} * 400_000}}, raw=True)"
"""Shows a value of 1.2 MB, a blob."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far the clock is moved, the daemon stays."""
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "1e12")


@contextlib.asynccontextmanager
async def in_session(name: str = "s") -> AsyncIterator[tuple[Clock, Daemon, AsyncSession]]:
    async with daemon_with_a_clock() as (clock, daemon), AsyncSession(name) as session:
        yield clock, daemon, session


def blobs_of(daemon: Daemon) -> set[str]:
    return set(daemon.blobs.older_than(float("inf")))


async def is_there(session: AsyncSession, execution_id: str) -> bool:
    kept = "those that no cell shows are kept for 30 days"
    try:
        await session.wait(execution_id)
    except RuntimedError as exc:
        return exc.message != f"Session {session.notebook_id!r} has no execution {execution_id!r}; {kept}"
    return True


# --- executions and events ---


def test_old_executions_that_no_cell_shows_are_deleted_and_all_others_stay(own_folder):
    async def scenario() -> None:
        async with in_session() as (clock, daemon, session):
            shown = await session.run("print('shown')")
            again = await session.run("print('first')")
            again_shown = await session.execute_cell(again.cell_id)
            cleared = await session.run("print('cleared')")
            await session.clear_outputs(cleared.cell_id)
            gone = await session.run("print('in a deleted cell')")
            await session.delete_cell(gone.cell_id)
            cells = await session.get_cells()
            last = daemon.room("s").log.last
            hidden = [again.execution_id, cleared.execution_id, gone.execution_id]

            clock.now += 30 * DAY - EVERY / 2
            await look(daemon)
            assert [await is_there(session, execution_id) for execution_id in hidden] == [True] * 3
            # Now they are too old, but were just read.
            clock.now += EVERY - 1
            await look(daemon)
            assert [await is_there(session, execution_id) for execution_id in hidden] == [True] * 3
            clock.now += EVERY
            await look(daemon)

            assert [await is_there(session, execution_id) for execution_id in hidden] == [False] * 3
            assert await session.get_cells() == cells
            assert await session.wait(shown.execution_id) == shown
            assert await session.wait(again_shown.execution_id) == again_shown
            events = [decode_event(body) for _seq, body in daemon.room("s").log.read(0, max_bytes=2**20)]
            assert {event.execution_id for event in events} == {shown.execution_id, again_shown.execution_id}
            # Of who did what there is the last edit of each cell, and nothing of old executions.
            noted = list(daemon.room("s").contents.audit())
            assert {row.cell_id for row in noted} == {cell.id for cell in cells}
            assert "execution_queued" not in {row.action for row in noted}
            new = await session.run("print('new')")
            assert new.stdout == "new\n"
            assert daemon.room("s").log.last > last

    asyncio.run(scenario())


def test_with_none_everything_is_kept(own_folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_KEEP_DAYS", "none")

    async def scenario() -> None:
        async with in_session() as (clock, daemon, session):
            hidden = await session.run("print(1)")
            await session.delete_cell(hidden.cell_id)
            before = daemon.room("s").log.read(0, max_bytes=2**20)
            clock.now += 10_000 * DAY
            await look(daemon)
            assert daemon.room("s").log.read(0, max_bytes=2**20)[: len(before)] == before
            assert await session.wait(hidden.execution_id) == hidden

    asyncio.run(scenario())


def test_an_execution_that_is_read_in_pages_stays_until_it_was_not_read_for_an_hour(own_folder):
    async def scenario() -> None:
        async with in_session() as (clock, daemon, session):
            hidden = await session.run("for n in range(12): print('x' * 1_000_000, flush=True)")
            await session.delete_cell(hidden.cell_id)
            clock.now += 40 * DAY
            pages, after = 0, 0
            while True:
                page = await session.read_outputs(hidden.execution_id, after)
                pages += 1
                if page.next is None:
                    break
                after = page.next
                clock.now += EVERY - 1
                await look(daemon)
            assert pages >= 2
            clock.now += EVERY
            await look(daemon)
            with pytest.raises(RuntimedError, match="has no execution"):
                await session.read_outputs(hidden.execution_id, after)

    asyncio.run(scenario())


def test_a_subscriber_that_takes_its_time_misses_nothing(own_folder):
    async def scenario() -> None:
        async with in_session() as (clock, daemon, session):
            async with contextlib.aclosing(await session.subscribe()) as events:
                result = await session.run("for n in range(100): print('x' * 100_000, flush=True)")
                await session.delete_cell(result.cell_id)
                text = (await anext(events)).output
                assert text is None
                clock.now += 40 * DAY
                await look(daemon)

                received = 0
                async for event in events:
                    received += len(event.output.text or "") if event.output else 0
                    if event.status == "deleted":
                        break
                assert received == 100 * 100_001
            await until(lambda: daemon.room("s").log.watchers == 0, "the subscriber is still there")
            clock.now += EVERY
            await look(daemon)
            assert not await is_there(session, result.execution_id)

    asyncio.run(scenario())


def test_who_comes_back_after_what_it_saw_last_was_deleted_is_told(own_folder):
    async def scenario() -> None:
        async with in_session() as (clock, daemon, session):
            for n in range(5):
                await session.delete_cell(await session.create_cell(str(n)))
            seen = 3
            clock.now += 40 * DAY
            await session.create_cell("new")
            await look(daemon)
            connection = AsyncConnection(Identity(), Join(notebook_id="s"))
            await connection.open()
            with pytest.raises(StorageError, match="has deleted old events after number 3, the last one") as caught:
                await connection.perform(_follow(seen))
            assert caught.value.after == seen
            connection.close()

    asyncio.run(scenario())


def _follow(after: int) -> Flow[object]:
    return (yield from follow_events(Subscribe(notebook_id="s", after=after), lambda _event: None))


def test_a_closed_session_is_looked_into_and_stays_closed(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            session = AsyncSession("s")
            hidden = await session.run("print('x' * 3_000_000)")
            await session.delete_cell(hidden.cell_id)
            kept = await session.run("print('kept')")
            await session.stop()
            await close_rooms(clock, daemon)
            path = daemon.sessions_dir / f"{stored_name(SessionId('s'))}.db"
            before = path.stat().st_size

            clock.now += 40 * DAY
            await look(daemon)
            await close_rooms(clock, daemon)
            assert path.stat().st_size < before - 2_000_000
            # Nothing is left to do: it is not opened for more than a look.
            await look(daemon)
            assert daemon_status(daemon).rooms == []

            await session.connect()
            assert (await session.status()).status == "closed"
            assert not await is_there(session, hidden.execution_id)
            assert (await session.wait(kept.execution_id)).stdout == "kept\n"
            await session.close()

    asyncio.run(scenario())


async def close_rooms(clock: Clock, daemon: Daemon) -> None:
    async def closed() -> bool:
        daemon.tick()
        clock.now += ROOM_REST + 1
        return not daemon_status(daemon).rooms

    await until(closed, "the rooms stay open")


# --- blobs ---


def test_a_blob_goes_when_the_last_session_that_refers_to_it_has_let_go_of_it(own_folder):
    async def scenario() -> None:
        async with in_session("one") as (clock, daemon, one), AsyncSession("two") as two:
            first, second = await one.run(LARGE.format("abc")), await two.run(LARGE.format("abc"))
            only = await one.run(LARGE.format("def"))
            both, own = blobs_of(daemon), set()
            assert len(both) == 2
            await one.delete_cell(first.cell_id)
            clock.now += 40 * DAY
            await look(daemon)
            await look(daemon)
            assert blobs_of(daemon) == both
            assert await two.get_cell_outputs(second.cell_id) == list(second.outputs)

            await two.delete_cell(second.cell_id)
            clock.now += EVERY
            await look(daemon)
            await look(daemon)
            own = blobs_of(daemon)
            assert len(own) == 1
            assert await one.get_cell_outputs(only.cell_id) == list(only.outputs)

    asyncio.run(scenario())


def test_a_blob_to_which_nothing_refers_yet_is_given_a_day(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            name = daemon.blobs.put(b"its event is on the way")
            clock.now += GRACE - 60
            await look(daemon)
            assert blobs_of(daemon) == {name}
            clock.now += 120
            await look(daemon)
            assert blobs_of(daemon) == set()

    asyncio.run(scenario())


def test_a_blob_of_an_event_that_a_host_has_yet_to_hand_over_stays(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            name = daemon.blobs.put(b"large")
            blob = {"t": "blob", "sha256": name, "size": 5, "text": False}
            event = Display(at=1, execution_id="e", kind="display_data", data={"image/png": blob})
            with Spool(daemon.settings.hosts_dir / "stray") as spool:
                spool.append_many([(1, encode_event(Stream(at=1, name="stdout", text="x"))), (2, encode_event(event))])
                clock.now += 40 * DAY
                await look(daemon)
                assert blobs_of(daemon) == {name}
                spool.acknowledge(2)
            for path in (daemon.settings.hosts_dir / "stray").iterdir():
                path.unlink()
            await look(daemon)
            assert blobs_of(daemon) == set()

    asyncio.run(scenario())


def test_sessions_that_never_began_keep_no_blob_whether_somebody_has_joined_or_a_daemon_died_with_them(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon), AsyncSession("never") as session:
            daemon.blobs.put(b"large")
            assert await session.get_cells() == []
            [joined] = daemon.sessions_dir.glob("*.db")
            [log] = daemon.sessions_dir.glob("*.db-wal")
            left = daemon.sessions_dir / "aa.db"
            left.write_bytes(joined.read_bytes())
            left.with_name("aa.db-wal").write_bytes(log.read_bytes())
            clock.now += 40 * DAY
            await look(daemon)
            assert (blobs_of(daemon), left.exists()) == (set(), False)
            assert (await session.run("print('begins')")).stdout == "begins\n"

    asyncio.run(scenario())


@pytest.mark.parametrize("what", ["set aside", "unreadable", "damaged spool"])
def test_while_not_everything_can_be_read_no_blob_is_removed(own_folder, what, caplog):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            name = daemon.blobs.put(b"large")
            daemon.sessions_dir.mkdir(exist_ok=True)
            if what == "set aside":
                path = daemon.sessions_dir / "aa.db.damaged-20260101T000000.000000Z"
            elif what == "unreadable":
                path = daemon.sessions_dir / "aa.db"
            else:
                path = daemon.settings.hosts_dir / "aa" / "00000000000000000001.events"
                path.parent.mkdir()
            path.write_bytes(b"no database, no spool" * 1000)
            clock.now += 40 * DAY
            with caplog.at_level(logging.WARNING):
                await look(daemon)
                await look(daemon)
            assert blobs_of(daemon) == {name}
            assert path.exists()
            assert len([record for record in caplog.records if "no blob is removed" in record.message]) == 1
            path.unlink()
            await look(daemon)
            assert blobs_of(daemon) == set()

    asyncio.run(scenario())


# --- deaths ---

DAEMON = """
import asyncio, time
from runtimed.daemon.serving import daemon as serving, server
from runtimed.daemon.upkeep import retention
from runtimed.settings import read_settings

async def main() -> None:
    ahead = [0.0]
    settings = read_settings()
    with server.own_data_folder(settings):
        daemon = serving.Daemon(settings, lambda: time.time() + ahead[0], lambda: time.time() + ahead[0])

        def ready() -> None:
            ahead[0] = 40 * 86400
            print("ready", flush=True)

        await server.serve(daemon, ready)

asyncio.run(main())
"""


def test_a_daemon_that_is_killed_while_it_deletes_leaves_what_stays_whole_and_the_next_one_goes_on(own_folder):
    now = time.time()
    kept = fill(own_folder, now)
    path = own_folder / "sessions" / f"{stored_name(SessionId('s'))}.db"
    numbers = random.Random(3)
    remaining = []
    for _ in range(30):
        with subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE) as daemon:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == b"ready\n"
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(numbers.uniform(0.0, 0.25))
            os.kill(daemon.pid, signal.SIGKILL)
        with SessionStore(path) as store:
            assert check_kept(store) == kept
            events = {decode_event(body).execution_id for _seq, body in all_events(store)}
            remaining.append(len(events))
            # Of a deleted execution there may be events, of one that is there all.
            for n in range(200):
                if store.execution(f"hidden {n}") is not None:
                    assert len(store.read_events(0, execution_id=f"hidden {n}")) == 51
            if events == {"shown", "unfinished"} and not store.is_deleting_events:
                break
    else:
        pytest.fail(f"it does not come to an end: {remaining}")
    assert remaining == sorted(remaining, reverse=True)
    assert len(remaining) > 2


def fill(folder: Path, now: float) -> object:
    """Make the data folder of a daemon with a session of which most is old, and return what of it has to stay."""
    with RegistryStore(folder / "registry.db") as registry:
        registry.put(closed_row("s", accessed_at=now))
    with SessionStore(folder / "sessions" / f"{stored_name(SessionId('s'))}.db") as store, store.transaction():
        for name in ("shown", *(f"hidden {n}" for n in range(200)), "unfinished"):
            store.add_execution(name, "c", "ann", "1", queued_at=now)
            for _ in range(50):
                event = Stream(at=now, execution_id=name, name="stdout", text="x" * 2000)
                store.append_event(encode_event(event), execution_id=name, cell_id="c", output=2000)
            store.append_event(encode_event(KernelState(at=now, status="idle")), execution_id=None, cell_id=None)
            if name != "unfinished":
                end = encode_event(Finished(at=now, execution_id=name, status="ok"))
                store.append_event(end, execution_id=name, cell_id="c")
                store.update_execution(name, status="ok", ended_at=now)
        store.show_execution("c", "shown")
        return check_kept(store)


def check_kept(store: SessionStore) -> object:
    names = ("shown", "unfinished")
    return [(store.execution(name), store.read_events(0, execution_id=name)) for name in names], store.last_seq


def all_events(store: SessionStore) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while page := store.read_events(found[-1][0] if found else 0):
        found += page
    return found
