import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from runtimed.errors import StorageError
from runtimed.storage.database import LONG_WAL, WAL_LIMIT, Database
from runtimed.storage.registry_store import RegistryStore
from runtimed.storage.session_store import SessionStore

SCHEMA = ("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)",)


def open_database(path: Path, *, version: int = 1, upgrades: Sequence[Sequence[str]] = ()) -> Database:
    return Database(path, schema=SCHEMA, version=version, application_id=7, upgrades=upgrades)


def filled(path: Path, rows: int = 50) -> bytes:
    with open_database(path) as database, database.transaction():
        for i in range(rows):
            database.execute("INSERT INTO t VALUES (?, ?)", (i, bytes(1000)))
    return path.read_bytes()


def write_and_fail(database: Database) -> None:
    database.execute("INSERT INTO t VALUES (3, NULL)")
    database.execute("INSERT INTO t VALUES (3, NULL)")


def write_and_close(database: Database) -> None:
    database.execute("INSERT INTO t VALUES (1, NULL)")
    database.close()


def catch_a_failed_part(database: Database) -> None:
    database.execute("INSERT INTO t VALUES (1, NULL)")
    with pytest.raises(StorageError), database.transaction():
        write_and_fail(database)


def write_around_a_rollback(database: Database) -> None:
    database.execute("INSERT INTO t VALUES (1, NULL)")
    with pytest.raises(StorageError):  # what SQLite does by itself on some errors of the disk
        database.execute("INSERT OR ROLLBACK INTO t VALUES (1, NULL)")
    with pytest.raises(StorageError, match="nothing of it was stored"):
        database.execute("INSERT INTO t VALUES (2, NULL)")


def test_files_and_folder_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_database(tmp_path / "folder" / "a.db") as database:
            database.execute("INSERT INTO t VALUES (1, x'00')")
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "folder").iterdir()}
    finally:
        os.umask(before)
    assert modes == {"a.db": 0o600, "a.db-wal": 0o600}
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


def test_an_open_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    filled(tmp_path / "a.db")
    (tmp_path / "a.db").chmod(0o644)
    open_database(tmp_path / "a.db").close()
    assert stat.S_IMODE((tmp_path / "a.db").stat().st_mode) == 0o600


def test_commits_do_not_sync(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        settings = [database.row(f"PRAGMA {name}")[0] for name in ("journal_mode", "synchronous", "locking_mode")]
    assert settings == ["wal", 1, "exclusive"]


def test_a_second_opener_in_this_process_is_refused_and_the_first_keeps_its_lock(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        for _ in range(2):
            with pytest.raises(StorageError, match="in use by another process") as info:
                open_database(tmp_path / "a.db")
        database.execute("INSERT INTO t VALUES (1, x'00')")
    assert info.value.set_aside is None
    assert isinstance(info.value.__cause__, sqlite3.OperationalError)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys,pathlib; from runtimed.storage.session_store import SessionStore; "
        "SessionStore(pathlib.Path(sys.argv[1]))"
    )
    with SessionStore(tmp_path / "a.db") as store:
        store.append_event(b"x", execution_id=None, cell_id=None)
        other = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "a.db"], check=False, capture_output=True, text=True
        )
    assert other.returncode == 1
    assert "it is in use by another process; one daemon at a time may use a data folder" in other.stderr


