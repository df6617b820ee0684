"""The executions of one session: what was queued, by whom, and how it ended; and what cells and displays show."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Final, Literal, TypedDict

from runtimed.errors import StorageError
from runtimed.ids import CellId, ExecutionId
from runtimed.protocol.codec import pack
from runtimed.storage.database import Database
from runtimed.storage.rows import checksum, damaged_row

__all__ = ["SCHEMA", "UPGRADE", "ExecutionRow", "ExecutionStatus", "ExecutionTable", "ExecutionUpdate"]

logger = logging.getLogger(__name__)

ExecutionStatus = Literal["queued", "running", "ok", "error", "cancelled", "died"]

# One row cancels any number of queued executions: those up to a sequence, of one author or all, but for a spared one.
_DROPPED: Final = """CREATE TABLE dropped(
    id INTEGER PRIMARY KEY, upto INTEGER NOT NULL, author TEXT, spared TEXT, reason TEXT NOT NULL)"""

# The executions and cells to which updates of a display go; reading all outputs to find them would be slow.
_DISPLAYS: Final = """CREATE TABLE displays(
    id INTEGER PRIMARY KEY, execution_id TEXT NOT NULL, display_id TEXT NOT NULL, cell_id TEXT NOT NULL,
    checksum INTEGER NOT NULL, UNIQUE (execution_id, display_id))"""

SCHEMA: Final = (
    """CREATE TABLE executions(
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, execution_id TEXT NOT NULL UNIQUE, cell_id TEXT NOT NULL,
        author TEXT NOT NULL, source TEXT NOT NULL, status TEXT NOT NULL, queued_at REAL NOT NULL, started_at REAL,
        ended_at REAL, execution_count INTEGER, stdin INTEGER NOT NULL, checksum INTEGER NOT NULL,
        user_expressions TEXT NOT NULL DEFAULT '{}')""",
    "CREATE INDEX executions_unfinished ON executions(sequence) WHERE status IN ('queued', 'running')",
    # The execution that each cell shows, updated with the document; loading a document to find it would be slow.
    """CREATE TABLE shown(
        cell_id TEXT PRIMARY KEY, execution_id TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID""",
    _DROPPED,
    _DISPLAYS,
)

UPGRADE: Final = ("ALTER TABLE executions ADD COLUMN user_expressions TEXT NOT NULL DEFAULT '{}'", _DROPPED, _DISPLAYS)
"""Upgrades schema version 1 to version 2."""


class _Option(IntFlag):
    """The options of an execution, in the column `stdin`, which had the first alone."""

    STDIN = 1
    SILENT = 2
    UNCOUNTED = 4
    GOES_ON = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRow:
    """One execution.

    Attributes:
        author: Id of the client that requested it.
        queued_at: Unix time in seconds, like the other times.
        stdin: Whether the author answers requests for input.
        silent: See `Enqueue`, as for `store_history` and `stop_on_error`.
        user_expressions: Expressions that the kernel evaluates after the source: a JSON object by name.
        sequence: Number of the execution in the session, strictly increasing in the order of the queue.
    """

    execution_id: ExecutionId
    cell_id: CellId
    author: str
    source: str
    status: ExecutionStatus
    queued_at: float
    started_at: float | None
    ended_at: float | None
    execution_count: int | None
    stdin: bool
    silent: bool
    store_history: bool
    stop_on_error: bool
    user_expressions: str
    sequence: int

    @property
    def has_cell(self) -> bool:
        """Whether it belongs to a cell of the document."""
        return self.store_history and not self.silent


class ExecutionUpdate(TypedDict, total=False):
    """The mutable fields of an execution; an omitted one stays unchanged."""

    status: ExecutionStatus
    started_at: float | None
    ended_at: float | None
    execution_count: int | None


_UNFINISHED: Final = """SELECT * FROM executions e WHERE status IN ('queued', 'running') AND NOT EXISTS (
    SELECT 1 FROM dropped d WHERE e.sequence <= d.upto AND (d.author IS NULL OR d.author = e.author)
    AND e.execution_id IS NOT d.spared) ORDER BY sequence"""
_OF_DROP: Final = """SELECT e.* FROM executions e JOIN dropped d ON e.sequence <= d.upto
    AND (d.author IS NULL OR d.author = e.author) AND e.execution_id IS NOT d.spared
    WHERE d.id = ? AND e.status IN ('queued', 'running') ORDER BY e.sequence LIMIT ?"""

# One statement per field, so that none is composed at run time.
_UPDATES: Final = {
    "status": "UPDATE executions SET status = ? WHERE execution_id = ?",
    "started_at": "UPDATE executions SET started_at = ? WHERE execution_id = ?",
    "ended_at": "UPDATE executions SET ended_at = ? WHERE execution_id = ?",
    "execution_count": "UPDATE executions SET execution_count = ? WHERE execution_id = ?",
}


class ExecutionTable:
    """The tables of executions; `SessionStore` documents its methods."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._shown: frozenset[str] | None = None

    def forget(self) -> None:
        """Clear the caches, which a rollback may have invalidated."""
        self._shown = None

    def add(
        self,
        execution_id: str,
        cell_id: str,
        author: str,
        source: str,
        *,
        queued_at: float,
        stdin: bool,
        silent: bool,
        store_history: bool,
        stop_on_error: bool,
        user_expressions: str,
        status: ExecutionStatus,
    ) -> bool:
        """See `SessionStore.add_execution`."""
        options = (
            _Option.STDIN * stdin
            | _Option.SILENT * silent
            | _Option.UNCOUNTED * (not store_history)
            | _Option.GOES_ON * (not stop_on_error)
        )
        fixed = (execution_id, cell_id, author, source, float(queued_at), int(options))
        cursor = self._db.execute(
            """INSERT INTO executions(
                execution_id, cell_id, author, source, status, queued_at, stdin, checksum, user_expressions)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(execution_id) DO NOTHING""",
            (*fixed[:4], status, *fixed[4:], _row_checksum(fixed, user_expressions), user_expressions),
        )
        return cursor.rowcount > 0

    def update(self, execution_id: str, fields: ExecutionUpdate) -> bool:
        """See `SessionStore.update_execution`."""
        unknown = fields.keys() - _UPDATES.keys()
        if unknown or not fields:
            raise TypeError(f"an execution can change its {', '.join(_UPDATES)}, not {', '.join(unknown) or 'nothing'}")
        with self._db.transaction():
            counts = [
                self._db.execute(_UPDATES[name], (value, execution_id)).rowcount for name, value in fields.items()
            ]
        return counts[0] > 0

    def get(self, execution_id: str) -> ExecutionRow | None:
        """See `SessionStore.execution`."""
        return self._one(self._db.row("SELECT * FROM executions WHERE execution_id = ?", (execution_id,)))

    def unfinished(self) -> list[ExecutionRow]:
        """See `SessionStore.unfinished_executions`."""
        return self._intact(_UNFINISHED)

    def drop(self, upto: str, author: str | None, spared: str | None, reason: str) -> None:
        """See `SessionStore.drop_executions`."""
        query = """INSERT INTO dropped(upto, author, spared, reason)
            SELECT sequence, ?, ?, ? FROM executions WHERE execution_id = ?"""
        self._db.execute(query, (author, spared, reason, upto))

    def next_dropped(self, max_rows: int) -> list[tuple[ExecutionRow, str]]:
        """See `SessionStore.next_dropped`."""
        while (first := self._db.row("SELECT id, reason FROM dropped ORDER BY id LIMIT 1")) is not None:
            number, reason = first
            rows = self._intact(_OF_DROP, (number, max_rows))
            if rows:
                return [(row, reason) for row in rows]
            self._db.execute("DELETE FROM dropped WHERE id = ?", (number,))
        return []

    def _intact(self, query: str, parameters: Sequence[Any] = ()) -> list[ExecutionRow]:
        found = []
        for row in self._db.rows(query, parameters):
            try:
                found.append(self._row(row))
            except StorageError as exc:
                logger.error("%sleft out: %s", self._db.about, exc)  # noqa: TRY400  # a sentence, not a traceback
        return found

    def find(self, prefix: str, max_rows: int) -> list[ExecutionRow]:
        """See `SessionStore.find_executions`."""
        query = "SELECT * FROM executions WHERE substr(execution_id, 1, ?) = ? ORDER BY sequence DESC LIMIT ?"
        return self._intact(query, (len(prefix), prefix, max_rows))

    def show(self, cell_id: str, execution_id: str | None) -> None:
        """See `SessionStore.show_execution`."""
        self._shown = None
        if execution_id is None:
            self._db.execute("DELETE FROM shown WHERE cell_id = ?", (cell_id,))
        else:
            check = _checksum((cell_id, execution_id))
            self._db.execute("INSERT OR REPLACE INTO shown VALUES (?, ?, ?)", (cell_id, execution_id, check))

    def shown_by(self, cell_id: str) -> str | None:
        """See `SessionStore.shown_execution`."""
        row = self._db.row("SELECT execution_id, checksum FROM shown WHERE cell_id = ?", (cell_id,))
        if row is None:
            return None
        if row[1] != _checksum((cell_id, row[0])):
            raise damaged_row(self._db.path, f"what cell {cell_id} shows")
        return str(row[0])

    def shown(self) -> frozenset[str]:
        """See `SessionStore.shown_executions`."""
        if self._shown is None:
            rows = self._db.rows("SELECT cell_id, execution_id, checksum FROM shown")
            for cell_id, execution_id, check in rows:
                if check != _checksum((cell_id, execution_id)):
                    raise damaged_row(self._db.path, f"what cell {cell_id} shows")
            self._shown = frozenset(execution_id for _, execution_id, _ in rows)
        return self._shown

    def shown_by_cells(self) -> dict[str, str]:
        """See `SessionStore.shown_by_cells`."""
        rows = self._db.rows("SELECT cell_id, execution_id, checksum FROM shown")
        return {
            cell_id: execution_id
            for cell_id, execution_id, check in rows
            if check == _checksum((cell_id, execution_id))
        }

    def show_display(self, display_id: str, execution_id: str, cell_id: str) -> None:
        """See `SessionStore.show_display`."""
        values = (execution_id, display_id, cell_id)
        query = "INSERT OR IGNORE INTO displays(execution_id, display_id, cell_id, checksum) VALUES (?, ?, ?, ?)"
        self._db.execute(query, (*values, _checksum(values)))

    def displays(self) -> list[tuple[str, str, str]]:
        """See `SessionStore.displays`."""
        rows = self._db.rows("SELECT display_id, execution_id, cell_id, checksum FROM displays ORDER BY id")
        return [
            (display_id, execution_id, cell_id)
            for display_id, execution_id, cell_id, check in rows
            if check == _checksum((execution_id, display_id, cell_id))
        ]

    def forget_displays(self, execution_id: str | None) -> None:
        """See `SessionStore.forget_displays`."""
        if execution_id is None:
            self._db.execute("DELETE FROM displays")
        else:
            self._db.execute("DELETE FROM displays WHERE execution_id = ?", (execution_id,))

    def ended_before(self, before: float, after: int, max_rows: int) -> list[tuple[int, ExecutionId]]:
        """See `SessionStore.executions_ended_before`."""
        query = "SELECT sequence, execution_id, ended_at FROM executions WHERE sequence > ? ORDER BY sequence LIMIT ?"
        found: list[tuple[int, ExecutionId]] = []
        for sequence, execution_id, ended_at in self._db.rows(query, (after, max_rows)):
            if ended_at is None or ended_at >= before:
                break
            found.append((sequence, ExecutionId(execution_id)))
        return found

    def delete(self, execution_id: str) -> None:
        """See `SessionStore.delete_execution`."""
        self._db.execute("DELETE FROM executions WHERE execution_id = ?", (execution_id,))

    def _one(self, row: Any) -> ExecutionRow | None:
        return None if row is None else self._row(row)

    def _row(self, row: Any) -> ExecutionRow:
        number, execution_id, cell_id, author, source, status, queued, started, ended, count, options, *guard = row
        check, more = guard
        if check != _row_checksum((execution_id, cell_id, author, source, queued, options), more):
            raise damaged_row(self._db.path, f"execution {execution_id}", execution_id=execution_id)
        return ExecutionRow(
            execution_id=ExecutionId(execution_id),
            cell_id=CellId(cell_id),
            author=author,
            source=source,
            status=status,
            queued_at=queued,
            started_at=started,
            ended_at=ended,
            execution_count=count,
            stdin=bool(options & _Option.STDIN),
            silent=bool(options & _Option.SILENT),
            store_history=not options & _Option.UNCOUNTED,
            stop_on_error=not options & _Option.GOES_ON,
            user_expressions=more,
            sequence=number,
        )


def _row_checksum(fixed: tuple[Any, ...], user_expressions: str) -> int:
    # Without expressions it is the checksum of version 1 of the schema.
    return _checksum(fixed if user_expressions == "{}" else (*fixed, user_expressions))


def _checksum(fixed: Sequence[Any]) -> int:
    """Return the checksum of a row's immutable values."""
    return checksum(pack(list(fixed)))
