"""The history of a notebook: its edits since the history begins, each with its author, time and delta.

A pending edit becomes history when a worker has written it into the document. The Automerge document cannot answer who
did what and when: automerge 0.2.0.dev4 writes no time into a change, and a source that loses much text becomes a new
text, which has the author of that edit. Deltas say exactly what each edit did, and are read without loading a document.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, get_args

from runtimed.document.stored import PendingEdit
from runtimed.ids import CellId, ClientId
from runtimed.models import EditAction
from runtimed.protocol.codec import pack
from runtimed.storage.database import Database
from runtimed.storage.rows import checked, checksum

__all__ = ["UPGRADE", "EditRow", "HistoryBase", "HistoryTable", "entry_checksum", "pending_edit"]

logger = logging.getLogger(__name__)

_ENTRY: Final = "at REAL", "action TEXT", "cell TEXT", "detail TEXT", "entry INTEGER"
"""Columns of an edit that describe it; `entry` is their checksum. An edit of an earlier release has none of them."""

UPGRADE: Final = (
    *(f"ALTER TABLE pending ADD COLUMN {column}" for column in _ENTRY),
    "CREATE TABLE history(id INTEGER PRIMARY KEY, author TEXT NOT NULL, checksum INTEGER NOT NULL, delta BLOB NOT NULL,"
    f" {', '.join(_ENTRY)})",
    "CREATE TABLE history_base(id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, at REAL NOT NULL,"
    " changes INTEGER NOT NULL)",
    # The document of an earlier release is what the history begins with.
    """INSERT INTO history_base SELECT 1,
        coalesce((SELECT min(id) - 1 FROM pending), (SELECT seq FROM sqlite_sequence WHERE name = 'pending'), 0),
        (julianday('now') - 2440587.5) * 86400, coalesce((SELECT max(id) FROM changes), 0)
    WHERE EXISTS (SELECT 1 FROM snapshot) OR EXISTS (SELECT 1 FROM changes)""",
)
"""Upgrades schema version 2 to version 3."""

_ACTIONS: Final = frozenset(get_args(EditAction))


class EditRow(NamedTuple):
    """What the history says about an edit.

    Attributes:
        number: Number of the edit in the notebook.
        at: Unix time in seconds.
        author: The client.
        action: See `NotebookEdit.action`.
        cell_id: The cell; None for the notebook's metadata.
        detail: See `NotebookEdit.detail`.
    """

    number: int
    at: float
    author: ClientId
    action: EditAction
    cell_id: CellId | None
    detail: str | None


class HistoryBase(NamedTuple):
    """What the history begins with, if not with an empty notebook.

    Attributes:
        number: Number of the last edit that is not in the history any more.
        at: Unix time at which the history was dropped.
        changes: Number of the last stored change that belongs to the base; the snapshot always does.
    """

    number: int
    at: float
    changes: int


class HistoryTable:
    """The tables of a notebook's history."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def base(self) -> HistoryBase | None:
        """Return what the history begins with, None for an empty notebook."""
        row = self._db.row("SELECT number, at, changes FROM history_base")
        return None if row is None else HistoryBase(*row)

    def keep(self, upto: int) -> None:
        """Move the pending edits up to this number to the history."""
        self._db.execute("INSERT INTO history SELECT * FROM pending WHERE id <= ?", (upto,))

    def begin(self, number: int, at: float) -> None:
        """Drop the history up to an edit: it begins with the snapshot that holds this edit, and no change."""
        self._db.execute("DELETE FROM history WHERE id <= ?", (number,))
        self._db.execute("INSERT OR REPLACE INTO history_base VALUES (1, ?, ?, 0)", (number, at))

    def page(self, before: int, count: int, cell_id: str | None = None) -> tuple[list[EditRow], int | None]:
        """Return the edits below a number, newest first, and the number below which the next page begins.

        Executions are left out, and so are damaged rows, which are logged.

        Args:
            before: Return edits with lower numbers.
            count: Most edits to look at.
            cell_id: Only edits of this cell; None for all.
        """
        found: list[Any] = []
        for table in ("pending", "history"):
            found += self._db.rows(
                f"SELECT id, at, author, action, cell, detail, entry FROM {table}"  # noqa: S608  # of constants
                " WHERE id < ? AND action <> 'cell_executed' AND (?2 IS NULL OR cell = ?2) ORDER BY id DESC LIMIT ?3",
                (before, cell_id, count - len(found)),
            )
        return list(filter(None, map(self._row, found))), found[-1][0] if len(found) == count else None

    def _row(self, row: Sequence[Any]) -> EditRow | None:
        *values, check = row
        edit = EditRow(*values)
        if edit.action in _ACTIONS and check == entry_checksum(edit):
            return edit
        where = self._db.about, self._db.path
        logger.error("%s%s: edit %s of the history is damaged and left out", *where, edit.number)
        return None

    def deltas(self, after: int, upto: int, max_rows: int, cell_id: str | None = None) -> list[PendingEdit]:
        """Return edits as they were made, in order, unverified.

        Args:
            after: Return edits with higher numbers.
            upto: The highest number to return.
            max_rows: Most edits to return.
            cell_id: Only edits of this cell, and those of an earlier release, which name none; None for all.
        """
        found: list[Any] = []
        for table in ("history", "pending"):
            found += self._db.rows(
                f"SELECT id, author, checksum, delta FROM {table} WHERE id > ? AND id <= ?"  # noqa: S608  # likewise
                " AND (?3 IS NULL OR cell = ?3 OR action IS NULL) ORDER BY id LIMIT ?4",
                (after, upto, cell_id, max_rows - len(found)),
            )
        return [pending_edit(*row) for row in found]


def pending_edit(number: int, author: object, check: object, delta: object) -> PendingEdit:
    """Return the edit in a row, unverified."""
    return PendingEdit(number, ClientId(author if isinstance(author, str) else ""), *checked(check, delta))


def entry_checksum(edit: EditRow) -> int:
    """Return the checksum of what the history says about an edit, without its number."""
    return checksum(pack(list(edit[1:])))
