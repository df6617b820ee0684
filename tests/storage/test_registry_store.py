import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtimed.errors import StorageError
from runtimed.ids import ClientId
from runtimed.storage.aside import list_aside
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.registry_store import RegistryStore, SessionRow

ROW = SessionRow(
    session_id="a/b\n\0é",
    kind="kernel",
    status="active",
    close_reason=None,
    created_at=1,
    started_at=2.5,
    closed_at=None,
    last_accessed_at=3.25,
    timeout_minutes=10,
    max_duration_minutes=None,
    keep_alive=30.0,
    ephemeral=True,
    creator="ann",
    label="My notebook 🎈",
    error=None,
    host_epoch="h1",
    host_dir="/tmp/caf\udce9",
    host_pid=17,
    kernel_type="python",
    kernel_pid=None,
    env_source=None,
)

ANN = Actor(ClientId("ann"), label="Ann's notebook 🎈", uid=1000, pid=17)
STARTED = AuditRow(at=1, until=1, action="session_started", actor=ANN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def store(path: Path) -> Iterator[RegistryStore]:
    with RegistryStore(path) as store:
        yield store


def sql(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_a_session_comes_back_whole_after_reopening(path: Path) -> None:
    full = replace(
        ROW,
        session_id="full",
        close_reason="died",
        status="error",
        closed_at=9,
        max_duration_minutes=1.5,
        ephemeral=False,
        error="exit code 3: \ud800",
        kernel_pid=18,
        env_source="uv:/tmp/x",
    )
    with RegistryStore(path) as store:
        store.put(ROW)
        store.put(full)
    with RegistryStore(path) as store:
        found = [store.get(ROW.session_id), store.get("full"), store.get("unknown")]
    assert found == [ROW, full, None]


def test_putting_a_session_again_replaces_it(store: RegistryStore) -> None:
    store.put(ROW)
    closed = replace(ROW, status="closed", close_reason="stopped", closed_at=10.0)
    store.put(closed)
    assert store.list() == [closed]
    assert store.active() == []


def test_sessions_are_listed_by_access_and_page(store: RegistryStore) -> None:
    rows = [
        replace(
            ROW,
            session_id=f"s{i}",
            last_accessed_at=float(i // 2),
            status="active" if i % 3 else "closed",
            kind="browser" if i == 4 else "kernel",
        )
        for i in range(7)
    ]
    for row in rows:
        store.put(row)

    def ids(found: list[SessionRow]) -> list[str]:
        return [row.session_id for row in found]

    assert ids(store.list()) == ["s6", "s4", "s5", "s2", "s3", "s0", "s1"]
    assert ids(store.list(start=3, count=3)) == ["s2", "s3", "s0"]
    assert ids(store.list(start=9, count=3)) == []
    assert ids(store.list(status="closed")) == ["s6", "s3", "s0"]
    assert ids(store.list(status="active", kind="browser")) == ["s4"]
    assert ids(store.active()) == ["s1", "s2", "s4", "s5"]
    assert (store.count(), store.count("closed"), store.count(kind="browser")) == (7, 3, 1)


def test_touching_a_session_moves_it_to_the_front(store: RegistryStore) -> None:
    other = replace(ROW, session_id="other", last_accessed_at=5.0)
    store.put(ROW)
    store.put(other)
    store.touch(ROW.session_id, 7)
    store.touch("unknown", 8.0)
    assert store.list() == [replace(ROW, last_accessed_at=7.0), other]


def test_the_history_of_a_session_is_kept_in_order_with_who_made_it(path: Path) -> None:
    died = AuditRow(at=0.5, until=0.5, action="session_error", detail="died")
    nameless = AuditRow(
        at=3, until=3, action="session_started", actor=Actor(ClientId("bob"), label=None, uid=0, pid=None)
    )
    with RegistryStore(path) as store:
        store.add_history("s", STARTED)
        store.add_history("t", replace(STARTED, at=2.0))
        store.add_history("s", died)
        store.add_history("s", nameless)
    with RegistryStore(path) as store:
        assert store.history("s") == [nameless, died, STARTED]
        assert store.history("unknown") == []


def test_pruning_the_history_keeps_the_last_step_of_each_session(store: RegistryStore) -> None:
    for at in (1.0, 2.0, 3.0):
        store.add_history("s", replace(STARTED, at=at))
    store.add_history("t", STARTED)
    assert store.prune_history(3.0) == 2
    assert [row.at for row in store.history("s")] == [3.0]
    assert store.history("t") == [STARTED]
    assert store.prune_history(10.0) == 0


def test_session_and_history_are_written_together_or_not_at_all(store: RegistryStore) -> None:
    def write_and_fail() -> None:
        store.put(ROW)
        store.add_history(ROW.session_id, STARTED)
        raise KeyError

    with pytest.raises(KeyError), store.transaction():
        write_and_fail()
    assert (store.list(), store.history(ROW.session_id)) == ([], [])


@pytest.mark.parametrize(
    "change", ["status = 'closed'", "last_accessed_at = 99", "label = NULL", "ephemeral = 0", "checksum = 5"]
)
def test_a_damaged_session_is_named_and_the_others_are_served(path: Path, change: str) -> None:
    other = replace(ROW, session_id="other", label="My notebook")
    with RegistryStore(path) as store:
        store.put(replace(ROW, session_id="bad"))
        store.put(other)
    sql(path, f"UPDATE sessions SET {change} WHERE session_id = 'bad'")
    with RegistryStore(path) as store:
        with pytest.raises(StorageError, match="the row of session 'bad'") as info:
            store.get("bad")
        assert info.value.session_id == "bad"
        with pytest.raises(StorageError):
            store.touch("bad", 9.0)
        assert store.list() == store.active() == [other]


def test_damaged_sessions_are_set_aside_and_begin_anew(path: Path) -> None:
    with RegistryStore(path) as store:
        store.put(replace(ROW, session_id="bad"))
        store.put(ROW)
    sql(path, "UPDATE sessions SET status = 'closed', label = CAST(x'6162ff' AS TEXT) WHERE session_id = 'bad'")
    with RegistryStore(path) as store:
        assert list_aside(path.parent) == []
        assert store.set_damaged_aside() == ["bad"]
        assert store.set_damaged_aside() == []
        assert store.get("bad") is None
        assert store.list() == [ROW]
        store.put(replace(ROW, session_id="bad"))
        assert store.get("bad") == replace(ROW, session_id="bad")
    connection = sqlite3.connect(path)
    kept = connection.execute("SELECT session_id, row FROM set_aside").fetchall()
    connection.close()
    assert len(kept) == 1
    assert kept[0][0] == "'bad'"
    assert kept[0][1].startswith("['bad', 'kernel', 'closed'")
    (aside,) = list_aside(path.parent)
    assert aside.found.startswith(
        "The rows of 'bad' in the list of sessions were found damaged and set aside, last on "
    )
    assert aside.advice.endswith(f"remove {aside.path} when you no longer need it")
    assert stat.S_IMODE(aside.path.stat().st_mode) == 0o600


def test_the_note_of_damaged_sessions_names_those_of_earlier_times_too_and_counts_many(path: Path) -> None:
    for names in (["one"], [f"more {number}" for number in range(30)]):
        with RegistryStore(path) as store:
            for name in names:
                store.put(replace(ROW, session_id=name))
        sql(path, "UPDATE sessions SET checksum = checksum + 1")
        with RegistryStore(path) as store:
            assert store.set_damaged_aside() == names
    (aside,) = list_aside(path.parent)
    assert aside.found.count("'more ") == 19
    assert aside.found.startswith("The rows of 'one', 'more 0', ")
    assert "'more 18' and 11 more in the list of sessions were found" in aside.found
    aside.path.unlink()
    assert list_aside(path.parent) == []


def test_text_that_is_no_longer_utf8_is_noticed_in_its_row_alone(path: Path) -> None:
    with RegistryStore(path) as store:
        store.put(replace(ROW, session_id="bad", creator="abcdefgh"))
        store.put(ROW)
    sql(path, "UPDATE sessions SET creator = CAST(x'6162ff' AS TEXT) WHERE session_id = 'bad'")
    with RegistryStore(path) as store:
        assert store.list() == [ROW]
        assert store.set_damaged_aside() == ["bad"]


@pytest.mark.parametrize("change", ["action = 'session_closed'", "label = 'Bob'", "pid = 18", "client_id = NULL"])
def test_a_damaged_step_is_left_out_and_named_in_the_log(
    path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RegistryStore(path) as store:
        store.add_history("s", STARTED)
        store.add_history("s", replace(STARTED, at=2.0))
    sql(path, f"UPDATE history SET {change} WHERE at = 2.0")
    with RegistryStore(path) as store:
        assert store.history("s") == [STARTED]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: a step in the history of session 's' is damaged and left out"
    ]


def test_the_index_of_active_sessions_is_used(path: Path) -> None:
    RegistryStore(path).close()
    connection = sqlite3.connect(path)
    query = "EXPLAIN QUERY PLAN SELECT * FROM sessions WHERE status = 'active' ORDER BY session_id"
    plan = [row[-1] for row in connection.execute(query)]
    connection.close()
    assert plan == ["SCAN sessions USING INDEX sessions_active"]


def test_closing_twice_is_harmless(path: Path) -> None:
    store = RegistryStore(path)
    store.close()
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.list()
