"""Opens an SQLite file for one owner, sets damaged files aside, and turns SQLite's errors into sentences.

Durability: WAL with `synchronous=NORMAL`, so a commit is a `write` into the page cache, without a sync. What was
committed survives the death of any process at any instruction, this one's included. A power cut or a kernel panic may
take the last moments with it, but the file stays consistent: SQLite syncs at each checkpoint, and that is the only call
here that can wait for the disk (measured: 20 to 100 ms for 8 MiB of log).

A database belongs to the thread that opened it; a checkpoint alone may run in another one (`begin_checkpoint`).
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
    "LONG_LOG",
    "WAL_LIMIT",
    "Database",
    "name_aside",
    "remove_database",
    "set_aside",
]

LONG_LOG: Final = 8 * 2**20
"""Length of a write-ahead log that is worth a checkpoint, in bytes."""

WAL_LIMIT: Final = 4 * 2**20
"""After a checkpoint the file of the log is cut back to this size, in bytes; what is longer has something in it."""

AUTOMATIC: Final = 1000
"""Pages (of 4 KiB) in the log after which SQLite makes a checkpoint by itself, in the midst of a commit."""

CACHE: Final = 2**19
"""Pages that an open database keeps in memory, in bytes. SQLite's 2 MiB made a daemon of ten sessions larger by 16 MiB
and not faster (measured): events are written and read in their order."""

CHECK_LIMIT: Final = 32 * 2**20
"""A file of at most this size is looked through for damage when it is opened (4 ms per MiB), in bytes."""

logger = logging.getLogger(__name__)

_READS: Final = ("SELECT", "PRAGMA", "BEGIN", "COMMIT")
"""How statements begin that store nothing by themselves."""

_FOLDER: Final = "a folder is in its place"
_EMPTY: Final = "it is empty, though it has a log"
_MAYBE_FULL: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR})
_DAMAGED: Final = (
    "it is damaged, or the disk does not give all of it; it is set aside only if a second look finds it damaged"
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
    """Return the path under which something damaged is kept: `NAME.damaged-<UTC timestamp>`."""
    return path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")


def set_aside(path: Path) -> Path:
    """Rename a damaged database and its write-ahead log (see `name_aside`), and return the new path.

    Raises:
        StorageError: If it cannot be renamed; nothing was overwritten.
    """
    target = name_aside(path)
    try:
        # The database comes last: dying in between leaves it damaged in its place, to be found again.
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
    """One open SQLite file, which nobody else can open meanwhile; `close()` it, or use it as a context manager.

    Args:
        path: Made with mode 0600 if it does not exist, its folder with 0700.
        schema: The statements that make an empty database.
        version: Of the schema; a file with a higher one is refused and left as it is.
        upgrades: For each lower version from 1 on, the statements that make of it the next one.
        application_id: Tells this kind of database from others.
        automatic: Pages in the log after which SQLite makes a checkpoint by itself. An owner who looks at `log_is_long`
            after each commit gives more, for a single large transaction.
        read_only: Just look into a file that nobody has open, in any thread: no lock is taken, and nothing is made,
            checked, mended or set aside. Who opens it meanwhile may make all that is read wrong.
        on_rollback: Called after each rollback, so that caches can be cleared.

    Attributes:
        is_new: Whether there was nothing in it.
        damaged_log: The copy of a write-ahead log of which committed changes could not be read; None without damage.

    Raises:
        StorageError: Attributes `path` and `set_aside`: where a damaged file is now, None if it stayed in place.
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
    ) -> None:
        self.path = path
        self._version = version
        self._on_rollback = on_rollback
        self._depth = 0
        self._doomed = False
        self._lost = False
        self.is_closed = False
        self._ready = False
        self._log_path = path.with_name(path.name + "-wal")
        self._free = threading.Lock()  # held by a checkpoint, and for each call
        self._damage: str | None = None
        self._file: tuple[int, int] | None = None
        self.damaged_log: Path | None = None
        self._transaction = _Transaction(self)
        if read_only:
            self.is_new = False
            self._look_into(version, application_id)
            return
        try:
            if path.is_dir() or self._log_path.is_dir():
                raise _set_aside_error(path, _FOLDER, _set_aside(path, _FOLDER))
            self.is_new = _create(path) or path.stat().st_size <= 1
            if self.is_new and _size(self._log_path):
                # SQLite takes files of 0 and 1 bytes for new databases, and would delete the log.
                raise _set_aside_error(path, _EMPTY, _set_aside(path, _EMPTY))
            committed = committed_frames(self._log_path)
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
            raise StorageError(f"{path}: its log cannot be kept: {exc}", path=str(path), set_aside=None) from exc
        except (sqlite3.Error, MemoryError) as exc:
            raise (self._damaged(str(exc)) if is_damage(exc) else _translated(exc, path)) from exc
        except UnicodeDecodeError as exc:
            # sqlite3 quotes a damaged schema in its message, and cannot always decode it.
            raise self._damaged("its schema is unreadable") from exc
        finally:
            if not self._ready:
                self._connection.close()

    def _look_into(self, version: int, application_id: int) -> None:
        if _size(self._log_path):
            raise self._refusal("has a log, which only its owner can read")
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
        # Damaged text must reach the comparison with its checksum, which then names the row.
        self._connection.text_factory = _decode
        run = self._connection.execute
        # Before anything is read: the first access then takes the lock, and WAL needs no -shm file.
        run("PRAGMA locking_mode=EXCLUSIVE")
        (found,) = run("PRAGMA user_version").fetchone()
        (owner,) = run("PRAGMA application_id").fetchone()
        if owner != application_id and (found or owner):
            raise self._refusal("is another kind of database than expected; move it away")
        # Before the schema is read: an older SQLite may not understand it, and would call it damaged.
        if found > version:
            raise self._refusal(
                f"was written by a newer runtimed (its schema is {found}, this one knows {version}); upgrade runtimed"
            )
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and not found:
            raise self._refusal("is another kind of database than expected; move it away")
        if committed:
            self._check_log(committed)
        if not found:
            # Only an empty database can be told to; see `give_back`.
            run("PRAGMA auto_vacuum=INCREMENTAL")
        # Debian's SQLite overwrites what is deleted with zeros: 8 ms for a row of 1 MiB instead of 0.1 (measured).
        run("PRAGMA secure_delete=FAST").fetchone()
        if self.path.stat().st_size <= CHECK_LIMIT:
            problems = [text for (text,) in run("PRAGMA quick_check") if text != "ok"]
            if problems:
                # "*** in database main ***", then a line for each.
                raise self._damaged(problems[0].splitlines()[-1])
        (mode,) = run("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise self._refusal("cannot have a write-ahead log here; put the data folder on a local disk")
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

    def _check_log(self, committed: int) -> None:
        """Copy a write-ahead log that SQLite could not read completely, before it is written to again.

        Raises:
            OSError: If it cannot be copied.
        """
        try:
            _busy, read, _moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError as exc:
            # On a full disk what is stored can be read all the same.
            logger.warning("%s is not looked through for damage: %s", self._log_path, exc)
            return
        if read < committed:
            self.damaged_log = name_aside(self._log_path)
            shutil.copy(self._log_path, self.damaged_log)
            logger.error(
                "%s is damaged; its latest changes are lost, and it is kept as %s", self._log_path, self.damaged_log
            )

    def _damaged(self, reason: str) -> StorageError:
        """Set the file aside if its damage is proved, and return the error that reports it."""
        target = self._set_aside_if_proved(reason)
        if target is not None:
            return _set_aside_error(self.path, reason, target)
        return self._refusal(
            f"cannot be read without errors just now ({reason}): the disk or too little memory may be the reason. "
            "Nothing of it was set aside; check the disk, and try again"
        )

    def _set_aside_if_proved(self, reason: str) -> Path | None:
        """Set the file aside if all of it is readable and a second check finds damage, too; see `damage`."""
        if not self.is_in_place:
            return None
        with contextlib.ExitStack() as stack:
            files: list[int] = []
            try:
                for path in (self.path, self._log_path):
                    with contextlib.suppress(FileNotFoundError):
                        files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                        # Closing it drops this process's locks on the database: only when that has its new name.
                        stack.callback(os.close, files[-1])
                read_throughout(files)
            except OSError as exc:
                logger.warning("%s is not set aside (%s), as it cannot be read: %s", self.path, reason, exc)
                return None
            return _set_aside(self.path, reason) if finds_damage(self._connection) else None

    def _refusal(self, text: str) -> StorageError:
        return StorageError(f"{self.path} {text}", path=str(self.path), set_aside=None)

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> Path | None:
        """Close the file; an open transaction is rolled back. Idempotent.

        Returns:
            Where the file is now, if it turned out to be damaged while it was used; None if it is in its place.

        Raises:
            StorageError: If SQLite could not tidy up; the file is closed all the same.
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
    def log_is_long(self) -> bool:
        """Whether a checkpoint is due."""
        try:
            return self._log_path.stat().st_size >= LONG_LOG
        except OSError:  # what cannot be told is asked again after the next commit
            return False

    def begin_checkpoint(self) -> Callable[[], None]:
        """Return a function that moves the log's content into the database: call it in any thread, once.

        Until it returns, every other use of this database waits. It raises StorageError if that could not be done; the
        log then stays as it is.
        """
        if self._depth:
            raise self._refusal("cannot have a checkpoint in the midst of a transaction")
        self._free.acquire()
        return self._checkpoint

    def _checkpoint(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            # The first write after a checkpoint begins the log anew, and waits for the disk once more: let it be here.
            self._connection.execute(f"PRAGMA user_version={self._version}")
        except (sqlite3.Error, MemoryError) as exc:
            raise _translated(exc, self.path) from exc
        finally:
            self._free.release()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement, in the open transaction or as one of its own.

        Fetch all of a query's rows at once, or use `each`: a statement left half-read keeps the log from shrinking.

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
        """Run one statement for each of these rows, inside an open transaction.

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
                "is not there any more: it, or its folder, was removed or moved while it was in use. Nothing more is "
                "stored in it; the next daemon begins anew"
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

        Inside another one it joins that: the outermost decides. One that failed inside takes the outer one with
        it, even if the exception was caught in between, so that nothing half-done is ever stored.

        Raises:
            StorageError: On leaving, if it could not be committed; then it is rolled back.
        """
        return self._transaction

    @property
    def free_pages(self) -> int:
        """Number of free pages in the file, left by deletions."""
        (count,) = self.row("PRAGMA freelist_count")
        return int(count)

    def give_back(self, pages: int) -> None:
        """Remove this many free pages from the file, outside of a transaction; a checkpoint then shortens it.

        Measured: 2.5 µs a page if they lie at the end of the file, 20 where others have to move into their place.

        Raises:
            StorageError: If that failed; the file is as it was.
        """
        try:
            # `execute` would stop after the first page, since the pragma gives no rows.
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
            raise self._refusal("rolled this transaction back, because a part of it had failed; nothing was stored")

    def _roll_back(self) -> None:
        self._lost = False
        try:
            # SQLite may have rolled back by itself: on a full disk, for example.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            logger.exception("%s: cannot roll back", self.path)
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
    """The block of `Database.transaction`; it holds no state of its own, so one object serves every block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database._begin()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._database._end(kind is not None)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _create(path: Path) -> bool:
    """Ensure that the file exists and is private; return whether it is new.

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
    # A full disk has many faces: its log cannot be made, or not be read back.
    if primary_code(exc) == sqlite3.SQLITE_FULL or (primary_code(exc) in _MAYBE_FULL and not has_room(path)):
        return no_room(path, exc)
    if isinstance(exc, MemoryError):
        return StorageError(f"{path}: there is too little memory", path=str(path), set_aside=None)
    sentence = _SENTENCES.get(primary_code(exc))
    text = f"{sentence} ({exc})" if sentence else str(exc)
    return StorageError(f"{path}: {text}", path=str(path), set_aside=None)


def _set_aside(path: Path, reason: str) -> Path:
    target = set_aside(path)
    logger.error("%s is damaged (%s); it was set aside as %s", path, reason, target)
    return target


def _set_aside_error(path: Path, reason: str, target: Path) -> StorageError:
    message = f"{path} is damaged ({reason}); it was set aside as {target.name}, open it again to start anew"
    return StorageError(message, path=str(path), set_aside=str(target))
