"""Deletes the unreferenced ids in the table of names, a little at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from runtimed.storage.database import Database

__all__ = ["UnusedNames"]

_PAGE: Final = 1000
"""Rows that are read at a time to see which names they use."""

_NAMES: Final = 100
"""Names that are looked at at a time."""

_IS_USED: Final = """SELECT EXISTS (SELECT 1 FROM events WHERE execution = ?1)
    OR EXISTS (SELECT 1 FROM events WHERE host = ?1)
    OR EXISTS (SELECT 1 FROM deleted_executions WHERE execution = ?1)
    OR EXISTS (SELECT 1 FROM deleted_events WHERE host = ?1)"""


class UnusedNames:
    """One walk through all names; the database may be used between two steps of it.

    An event's cell is that of its execution, or was edited when the log of edits says so; so no index of the events by
    their cells is needed to tell whether a cell's name is used.
    """

    def __init__(self, database: Database, forget: Callable[[], None]) -> None:
        """Begin a walk.

        Args:
            database: The session's.
            forget: Called after names were deleted, to clear caches keyed by their numbers.
        """
        self._db = database
        self._forget = forget
        self._numbers: set[int] = set()
        self._cells: set[str] = set()
        self._audit = self._execution = self._name = 0
        # Of what is new meanwhile there may always be more.
        (self._last,) = database.row("SELECT coalesce(max(id), 0) FROM names")

    def step(self) -> bool:
        """Walk on for about a millisecond, inside a transaction.

        Returns:
            Whether the walk goes on.
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
        """Read which names the next entries of the log of edits use; return whether there may be more of them.

        Called in each step, as the names that are kept must be those of this moment.
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
