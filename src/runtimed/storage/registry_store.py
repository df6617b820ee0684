"""The registry: the database of all sessions, with their states and the history of their life cycles."""

from __future__ import annotations

import builtins
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from runtimed.protocol.codec import pack
from runtimed.storage.aside import note_sessions
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.database import Database
from runtimed.storage.rows import checksum, damaged_row, from_text, to_text

__all__ = ["SCHEMA_VERSION", "RegistryStore", "SessionRow"]

SCHEMA_VERSION: Final = 2
"""Version of the registry's schema; a file with a higher one is refused, one with a lower one is upgraded."""

_APPLICATION_ID: Final = 0x52545247  # "RTRG"

_FILES: Final = """CREATE TABLE files(
    session_id TEXT PRIMARY KEY, path TEXT NOT NULL UNIQUE, record TEXT NOT NULL, checksum INTEGER NOT NULL)"""

_SCHEMA: Final = (
    """CREATE TABLE sessions(
        session_id TEXT PRIMARY KEY, kind TEXT NOT NULL, status TEXT NOT NULL, close_reason TEXT,
        created_at REAL NOT NULL, started_at REAL NOT NULL, closed_at REAL, last_accessed_at REAL NOT NULL,
        timeout_minutes REAL, max_duration_minutes REAL, keep_alive REAL NOT NULL, ephemeral INTEGER NOT NULL,
        creator TEXT NOT NULL, label TEXT, error TEXT, host_epoch TEXT, host_dir TEXT, host_pid INTEGER,
        kernel_type TEXT, kernel_pid INTEGER, env_source TEXT, checksum INTEGER NOT NULL)""",
    "CREATE INDEX sessions_by_access ON sessions(last_accessed_at DESC, session_id)",
    "CREATE INDEX sessions_active ON sessions(session_id) WHERE status = 'active'",
    """CREATE TABLE history(
        id INTEGER PRIMARY KEY, session_id TEXT NOT NULL, at REAL NOT NULL, action TEXT NOT NULL, detail TEXT,
        client_id TEXT, label TEXT, uid INTEGER, pid INTEGER, checksum INTEGER NOT NULL)""",
    "CREATE INDEX history_by_session ON history(session_id)",
    "CREATE TABLE set_aside(id INTEGER PRIMARY KEY, at REAL NOT NULL, session_id TEXT NOT NULL, row TEXT NOT NULL)",
    _FILES,
)
_UPGRADES: Final = ((_FILES,),)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One session. Times are Unix times in seconds.

    Attributes:
        created_at: When the id was first used.
        started_at: When it last became active.
        keep_alive: Seconds that an ephemeral session outlives its last peer.
        creator: Id of the client that started it.
        error: For status `error`: exit code or signal, and the last lines of standard error.
        host_epoch: Id of the host process; `host_dir` is its folder, `host_pid` its process id.
    """

    session_id: str
    kind: Literal["kernel", "browser"]
    status: Literal["active", "closed", "error", "timed_out"]
    close_reason: str | None
    created_at: float
    started_at: float
    closed_at: float | None
    last_accessed_at: float
    timeout_minutes: float | None
    max_duration_minutes: float | None
    keep_alive: float
    ephemeral: bool
    creator: str
    label: str | None
    error: str | None
    host_epoch: str | None
    host_dir: str | None
    host_pid: int | None
    kernel_type: str | None
    kernel_pid: int | None
    env_source: str | None


_FIELDS: Final = tuple(field.name for field in fields(SessionRow))
_REAL: Final = frozenset(
    {
        "created_at",
        "started_at",
        "closed_at",
        "last_accessed_at",
        "timeout_minutes",
        "max_duration_minutes",
        "keep_alive",
    }
)


class RegistryStore:
    """The open registry, locked exclusively.

    Args:
        path: Created with mode 0600 if it does not exist.

    Raises:
        StorageError: If it is in use, cannot be opened, was written by a newer runtimed, or is damaged. A damaged file
            is moved to the path in the attribute `set_aside`; opening the path again starts with an empty registry.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(
            path, schema=_SCHEMA, version=SCHEMA_VERSION, application_id=_APPLICATION_ID, upgrades=_UPGRADES
        )

    def __enter__(self) -> RegistryStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def database(self) -> Database:
        """The database itself, for what concerns all of its tables."""
        return self._db

    def close(self) -> None:
        """Close the database; an open transaction is rolled back. Idempotent."""
        self._db.close()

    @property
    def is_in_place(self) -> bool:
        """See `Database.is_in_place`."""
        return self._db.is_in_place

    @property
    def damaged_wal(self) -> Path | None:
        """The copy of a WAL whose latest transactions could not be read; see `Database`."""
        return self._db.damaged_wal

    def transaction(self) -> AbstractContextManager[None]:
        """Return a context manager that commits all that its block writes, or nothing if it raises."""
        return self._db.transaction()

    def put(self, row: SessionRow) -> None:
        """Insert or replace a session's row."""
        values = _values(row)
        query = "INSERT OR REPLACE INTO sessions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
        self._db.execute(query, (*values, _checksum(values)))

    def get(self, session_id: str) -> SessionRow | None:
        """Return a session, None if there is none of this id.

        Raises:
            StorageError: If its row is damaged (attribute `session_id`).
        """
        row = self._db.row("SELECT * FROM sessions WHERE session_id = ?", (session_id,))
        if row is None:
            return None
        if not _intact(row):
            raise damaged_row(self._db.path, f"the row of session {session_id!r}", session_id=session_id)
        return _session(row)

    def list(
        self, status: str | None = None, kind: str | None = None, start: int = 0, count: int = 100
    ) -> builtins.list[SessionRow]:
        """Return `count` sessions from an index on, most recently accessed first.

        Damaged rows are left out and logged; see `set_damaged_aside`.
        """
        return self._sessions(
            """SELECT * FROM sessions WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR kind = ?2)
            ORDER BY last_accessed_at DESC, session_id LIMIT ?3 OFFSET ?4""",
            (status, kind, count, start),
        )

    def find_ids(self, prefix: str, status: str | None = None, kind: str | None = None) -> builtins.list[str]:
        """Return the session ids that begin with a prefix, most recently accessed first."""
        query = """SELECT session_id FROM sessions WHERE substr(session_id, 1, length(?1)) = ?1
            AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR kind = ?3) ORDER BY last_accessed_at DESC, session_id"""
        return [session_id for (session_id,) in self._db.rows(query, (prefix, status, kind))]

    def ids(self) -> builtins.list[str]:
        """Return the ids of all sessions."""
        return [session_id for (session_id,) in self._db.rows("SELECT session_id FROM sessions")]

    def count(self, status: str | None = None, kind: str | None = None) -> int:
        """Return the number of sessions, damaged ones included."""
        query = "SELECT count(*) FROM sessions WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR kind = ?2)"
        (count,) = self._db.row(query, (status, kind))
        return int(count)

    def active(self) -> builtins.list[SessionRow]:
        """Return the active sessions, sorted by id. Damaged rows are left out and logged; see `set_damaged_aside`."""
        return self._sessions("SELECT * FROM sessions WHERE status = 'active' ORDER BY session_id")

    def set_damaged_aside(self) -> builtins.list[str]:
        """Move the rows that do not match their checksums to the table `set_aside`, as text, and record that in a note.

        See `aside` for the note.

        Returns:
            The sessions' ids, which may be damaged themselves.
        """
        damaged = [
            row for row in self._db.rows("SELECT *, rowid FROM sessions ORDER BY rowid") if not _intact(row[:-1])
        ]
        with self._db.transaction():
            for *values, number in damaged:
                query = "INSERT INTO set_aside(at, session_id, row) VALUES (?, ?, ?)"
                self._db.execute(query, (time.time(), ascii(values[0]), ascii(values)))
                self._db.execute("DELETE FROM sessions WHERE rowid = ?", (number,))
            if damaged:
                # Before the commit: after a death in between, the rows are still in place and found damaged again.
                note_sessions(self._db.path, [ascii(row[0]) for row in damaged], time.time())
        return [str(row[0]) for row in damaged]

    def touch(self, session_id: str, at: float) -> None:
        """Set the time of a session's last access; does nothing for an unknown session.

        Raises:
            StorageError: If its row is damaged; it is left as it is.
        """
        with self._db.transaction():
            row = self.get(session_id)
            if row is not None:
                self.put(replace(row, last_accessed_at=at))

    def add_history(self, session_id: str, row: AuditRow) -> None:
        """Record a step in a session's life cycle; call it in the transaction of the step."""
        actor = (None, None, None, None) if row.actor is None else astuple(row.actor)
        values = (session_id, float(row.at), row.action, row.detail, *actor)
        query = """INSERT INTO history(session_id, at, action, detail, client_id, label, uid, pid, checksum)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
        self._db.execute(query, (*values, _checksum(values)))

    def history(self, session_id: str) -> builtins.list[AuditRow]:
        """Return the steps of a session's life cycle, newest first. Damaged ones are left out and logged."""
        found = []
        query = """SELECT session_id, at, action, detail, client_id, label, uid, pid, checksum FROM history
            WHERE session_id = ? ORDER BY id DESC"""
        for row in self._db.rows(query, (session_id,)):
            if not _intact(row):
                logger.error(
                    "%s: a step in the history of session %r is damaged and left out", self._db.path, session_id
                )
                continue
            _, at, action, detail, client_id, label, uid, pid, _ = row
            actor = None if client_id is None else Actor(client_id, label, uid, pid)
            found.append(AuditRow(at=at, until=at, action=action, actor=actor, detail=detail))
        return found

    def delete(self, session_id: str, note: AuditRow) -> None:
        """Delete a session and its history; only the record of the deletion remains."""
        with self._db.transaction():
            self._db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
            self._db.execute("DELETE FROM history WHERE session_id = ?", (session_id,))
            self._db.execute("DELETE FROM files WHERE session_id = ?", (session_id,))
            self.add_history(session_id, note)

    def file(self, session_id: str) -> str | None:
        """Return the record of a session's notebook file; None if it has none, or the record is damaged."""
        row = self._db.row("SELECT * FROM files WHERE session_id = ?", (session_id,))
        if row is None:
            return None
        if not _intact(row):
            logger.error("%s: the record of the file of session %r is damaged", self._db.path, session_id)
            return None
        return str(row[2])

    def file_path(self, session_id: str) -> str | None:
        """Return the path of a session's notebook file; None if it has none."""
        row = self._db.row("SELECT path FROM files WHERE session_id = ?", (session_id,))
        return None if row is None else str(row[0])

    def owner_of_file(self, path: str) -> str | None:
        """Return the session whose notebook file this is; None if it is nobody's."""
        row = self._db.row("SELECT session_id FROM files WHERE path = ?", (path,))
        return None if row is None else str(row[0])

    def put_file(self, session_id: str, path: str, record: str | None) -> None:
        """Store the record of a session's notebook file; it is no other session's any more.

        Args:
            session_id: The session.
            path: The file's real path.
            record: What the session knows of it; None if it is not its file any more.
        """
        with self._db.transaction():
            self._db.execute("DELETE FROM files WHERE session_id = ? OR path = ?", (session_id, path))
            if record is not None:
                values = (session_id, path, record)
                self._db.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (*values, _checksum(values)))

    def files_of_active(self) -> builtins.list[tuple[str, str]]:
        """Return id and path of each active session that has a notebook file."""
        query = """SELECT session_id, path FROM files JOIN sessions USING (session_id)
            WHERE status = 'active' ORDER BY session_id"""
        return [(str(session_id), str(path)) for session_id, path in self._db.rows(query)]

    def deleted(self) -> builtins.list[str]:
        """Return the ids of the deleted sessions that were not started again."""
        query = """SELECT session_id FROM history AS step WHERE action = 'session_deleted'
            AND NOT EXISTS (SELECT 1 FROM history WHERE session_id = step.session_id AND id > step.id)
            AND NOT EXISTS (SELECT 1 FROM sessions WHERE session_id = step.session_id)"""
        return [str(session_id) for (session_id,) in self._db.rows(query)]

    def prune_history(self, before: float) -> int:
        """Delete the steps before a moment (Unix time in seconds), except the last one of each session.

        Returns:
            Number of deleted steps.
        """
        query = "DELETE FROM history WHERE at < ? AND id NOT IN (SELECT max(id) FROM history GROUP BY session_id)"
        return self._db.execute(query, (before,)).rowcount

    def _sessions(self, query: str, parameters: Sequence[Any] = ()) -> builtins.list[SessionRow]:
        found = []
        for row in self._db.rows(query, parameters):
            if _intact(row):
                found.append(_session(row))
            else:
                logger.error("%s: the row of session %r is damaged and left out", self._db.path, row[0])
        return found


def _values(session: SessionRow) -> list[Any]:
    """Return a session's fields exactly as SQLite will return them, so that the checksum matches."""
    values: list[Any] = []
    for name in _FIELDS:
        value = getattr(session, name)
        if isinstance(value, str):
            value = to_text(value)
        elif value is not None:
            value = float(value) if name in _REAL else int(value)
        values.append(value)
    return values


def _session(row: Sequence[Any]) -> SessionRow:
    values: dict[str, Any] = {
        name: from_text(v) if isinstance(v, bytes) else v for name, v in zip(_FIELDS, row, strict=False)
    }
    values["ephemeral"] = bool(values["ephemeral"])
    return SessionRow(**values)


def _checksum(values: Sequence[Any]) -> int:
    return checksum(pack(list(values)))


def _intact(row: Sequence[Any]) -> bool:
    *values, check = row
    return bool(check == _checksum(values))
