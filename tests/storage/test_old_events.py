"""What is read of an execution with more outputs than one wants, and how what is too old is deleted."""

import sqlite3
from pathlib import Path

import pytest

from runtimed.errors import StorageError
from runtimed.ids import HostEpoch
from runtimed.storage import events
from runtimed.storage.session_store import SessionStore

H = HostEpoch("h")
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.db"


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path, isolation_level=None)
    rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


# --- outputs ---


def test_a_page_ends_before_the_outputs_are_larger_than_wanted(path: Path) -> None:
    with SessionStore(path) as store:
        store.append_event(b"begin", execution_id="e", cell_id=None)
        for n in range(4):
            store.append_event(b"out %d" % n, execution_id="e", cell_id=None, output=10)
            store.append_event(b"other", execution_id="o", cell_id=None, output=1000)
        store.append_event(b"end", execution_id="e", cell_id=None)
        assert (store.output_size("e"), store.output_size("o"), store.output_size("unknown")) == (40, 4000, 0)
    with SessionStore(path) as store:
        assert store.output_size("e") == 40
        assert store.read_events(0, execution_id="e", max_output=25) == [(1, b"begin"), (2, b"out 0"), (4, b"out 1")]
        assert store.read_events(4, execution_id="e", max_output=25) == []
        assert store.read_events(8, execution_id="e", max_output=25) == [(10, b"end")]
        assert store.read_events(0, execution_id="e", outputs=False) == [(1, b"begin"), (10, b"end")]
        assert len(store.read_events(0, execution_id="e", max_output=40)) == 6


def test_what_clears_the_outputs_begins_their_size_anew(path: Path) -> None:
    with SessionStore(path) as store:
        for size in (10, 20):
            store.append_event(b"out", execution_id="e", cell_id=None, output=size)
        store.append_event(b"clear", execution_id="e", cell_id=None, clears=True)
        assert store.output_size("e") == 0
        store.append_event(b"new", execution_id="e", cell_id=None, output=5)
    with SessionStore(path) as store:
        store.append_event(b"update", execution_id="e", cell_id=None, output=0)
        assert store.output_size("e") == 5
        assert store.read_events(0, execution_id="e", max_output=12) == [(1, b"out")]
        assert store.read_events(1, execution_id="e", outputs=False) == [(3, b"clear")]
        assert store.read_events(3, execution_id="e", max_output=12) == [(4, b"new"), (5, b"update")]


def test_a_rolled_back_output_does_not_count(path: Path) -> None:
    with SessionStore(path) as store:
        store.append_event(b"out", execution_id="e", cell_id=None, output=10)

        def fail() -> None:
            store.append_event(b"out", execution_id="e", cell_id=None, output=10)
            raise KeyError

        with pytest.raises(KeyError), store.transaction():
            fail()
        store.append_event(b"out", execution_id="e", cell_id=None, output=1)
        assert store.output_size("e") == 11


def test_what_is_no_output_is_found_by_an_index(path: Path) -> None:
    with SessionStore(path):
        pass
    for query in (events._OF_EXECUTION_BUT_OUTPUTS, events._OF_NO_EXECUTION):  # noqa: SLF001  # the very queries
        plan = " ".join(str(row[3]) for row in sql(path, f"EXPLAIN QUERY PLAN {query.replace('?', '5')}"))
        assert "USING INDEX events_but_outputs (execution=? AND rowid" in plan
        assert "TEMP B-TREE" not in plan


# --- deletion ---


def fill(store: SessionStore) -> None:
    """Ten executions of five events and two blobs each, and an event of none behind each."""
    for i in range(10):
        store.add_execution(f"e{i}", f"c{i}", "ann", "1", queued_at=i)
        for n in range(5):
            store.append_event(
                b"%d %d" % (i, n),
                execution_id=f"e{i}",
                cell_id=f"c{i}",
                host=(H, 5 * i + n + 1),
                blobs=[A, f"{i:064x}"],
            )
        store.append_event(b"none %d" % i, execution_id=None, cell_id=f"c{i}", blobs=[B])
        store.update_execution(f"e{i}", status="ok", ended_at=i + 0.5)


def test_old_executions_are_listed_until_one_that_is_not(path: Path) -> None:
    with SessionStore(path) as store:
        fill(store)
        store.add_execution("running", "c", "ann", "1", queued_at=0)
        assert store.executions_ended_before(3, 0, 100) == [(1, "e0"), (2, "e1"), (3, "e2")]
        assert store.executions_ended_before(3, 1, 1) == [(2, "e1")]
        assert store.executions_ended_before(3, 3, 100) == []
        assert len(store.executions_ended_before(1000, 0, 100)) == 10


def test_what_the_cells_show_is_known_without_the_document(path: Path) -> None:
    with SessionStore(path) as store:
        assert store.shown_executions() == set()
        store.show_execution("c1", "e1")
        store.show_execution("c2", "e2")
        store.show_execution("c2", "e3")
        store.show_execution("c4", "e1")
        assert store.shown_executions() == {"e1", "e3"}
        store.show_execution("c1", None)
    with SessionStore(path) as store:
        assert store.shown_executions() == {"e1", "e3"}
        store.show_execution("c4", None)
        assert store.shown_executions() == {"e3"}

        def fail() -> None:
            store.show_execution("c2", None)
            assert store.shown_executions() == set()
            raise KeyError

        with pytest.raises(KeyError), store.transaction():
            fail()
        assert store.shown_executions() == {"e3"}
    sql(path, "UPDATE shown SET execution_id = 'other'")
    with SessionStore(path) as store, pytest.raises(StorageError, match="what cell c2 shows"):
        store.shown_executions()


