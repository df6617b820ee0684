"""The events of one session: numbered in one sequence, with those of hosts deduplicated."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import closing
from typing import Final

from runtimed.ids import HostEpoch
from runtimed.protocol.codec import encode_event
from runtimed.protocol.events import Failed
from runtimed.storage.database import Database
from runtimed.storage.names import NameTable
from runtimed.storage.rows import checksum, damaged_row, is_intact

__all__ = ["SCHEMA", "EventTable"]

logger = logging.getLogger(__name__)

_MAX_SEQ: Final = 2**63 - 1

_MAX_SIZES: Final = 10_000
"""Capacity of the cache of output sizes, in executions. A full cache is cleared."""

SCHEMA: Final = (
    # For an output of an execution, `output` is the cumulative size of the execution's outputs, this one included,
    # since they were last cleared. It is 0 for an event that clears them, NULL for every other event.
    """CREATE TABLE events(
        seq INTEGER PRIMARY KEY, execution INTEGER, cell INTEGER, host INTEGER, n INTEGER, output INTEGER,
        checksum INTEGER NOT NULL, body BLOB NOT NULL)""",
    # An index implicitly ends in seq, the row's id.
    "CREATE INDEX events_by_execution ON events(execution) WHERE execution IS NOT NULL",
    # Finds the other events without a scan of millions of outputs.
    "CREATE INDEX events_but_outputs ON events(execution) WHERE coalesce(output, 0) = 0",
    "CREATE UNIQUE INDEX events_by_host ON events(host, n) WHERE host IS NOT NULL",
    """CREATE TABLE event_blobs(
        seq INTEGER, sha256 BLOB, checksum INTEGER NOT NULL, PRIMARY KEY(seq, sha256)) WITHOUT ROWID""",
    "CREATE TRIGGER drop_blobs AFTER DELETE ON events BEGIN DELETE FROM event_blobs WHERE seq = OLD.seq; END",
    # Deleted executions whose events are still to be deleted, in steps.
    "CREATE TABLE deleted_executions(execution INTEGER PRIMARY KEY, upto INTEGER NOT NULL)",
    # The highest numbers of deleted events, so that no number is assigned or accepted twice.
    "CREATE TABLE deleted_events(host INTEGER PRIMARY KEY, n INTEGER NOT NULL, seq INTEGER NOT NULL)",
    """CREATE TRIGGER keep_numbers BEFORE DELETE ON events BEGIN
        INSERT INTO deleted_events VALUES (coalesce(OLD.host, 0), coalesce(OLD.n, 0), OLD.seq)
        ON CONFLICT(host) DO UPDATE SET n = max(n, excluded.n), seq = max(seq, excluded.seq); END""",
)


_OF_EXECUTION: Final = """SELECT seq, output, checksum, body FROM events
    WHERE execution = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""
