"""The audit log of a session: who did what, and when. It holds ids and kinds, never a source, an output or a value.

An entry is committed with the change that it describes. A request to a kernel changes no row, so its entry is committed
just before the request is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from runtimed.ids import CellId, ClientId, ExecutionId
from runtimed.models import AuditAction
from runtimed.protocol.codec import pack
from runtimed.storage.database import Database
from runtimed.storage.names import NameTable
from runtimed.storage.rows import checksum

__all__ = ["MERGED_WITHIN", "SCHEMA", "Actor", "AuditRow", "AuditTable"]

logger = logging.getLogger(__name__)

MERGED_WITHIN: Final = 60.0
"""Seconds from the first edit within which a client's edits of one kind to one cell are merged into one entry."""

_MAX_OPEN: Final = 1000
"""Capacity of the caches of entries and of clients. A full cache is cleared, which costs another entry or a query."""

_MAX_LAST_EDITS: Final = 10_000
"""Capacity of the cache of last edits, which takes about 2 MiB; it is cleared likewise."""

_PAGE: Final = 500
"""Number of entries in one query."""

_EDITS: Final[frozenset[AuditAction]] = frozenset(
    {
        "cell_added",
        "cell_edited",
        "cell_moved",
        "cell_deleted",
        "cell_metadata_set",
        "cell_type_set",
        "outputs_cleared",
        "metadata_set",
    }
)

SCHEMA: Final = (
    """CREATE TABLE clients(
        id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, label TEXT, uid INTEGER NOT NULL, pid INTEGER,
        checksum INTEGER NOT NULL)""",
    "CREATE INDEX clients_by_id ON clients(client_id)",
    """CREATE TABLE audit(
        id INTEGER PRIMARY KEY, at REAL NOT NULL, until REAL NOT NULL, action TEXT NOT NULL, count INTEGER NOT NULL,
        client INTEGER, cell INTEGER, execution INTEGER, detail TEXT, checksum INTEGER NOT NULL)""",
    # An entry with a cell and without an execution is an edit of the cell. The index implicitly ends in the row's id.
    "CREATE INDEX audit_edits ON audit(cell) WHERE cell IS NOT NULL AND execution IS NULL",
)

_NEWEST_FIRST: Final = """SELECT a.id, a.at, a.until, a.action, a.count, a.client, c.name, e.name, a.detail, a.checksum
    FROM audit a LEFT JOIN names c ON c.id = a.cell LEFT JOIN names e ON e.id = a.execution
    WHERE a.id < ? ORDER BY a.id DESC LIMIT ?"""

_CHUNK: Final = 100
"""Number of cells in one query for last edits."""

_LAST_EDITS: Final = (
    """SELECT a.id, a.at, a.until, a.action, a.count, a.client, c.name, NULL, a.detail, a.checksum
    FROM names c JOIN audit a ON a.id = (
        SELECT max(id) FROM audit WHERE cell = c.id AND cell IS NOT NULL AND execution IS NULL)
    WHERE c.name IN ("""  # noqa: S608  # of constants
    + ", ".join(_CHUNK * "?")
    + ")"
)

_PRUNE: Final = """DELETE FROM audit WHERE until < ? AND id NOT IN (
    SELECT id FROM (
        SELECT max(id) AS id, action FROM audit WHERE cell IS NOT NULL AND execution IS NULL GROUP BY cell
    ) WHERE action <> 'cell_deleted')"""