def test_a_deleted_execution_is_gone_at_once_and_its_events_bit_by_bit(path: Path) -> None:
    with SessionStore(path) as store:
        fill(store)
        store.delete_execution("e3")
        assert store.execution("e3") is None
        assert store.delete_some_events(max_bytes=6, max_rows=100)
        assert [body for _, body in store.read_events(0, execution_id="e3")] == [b"3 2", b"3 3", b"3 4"]
    # Whoever died in between goes on later.
    with SessionStore(path) as store:
        assert store.delete_some_events(max_bytes=1000, max_rows=2)
        assert [body for _, body in store.read_events(0, execution_id="e3")] == [b"3 4"]
        while store.delete_some_events(max_bytes=1000, max_rows=2):
            pass
        assert store.read_events(0, execution_id="e3") == []
        assert [body for _, body in store.read_events(0)] == [
            body for i in range(10) for body in [*(b"%d %d" % (i, n) for n in range(5) if i != 3), b"none %d" % i]
        ]
        assert (store.last_seq, store.last_event_of_host(H), store.last_deleted_event) == (60, 50, 23)
        assert store.append_event(b"again", execution_id="e3", cell_id=None, host=(H, 17)) is None


def test_an_execution_that_comes_back_under_a_deleted_id_keeps_its_events(path: Path) -> None:
    with SessionStore(path) as store:
        fill(store)
        store.delete_execution("e3")
        assert store.add_execution("e3", "c", "ann", "1", queued_at=5.0)
        seq = store.append_event(b"new", execution_id="e3", cell_id=None, output=7)
        while store.delete_some_events(max_bytes=1000, max_rows=100):
            pass
        assert store.read_events(0, execution_id="e3") == [(seq, b"new")]
        assert store.output_size("e3") == 7


def test_references_to_blobs_go_with_the_events(path: Path) -> None:
    with SessionStore(path) as store:
        fill(store)
        store.append_event(b"", execution_id="e0", cell_id=None, blobs=[C, C])
        assert store.blobs() == {A, B, C, *(f"{i:064x}" for i in range(10))}
        for i in range(5):
            store.delete_execution(f"e{i}")
        while store.delete_some_events(max_bytes=1000, max_rows=3):
            pass
        assert store.blobs() == {A, B, *(f"{i:064x}" for i in range(5, 10))}
    sql(path, f"UPDATE event_blobs SET sha256 = x'{C}' WHERE sha256 = x'{B}'")
    with SessionStore(path) as store, pytest.raises(StorageError, match="a reference of event 6 to a blob"):
        store.blobs()


def test_events_of_no_execution_are_listed_and_deleted_from_the_oldest_on(path: Path) -> None:
    with SessionStore(path) as store:
        fill(store)
        assert store.events_of_no_execution(upto=59, max_rows=2) == [(6, b"none 0"), (12, b"none 1")]
        assert len(store.events_of_no_execution(upto=59, max_rows=100)) == 9
        store.delete_events_of_no_execution(upto=12)
        assert store.events_of_no_execution(upto=18, max_rows=2) == [(18, b"none 2")]
        assert (store.last_deleted_event, len(store.read_events(0))) == (12, 58)
        store.delete_events_of_no_execution(upto=60)
        assert (store.last_deleted_event, store.append_event(b"", execution_id=None, cell_id=None)) == (60, 61)


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_file_gets_shorter_when_its_free_pages_are_given_back(path: Path, order: str) -> None:
    with SessionStore(path) as store:
        for i in range(20):
            store.add_execution(f"e{i}", "c", "ann", "1", queued_at=i)
            store.append_event(bytes(2**18), execution_id=f"e{i}", cell_id=None, output=2**18)
    full = path.stat().st_size
    with SessionStore(path) as store:
        for i in range(15):
            store.delete_execution(f"e{i}" if order == "oldest" else f"e{19 - i}")
        while store.delete_some_events(max_bytes=2**20, max_rows=100):
            pass
        free = store.free_pages
        assert free * 4096 > 0.7 * full
        store.give_back(100)
        assert store.free_pages == free - 100
        while store.free_pages:
            store.give_back(100)
        kept = {body for _, body in store.read_events(0)}
    assert kept == {bytes(2**18)}
    assert path.stat().st_size < 0.3 * full


# --- a look from outside ---


def test_a_look_takes_no_lock_and_changes_nothing(path: Path) -> None:
    with SessionStore(path) as store:
        fill(store)
    before = path.stat()
    with SessionStore(path, read_only=True) as glance, SessionStore(path, read_only=True) as other:
        assert glance.blobs() == other.blobs() == {A, B, *(f"{i:064x}" for i in range(10))}
        assert glance.executions_ended_before(1000, 8, 100) == [(9, "e8"), (10, "e9")]
        with pytest.raises(StorageError, match="readonly"):
            glance.delete_execution("e1")
        with SessionStore(path) as owner:
            assert owner.execution("e1") is not None
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name]


def test_a_look_refuses_what_it_cannot_read_and_leaves_it_in_place(path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        SessionStore(path, read_only=True)
    assert not path.exists()
    with SessionStore(path) as store:
        fill(store)
        with pytest.raises(StorageError, match="has a write-ahead log, which only its owner can read"):
            SessionStore(path, read_only=True)
    sql(path, "PRAGMA user_version = 77")
    with pytest.raises(StorageError, match="a newer version of runtimed"):
        SessionStore(path, read_only=True)
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StorageError, match="it is damaged"):
        SessionStore(path, read_only=True)
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name]
