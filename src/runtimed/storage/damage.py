"""Distinguishes a damaged database from one that is temporarily unreadable. Nothing here moves or changes a file.

SQLite 3.40 reports SQLITE_CORRUPT for a page that the disk failed to deliver (EIO), and `quick_check` reports pages for
which memory ran out. So damage counts as proved only if SQLite finds it twice and every byte of the files is readable.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable
from typing import Final

__all__ = ["finds_damage", "is_damage", "primary_code", "read_throughout"]

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNREAD: Final = re.compile(r"failed to get page|error code=(\d+)")
"""The message of `quick_check` about a page that it could not read, with the error code if there is one."""

_PIECE: Final = 2**20


def primary_code(exc: BaseException) -> int:
    """Return SQLite's primary result code; 0 for an error that is not SQLite's."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF


def is_damage(exc: BaseException) -> bool:
    """Whether SQLite reports the file as damaged."""
    return primary_code(exc) in _DAMAGE


def finds_damage(connection: sqlite3.Connection) -> bool:
    """Check a database again; True if SQLite finds damage, not just pages that it cannot read."""
    try:
        # Cached pages would not be read again.
        connection.execute("PRAGMA shrink_memory").fetchall()
        return any(_names_damage(line) for (text,) in connection.execute("PRAGMA quick_check") for line in _lines(text))
    except UnicodeDecodeError:  # the message quotes a damaged schema
        return True
    except (sqlite3.Error, MemoryError) as exc:
        return is_damage(exc)


def read_throughout(descriptors: Iterable[int]) -> None:
    """Read every byte of these files.

    Raises:
        OSError: If one cannot be read.
    """
    for descriptor in descriptors:
        offset = 0
        while piece := os.pread(descriptor, _PIECE, offset):
            offset += len(piece)


def _lines(text: str) -> list[str]:
    # The header "*** in database main ***", then a line for each problem; "ok" if there is none.
    return [line for line in text.splitlines() if line != "ok" and not line.startswith("***")]


def _names_damage(line: str) -> bool:
    unread = _UNREAD.search(line)
    return unread is None or (unread[1] is not None and int(unread[1]) & 0xFF in _DAMAGE)
