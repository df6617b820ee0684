import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtimed.document.cells import CellRecord
from runtimed.document.deltas import CellAdded, EntrySet
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId, ExecutionId, HostEpoch
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.executions import ExecutionRow
from runtimed.storage.rows import checksum
from runtimed.storage.session_store import KEPT_OF_CLIENT, KEPT_REQUESTS, SessionStore
from tests.storage.edits import last_edit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.db"


@pytest.fixture
def store(path: Path) -> Iterator[SessionStore]:
    with SessionStore(path) as store:
        yield store


def alter(path: Path, statement: str, parameters: tuple[Any, ...] = ()) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement, parameters).rowcount > 0
    connection.close()


def test_a_new_session_is_empty(store: SessionStore) -> None:
    assert store.is_empty
    assert store.notebook.is_ready
    assert store.find_request("client", 1) is None
    assert store.execution("e") is None
    assert store.unfinished_executions() == []
    assert (store.last_seq, store.read_events(0), store.last_event_of_execution("e")) == (0, [], 0)
    assert store.last_event_of_host("h") == 0


def test_a_reply_is_remembered_by_client_and_request(path: Path) -> None:
    with SessionStore(path) as store:
        store.remember_request("ann", 1, b"yes")
        store.remember_request("bob", 1, b"no")
        store.remember_request("ann", 1, b"another")
    with SessionStore(path) as store:
        found = [store.find_request(*key) for key in (("ann", 1), ("bob", 1), ("ann", 2))]
    assert found == [b"yes", b"no", None]


def test_the_newest_replies_are_kept_and_the_old_ones_go(store: SessionStore) -> None:
    with store.transaction():
        for i in range(3 * KEPT_REQUESTS):
            store.remember_request("ann", i, b"%d" % i)
    kept = [i for i in range(3 * KEPT_REQUESTS) if store.find_request("ann", i) is not None]
    assert kept == list(range(kept[0], 3 * KEPT_REQUESTS))
    assert KEPT_REQUESTS <= len(kept) <= KEPT_REQUESTS + 200


def test_a_client_that_was_stopped_for_a_while_is_still_known(store: SessionStore) -> None:
    for i in range(50):
        store.remember_request("stopped", i, b"%d" % i)
    with store.transaction():
        for i in range(3 * KEPT_REQUESTS):
            store.remember_request("busy", i, b"")
    newest = range(50 - KEPT_OF_CLIENT, 50)
    assert [store.find_request("stopped", i) for i in newest] == [b"%d" % i for i in newest]
    assert store.find_request("stopped", 50 - KEPT_OF_CLIENT - 1) is None


