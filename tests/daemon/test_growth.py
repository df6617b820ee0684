"""Whatever users do over and over, a daemon holds what is live: with the rounds no container in it grows, and no table.

The daemon is in this process, so that everything in it can be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runtimed import AsyncSession, Cell
from runtimed.daemon.rooms.room import database_path
from runtimed.daemon.serving.daemon import Daemon
from runtimed.document import editing
from runtimed.ids import CellId, ClientId, SessionId
from runtimed.settings import read_settings
from runtimed.storage.session_store import SessionStore
from tests.daemon.conftest import Clock, daemon_with_a_clock, look, until

DAY = 86400.0

SHOW = """
from IPython.display import display
print("a line")
for n in range(20):
    handle = display({"text/plain": str(n)}, raw=True, display_id=True)
handle.update({"text/plain": "updated"}, raw=True)
display({"text/plain": "v", "text/x-v": "v" * 1_500_000}, raw=True)
"""
UPDATE = "handle.update({'text/plain': 'from another cell'}, raw=True)"

BOUNDED = {
    "daemon.log.EventLog._read_at",
    *(f"{session}.{table}" for session in "st" for table in ("requests", "changes", "pending", "history")),
}
"""What has a bound of its own: executions that are remembered as read, replies for clients that ask again, edits until
they are written into the document, and changes and the history until it is compacted."""

CONTAINERS = (dict, list, set, frozenset, deque, tuple)


def containers(root: object) -> Counter[str]:
    """How many elements the containers below an object hold, by the class and attribute that leads to them."""
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    left: list[tuple[str, object]] = [("", root)]
    while left:
        name, found = left.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, CONTAINERS):
            counts[name] += len(found)
            parts = [*found.keys(), *found.values()] if isinstance(found, Mapping) else list(found)
            left += [(name, part) for part in parts]
        elif type(found).__module__.startswith("runtimed."):
            kind = f"{type(found).__module__.removeprefix('runtimed.')}.{type(found).__qualname__}"
            for attribute, value in attributes(found):
                left.append((f"{kind}.{attribute}", value))
    return counts


def attributes(found: object) -> Iterator[tuple[str, object]]:
    yield from getattr(found, "__dict__", {}).items()
    for kind in type(found).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with contextlib.suppress(AttributeError):
                yield name, getattr(found, name)


def grown(before: Counter[str], after: Counter[str]) -> dict[str, tuple[int, int]]:
    more = after - before
    return {name: (before[name], after[name]) for name in more if name not in BOUNDED}


def databases(daemon: Daemon) -> Iterator[tuple[str, Any]]:
    yield "registry", daemon.registry_store.database
    for session_id, room in daemon.rooms.items():
        yield session_id, room.store.database


def rows(daemon: Daemon) -> Counter[str]:
    """How many rows the tables have."""
    counts: Counter[str] = Counter()
    for name, database in databases(daemon):
        for (table,) in database.rows(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'sqlite_sequence'"
        ):
            counts[f"{name}.{table}"] = database.row(f"SELECT count(*) FROM {table}")[0]
    return counts


def files(folder: Path) -> Counter[str]:
    """How many files there are, by folder."""
    return Counter(str(path.parent.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def work(daemon: Daemon, clock: Clock) -> None:
    """What users do with two sessions in a month."""
    async with AsyncSession("s") as session:
        events = [event async for event in session.stream_execute(await session.create_cell(SHOW))]
        assert events[-1].event_type == "done"
        shown, *others = await session.get_cell_ids()
        await session.execute_cell(shown)
        assert (await session.run(UPDATE)).success
        await session.set_source(others[0], "# edited")
        await session.append_source(others[0], " twice")
        await session.clear_outputs(shown)
        for cell_id in await session.get_cell_ids():
            if cell_id != shown:
                await session.delete_cell(cell_id)
    async with AsyncSession("t") as other:
        result = await other.run("print('hello')")
        assert result.success
        await other.delete_cell(result.cell_id)
        await other.stop()
    clock.now += 31 * DAY
    await look(daemon)
    # What nothing refers to is deleted by the look after that in which it was found.
    await look(daemon)

    def is_written() -> bool:
        daemon.tick()  # begins with one document
        return not any(room.store.notebook.pending_count for room in daemon.rooms.values())

    await until(is_written, "the edits are not written into the documents")


def test_whatever_users_do_over_and_over_a_daemon_holds_what_is_live(own_folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "1e12")

    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            async with AsyncSession("s") as first:
                await first.create_cell(SHOW)
            for _ in range(2):
                await work(daemon, clock)
            before = containers(daemon), rows(daemon), files(own_folder)
            for _ in range(2):
                await work(daemon, clock)
            after = containers(daemon), rows(daemon), files(own_folder)
            grew.extend(grown(*counts) for counts in zip(before, after, strict=True))

    grew: list[dict[str, tuple[int, int]]] = []
    asyncio.run(scenario())
    print(grew)
    assert grew == [{}, {}, {}]


DISPLAYS = """
handles = [display({"text/plain": "first"}, raw=True, display_id=True) for n in range(50)]
"""


def displays_of(daemon: Daemon) -> tuple[int, int]:
    """How many displays the daemon remembers for updates, and how many for sizes."""
    room = daemon.rooms[SessionId("s")]
    return room.kernel.executions.displays, room.log.remembered_sizes


def test_displays_are_remembered_as_long_as_a_cell_shows_them(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon), AsyncSession("s") as session:
            cell_id = await session.create_cell(DISPLAYS)
            for _ in range(3):
                assert (await session.execute_cell(cell_id)).success
            daemon.tick()
            assert displays_of(daemon) == (50, 50), "those of the last execution"
            # Updates reach the cell, wherever they come from.
            assert (await session.run("for each in handles: each.update({'text/plain': 'second'}, raw=True)")).success
            assert texts(await session.get_cell(cell_id)) == ["second"] * 50

            # A cell that is cleared, or deleted, while it runs shows nothing that comes of it later.
            again = asyncio.create_task(session.execute_cell(cell_id))
            await until(lambda: displays_of(daemon)[0] > 50, "nothing is shown")
            await again
            daemon.tick()
            assert displays_of(daemon) == (50, 50)
            await session.clear_outputs(cell_id)
            daemon.tick()
            assert displays_of(daemon) == (0, 0)
            assert (await session.execute_cell(cell_id)).success
            daemon.tick()
            assert displays_of(daemon) == (50, 50)
            await session.delete_cell(cell_id)
            daemon.tick()
            assert displays_of(daemon) == (0, 0)

            slow = await session.create_cell(f"input_ = 1{DISPLAYS}import time; time.sleep(1){DISPLAYS}")
            running = asyncio.create_task(session.execute_cell(slow))
            await until(lambda: displays_of(daemon)[0] == 50, "nothing is shown")
            await session.delete_cell(slow)
            daemon.tick()
            assert displays_of(daemon)[0] >= 50, "it may update what it shows"
            assert (await running).success
            daemon.tick()
            assert displays_of(daemon) == (0, 0)

            assert (await session.run(DISPLAYS)).success
            await session.shutdown_kernel()
            assert displays_of(daemon) == (0, 0), "nobody is left who could update anything"

    asyncio.run(scenario())


def texts(cell: Cell) -> list[str]:
    return [str((output.data or {})["text/plain"]) for output in cell.outputs]


def test_a_large_notebook_that_is_closed_leaves_no_memory_behind(own_folder, monkeypatch):
    """In a process of its own, since this one is never as small again as it was."""
    store_notebook("small", 10)
    store_notebook("large", 5000)
    code = """