_OF_EXECUTION_BUT_OUTPUTS: Final = """SELECT seq, output, checksum, body FROM events
    WHERE execution = ? AND coalesce(output, 0) = 0 AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""

_OF_NO_EXECUTION: Final = """SELECT seq, body FROM events
    WHERE execution IS NULL AND coalesce(output, 0) = 0 AND seq <= ? ORDER BY seq LIMIT ?"""


class EventTable:
    """The tables of events; `SessionStore` documents its methods."""

    def __init__(self, database: Database, names: NameTable) -> None:
        self._db = database
        self._names = names
        self._last: int | None = None
        self._hosts: dict[str, int] = {}
        self._outputs: dict[int, int] = {}

    def forget(self) -> None:
        """Clear the caches, which a rollback may have invalidated."""
        self._last = None
        self._hosts.clear()
        self._outputs.clear()

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
        self,
        body: bytes,
        execution_id: str | None,
        cell_id: str | None,
        host: tuple[HostEpoch, int] | None,
        output: int | None,
        blobs: Iterable[str],
        *,
        clears: bool,
    ) -> int | None:
        """See `SessionStore.append_event`."""
        host_name = number = None
        if host is not None:
            epoch, number = host
            if number <= self.last_of_host(epoch) and self._has(epoch, number):
                return None
            host_name = self._names.number(epoch)
        seq = self.last_seq + 1
        execution = None if execution_id is None else self._names.number(execution_id)
        self._db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                seq,
                execution,
                None if cell_id is None else self._names.number(cell_id),
                host_name,
                number,
                None if execution is None else self._size_with(execution, 0 if clears else output, clears=clears),
                checksum(body),
                body,
            ),
        )
        for name in map(bytes.fromhex, blobs):
            self._db.execute("INSERT OR IGNORE INTO event_blobs VALUES (?, ?, ?)", (seq, name, checksum(name)))
        self._last = seq
        if number is not None and number > self._hosts[epoch]:
            self._hosts[epoch] = number
        return seq

    def _size_with(self, execution: int, output: int | None, *, clears: bool) -> int | None:
        """Return the cumulative size of an execution's outputs with one more of this size; None if it is no output."""
        if output is None:
            return None
        size = 0 if clears else max(1, self._size_of_outputs(execution) + output)
        if len(self._outputs) >= _MAX_SIZES:
            self._outputs.clear()
        self._outputs[execution] = size
        return size

    def output_size(self, execution_id: str, upto: int | None) -> int:
        """See `SessionStore.output_size`."""
        execution = self._names.known(execution_id)
        return self._size_of_outputs(execution) if upto is None else self._stored_size(execution, upto)

    def count(self, execution_id: str) -> int:
        """See `SessionStore.count_events`."""
        row = self._db.row("SELECT count(*) FROM events WHERE execution = ?", (self._names.known(execution_id),))
        return int(row[0])

    def _size_of_outputs(self, execution: int) -> int:
        size = self._outputs.get(execution)
        return self._stored_size(execution, _MAX_SEQ) if size is None else size

    def _stored_size(self, execution: int, upto: int) -> int:
        query = """SELECT output FROM events WHERE execution = ? AND output IS NOT NULL AND seq <= ?
            ORDER BY seq DESC LIMIT 1"""
        (size,) = self._db.row(query, (execution, upto)) or (0,)
        return int(size)

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
        self,
        after: int,
        execution_id: str | None,
        upto: int | None,
        max_bytes: int,
        max_rows: int,
        max_output: int | None,
        *,
        outputs: bool,
    ) -> list[tuple[int, bytes]]:
        """See `SessionStore.read_events`."""
        last = _MAX_SEQ if upto is None else upto
        if execution_id is None:
            query = "SELECT seq, output, checksum, body FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
            rows = self._db.each(query, (after, last, max_rows))
        else:
            query = _OF_EXECUTION if outputs else _OF_EXECUTION_BUT_OUTPUTS
            rows = self._db.each(query, (self._names.known(execution_id), after, last, max_rows))
        found: list[tuple[int, bytes]] = []
        size = 0
        with closing(rows):
            for seq, output, check, body in rows:
                if max_output is not None and (output or 0) > max_output:
                    break
                event = body if is_intact(body, check) else self._replacement(seq, execution_id)
                size += len(event)
                if found and size > max_bytes:
                    break
                found.append((seq, event))
        return found

    def _replacement(self, seq: int, execution_id: str | None) -> bytes:
        """Return an event that reports the damage in place of a damaged event, so that the others stay readable."""
        error = damaged_row(self._db.path, f"event {seq}")
        logger.error("%s%s (execution %s)", self._db.about, error.message, execution_id)
        event = Failed(
            at=0.0,
            execution_id=execution_id,
            ename=type(error).__name__,
            evalue=error.message,
            traceback=(f"{type(error).__name__}: {error.message}",),
        )
        return encode_event(event)

    # Deletion

    def forgettable_hosts(self) -> list[str]:
        """See `SessionStore.forgettable_hosts`."""
        query = """SELECT name FROM deleted_events d JOIN names ON names.id = d.host
            WHERE NOT EXISTS (SELECT 1 FROM events WHERE host = d.host)"""
        return [epoch for (epoch,) in self._db.rows(query)]

    def forget_host(self, epoch: str) -> None:
        """See `SessionStore.forget_host`."""
        self._hosts.pop(epoch, None)
        host = self._names.known(epoch)
        # The highest number in the session is kept, under no host, so that it is never assigned again.
        self._db.execute(
            """INSERT INTO deleted_events SELECT 0, 0, seq FROM deleted_events WHERE host = ?
            ON CONFLICT(host) DO UPDATE SET seq = max(seq, excluded.seq)""",
            (host,),
        )
        self._db.execute("DELETE FROM deleted_events WHERE host = ?", (host,))

    @property
    def last_deleted(self) -> int:
        """See `SessionStore.last_deleted_event`."""
        (seq,) = self._db.row("SELECT coalesce(max(seq), 0) FROM deleted_events")
        return int(seq)

    def last_of_execution(self, execution_id: str) -> int:
        """See `SessionStore.last_event_of_execution`."""
        query = "SELECT coalesce(max(seq), 0) FROM events WHERE execution = ?"
        (seq,) = self._db.row(query, (self._names.known(execution_id),))
        return int(seq)

    def delete_of_execution(self, execution_id: str) -> None:
        """Mark the present events of an execution for deletion by `delete_some`."""
        execution = self._names.known(execution_id)
        self._outputs.pop(execution, None)
        query = "INSERT OR REPLACE INTO deleted_executions VALUES (?, ?)"
        self._db.execute(query, (execution, self.last_of_execution(execution_id)))

    @property
    def is_deleting(self) -> bool:
        """See `SessionStore.is_deleting_events`."""
        return self._db.row("SELECT 1 FROM deleted_executions LIMIT 1") is not None

    def delete_some(self, max_bytes: int, max_rows: int) -> bool:
        """See `SessionStore.delete_some_events`."""
        row = self._db.row("SELECT execution, upto FROM deleted_executions LIMIT 1")
        if row is None:
            return False
        query = "SELECT seq, length(body) FROM events WHERE execution = ? AND seq <= ? ORDER BY seq LIMIT ?"
        last = size = 0
        for seq, length in self._db.rows(query, (*row, max_rows)):
            last, size = seq, size + length
            if size >= max_bytes:
                break
        if last:
            self._db.execute("DELETE FROM events WHERE execution = ? AND seq <= ?", (row[0], last))
        else:
            self._db.execute("DELETE FROM deleted_executions WHERE execution = ?", (row[0],))
        return True

    def of_no_execution(self, upto: int, max_rows: int) -> list[tuple[int, bytes]]:
        """See `SessionStore.events_of_no_execution`."""
        return self._db.rows(_OF_NO_EXECUTION, (upto, max_rows))

    def delete_of_no_execution(self, upto: int) -> None:
        """See `SessionStore.delete_events_of_no_execution`."""
        query = "DELETE FROM events WHERE execution IS NULL AND coalesce(output, 0) = 0 AND seq <= ?"
        self._db.execute(query, (upto,))

    def blobs(self) -> set[str]:
        """See `SessionStore.blobs`."""
        found: set[str] = set()
        for seq, name, check in self._db.each("SELECT seq, sha256, checksum FROM event_blobs"):
            if not is_intact(name, check):
                raise damaged_row(self._db.path, f"a reference of event {seq} to a blob", seq=seq)
            found.add(name.hex())
        return found

    def _has(self, epoch: str, number: int) -> bool:
        query = """SELECT 1 FROM events WHERE host = ?1 AND n = ?2
            UNION ALL SELECT 1 FROM deleted_events WHERE host = ?1 AND n >= ?2"""
        return self._db.row(query, (self._names.known(epoch), number)) is not None