def test_a_client_that_does_not_come_back_is_forgotten(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimed.storage.session_store.KEPT_FOR_CLIENTS", 1500)
    store.remember_request("gone", 1, b"yes")
    with store.transaction():
        for i in range(2 * KEPT_REQUESTS):
            store.remember_request("busy", i, b"")
    assert store.find_request("gone", 1) is None


def test_a_damaged_reply_is_noticed(path: Path) -> None:
    with SessionStore(path) as store:
        store.remember_request("ann", 1, b"yes")
    alter(path, "UPDATE requests SET reply = x'00'")
    with SessionStore(path) as store, pytest.raises(StorageError, match="request 1 of client ann"):
        store.find_request("ann", 1)


def row(sequence: int, **changes: Any) -> ExecutionRow:
    values: dict[str, Any] = {
        "execution_id": ExecutionId(f"e{sequence}"),
        "cell_id": CellId("c"),
        "author": "ann",
        "source": "1 + 1\n\0é🎈",
        "status": "queued",
        "queued_at": 5.0,
        "started_at": None,
        "ended_at": None,
        "execution_count": None,
        "stdin": False,
        "silent": False,
        "store_history": True,
        "stop_on_error": True,
        "user_expressions": "{}",
        "sequence": sequence,
    }
    return ExecutionRow(**values | changes)


def test_an_execution_goes_through_its_life(path: Path) -> None:
    with SessionStore(path) as store:
        assert store.add_execution("e1", "c", "ann", "1 + 1\n\0é🎈", queued_at=5)
        assert store.add_execution("e2", "c", "ann", "1 + 1\n\0é🎈", queued_at=5, stdin=True)
        assert store.execution("e1") == row(1)
        assert store.unfinished_executions() == [row(1), row(2, stdin=True)]
        assert store.update_execution("e1", status="running", started_at=6.5, execution_count=3)
        running = row(1, status="running", started_at=6.5, execution_count=3)
        assert store.unfinished_executions() == [running, row(2, stdin=True)]
        assert store.update_execution("e1", status="ok", ended_at=7)
    with SessionStore(path) as store:
        done = row(1, status="ok", started_at=6.5, ended_at=7.0, execution_count=3)
        assert store.execution("e1") == done
        assert store.unfinished_executions() == [row(2, stdin=True)]


@pytest.mark.parametrize(
    "option", [{"stdin": True}, {"silent": True}, {"store_history": False}, {"stop_on_error": False}]
)
def test_options_are_kept_with_their_execution(path: Path, option: dict[str, Any]) -> None:
    with SessionStore(path) as store:
        store.add_execution("e1", "c", "ann", "1", queued_at=5.0, **option)
        assert store.execution("e1") == row(1, source="1", **option)


def test_expressions_are_kept_with_their_execution_and_guarded_by_its_checksum(path: Path) -> None:
    with SessionStore(path) as store:
        store.add_execution("e1", "c", "ann", "1", queued_at=5.0, user_expressions='{"a": "1"}')
        assert store.execution("e1") == row(1, source="1", user_expressions='{"a": "1"}')
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE executions SET user_expressions = '{}'")
    with SessionStore(path) as store, pytest.raises(StorageError):
        store.execution("e1")


def test_executions_of_the_first_schema_are_read_and_others_are_added_to_them(path: Path) -> None:
    with SessionStore(path) as store:
        store.add_execution("e1", "c", "ann", "1", queued_at=5.0)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("ALTER TABLE executions DROP COLUMN user_expressions")
        for table in ("cells", "metadata", "pending", "history", "history_base", "dropped", "displays"):
            database.execute(f"DROP TABLE {table}")
        database.execute("DELETE FROM counters WHERE name = 'cells'")
        database.execute("PRAGMA user_version=1")
    with SessionStore(path) as store:
        assert store.execution("e1") == row(1, source="1")
        store.add_execution("e2", "c", "ann", "1", queued_at=5.0, user_expressions='{"a": "1"}')
        assert store.execution("e2") == row(2, source="1", user_expressions='{"a": "1"}')
        assert not store.notebook.is_ready


def test_an_execution_is_added_once(store: SessionStore) -> None:
    assert store.add_execution("e1", "c", "ann", "1", queued_at=5.0)
    assert not store.add_execution("e1", "d", "bob", "2", queued_at=9.0)
    assert store.execution("e1") == row(1, source="1")
    assert store.add_execution("e9", "c", "ann", "1", queued_at=5.0)


def test_an_unknown_execution_is_not_updated_and_unknown_fields_are_refused(store: SessionStore) -> None:
    assert not store.update_execution("e1", status="ok")
    store.add_execution("e1", "c", "ann", "1", queued_at=5.0)
    with pytest.raises(TypeError, match="not source"):
        store.update_execution("e1", source="2")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="not nothing"):
        store.update_execution("e1")
    assert store.execution("e1") == row(1, source="1")


def test_a_damaged_execution_is_named_and_never_begun(path: Path) -> None:
    with SessionStore(path) as store:
        for name in ("e1", "e2"):
            store.add_execution(name, "c", "ann", "1", queued_at=5.0)
    alter(path, "UPDATE executions SET source = '2' WHERE execution_id = 'e1'")
    with SessionStore(path) as store:
        with pytest.raises(StorageError, match="execution e1") as info:
            store.execution("e1")
        assert info.value.execution_id == "e1"
        assert [row.execution_id for row in store.unfinished_executions()] == ["e2"]


def write_everywhere_and_fail(store: SessionStore) -> None:
    store.notebook.apply(EntrySet("k", "v"), ClientId("ann"), 1.0)
    store.add_execution("e1", "c", "ann", "1", queued_at=5.0)
    store.remember_request("ann", 1, b"yes")
    assert store.append_event(b"lost", execution_id="e1", cell_id="c2") == 2
    raise KeyError


def test_a_transaction_spans_all_tables_and_rolls_them_back_together(store: SessionStore) -> None:
    store.append_event(b"before", execution_id="e0", cell_id="c")
    with pytest.raises(KeyError), store.transaction():
        write_everywhere_and_fail(store)
    assert store.notebook.is_empty
    assert store.execution("e1") is None
    assert store.find_request("ann", 1) is None
    assert store.append_event(b"after", execution_id="e1", cell_id="c2") == 2
    assert store.read_events(0, execution_id="e1") == [(2, b"after")]


