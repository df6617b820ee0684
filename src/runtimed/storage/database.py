"""An SQLite file with one owner: sets a damaged file aside, and translates SQLite's errors into StorageError.

Durability: a write-ahead log (WAL) with `synchronous=NORMAL`, so a commit is a `write` into the page cache without a
sync. A committed transaction survives the death of any process at any instruction. A power cut or a kernel panic may
lose the latest transactions, but the file stays consistent: SQLite syncs at each checkpoint, the only call here that
waits for the disk (measured: 20 to 100 ms for 8 MiB of WAL).

A database belongs to the thread that opened it; only a checkpoint may run in another one (`begin_checkpoint`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from runtimed.errors import StorageError
from runtimed.storage.damage import finds_damage, is_damage, primary_code, read_throughout
from runtimed.storage.disk import has_room, is_no_room, no_room
from runtimed.storage.wal import committed_frames

__all__ = [
    "AUTOMATIC",
    "CACHE",
    "CHECK_LIMIT",
    "LONG_WAL",
    "WAL_LIMIT",
    "Database",
    "name_aside",
    "remove_database",
    "set_aside",
]

LONG_WAL: Final = 8 * 2**20
"""Size of the WAL at which a checkpoint is due, in bytes."""

WAL_LIMIT: Final = 4 * 2**20
"""Size to which the WAL is truncated after a checkpoint, in bytes; a longer one has content."""

AUTOMATIC: Final = 1000
"""Pages (of 4 KiB) in the WAL at which SQLite runs a checkpoint by itself, as part of a commit."""

CACHE: Final = 2**19
"""Page cache of an open database, in bytes. SQLite's default of 2 MiB made a daemon of ten sessions 16 MiB larger and
no faster (measured), since events are written and read in order."""

CHECK_LIMIT: Final = 32 * 2**20
"""Largest file that is checked for damage when it is opened (4 ms per MiB), in bytes."""

logger = logging.getLogger(__name__)

_READS: Final = ("SELECT", "PRAGMA", "BEGIN", "COMMIT")
"""Beginnings of statements that store nothing."""

_FOLDER: Final = "a folder is in its place"
_EMPTY: Final = "it is empty, though it has a write-ahead log"
_MAYBE_FULL: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR})
_DAMAGED: Final = (
    "it is damaged, or the disk cannot read all of it; it is set aside only if a second check finds it damaged"
)
_SENTENCES: Final = {
    sqlite3.SQLITE_BUSY: "it is in use by another process; one daemon at a time may use a data folder",
    sqlite3.SQLITE_LOCKED: "it is in use by another process; one daemon at a time may use a data folder",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: "it cannot be written; check who owns it and its folder",
    sqlite3.SQLITE_PERM: "it cannot be opened; check who owns it and its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check who owns it and its folder",
    sqlite3.SQLITE_IOERR: "the disk reports an error; check the disk and its free space",
}


def name_aside(path: Path) -> Path:
    """Return the path under which a damaged file is kept: `NAME.damaged-<UTC timestamp>`."""
    return path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")


def set_aside(path: Path) -> Path:
    """Rename a damaged database and its WAL (see `name_aside`), and return the new path.

    Raises:
        StorageError: If it cannot be renamed; nothing was overwritten.
    """
    target = name_aside(path)
    try:
        # The database comes last: after a death in between it is still in place, and found damaged again.
        for suffix in ("-wal", "-shm", "-journal", ""):
            source = path.with_name(path.name + suffix)
            if source.exists():
                source.rename(target.with_name(target.name + suffix))
    except OSError as exc:
        message = f"{path} is damaged and cannot be set aside: {exc}"
        raise StorageError(message, path=str(path), set_aside=None) from exc
    return target


def remove_database(path: Path) -> None:
    """Delete the files of a closed database."""
    for file in (path, path.with_name(f"{path.name}-wal")):
        file.unlink(missing_ok=True)


class Database:
    """One open SQLite file, locked exclusively; `close()` it, or use it as a context manager.

    Args:
        path: Created with mode 0600 if it does not exist, its folder with 0700.
        schema: Statements that create the tables of an empty database.
        version: Version of the schema; a file with a higher one is refused and left as it is.
        upgrades: For each version from 1 on, the statements that upgrade it to the next one.
        application_id: Identifies this kind of database.
        automatic: Pages in the WAL at which SQLite runs a checkpoint by itself. An owner that checks `wal_is_long`
            after each commit gives more, which then counts only for a single large transaction.
        read_only: Read a file that no process has open, in any thread: no lock is taken, and nothing is created,
            checked, repaired or set aside. If a process opens the file meanwhile, all that is read may be wrong.
        on_rollback: Called after each rollback, to clear caches.
        about: Prefix of log lines, which names the session: the path has only a hash of its id.

    Attributes:
        is_new: Whether the database was empty.
        damaged_wal: The copy of a WAL with committed transactions that could not be read; None without damage.

    Raises:
        StorageError: Attributes `path` and `set_aside`: the new path of a damaged file, None if it stayed in place.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: Sequence[str],
        version: int,
        application_id: int,
        upgrades: Sequence[Sequence[str]] = (),
        automatic: int = AUTOMATIC,
        read_only: bool = False,
        on_rollback: Callable[[], None] = lambda: None,
        about: str = "",
    ) -> None:
        self.path = path
        self.about = about
        self._version = version
        self._on_rollback = on_rollback
        self._depth = 0
        self._doomed = False
        self._lost = False
        self.is_closed = False
        self._ready = False
        self._wal_path = path.with_name(path.name + "-wal")
        self._free = threading.Lock()  # held by a checkpoint, and for each call
        self._damage: str | None = None
        self._file: tuple[int, int] | None = None
        self.damaged_wal: Path | None = None
        self._transaction = _Transaction(self)
        if read_only:
            self.is_new = False
            self._look_into(version, application_id)
            return
        try:
            if path.is_dir() or self._wal_path.is_dir():
                raise _set_aside_error(path, _FOLDER, self._move_aside(_FOLDER))
            self.is_new = _create(path) or path.stat().st_size <= 1
            if self.is_new and _size(self._wal_path):
                # SQLite takes files of 0 and 1 bytes for new databases, and would delete the WAL.
                raise _set_aside_error(path, _EMPTY, self._move_aside(_EMPTY))
            committed = committed_frames(self._wal_path)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
            self._file = _file_at(path)
        except OSError as exc:
            if is_no_room(exc):
                raise no_room(path, exc) from exc
            raise StorageError(f"{path} cannot be opened: {exc}", path=str(path), set_aside=None) from exc
        except (sqlite3.Error, MemoryError) as exc:
            raise _translated(exc, path) from exc
        try:
            self._open(schema, version, application_id, upgrades, automatic, committed)
            self._ready = True
        except OSError as exc:
            message = f"{path}: its damaged write-ahead log cannot be copied: {exc}"
            raise StorageError(message, path=str(path), set_aside=None) from exc
        except (sqlite3.Error, MemoryError) as exc:
            raise (self._damaged(str(exc)) if is_damage(exc) else _translated(exc, path)) from exc
        except UnicodeDecodeError as exc:
            # sqlite3 quotes a damaged schema in its message, and cannot always decode it.
            raise self._damaged("its schema is unreadable") from exc
        finally:
            if not self._ready:
                self._connection.close()

    def _look_into(self, version: int, application_id: int) -> None:
        if _size(self._wal_path):
            raise self._refusal("has a write-ahead log, which only its owner can read")
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._connection.text_factory = _decode
            (found,) = self.row("PRAGMA user_version")
            if not 0 < found <= version or self.row("PRAGMA application_id") != (application_id,):
                self._connection.close()
                raise self._refusal("was written by a newer version of runtimed, or is another kind of file")
        except (sqlite3.Error, MemoryError) as exc:
            raise _translated(exc, self.path) from exc

    def _open(
        self,
        schema: Sequence[str],
        version: int,
        application_id: int,
        upgrades: Sequence[Sequence[str]],
        automatic: int,
        committed: int,
    ) -> None:
        # Damaged text must not raise here: its checksum detects it, and names the row.
        self._connection.text_factory = _decode
        run = self._connection.execute
        # Before the first read, which then takes the lock, and the WAL needs no -shm file.
        run("PRAGMA locking_mode=EXCLUSIVE")
        (found,) = run("PRAGMA user_version").fetchone()
        (owner,) = run("PRAGMA application_id").fetchone()
        if owner != application_id and (found or owner):
            raise self._refusal("is another kind of database than expected; move it away")
        # Before the schema is read: an older SQLite may report a newer one as damaged.
        if found > version:
            raise self._refusal(
                f"was written by a newer runtimed (its schema is {found}, this one knows {version}); upgrade runtimed"
            )
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and not found:
            raise self._refusal("is another kind of database than expected; move it away")
        if committed:
            self._check_wal(committed)
        if not found:
            # Only possible in an empty database; see `give_back`.
            run("PRAGMA auto_vacuum=INCREMENTAL")
        # Debian's SQLite overwrites deleted rows with zeros: 8 ms for a row of 1 MiB instead of 0.1 ms (measured).
        run("PRAGMA secure_delete=FAST").fetchone()
        if self.path.stat().st_size <= CHECK_LIMIT:
            problems = [text for (text,) in run("PRAGMA quick_check") if text != "ok"]
            if problems:
                # The header "*** in database main ***", then a line for each problem.
                raise self._damaged(problems[0].splitlines()[-1])
        (mode,) = run("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise self._refusal("cannot use a write-ahead log here; put the data folder on a local disk")
        run("PRAGMA synchronous=NORMAL")
        run(f"PRAGMA cache_size=-{CACHE // 1024}")
        run(f"PRAGMA journal_size_limit={WAL_LIMIT}")
        run(f"PRAGMA wal_autocheckpoint={automatic}")
        if not found:
            self.is_new = True
        if found < version:
            steps = upgrades[found - 1 :] if found else [schema]
            run("BEGIN")
            for statement in itertools.chain.from_iterable(steps):
                run(statement)
            run(f"PRAGMA application_id={application_id}")
            run(f"PRAGMA user_version={version}")
            run("COMMIT")

    def _check_wal(self, committed: int) -> None:
        """Copy a WAL that SQLite cannot read completely, before it is overwritten.

        Raises:
            OSError: If it cannot be copied.
        """
        try:
            _busy, read, _moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError as exc:
            # A database on a full disk is still readable.
            logger.warning("%s%s is not checked for damage: %s", self.about, self._wal_path, exc)
            return
        if read < committed:
            self.damaged_wal = name_aside(self._wal_path)
            shutil.copy(self._wal_path, self.damaged_wal)
            logger.error(
                "%s%s is damaged; its latest changes are lost, and it is kept as %s",
                self.about,
                self._wal_path,
                self.damaged_wal,
            )

    def _damaged(self, reason: str) -> StorageError:
        """Set the file aside if the damage is proved; return the error to raise."""
        target = self._set_aside_if_proved(reason)
        if target is not None:
            return _set_aside_error(self.path, reason, target)
        return self._refusal(
            f"cannot be read without errors at the moment ({reason}); the disk or a lack of memory may be the cause. "
            "Nothing was set aside; check the disk, and try again"
        )

    def _set_aside_if_proved(self, reason: str) -> Path | None:
        """Set the file aside if every byte is readable and a second check finds damage again; see `damage`."""
        if not self.is_in_place:
            return None
        with contextlib.ExitStack() as stack:
            files: list[int] = []
            try:
                for path in (self.path, self._wal_path):
                    with contextlib.suppress(FileNotFoundError):
                        files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                        # Closing it drops this process's locks on the database (POSIX), so not before the rename.
                        stack.callback(os.close, files[-1])
                read_throughout(files)
            except OSError as exc:
                logger.warning(
                    "%s%s is not set aside (%s), since it cannot be read: %s", self.about, self.path, reason, exc
                )
                return None
            return self._move_aside(reason) if finds_damage(self._connection) else None

    def _move_aside(self, reason: str) -> Path:
        target = set_aside(self.path)
        logger.error("%s%s is damaged (%s); it was set aside as %s", self.about, self.path, reason, target)
        return target

    def _refusal(self, text: str) -> StorageError:
        return StorageError(f"{self.path} {text}", path=str(self.path), set_aside=None)

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> Path | None:
        """Close the file; an open transaction is rolled back. Idempotent.

        Returns:
            The new path of the file, if it proved damaged while it was open; None if it stayed in place.

        Raises:
            StorageError: If SQLite failed to close it cleanly; the file is closed nevertheless.
        """
        self.is_closed = True
        damage, self._damage = self._damage, None
        target = None
        try:
            with self._free:
                try:
                    if damage is not None:
                        target = self._set_aside_if_proved(damage)
                finally:
                    self._connection.close()
        except (sqlite3.Error, MemoryError) as exc:
            if damage is None:
                raise _translated(exc, self.path) from exc
        return target

    @property
    def wal_is_long(self) -> bool:
        """Whether a checkpoint is due."""
        try:
            return self._wal_path.stat().st_size >= LONG_WAL
        except OSError:  # unknown: the owner asks again after the next commit
            return False

    def begin_checkpoint(self) -> Callable[[], None]:
        """Lock the database for a checkpoint, and return the function that runs it: call it once, in any thread.

        Until it returns, every other call on this database blocks. It raises StorageError if the checkpoint fails; the
        WAL then stays as it is.
        """
        if self._depth:
            raise self._refusal("cannot run a checkpoint inside a transaction")
        self._free.acquire()
        return self._checkpoint

    def _checkpoint(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            # The first write after a checkpoint resets the WAL and waits for a sync: better here than in a commit.
            self._connection.execute(f"PRAGMA user_version={self._version}")
        except (sqlite3.Error, MemoryError) as exc:
            raise _translated(exc, self.path) from exc
        finally:
            self._free.release()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement, in the open transaction or in its own.

        Fetch all rows of a query at once, or use `each`: an unfinished statement keeps the WAL from being reset.

        Raises:
            StorageError: If it failed; the statement changed nothing.
        """
        if self._lost:
            raise self._refusal("rolled this transaction back after an earlier error; nothing of it was stored")
        if not self._depth and not sql.startswith(_READS):
            self._check_in_place()
        try:
            with self._free:
                return self._connection.execute(sql, parameters)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError, MemoryError) as exc:
            raise self._failed(exc) from exc

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of these rows, inside a transaction.

        Raises:
            StorageError: As `execute`.
        """
        if self._lost:
            raise self._refusal("rolled this transaction back after an earlier error; nothing of it was stored")
        try:
            with self._free:
                self._connection.executemany(sql, rows)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError, MemoryError) as exc:
            raise self._failed(exc) from exc

    @property
    def is_in_place(self) -> bool:
        """Whether the file still exists under its path: writes to a removed file are lost."""
        return self._file == _file_at(self.path)

    def _check_in_place(self) -> None:
        if not self.is_in_place:
            raise self._refusal(
                "does not exist any more: it, or its folder, was removed or moved while it was in use. Nothing more is "
                "stored in it; the next daemon starts with an empty one"
            )

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Return the first row of a query as a tuple, or None."""
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query, as tuples."""
        return list(self.each(sql, parameters))

    def each(self, sql: str, parameters: Sequence[Any] = ()) -> Generator[Any, None, None]:
        """Yield the rows of a query one by one; `close()` the iterator if you stop early."""
        cursor = self.execute(sql, parameters)
        try:
            yield from cursor
        except (sqlite3.Error, MemoryError) as exc:
            raise self._failed(exc) from exc
        finally:
            cursor.close()

    def transaction(self) -> _Transaction:
        """Return a context manager that commits what its block wrote, or rolls it back if the block raises.

        A nested transaction joins the outer one, which commits or rolls back everything. If the inner one failed, the
        outer one rolls back, even if the exception was caught in between: nothing is ever stored by halves.

        Raises:
            StorageError: On leaving, if the commit failed; it is rolled back then.
        """
        return self._transaction

    @property
    def free_pages(self) -> int:
        """Number of free pages in the file, which deletions leave."""
        (count,) = self.row("PRAGMA freelist_count")
        return int(count)

    def give_back(self, pages: int) -> None:
        """Release this many free pages, outside a transaction; the next checkpoint truncates the file.

        Measured: 2.5 µs per page at the end of the file, 20 µs where used pages have to move into its place.

        Raises:
            StorageError: If it failed; the file is unchanged.
        """
        try:
            # `execute` would stop after the first page, since the pragma returns no rows.
            with self._free:
                self._connection.executescript(f"PRAGMA incremental_vacuum({pages:d})")
        except (sqlite3.Error, MemoryError) as exc:
            raise self._failed(exc) from exc

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._depth > 0

    def _begin(self) -> None:
        if not self._depth:
            self.execute("BEGIN")
        self._depth += 1

    def _end(self, failed: bool) -> None:
        self._depth -= 1
        self._doomed |= failed
        if self._depth:
            return
        doomed = self._doomed
        self._doomed = False
        if not (doomed or self._lost):
            try:
                self._check_in_place()
                self.execute("COMMIT")
            except StorageError:
                self._roll_back()
                raise
            return
        self._roll_back()
        if not failed:
            raise self._refusal("rolled this transaction back, because a part of it failed; nothing was stored")

    def _roll_back(self) -> None:
        self._lost = False
        try:
            # SQLite may have rolled back by itself, on a full disk for example.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            logger.exception("%s%s: cannot roll back", self.about, self.path)
        self._on_rollback()

    def _failed(self, exc: Exception) -> StorageError:
        if is_damage(exc):
            self._damage = str(exc)
        try:
            self._lost = self._depth > 0 and not self._connection.in_transaction
        except sqlite3.ProgrammingError:
            self._lost = self._depth > 0
        return _translated(exc, self.path)


class _Transaction:
    """The context manager of `Database.transaction`. It has no state of its own, so one object serves every block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database._begin()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._database._end(kind is not None)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _create(path: Path) -> bool:
    """Ensure that the file exists with mode 0600; return whether it is new.

    An existing file is never opened here: closing it would drop the locks of this process on it (POSIX).
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        path.chmod(0o600)
        return False
    return True


def _file_at(path: Path) -> tuple[int, int] | None:
    """Return the identity of a file (device, inode), None if there is none; takes 2 µs."""
    try:
        found = os.stat(path)  # noqa: PTH116  # before each commit: `Path.stat` takes twice as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _translated(exc: BaseException, path: Path) -> StorageError:
    # SQLite reports a full disk with other codes, too: the WAL cannot be created, or not read back.
    if primary_code(exc) == sqlite3.SQLITE_FULL or (primary_code(exc) in _MAYBE_FULL and not has_room(path)):
        return no_room(path, exc)
    if isinstance(exc, MemoryError):
        return StorageError(f"{path}: out of memory", path=str(path), set_aside=None)
    sentence = _SENTENCES.get(primary_code(exc))
    text = f"{sentence} ({exc})" if sentence else str(exc)
    return StorageError(f"{path}: {text}", path=str(path), set_aside=None)


def _set_aside_error(path: Path, reason: str, target: Path) -> StorageError:
    message = (
        f"{path} is damaged ({reason}); it was set aside as {target.name}. Open it again to start with an empty one"
    )
    return StorageError(message, path=str(path), set_aside=str(target))
