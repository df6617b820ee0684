"""Garbage collection of the interned ids (see `names`) that no row refers to, in small steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from runtimed.storage.database import Database

__all__ = ["UnusedNames"]

_PAGE: Final = 1000
"""Number of referring rows read in one step."""

_NAMES: Final = 100
"""Number of names checked in one step."""

_IS_USED: Final = """SELECT EXISTS (SELECT 1 FROM events WHERE execution = ?1)
    OR EXISTS (SELECT 1 FROM events WHERE host = ?1)
    OR EXISTS (SELECT 1 FROM deleted_executions WHERE execution = ?1)
    OR EXISTS (SELECT 1 FROM deleted_events WHERE host = ?1)"""


class UnusedNames:
    """One pass through all names; the database may be used between its steps.

    Every cell that an event names is also named by an execution or by an entry of the audit log. So no index of the
    events by cell is needed to tell whether a cell's name is in use.
    """

    def __init__(self, database: Database, forget: Callable[[], None]) -> None:
        """Begin a pass.

        Args:
            database: The session's database.
            forget: Called after names were deleted, to clear the caches of their numbers.
        """
        self._db = database
        self._forget = forget
        self._numbers: set[int] = set()
        self._cells: set[str] = set()
        self._audit = self._execution = self._name = 0
        # Names that are added meanwhile are left to the next pass, so that this one ends.
        (self._last,) = database.row("SELECT coalesce(max(id), 0) FROM names")

    def step(self) -> bool:
        """Do one step of about a millisecond, inside a transaction.

        Returns:
            Whether there are steps left.
        """
        if self._read_audit() or self._read_executions():
            return True
        page = self._db.rows(
            "SELECT id, name FROM names WHERE id > ? AND id <= ? ORDER BY id LIMIT ?", (self._name, self._last, _NAMES)
        )
        unused = [
            number
            for number, name in page
            if number not in self._numbers and name not in self._cells and not self._db.row(_IS_USED, (number,))[0]
        ]
        for number in unused:
            self._db.execute("DELETE FROM names WHERE id = ?", (number,))
        if unused:
            self._forget()
        if page:
            self._name = page[-1][0]
        return bool(page)

    def _read_audit(self) -> bool:
        """Collect the names in the next entries of the audit log; return whether there may be more entries.

        Called in each step, because entries that were added meanwhile refer to names, too.
        """
        query = "SELECT id, cell, execution FROM audit WHERE id > ? ORDER BY id LIMIT ?"
        rows = self._db.rows(query, (self._audit, _PAGE))
        self._numbers.update(number for _id, *numbers in rows for number in numbers if number is not None)
        if rows:
            self._audit = rows[-1][0]
        return len(rows) == _PAGE

    def _read_executions(self) -> bool:
        query = "SELECT sequence, cell_id FROM executions WHERE sequence > ? ORDER BY sequence LIMIT ?"
        rows = self._db.rows(query, (self._execution, _PAGE))
        self._cells.update(cell_id for _sequence, cell_id in rows)
        if rows:
            self._execution = rows[-1][0]
        return len(rows) == _PAGE