def test_whatever_bit_flips_nothing_wrong_is_returned(path: Path) -> None:
    """Every answer is the right one, an older state of a counter, or a StorageError; no other exception."""
    blob = bytes(range(256)) * 40
    with SessionStore(path) as store:
        store.notebook.put_snapshot(blob, 0, begins_at=None)
        for i in range(20):
            store.notebook.add_changes([(ClientId("ann"), b"change %d" % i * 20)], 0)
            store.notebook.apply(CellAdded(_cell(i)), ClientId("ann"), 1.0)
            store.notebook.apply(EntrySet(f"k{i}", f"value {i}" * 20), ClientId("ann"), 1.0)
            store.add_execution(f"e{i}", f"c{i % 3}", "ann", f"print({i})" * 20, queued_at=float(i))
            store.append_event(
                b"event %d" % i * 60,
                execution_id=f"e{i}",
                cell_id="c",
                host=(HostEpoch("h"), i + 1),
                blobs=[f"{i:064x}"],
            )
            store.show_execution(f"c{i}", f"e{i}")
            store.remember_request("ann", i, b"reply %d" % i * 20)
            store.note(_noted(i))
    pristine = path.read_bytes()
    rng = random.Random(1)
    noticed = 0
    for _ in range(350):
        content = bytearray(pristine)
        at = rng.randrange(100, len(content))
        content[at] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            with SessionStore(path) as store:
                noticed += _look(store, blob)
        except StorageError:
            noticed += 1
        for leftover in path.parent.glob("session.db*"):
            leftover.unlink()
    assert noticed > 40


def _cell(i: int) -> CellRecord:
    return CellRecord(
        id=CellId(str(i)),
        cell_type="code",
        source=f"source {i}" * 20,
        position=f"a{i % 10}",
        execution_count=None,
        execution_id=None,
        metadata={},
    )


def _noted(i: int) -> AuditRow:
    actor = Actor(ClientId("ann"), label="Ann", uid=1000, pid=17)
    return AuditRow(at=float(i), until=float(i), action="cell_added", actor=actor, cell_id=CellId(f"noted {i}"))


def _look(store: SessionStore, blob: bytes) -> bool:
    noticed = False
    try:
        rows = store.notebook.rows()
        intact = {row.data for row in rows if checksum(row.data) == row.checksum}
        assert intact <= {blob, *(b"change %d" % i * 20 for i in range(20))}
        noticed = len(intact) < 21
        assert all(cell == _cell(int(cell.id)) for cell in store.notebook.cells())
        assert store.notebook.all_metadata().items() <= {f"k{i}": f"value {i}" * 20 for i in range(20)}.items()
    except StorageError:
        noticed = True
    for i in range(20):
        try:
            execution = store.execution(f"e{i}")
            assert execution is None or execution.source == f"print({i})" * 20
            assert store.find_request("ann", i) in (b"reply %d" % i * 20, None)
        except StorageError:
            noticed = True
    # Of the log, damaged rows are left out.
    noted = [_noted(i) for i in range(20)]
    found = list(store.audit())
    assert all(row in noted for row in found)
    assert all(last_edit(store, row.cell_id or "") in ((row.actor, row.at), None) for row in noted)
    noticed = noticed or len(found) < len(noted)
    try:
        others = {body for _, body in store.read_events(0)} - {b"event %d" % i * 60 for i in range(20)}
        assert all(b"is damaged: its bytes do not match" in body for body in others)
        noticed = noticed or bool(others)
    except StorageError:
        noticed = True
    try:
        assert store.shown_executions() <= {f"e{i}" for i in range(20)}
        assert store.blobs() <= {f"{i:064x}" for i in range(20)}
    except StorageError:
        noticed = True
    return noticed


def test_closing_twice_is_harmless(path: Path) -> None:
    store = SessionStore(path)
    store.close()
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.read_events(0)


def test_a_damaged_row_is_logged_with_its_session_for_the_path_has_only_a_hash_of_the_id(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ann = Actor(ClientId("a" * 32), label=None, uid=0, pid=None)
    with SessionStore(path, "s") as store, store.transaction():
        store.append_event(b"x", execution_id="e", cell_id=None, host=None)
        store.note(AuditRow(at=1.0, until=1.0, action="cell_added", actor=ann, cell_id=CellId("c")))
        store.add_execution(
            execution_id=ExecutionId("e"),
            cell_id=CellId("c"),
            author=ann.client_id,
            source="1",
            queued_at=1.0,
            stdin=False,
            user_expressions="{}",
        )
    for table in ("events", "audit", "executions"):
        alter(path, f"UPDATE {table} SET checksum = 0")
    with SessionStore(path, "s") as store:
        store.read_events(0)
        assert list(store.audit()) == []
        assert store.unfinished_executions() == []
    assert len(caplog.messages) == 3
    assert all(line.startswith("session 's': ") for line in caplog.messages)


def test_a_damaged_database_is_logged_with_its_session(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.mkdir()
    with pytest.raises(StorageError, match="is damaged"):
        SessionStore(path, "s")
    assert [line.startswith(f"session 's': {path} is damaged") for line in caplog.messages] == [True]
