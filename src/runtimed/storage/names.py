"""Interns the ids of one session as integers, since an id of 40 bytes would dominate a small row and its indexes."""

from __future__ import annotations

from typing import Final

from runtimed.storage.database import Database

__all__ = ["SCHEMA", "NameTable"]

SCHEMA: Final = ("CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",)

_MAX_NAMES: Final = 10_000
"""Capacity of the cache of ids. A full cache is cleared."""


class NameTable:
    """The table of interned ids, shared by the tables that refer to them."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._numbers: dict[str, int] = {}

    def forget(self) -> None:
        """Clear the caches, which a rollback may have invalidated."""
        self._numbers.clear()

    def known(self, name: str) -> int:
        """Return the number of an id, -1 if it is not interned."""
        number = self._numbers.get(name)
        if number is None:
            row = self._db.row("SELECT id FROM names WHERE name = ?", (name,))
            if row is None:
                return -1
            number = int(row[0])
            if len(self._numbers) >= _MAX_NAMES:
                self._numbers.clear()
            self._numbers[name] = number
        return number

    def number(self, name: str) -> int:
        """Return the number of an id, interning a new one."""
        number = self._numbers.get(name)
        if number is None:
            self._db.execute("INSERT INTO names(name) VALUES (?) ON CONFLICT(name) DO NOTHING", (name,))
            number = self.known(name)
        return number