@pytest.mark.parametrize("size", [2, 50, 99, 100, 511, 4096, 5000, 8192, 20000])
def test_a_truncated_database_is_set_aside(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.db"
    content = filled(path)[:size]
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged") as info:
        open_database(path)
    aside = Path(info.value.set_aside)
    assert aside.parent == tmp_path
    assert aside.name.startswith("a.db.damaged-2")
    assert aside.read_bytes() == content
    assert not path.exists()
    assert info.value.path == str(path)
    assert filled(path)


def test_garbage_is_set_aside_with_its_log_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    kept = {}
    for i in range(3):
        garbage = f"no database {i}".encode() * 1000
        path.write_bytes(garbage)
        (tmp_path / "a.db-wal").write_bytes(b"log" * i)
        with pytest.raises(StorageError, match="file is not a database") as info:
            open_database(path)
        kept[info.value.set_aside] = garbage
        kept[info.value.set_aside + "-wal"] = b"log" * i
    assert {str(p): p.read_bytes() for p in tmp_path.iterdir()} == kept


def test_an_empty_database_with_a_log_is_damaged_not_new(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    (tmp_path / "a.db-wal").write_bytes(b"x" * 5000)
    with pytest.raises(StorageError, match="is empty, though it has a write-ahead log") as info:
        open_database(path)
    assert Path(info.value.set_aside + "-wal").read_bytes() == b"x" * 5000


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    assert filled(tmp_path / "a.db")


def test_damage_inside_is_found_when_a_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    content = bytearray(filled(path))
    content[3 * 4096 : 4 * 4096] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged") as info:
        open_database(path)
    assert Path(info.value.set_aside).read_bytes() == content
    with open_database(path) as database:
        assert database.rows("SELECT * FROM t") == []


def test_damage_of_a_large_file_is_met_while_reading_and_set_aside_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimed.storage.database.CHECK_LIMIT", 0)
    path = tmp_path / "a.db"
    content = bytearray(filled(path))
    content[2 * 4096 :] = b"\xff" * (len(content) - 2 * 4096)
    path.write_bytes(content)
    database = open_database(path)
    with pytest.raises(StorageError, match="it is damaged") as info:
        database.rows("SELECT * FROM t")
    assert info.value.set_aside is None
    assert path.exists()
    kept = database.close()
    assert kept is not None
    assert kept.read_bytes()[2 * 4096 :] == content[2 * 4096 :]
    assert database.close() is None
    with open_database(path) as database:
        assert database.rows("SELECT * FROM t") == []


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def left_with_a_log(path: Path) -> bytes:
    """Leave a database as a killed process does: with all rows in the log, and a transaction that was not committed."""
    code = f"""
import os
from pathlib import Path
from tests.storage.test_database import open_database
database = open_database(Path({str(path)!r}))
for i in range(20):
    database.execute("INSERT INTO t VALUES (?, ?)", (i, bytes(3000)))
database.execute("PRAGMA cache_size=2")
database.execute("BEGIN")
for i in range(20, 60):
    database.execute("INSERT INTO t VALUES (?, ?)", (i, bytes(3000)))
os._exit(0)"""
    subprocess.run([sys.executable, "-c", code], check=True)
    return log_of(path).read_bytes()


def test_a_log_whose_writer_was_killed_in_a_transaction_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    left_with_a_log(path)
    with open_database(path) as database:
        assert database.damaged_wal is None
        assert database.rows("SELECT a FROM t") == [(i,) for i in range(20)]


@pytest.mark.parametrize("place", [0, 9, 17, 25, 32 + 24 + 5, 32 + 4120 * 8 + 9, 32 + 4120 * 15 + 200])
def test_a_log_with_a_flipped_bit_gives_what_is_before_it_and_is_kept(tmp_path: Path, place: int) -> None:
    path = tmp_path / "a.db"
    content = bytearray(left_with_a_log(path))
    content[place] ^= 4
    log_of(path).write_bytes(content)
    with open_database(path) as database:
        rows = database.rows("SELECT a FROM t")
        database.execute("INSERT INTO t VALUES (99, NULL)")
        assert rows == [(i,) for i in range(len(rows))]
        assert len(rows) < 20
        assert database.damaged_wal is not None
        assert database.damaged_wal.name.startswith("a.db-wal.damaged-")
        assert database.damaged_wal.read_bytes() == content


def test_a_folder_in_a_file_s_place_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.mkdir()
    (path / "precious").touch()
    with pytest.raises(StorageError, match="a folder is in its place") as info:
        open_database(path)
    assert (Path(info.value.set_aside) / "precious").exists()
    with open_database(path) as database:
        assert database.is_new
        assert database.rows("SELECT * FROM t") == []


def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_database(path, version=9).close()
    content = path.read_bytes()
    with pytest.raises(StorageError, match=r"written by a newer runtimed \(its schema is 9.*upgrade runtimed") as info:
        open_database(path)
    assert info.value.set_aside is None
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.db": content}


def test_an_older_schema_is_brought_to_the_present_one_step_by_step(tmp_path: Path) -> None:
    filled(tmp_path / "a.db", rows=2)
    steps = [["ALTER TABLE t ADD COLUMN c"], ["UPDATE t SET c = a", "CREATE TABLE u(d)"]]
    for version in (2, 3, 3):
        with open_database(tmp_path / "a.db", version=version, upgrades=steps[: version - 1]) as database:
            assert not database.is_new
            assert database.row("PRAGMA user_version") == (version,)
    with open_database(tmp_path / "a.db", version=3, upgrades=steps) as database:
        assert database.rows("SELECT a, c FROM t") == [(0, 0), (1, 1)]
        assert database.rows("SELECT * FROM u") == []


def test_an_upgrade_that_fails_leaves_the_older_schema(tmp_path: Path) -> None:
    filled(tmp_path / "a.db", rows=2)
    with pytest.raises(StorageError):
        open_database(tmp_path / "a.db", version=2, upgrades=[["CREATE TABLE u(d)", "CREATE TABLE t(d)"]])
    with open_database(tmp_path / "a.db") as database:
        assert database.rows("SELECT name FROM sqlite_master WHERE name = 'u'") == []


def test_a_newer_schema_in_an_unfinished_log_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    code = f"""
import os, sqlite3
c = sqlite3.connect({str(path)!r}, isolation_level=None)
c.execute("PRAGMA locking_mode=EXCLUSIVE"); c.execute("PRAGMA journal_mode=WAL")
c.execute("PRAGMA application_id=7"); c.execute("PRAGMA user_version=9")
os._exit(0)"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(StorageError, match="upgrade runtimed"):
        open_database(path)
    with open_database(path, version=9) as database:
        assert database.row("PRAGMA user_version") == (9,)


def test_another_kind_of_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    RegistryStore(tmp_path / "registry.db").close()
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE x(y)")
    foreign.close()
    for name in ("registry.db", "foreign.db"):
        content = (tmp_path / name).read_bytes()
        with pytest.raises(StorageError, match="another kind of database"):
            SessionStore(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


def test_a_file_in_place_of_the_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be opened"):
        open_database(tmp_path / "file" / "a.db")


def test_a_transaction_commits_all_or_nothing(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        with database.transaction():
            database.execute("INSERT INTO t VALUES (1, NULL)")
            with database.transaction():
                database.execute("INSERT INTO t VALUES (2, NULL)")
        with pytest.raises(StorageError), database.transaction():
            write_and_fail(database)
        assert database.rows("SELECT a FROM t") == [(1,), (2,)]


def test_a_transaction_is_open_until_the_outermost_block_ends(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        seen = [database.in_transaction]
        with database.transaction():
            with database.transaction():
                seen.append(database.in_transaction)
            seen.append(database.in_transaction)
        seen.append(database.in_transaction)
    assert seen == [False, True, True, False]


def test_a_part_that_failed_takes_the_whole_transaction_with_it(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        with pytest.raises(StorageError, match="a part of it failed"), database.transaction():
            catch_a_failed_part(database)
        with database.transaction():
            database.execute("INSERT INTO t VALUES (2, NULL)")
        assert database.rows("SELECT a FROM t") == [(2,)]


def test_a_full_disk_is_a_sentence_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    rollbacks = []
    path = tmp_path / "a.db"
    with Database(
        path, schema=SCHEMA, version=1, application_id=7, on_rollback=lambda: rollbacks.append(1)
    ) as database:
        database.execute("PRAGMA max_page_count = 20")
        with pytest.raises(StorageError, match="the disk is full; free some space") as info:
            database.execute("INSERT INTO t VALUES (1, ?)", (bytes(200_000),))
        assert isinstance(info.value.__cause__, sqlite3.OperationalError)
        with pytest.raises(StorageError), database.transaction():
            database.execute("INSERT INTO t VALUES (3, ?)", (bytes(200_000),))
        assert rollbacks == [1]
        database.execute("PRAGMA max_page_count = 2000")
        database.execute("INSERT INTO t VALUES (4, ?)", (bytes(200_000),))
        assert database.rows("SELECT a FROM t") == [(4,)]


def test_what_follows_a_rollback_by_sqlite_inside_a_transaction_is_not_stored_alone(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        with pytest.raises(StorageError, match="rolled this transaction back"), database.transaction():
            write_around_a_rollback(database)
        assert database.rows("SELECT a FROM t") == []


def test_a_file_that_may_not_grow_gives_an_error_and_stays_whole(tmp_path: Path) -> None:
    code = f"""
import pathlib, resource, signal
from runtimed.errors import StorageError
from runtimed.storage.session_store import SessionStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with SessionStore(pathlib.Path({str(tmp_path / "a.db")!r})) as store:
    store.append_event(b"first", execution_id="e", cell_id=None)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    for _ in range(3):
        try:
            store.append_event(bytes(500_000), execution_id="f", cell_id=None)
        except StorageError as exc:
            print(exc)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(store.append_event(b"second", execution_id="f", cell_id=None))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *errors, last = done.stdout.splitlines()
    assert len(errors) == 3
    assert all("the disk" in error for error in errors)
    assert last == "2"
    with SessionStore(tmp_path / "a.db") as store:
        assert store.read_events(0) == [(1, b"first"), (2, b"second")]


def test_the_log_stays_short_under_a_flood_and_after_a_large_transaction(tmp_path: Path) -> None:
    wal = tmp_path / "a.db-wal"
    sizes = []
    with open_database(tmp_path / "a.db") as database:
        for i in range(48):
            database.execute("INSERT INTO t VALUES (?, ?)", (i, bytes(2**20)))
            sizes.append(wal.stat().st_size)
        assert max(sizes) < 8 * 2**20
        with database.transaction():
            for i in range(100, 132):
                database.execute("INSERT INTO t VALUES (?, ?)", (i, bytes(2**20)))
        for i in range(200, 210):
            database.execute("INSERT INTO t VALUES (?, ?)", (i, bytes(2**20)))
        assert wal.stat().st_size <= WAL_LIMIT


def test_a_checkpoint_in_a_thread_empties_the_log_and_leaves_no_wait_for_the_disk_to_the_next_write(
    tmp_path: Path,
) -> None:
    wal = tmp_path / "a.db-wal"
    with Database(tmp_path / "a.db", schema=SCHEMA, version=1, application_id=7, automatic=100_000) as database:
        count = 0
        while not database.wal_is_long:
            database.execute("INSERT INTO t VALUES (?, ?)", (count, bytes(2**18)))
            count += 1
        assert wal.stat().st_size >= LONG_WAL
        # A log begins with a number that each new beginning raises: `write` would wait for the disk when it does.
        beginnings = [wal.read_bytes()[12:16]]
        in_a_thread(database.begin_checkpoint())
        assert (wal.stat().st_size, database.wal_is_long) == (WAL_LIMIT, False)
        beginnings.append(wal.read_bytes()[12:16])
        database.execute("INSERT INTO t VALUES (?, ?)", (count, bytes(2**18)))
        beginnings.append(wal.read_bytes()[12:16])
        assert beginnings[0] != beginnings[1] == beginnings[2]
        assert [n for (n,) in database.rows("SELECT a FROM t ORDER BY a")] == list(range(count + 1))
    with open_database(tmp_path / "a.db") as database:
        assert database.row("SELECT count(*) FROM t") == (count + 1,)


def test_whoever_uses_the_database_during_a_checkpoint_waits_for_it(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        database.execute("INSERT INTO t VALUES (1, NULL)")
        checkpoint = database.begin_checkpoint()
        other = threading.Thread(target=database.execute, args=("INSERT INTO t VALUES (2, NULL)",))
        other.start()
        other.join(0.2)
        assert other.is_alive()
        in_a_thread(checkpoint)
        other.join(20)
        assert database.rows("SELECT a FROM t") == [(1,), (2,)]


def test_closing_waits_for_a_checkpoint(tmp_path: Path) -> None:
    database = open_database(tmp_path / "a.db")
    checkpoint = database.begin_checkpoint()
    closing = threading.Thread(target=database.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    checkpoint()
    closing.join(20)
    assert database.is_closed


def test_there_is_no_checkpoint_in_the_midst_of_a_transaction(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        with database.transaction():
            database.execute("INSERT INTO t VALUES (1, NULL)")
            with pytest.raises(StorageError, match="inside a transaction"):
                database.begin_checkpoint()
        database.begin_checkpoint()()
        assert database.rows("SELECT a FROM t") == [(1,)]


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)


def test_closing_twice_is_harmless_and_use_afterwards_an_error(tmp_path: Path) -> None:
    database = open_database(tmp_path / "a.db")
    database.close()
    database.close()
    with pytest.raises(StorageError, match="closed"):
        database.execute("SELECT 1")
    with pytest.raises(StorageError, match="closed"), database.transaction():
        pass


def test_closing_inside_a_transaction_rolls_it_back(tmp_path: Path) -> None:
    database = open_database(tmp_path / "a.db")
    with pytest.raises(StorageError, match="closed"), database.transaction():
        write_and_close(database)
    with open_database(tmp_path / "a.db") as database:
        assert database.rows("SELECT a FROM t") == []


def test_values_that_sqlite_cannot_hold_are_storage_errors(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        for value in (2**63, "\ud800"):
            with pytest.raises(StorageError):
                database.execute("INSERT INTO t VALUES (1, ?)", (value,))


def test_nothing_is_stored_in_a_file_that_was_removed_or_moved(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    with open_database(folder / "s.db") as database:
        database.execute("INSERT INTO t VALUES (1, NULL)")
        folder.rename(elsewhere)
        with pytest.raises(StorageError, match="was removed or moved while it was in use"):
            database.execute("INSERT INTO t VALUES (2, NULL)")
        with pytest.raises(StorageError, match="does not exist any more"), database.transaction():
            database.execute("INSERT INTO t VALUES (3, NULL)")
        assert database.rows("SELECT * FROM t") == [(1, None)]
        assert not database.is_in_place
        elsewhere.rename(folder)
        database.execute("INSERT INTO t VALUES (4, NULL)")
        assert database.rows("SELECT * FROM t") == [(1, None), (4, None)]
