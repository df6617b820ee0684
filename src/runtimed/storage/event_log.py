"""The events of one session as one log: numbered once and for good, each host's event stored once."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Final

from runtimed.ids import HostEpoch
from runtimed.protocol.codec import encode_event
from runtimed.protocol.events import Failed
from runtimed.storage.database import Database
from runtimed.storage.rows import checksum, damaged_row, is_intact

__all__ = ["SCHEMA", "EventLog"]

logger = logging.getLogger(__name__)

_MAX_SEQ: Final = 2**63 - 1
_MAX_NAMES: Final = 10_000
"""So many ids keep their number in memory; then they are forgotten, all at once, and looked up again."""

SCHEMA: Final = (
    # Ids of 40 bytes would be most of a small event, three times over with its indexes.
    "CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE events(
        seq INTEGER PRIMARY KEY, execution INTEGER, cell INTEGER, host INTEGER, n INTEGER, checksum INTEGER NOT NULL,
        body BLOB NOT NULL)""",
    # An index on the execution ends in seq: the row's own number.
    "CREATE INDEX events_by_execution ON events(execution) WHERE execution IS NOT NULL",
    "CREATE UNIQUE INDEX events_by_host ON events(host, n) WHERE host IS NOT NULL",
    # Whoever deletes events leaves the highest numbers behind, so that none is given or accepted twice.
    "CREATE TABLE deleted_events(host INTEGER PRIMARY KEY, n INTEGER NOT NULL, seq INTEGER NOT NULL)",
    """CREATE TRIGGER keep_numbers BEFORE DELETE ON events BEGIN
        INSERT INTO deleted_events VALUES (coalesce(OLD.host, 0), coalesce(OLD.n, 0), OLD.seq)
        ON CONFLICT(host) DO UPDATE SET n = max(n, excluded.n), seq = max(seq, excluded.seq); END""",
)


class EventLog:
    """The log; `SessionStore` has its methods."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._last: int | None = None
        self._names: dict[str, int] = {}
        self._hosts: dict[str, int] = {}

    def forget(self) -> None:
        """Drop what is held in memory: a rollback may have made it untrue."""
        self._last = None
        self._names.clear()
        self._hosts.clear()

    @property
    def last_seq(self) -> int:
        """See `SessionStore.last_seq`."""
        if self._last is None:
            (self._last,) = self._db.row(
                "SELECT max(coalesce((SELECT max(seq) FROM events), 0),"
                " coalesce((SELECT max(seq) FROM deleted_events), 0))"
            )
        return self._last

    def append(
        self, body: bytes, execution_id: str | None, cell_id: str | None, host: tuple[HostEpoch, int] | None
    ) -> int | None:
        """See `SessionStore.append_event`."""
        host_name = number = None
        if host is not None:
            epoch, number = host
            if number <= self.last_of_host(epoch) and self._has(epoch, number):
                return None
            host_name = self._name(epoch)
        seq = self.last_seq + 1
        self._db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                seq,
                None if execution_id is None else self._name(execution_id),
                None if cell_id is None else self._name(cell_id),
                host_name,
                number,
                checksum(body),
                body,
            ),
        )
        self._last = seq
        if number is not None and number > self._hosts[epoch]:
            self._hosts[epoch] = number
        return seq

    def last_of_host(self, epoch: str) -> int:
        """See `SessionStore.last_event_of_host`."""
        last = self._hosts.get(epoch)
        if last is None:
            host = self._known(epoch)
            (last,) = self._db.row(
                "SELECT max(coalesce((SELECT max(n) FROM events WHERE host = ?1), 0),"
                " coalesce((SELECT n FROM deleted_events WHERE host = ?1), 0))",
                (host,),
            )
            self._hosts[epoch] = last
        return last

    def read(
        self, after: int, execution_id: str | None, upto: int | None, max_bytes: int, max_rows: int
    ) -> list[tuple[int, bytes]]:
        """See `SessionStore.read_events`."""
        last = _MAX_SEQ if upto is None else upto
        if execution_id is None:
            query = "SELECT seq, checksum, body FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
            rows = self._db.each(query, (after, last, max_rows))
        else:
            query = """SELECT seq, checksum, body FROM events WHERE execution = ? AND seq > ? AND seq <= ?
                ORDER BY seq LIMIT ?"""
            rows = self._db.each(query, (self._known(execution_id), after, last, max_rows))
        found: list[tuple[int, bytes]] = []
        size = 0
        with closing(rows):
            for seq, check, body in rows:
                event = body if is_intact(body, check) else self._say_damaged(seq, execution_id)
                size += len(event)
                if found and size > max_bytes:
                    break
                found.append((seq, event))
        return found

    def _say_damaged(self, seq: int, execution_id: str | None) -> bytes:
        """Return an event to be shown in the place of a damaged one, so that the others can be read."""
        error = damaged_row(self._db.path, f"event {seq}")
        logger.error("%s", error.message)
        event = Failed(
            at=0.0,
            execution_id=execution_id,
            ename=type(error).__name__,
            evalue=error.message,
            traceback=(f"{type(error).__name__}: {error.message}",),
        )
        return encode_event(event)

    def count(self, execution_id: str) -> int:
        """See `SessionStore.count_events`."""
        (count,) = self._db.row("SELECT count(*) FROM events WHERE execution = ?", (self._known(execution_id),))
        return int(count)

    def first_seq(self, execution_id: str) -> int | None:
        """See `SessionStore.first_seq_of_execution`."""
        (seq,) = self._db.row("SELECT min(seq) FROM events WHERE execution = ?", (self._known(execution_id),))
        return None if seq is None else int(seq)

    def _has(self, epoch: str, number: int) -> bool:
        query = """SELECT 1 FROM events WHERE host = ?1 AND n = ?2
            UNION ALL SELECT 1 FROM deleted_events WHERE host = ?1 AND n >= ?2"""
        return self._db.row(query, (self._known(epoch), number)) is not None

    def _known(self, name: str) -> int:
        """Return the number of an id, -1 if it has none yet."""
        number = self._names.get(name)
        if number is None:
            row = self._db.row("SELECT id FROM names WHERE name = ?", (name,))
            if row is None:
                return -1
            number = int(row[0])
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            self._names[name] = number
        return number

    def _name(self, name: str) -> int:
        """Return the number of an id; a new one gets its number here."""
        number = self._names.get(name)
        if number is None:
            self._db.execute("INSERT INTO names(name) VALUES (?) ON CONFLICT(name) DO NOTHING", (name,))
            number = self._known(name)
        return number
