"""Real processes, killed in the middle of their work: what they had said was stored must be there."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.ids import HostEpoch
from runtimed.storage.blobs import BlobStore
from runtimed.storage.registry_store import RegistryStore
from runtimed.storage.session_store import SessionStore
from runtimed.storage.spool import Spool

HEADER = """
import os, pathlib, random, sys
from runtimed.document.deltas import EntrySet
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.blobs import BlobStore
from runtimed.storage.registry_store import RegistryStore, SessionRow
from runtimed.storage.session_store import SessionStore
from runtimed.storage.spool import Spool
folder = pathlib.Path(sys.argv[1])
rng = random.Random(int(sys.argv[2]))
ANN = Actor("ann", None, 0, 1)
def stored(i):
    os.write(1, b"%d\\n" % i)
def body(i):
    return b"%d " % i * rng.choice((1, 10, 10, 10, 1000, 20000))
"""


def killed_writer(code: str, folder: Path, seed: int) -> int:
    """Run a writer, kill it after a random number of its reports, and return the last thing it reported."""
    lines = random.Random(seed).randrange(1, 400)
    with subprocess.Popen(
        [sys.executable, "-c", HEADER + code, str(folder), str(seed)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        last = b""
        for _ in range(lines):
            last = writer.stdout.readline()
            assert last, "the writer ended by itself"
        writer.kill()
        # What it reported between our last look and its death counts as well; a torn line was not reported.
        for line in writer.stdout:
            if line.endswith(b"\n"):
                last = line
    return int(last)


@pytest.mark.parametrize("seed", range(6))
def test_everything_a_killed_daemon_committed_is_there(tmp_path: Path, seed: int) -> None:
    last = killed_writer(
        """
with SessionStore(folder / "s.db") as store:
    for i in range(1, 10**9):
        with store.transaction():
            store.add_execution(f"e{i}", "c", "ann", f"print({i})", queued_at=float(i))
            for k in range(3):
                store.append_event(body(i), execution_id=f"e{i}", cell_id="c", host=("h", 3 * i + k))
            store.remember_request("ann", i, b"%d" % i)
            store.notebook.apply(EntrySet("last", str(i)), "ann", 1.0)
            store.notebook.add_changes([("ann", b"%d" % i)], i - 5)
            store.note(AuditRow(at=i, until=i, action="cell_edited", actor=ANN, cell_id="c"))
            if i % 50 == 0:
                store.notebook.put_snapshot(b"%d" % i, i - 5, begins_at=None)
        stored(i)
""",
        tmp_path,
        seed,
    )
    with SessionStore(tmp_path / "s.db") as store:
        events = list(all_events(store))
        (end,) = {int(events[-1][1].split()[0])}
        assert end in (last, last + 1)
        assert [seq for seq, _ in events] == list(range(1, 3 * end + 1))
        assert [int(body.split()[0]) for _, body in events] == [1 + i // 3 for i in range(3 * end)]
        assert store.last_event_of_host(HostEpoch("h")) == 3 * end + 2
        assert len(store.unfinished_executions()) == end
        assert store.find_request("ann", end) == b"%d" % end
        rows = store.notebook.rows()
        start = end - end % 50
        written = [start] if start else []
        assert [row.data for row in rows] == [b"%d" % i for i in (*written, *range(start + 1, end + 1))]
        assert store.notebook.metadata("last") == str(end)
        assert [edit.number for edit in store.notebook.pending(-1)] == list(range(max(end - 4, 1), end + 1))
        assert sum(row.count for row in store.audit()) == end


def all_events(store: SessionStore) -> Iterator[tuple[int, bytes]]:
    after = 0
    while page := store.read_events(after):
        yield from page
        after = page[-1][0]


@pytest.mark.parametrize("seed", range(4))
def test_a_death_during_a_checkpoint_in_a_thread_costs_nothing(tmp_path: Path, seed: int) -> None:
    last = killed_writer(
        """
import threading
with SessionStore(folder / "s.db") as store:
    for i in range(1, 10**9):
        store.append_event(body(i), execution_id="e", cell_id="c", host=("h", i))
        if i % 7 == 0:
            threading.Thread(target=store.begin_checkpoint()).start()
        stored(i)
""",
        tmp_path,
        seed,
    )
    with SessionStore(tmp_path / "s.db") as store:
        numbers = [int(body.split()[0]) for _seq, body in all_events(store)]
        assert numbers in (list(range(1, n + 1)) for n in (last, last + 1))


@pytest.mark.parametrize("seed", range(3))
def test_a_registry_survives_the_death_of_its_writer(tmp_path: Path, seed: int) -> None:
    last = killed_writer(
        """
def row(i):
    return SessionRow(session_id=f"s{i}", kind="kernel", status="active", close_reason=None, created_at=1.0,
        started_at=1.0, closed_at=None, last_accessed_at=float(i), timeout_minutes=None, max_duration_minutes=None,
        keep_alive=30.0, ephemeral=False, creator="ann", label=None, error=None, host_epoch=None, host_dir=None,
        host_pid=None, kernel_type=None, kernel_pid=None, env_source=None)
with RegistryStore(folder / "registry.db") as store:
    for i in range(1, 10**9):
        with store.transaction():
            store.put(row(i))
            store.add_history(f"s{i}", AuditRow(at=i, until=i, action="session_started"))
        stored(i)
""",
        tmp_path,
        seed,
    )
    with RegistryStore(tmp_path / "registry.db") as store:
        ids = {row.session_id for row in store.active()}
        assert store.set_damaged_aside() == []
        assert ids in ({f"s{i}" for i in range(1, n + 1)} for n in (last, last + 1))
        assert all(len(store.history(name)) == 1 for name in ids)


@pytest.mark.parametrize("seed", range(6))
def test_everything_a_killed_host_spooled_can_be_read(tmp_path: Path, seed: int) -> None:
    last = killed_writer(
        """
spool = Spool(folder)
n = 0
for i in range(1, 10**9):
    count = rng.choice((1, 3, 100))
    spool.append_many([(n + k, body(n + k)) for k in range(1, count + 1)])
    n += count
    if i % 7 == 0:
        spool.acknowledge(n - 50)
    stored(n)
""",
        tmp_path,
        seed,
    )
    assert not Spool.is_alive(tmp_path)
    found = list(Spool.read_dead(tmp_path, 0))
    numbers = [n for n, _ in found]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[0] <= max(last - 49, 1)
    assert last <= numbers[-1] <= last + 100
    assert all(set(body.split()) == {b"%d" % n} for n, body in found)


def test_a_host_is_alive_until_it_is_killed(tmp_path: Path) -> None:
    code = "spool = Spool(folder); stored(1); input()"
    with subprocess.Popen(
        [sys.executable, "-c", HEADER + code, str(tmp_path), "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as host:
        assert host.stdout is not None
        host.stdout.readline()
        assert Spool.is_alive(tmp_path)
        host.kill()
        host.wait()
        assert not Spool.is_alive(tmp_path)


def test_a_blob_is_whole_or_absent_when_its_writer_is_killed(tmp_path: Path) -> None:
    killed_writer(
        """
store = BlobStore(folder)
for i in range(10**9):
    store.put(b"%d" % i * 20000)
    stored(i)
""",
        tmp_path,
        4,
    )
    store = BlobStore(tmp_path)
    names = [path.name for path in tmp_path.glob("??/??/*")]
    assert names
    assert all(store.verify(name) for name in names)
