"""The events of one session as one log: numbered once and for good, each host's event stored once."""

from __future__ import annotations

from contextlib import closing
from typing import Final

from runtimed.ids import HostEpoch
from runtimed.storage.database import Database
from runtimed.storage.names import NameTable
from runtimed.storage.rows import checksum, damaged_row, is_intact

__all__ = ["SCHEMA", "EventLog"]

_MAX_SEQ: Final = 2**63 - 1

SCHEMA: Final = (
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

    def __init__(self, database: Database, names: NameTable) -> None:
        self._db = database
        self._names = names
        self._last: int | None = None
        self._hosts: dict[str, int] = {}

    def forget(self) -> None:
        """Drop what is held in memory: a rollback may have made it untrue."""
        self._last = None
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
            host_name = self._names.number(epoch)
        seq = self.last_seq + 1
        self._db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                seq,
                None if execution_id is None else self._names.number(execution_id),
                None if cell_id is None else self._names.number(cell_id),
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
            host = self._names.known(epoch)
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
            rows = self._db.each(query, (self._names.known(execution_id), after, last, max_rows))
        found: list[tuple[int, bytes]] = []
        size = 0
        with closing(rows):
            for seq, check, body in rows:
                if not is_intact(body, check):
                    if found:
                        break
                    raise damaged_row(self._db.path, f"event {seq}", seq=seq)
                size += len(body)
                if found and size > max_bytes:
                    break
                found.append((seq, body))
        return found

    def count(self, execution_id: str) -> int:
        """See `SessionStore.count_events`."""
        (count,) = self._db.row("SELECT count(*) FROM events WHERE execution = ?", (self._names.known(execution_id),))
        return int(count)

    def first_seq(self, execution_id: str) -> int | None:
        """See `SessionStore.first_seq_of_execution`."""
        (seq,) = self._db.row("SELECT min(seq) FROM events WHERE execution = ?", (self._names.known(execution_id),))
        return None if seq is None else int(seq)

    def _has(self, epoch: str, number: int) -> bool:
        query = """SELECT 1 FROM events WHERE host = ?1 AND n = ?2
            UNION ALL SELECT 1 FROM deleted_events WHERE host = ?1 AND n >= ?2"""
        return self._db.row(query, (self._names.known(epoch), number)) is not None