@dataclass(frozen=True, slots=True)
class Actor:
    """A client: its id and label from its greeting, its user and process from the operating system.

    Attributes:
        client_id: Its own id, the same after it reconnects.
        label: Its name for people; None if it has none.
        uid: Its user id.
        pid: Its process id; None if the daemon cannot see the process.
    """

    client_id: ClientId
    label: str | None
    uid: int
    pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One entry. Times are Unix times in seconds.

    Attributes:
        at: Time of the first of the merged actions.
        until: Time of the last one.
        actor: Who did it; None for the daemon itself.
        count: Number of merged actions.
        detail: See `AuditEntry.detail`.
    """

    at: float
    until: float
    action: AuditAction
    actor: Actor | None = None
    cell_id: CellId | None = None
    execution_id: ExecutionId | None = None
    count: int = 1
    detail: str | None = None


class AuditTable:
    """The audit table; `SessionStore` documents its methods."""

    def __init__(self, database: Database, names: NameTable) -> None:
        self._db = database
        self._names = names
        self._numbers: dict[Actor, int] = {}
        self._open: dict[str | None, tuple[int, AuditRow]] = {}
        self._known: dict[int, Actor] = {}
        self._last_edits: dict[str, tuple[Actor, float]] = {}

    def forget(self) -> None:
        """Clear the caches, which a rollback may have invalidated."""
        self._numbers.clear()
        self._open.clear()
        self._known.clear()
        self._last_edits.clear()

    def note(self, row: AuditRow) -> None:
        """See `SessionStore.note`."""
        is_edit = row.action in _EDITS
        known = self._open.get(row.cell_id) if is_edit else None
        if known is not None and _goes_on(known[1], row):
            number, written = known
            row = replace(written, until=row.until, count=written.count + 1)
            query = "UPDATE audit SET until = ?, count = ?, checksum = ? WHERE id = ?"
            self._db.execute(query, (row.until, row.count, _row_checksum(row), number))
        else:
            number = self._insert(row)
        if is_edit:
            if len(self._open) >= _MAX_OPEN:
                self._open.clear()
            self._open[row.cell_id] = number, row
            if row.cell_id is not None:
                self._last_edits.pop(row.cell_id, None)

    def _insert(self, row: AuditRow) -> int:
        cursor = self._db.execute(
            """INSERT INTO audit(at, until, action, count, client, cell, execution, detail, checksum)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                row.at,
                row.until,
                row.action,
                row.count,
                None if row.actor is None else self._number_of(row.actor),
                None if row.cell_id is None else self._names.number(row.cell_id),
                None if row.execution_id is None else self._names.number(row.execution_id),
                row.detail,
                _row_checksum(row),
            ),
        )
        return int(cursor.lastrowid or 0)

    def rows(self) -> Generator[AuditRow, None, None]:
        """See `SessionStore.audit`."""
        actors, before = self._actors(), 2**63 - 1
        # By pages, since an unfinished statement would keep the WAL from being reset.
        while page := self._db.rows(_NEWEST_FIRST, (before, _PAGE)):
            for row in page:
                found = self._row(row, actors)
                if found is not None:
                    yield found
            before = page[-1][0]

    def last_edits(self, cell_ids: Sequence[str]) -> dict[str, tuple[Actor, float]]:
        """See `SessionStore.last_edits`."""
        found = {cell_id: self._last_edits[cell_id] for cell_id in cell_ids if cell_id in self._last_edits}
        unknown = [cell_id for cell_id in cell_ids if cell_id not in found]
        if len(self._last_edits) + len(unknown) > _MAX_LAST_EDITS:
            self._last_edits.clear()
        for start in range(0, len(unknown), _CHUNK):
            chunk = unknown[start : start + _CHUNK]
            for values in self._db.rows(_LAST_EDITS, [*chunk, *(_CHUNK - len(chunk)) * [None]]):
                if values[5] not in self._known:
                    self._known = self._actors()
                _number, _at, until, action, _count, client, cell_id, *_rest = values
                actor = self._known.get(client)
                if actor is not None and action != "cell_deleted" and self._is_intact(values, actor):
                    self._last_edits[cell_id] = found[cell_id] = actor, until
        return found

    def actor(self, client_id: str) -> Actor | None:
        """See `SessionStore.actor`."""
        query = "SELECT * FROM clients WHERE client_id = ? ORDER BY id DESC"
        found = (self._actor(row) for row in self._db.rows(query, (client_id,)))
        return next((actor for actor in found if actor is not None), None)

    def prune(self, before: float) -> int:
        """See `SessionStore.prune_audit`."""
        with self._db.transaction():
            cursor = self._db.execute(_PRUNE, (before,))
            self._db.execute("DELETE FROM clients WHERE id NOT IN (SELECT client FROM audit WHERE client IS NOT NULL)")
            self.forget()
        return cursor.rowcount

    def _number_of(self, actor: Actor) -> int:
        number = self._numbers.get(actor)
        if number is None:
            values = (actor.client_id, actor.label, actor.uid, actor.pid)
            query = "SELECT id FROM clients WHERE client_id = ? AND label IS ? AND uid = ? AND pid IS ?"
            row = self._db.row(query, values)
            if row is None:
                query = "INSERT INTO clients(client_id, label, uid, pid, checksum) VALUES (?, ?, ?, ?, ?)"
                number = int(self._db.execute(query, (*values, checksum(pack(list(values))))).lastrowid or 0)
            else:
                number = int(row[0])
            if len(self._numbers) >= _MAX_OPEN:
                self._numbers.clear()
            self._numbers[actor] = number
        return number

    def _actors(self) -> dict[int, Actor]:
        found = ((int(row[0]), self._actor(row)) for row in self._db.rows("SELECT * FROM clients"))
        return {number: actor for number, actor in found if actor is not None}

    def _actor(self, row: Sequence[Any]) -> Actor | None:
        number, *values, check = row
        if check != checksum(pack(values)):
            where = self._db.about, self._db.path
            logger.error("%s%s: the row of client %s is damaged and left out", *where, number)
            return None
        return Actor(*values)

    def _row(self, row: Sequence[Any], actors: dict[int, Actor]) -> AuditRow | None:
        _number, at, until, action, count, client, cell_id, execution_id, detail, _check = row
        actor = actors.get(client)
        if not self._is_intact(row, actor):
            return None
        return AuditRow(
            at=at,
            until=until,
            action=action,
            actor=actor,
            cell_id=cell_id,
            execution_id=execution_id,
            count=count,
            detail=detail,
        )

    def _is_intact(self, row: Sequence[Any], actor: Actor | None) -> bool:
        number, at, until, action, count, _client, cell_id, execution_id, detail, check = row
        if check == _checksum(at, until, action, count, actor, cell_id, execution_id, detail):
            return True
        where = self._db.about, self._db.path
        logger.error("%s%s: entry %s of the audit log is damaged and left out", *where, number)
        return False


def _row_checksum(row: AuditRow) -> int:
    return _checksum(row.at, row.until, row.action, row.count, row.actor, row.cell_id, row.execution_id, row.detail)


def _checksum(at: float, until: float, action: str, count: int, actor: Actor | None, *texts: str | None) -> int:
    # Over the names themselves, not their numbers, to detect a damaged name or client as well.
    client_id = None if actor is None else actor.client_id
    return checksum(pack([float(at), float(until), action, count, client_id, *texts]))


def _goes_on(written: AuditRow, row: AuditRow) -> bool:
    """Whether an edit is merged into the latest entry of its cell."""
    same = written.action == row.action and written.actor == row.actor and written.detail == row.detail
    return same and 0 <= row.at - written.at < MERGED_WITHIN