import asyncio, psutil
from runtimed import AsyncSession
from runtimed.daemon.serving.daemon import ROOM_REST
from tests.daemon.conftest import daemon_with_a_clock, until

def memory():
    return psutil.Process().memory_info().rss / 2**20

async def scenario():
    async with daemon_with_a_clock() as (clock, daemon):
        async with AsyncSession("small") as session:
            assert len(await session.get_cell_ids()) == 10
        before = memory()
        async with AsyncSession("large") as session:
            assert len(await session.get_cell_ids()) == 5000
        with_it = memory()
        await until(lambda: not daemon.rooms["large"].in_use, "the client does not leave")
        daemon.tick()
        clock.now += ROOM_REST + 1
        daemon.tick()
        assert list(daemon.rooms) == []
        await until(lambda: memory() < before + 20, "the memory stays")
        print(with_it - before, memory() - before)

asyncio.run(scenario())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    with_it, without_it = map(float, done.stdout.split())
    assert with_it < 20
    assert without_it < 20


def store_notebook(name: str, cells: int) -> None:
    """Store a session whose notebook has so many cells."""
    with SessionStore(database_path(read_settings(), SessionId(name))) as store, store.transaction():
        for number in range(cells):
            source = f"x = {number}\n" + "# a line of this cell\n" * 12
            added = editing.add_cell(store.notebook, CellId(f"cell-{number}"), source, "code")
            assert added is not None
            store.notebook.apply(added, ClientId("somebody"), 1.0)
