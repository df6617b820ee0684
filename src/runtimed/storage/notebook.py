"""A session's notebook as tables: rows for reading, the document, and the pending edits between them.

One transaction applies an edit to the rows and queues it as a pending delta; then it is acknowledged. A worker process
writes pending deltas into the document later. The rows hold the current content, the document its history as well.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from runtimed.document.cells import CellRecord, Place
from runtimed.document.contents import CellRow, decode_cell, row_of
from runtimed.document.deltas import (
    CellAdded,
    CellDeleted,
    CellMoved,
    Delta,
    EntrySet,
    encode_delta,
)
from runtimed.document.describing import describe
from runtimed.document.stored import PendingEdit, StoredRow
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId
from runtimed.storage.database import Database
from runtimed.storage.history import UPGRADE as HISTORY
from runtimed.storage.history import EditRow, HistoryTable, entry_checksum, pending_edit
from runtimed.storage.rows import checked, checksum, checksum_of, damaged_row, is_intact

__all__ = ["SCHEMA", "UPGRADE", "NotebookTables"]

_READY: Final = "cells"
_REBUILD: Final = "anew"

UPGRADE: Final = (
    "CREATE TABLE cells(cell_id TEXT NOT NULL UNIQUE, position TEXT NOT NULL, checksum INTEGER NOT NULL,"
    " data BLOB NOT NULL)",
    "CREATE UNIQUE INDEX cells_in_order ON cells(position, cell_id)",
    "CREATE TABLE metadata(key TEXT PRIMARY KEY, checksum INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE TABLE pending(id INTEGER PRIMARY KEY AUTOINCREMENT, author TEXT NOT NULL, checksum INTEGER NOT NULL,"
    " delta BLOB NOT NULL)",
)
"""Upgrades schema version 1 to version 2. The rows of an old notebook are filled from its document later."""

SCHEMA: Final = (
    "CREATE TABLE snapshot(id INTEGER PRIMARY KEY CHECK (id = 1), checksum INTEGER NOT NULL, data BLOB NOT NULL)",
    """CREATE TABLE changes(
        id INTEGER PRIMARY KEY AUTOINCREMENT, author TEXT NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL)""",
    """CREATE TABLE set_aside(
        id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, author TEXT, checksum INTEGER NOT NULL,
        data BLOB NOT NULL)""",
    *UPGRADE,
    *HISTORY,
    # The rows of a new notebook are complete: it has no cells.
    "INSERT INTO counters VALUES ('cells', 1)",
)


class NotebookTables:
    """The tables of a notebook. Implements `Cells`, so edits are decided on the rows.

    Attributes:
        history: The edits that are kept, for reading.
        on_damage: Called with the reason when a row is found damaged, before the error is raised.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self.history = HistoryTable(database)
        self.on_damage: Callable[[str], None] = lambda _reason: None

    # Content

    @property
    def is_ready(self) -> bool:
        """Whether the rows hold the notebook's content; otherwise they must be read from the document."""
        return self._counter(_READY) > 0

    def cell(self, cell_id: CellId) -> CellRecord | None:
        """Return a cell, None if there is none of this id.

        Raises:
            StorageError: If its row is damaged.
        """
        if not _is_text(cell_id):
            return None
        row = self._db.row("SELECT cell_id, checksum, data FROM cells WHERE cell_id = ?", (cell_id,))
        return None if row is None else self._record(row)

    def cells(self, start: int = 0) -> Iterator[CellRecord]:
        """Yield the cells from an index on, in order; each query reads a page.

        Raises:
            StorageError: As `cell`.
        """
        query = "SELECT cell_id, checksum, data FROM cells ORDER BY position, cell_id LIMIT ? OFFSET ?"
        size = 8
        while page := self._db.rows(query, (size, start)):
            yield from map(self._record, page)
            start += len(page)
            size = min(2 * size, 512)

    def cell_rows(self) -> list[CellRow]:
        """Return the rows of all cells, in order, unverified."""
        query = "SELECT cell_id, position, checksum, data FROM cells ORDER BY position, cell_id"
        return [CellRow(*row) for row in self._db.rows(query)]

    def codes(self, containing: str) -> list[str]:
        """Return the sources of the code cells whose rows contain a text, in order.

        Raises:
            StorageError: As `cell`.
        """
        query = "SELECT cell_id, checksum, data FROM cells WHERE instr(data, ?) ORDER BY position, cell_id"
        found = map(self._record, self._db.rows(query, (containing.encode(),)))
        return [cell.source for cell in found if cell.cell_type == "code"]

    def has_source(self, source: str) -> bool:
        """Whether a cell has exactly this source.

        Raises:
            StorageError: As `cell`.
        """
        query = "SELECT cell_id, checksum, data FROM cells WHERE instr(data, ?)"
        with contextlib.closing(self._db.each(query, (source.encode(),))) as rows:
            return any(self._record(row).source == source for row in rows)

    def cell_ids(self, prefix: str = "") -> list[CellId]:
        """Return the ids of all cells that begin with a prefix, in order."""
        return [cell_id for _, cell_id in self.places() if cell_id.startswith(prefix)]

    def metadata(self, key: str) -> str | None:
        """Return a value of the notebook's metadata, None if the key is not set.

        Raises:
            StorageError: If its row is damaged.
        """
        if not _is_text(key):
            return None
        row = self._db.row("SELECT key, checksum, value FROM metadata WHERE key = ?", (key,))
        return None if row is None else self._entry(row)[1]

    def all_metadata(self) -> dict[str, str]:
        """Return the notebook's metadata.

        Raises:
            StorageError: As `metadata`.
        """
        return dict(map(self._entry, self._db.rows("SELECT key, checksum, value FROM metadata")))

    def count(self) -> int:
        """See `Cells`."""
        return int(self._db.row("SELECT count(*) FROM cells")[0])

    def place_at(self, index: int) -> Place | None:
        """See `Cells`."""
        if index == -1:
            return self._place("SELECT position, cell_id FROM cells ORDER BY position DESC, cell_id DESC LIMIT 1")
        return self._place("SELECT position, cell_id FROM cells ORDER BY position, cell_id LIMIT 1 OFFSET ?", index)

    def place_behind(self, place: Place) -> Place | None:
        """See `Cells`."""
        query = (
            "SELECT position, cell_id FROM cells WHERE (position, cell_id) > (?, ?) ORDER BY position, cell_id LIMIT 1"
        )
        return self._place(query, *place)

    def places(self) -> list[Place]:
        """See `Cells`."""
        rows = self._db.rows("SELECT position, cell_id FROM cells ORDER BY position, cell_id")
        return [(position, CellId(cell_id)) for position, cell_id in rows]

    def _place(self, query: str, *parameters: object) -> Place | None:
        row = self._db.row(query, parameters)
        return None if row is None else (row[0], CellId(row[1]))

    def _record(self, row: Any) -> CellRecord:
        cell_id, check, data = row
        if is_intact(data, check):
            with contextlib.suppress(msgspec.MsgspecError):  # data and checksum may be damaged alike
                record = decode_cell(data)
                if record.id == cell_id:
                    return record
        raise self._damaged(f"cell {cell_id}")

    def _entry(self, row: Any) -> tuple[str, str]:
        key, check, value = row
        if not isinstance(value, bytes) or check != checksum_of(key, value):
            raise self._damaged(f"entry {key!r} of the notebook's metadata")
        return key, value.decode()

    def _damaged(self, what: str) -> StorageError:
        self.on_damage(f"{what} is damaged: its bytes do not match their checksum")
        return damaged_row(self._db.path, what)

    # Edits

    def apply(self, delta: Delta, author: ClientId, at: float) -> None:
        """Apply an edit to the rows and queue it for the document.

        Args:
            delta: The edit.
            author: Who made it.
            at: When, in Unix time.

        Raises:
            StorageError: If it cannot be stored; nothing was changed.
        """
        with self._db.transaction():
            match delta:
                case CellAdded():
                    self._put(row_of(delta.cell))
                    self._move(delta.moved)
                case CellDeleted():
                    self._db.execute("DELETE FROM cells WHERE cell_id = ?", (delta.cell_id,))
                case CellMoved():
                    self._move(delta.positions)
                case EntrySet(key=key, value=value):
                    if value is None:
                        self._db.execute("DELETE FROM metadata WHERE key = ?", (key,))
                    else:
                        self._put_entry(key, value)
                case _:
                    self._put(row_of(delta.apply(self._present(delta.cell_id))))
            data, (action, detail) = encode_delta(delta), describe(delta)
            entry = EditRow(0, at, author, action, delta.cell_id, detail)
            self._db.execute(
                "INSERT INTO pending(author, checksum, delta, at, action, cell, detail, entry)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (author, checksum(data), data, at, action, delta.cell_id, detail, entry_checksum(entry)),
            )

    def _present(self, cell_id: CellId) -> CellRecord:
        record = self.cell(cell_id)
        if record is None:
            raise StorageError(f"{self._db.path} does not have cell {cell_id!r}, which is to be edited")
        return record

    def _move(self, positions: dict[CellId, str]) -> None:
        for cell_id, position in positions.items():
            self._put(row_of(msgspec.structs.replace(self._present(cell_id), position=position)))

    def _put(self, row: CellRow) -> None:
        self._db.execute(
            """INSERT INTO cells(cell_id, position, checksum, data) VALUES (?, ?, ?, ?)
            ON CONFLICT(cell_id) DO UPDATE SET position = excluded.position, checksum = excluded.checksum,
            data = excluded.data""",
            row,
        )

    def _put_entry(self, key: str, value: str) -> None:
        data = value.encode()
        self._db.execute("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", (key, checksum_of(key, data), data))

    def drop_rows(self) -> None:
        """Delete all rows; the notebook is not ready until `complete_rows`."""
        with self._db.transaction():
            self._db.execute("DELETE FROM counters WHERE name = ?", (_READY,))
            self._db.execute("DELETE FROM cells")
            self._db.execute("DELETE FROM metadata")

    def add_rows(self, cells: Sequence[CellRow]) -> None:
        """Store some of the rows of a notebook that is not ready."""
        with self._db.transaction():
            self._db.execute_many("INSERT INTO cells(cell_id, position, checksum, data) VALUES (?, ?, ?, ?)", cells)

    def complete_rows(self, metadata: Mapping[str, str]) -> None:
        """Store the metadata after the last `add_rows`; the notebook is ready then."""
        with self._db.transaction():
            for key, value in metadata.items():
                self._put_entry(key, value)
            self._set_counter(_READY, 1)

    def delete_damaged_rows(self) -> list[str]:
        """Delete the damaged rows of a notebook whose document cannot replace them; return their names."""
        lost = []
        with self._db.transaction():
            for row in self._db.rows("SELECT cell_id, checksum, data FROM cells"):
                if not _is_whole(self._record, row):
                    self._db.execute("DELETE FROM cells WHERE cell_id = ?", (row[0],))
                    lost.append(f"cell {row[0]}")
            for row in self._db.rows("SELECT key, checksum, value FROM metadata"):
                if not _is_whole(self._entry, row):
                    self._db.execute("DELETE FROM metadata WHERE key = ?", (row[0],))
                    lost.append(f"metadata {row[0]!r}")
            self._set_counter(_READY, 1)
        return lost

    # The document

    def rows(self) -> list[StoredRow]:
        """Return the snapshot, if there is one, and the changes since, in order, unverified."""
        return [
            *_document_rows(self._db.rows("SELECT 'snapshot', NULL, checksum, data FROM snapshot")),
            *_document_rows(self._db.rows("SELECT 'change', id, checksum, data FROM changes ORDER BY id")),
        ]

    def base_rows(self) -> list[StoredRow]:
        """Return the part of the document that the history begins with, as `rows` does; none for an empty notebook."""
        base = self.history.base()
        if base is None:
            return []
        query = "SELECT 'change', id, checksum, data FROM changes WHERE id <= ? ORDER BY id"
        return [
            *_document_rows(self._db.rows("SELECT 'snapshot', NULL, checksum, data FROM snapshot")),
            *_document_rows(self._db.rows(query, (base.changes,))),
        ]

    def pending(self, max_rows: int) -> list[PendingEdit]:
        """Return the oldest edits that the document does not have yet, unverified."""
        query = "SELECT id, author, checksum, delta FROM pending ORDER BY id LIMIT ?"
        return [pending_edit(*row) for row in self._db.rows(query, (max_rows,))]

    @property
    def pending_count(self) -> int:
        """Number of edits that the document does not have yet."""
        return int(self._db.row("SELECT count(*) FROM pending")[0])

    @property
    def first_pending(self) -> float:
        """Number of the oldest edit that the document does not have yet; infinity if it has all."""
        row = self._db.row("SELECT min(id) FROM pending")
        return math.inf if row[0] is None else int(row[0])

    @property
    def last_edit(self) -> int:
        """Number of the latest edit ever made, 0 if there was none."""
        row = self._db.row("SELECT seq FROM sqlite_sequence WHERE name = 'pending'")
        return 0 if row is None else int(row[0])

    @property
    def change_count(self) -> int:
        """Number of changes stored since the snapshot."""
        return int(self._db.row("SELECT count(*) FROM changes")[0])

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a document, nor a row, nor a pending edit."""
        row = self._db.row(
            "SELECT EXISTS (SELECT 1 FROM snapshot) OR EXISTS (SELECT 1 FROM changes) OR EXISTS (SELECT 1 FROM pending)"
            " OR EXISTS (SELECT 1 FROM cells) OR EXISTS (SELECT 1 FROM metadata)"
        )
        return not row[0]

    def put_snapshot(self, snapshot: bytes, upto: int, *, begins_at: float | None) -> None:
        """Store a snapshot in place of the previous one, all changes, and the pending edits up to this number.

        Args:
            snapshot: The document.
            upto: Number of the last edit in it.
            begins_at: The Unix time if the history begins anew with the snapshot; None if the edits become history.
        """
        with self._db.transaction():
            if begins_at is None:
                self.history.keep(upto)
            else:
                self.history.begin(upto, begins_at)
            self._db.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?)", (checksum(snapshot), snapshot))
            self._db.execute("DELETE FROM changes")
            self._db.execute("DELETE FROM pending WHERE id <= ?", (upto,))
            self._db.execute("DELETE FROM counters WHERE name = ?", (_REBUILD,))

    def add_changes(self, changes: Iterable[tuple[ClientId, bytes]], upto: int) -> None:
        """Append changes of the document, each with its author. The pending edits up to this number become history."""
        with self._db.transaction():
            self._db.execute_many(
                "INSERT INTO changes(author, checksum, data) VALUES (?, ?, ?)",
                [(author, checksum(change), change) for author, change in changes],
            )
            self.history.keep(upto)
            self._db.execute("DELETE FROM pending WHERE id <= ?", (upto,))

    # Damage

    @property
    def needs_rebuild(self) -> bool:
        """Whether the document was set aside, and a new one must be built from the rows."""
        return self._counter(_REBUILD) > 0

    def set_aside(self) -> int:
        """Move the snapshot and the changes to the table `set_aside`, unchanged; see `needs_rebuild`.

        Returns:
            Number of rows that were moved.
        """
        now = time.time()
        with self._db.transaction():
            snapshots = self._db.execute(
                """INSERT INTO set_aside(at, kind, author, checksum, data)
                SELECT ?, 'snapshot', NULL, checksum, data FROM snapshot""",
                (now,),
            )
            changes = self._db.execute(
                """INSERT INTO set_aside(at, kind, author, checksum, data)
                SELECT ?, 'change', author, checksum, data FROM changes ORDER BY id""",
                (now,),
            )
            self._db.execute("DELETE FROM snapshot")
            self._db.execute("DELETE FROM changes")
            self._set_counter(_REBUILD, 1)
        return snapshots.rowcount + changes.rowcount

    def set_aside_at(self) -> list[float]:
        """Return when documents were set aside that are still there, the earliest first, in Unix time."""
        return [at for (at,) in self._db.rows("SELECT DISTINCT at FROM set_aside ORDER BY at")]

    def rows_set_aside(self, at: float) -> list[StoredRow]:
        """Return the rows of the document that was set aside at that time, as `rows` does."""
        query = "SELECT kind, id, checksum, data FROM set_aside WHERE at = ? ORDER BY id"
        return _document_rows(self._db.rows(query, (at,)))

    def forget_set_aside(self, at: float) -> None:
        """Delete the document that was set aside at that time, in the transaction that restores it."""
        self._db.execute("DELETE FROM set_aside WHERE at = ?", (at,))

    def _counter(self, name: str) -> int:
        row = self._db.row("SELECT value FROM counters WHERE name = ?", (name,))
        # A value that is not a number is damaged and counts as 0: the rows are read from the document again.
        return row[0] if row is not None and isinstance(row[0], int) else 0

    def _set_counter(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))


def _is_text(value: str) -> bool:
    """Whether a text is valid Unicode; no other id or key is ever stored."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_whole(read: Callable[[Any], object], row: Any) -> bool:
    try:
        read(row)
    except StorageError:
        return False
    return True


def _document_rows(rows: Sequence[Any]) -> list[StoredRow]:
    found: list[StoredRow] = []
    for kind, number, check, data in rows:
        name = kind if kind == "snapshot" else f"{kind} {number}"
        found.append(StoredRow(kind, name, *checked(check, data)))
    return found
