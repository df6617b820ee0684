"""One session's database: its notebook, executions, events, audit log, and the replies to its clients' requests.

Every method commits before it returns, except inside `transaction()`. See `database` for the durability of a commit.
Nothing here waits or opens a socket.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Unpack

from runtimed.ids import ClientId, ExecutionId, HostEpoch
from runtimed.storage import audit, events, executions, history, names, notebook
from runtimed.storage.audit import Actor, AuditRow, AuditTable
from runtimed.storage.database import AUTOMATIC, Database
from runtimed.storage.events import EventTable
from runtimed.storage.executions import ExecutionRow, ExecutionStatus, ExecutionTable, ExecutionUpdate
from runtimed.storage.names import NameTable
from runtimed.storage.notebook import NotebookTables
from runtimed.storage.rows import checksum_of, damaged_row
from runtimed.storage.unused_names import UnusedNames

__all__ = ["KEPT_OF_CLIENT", "KEPT_REQUESTS", "SCHEMA_VERSION", "SessionStore"]

SCHEMA_VERSION: Final = 3
"""Version of the session database's schema; a file with a higher one is refused, one with a lower one is upgraded."""

KEPT_OF_CLIENT: Final = 20
"""Number of each client's newest replies that are kept longer: a suspended client resends its requests late."""

KEPT_FOR_CLIENTS: Final = 10_000
"""Number of later requests, by all clients, after which a client's replies are deleted."""

KEPT_REQUESTS: Final = 1000
"""Number of the newest replies that are always kept, to deduplicate resent requests."""

_PRUNE_EVERY: Final = 128
_PRUNE: Final = """DELETE FROM requests WHERE id <= (SELECT max(id) FROM requests) - ?1 AND (
    id <= (SELECT max(id) FROM requests) - ?2
    OR id NOT IN (SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY client_id ORDER BY id DESC) AS place FROM requests)
        WHERE place <= ?3))"""
_APPLICATION_ID: Final = 0x52545353  # "RTSS"

_SCHEMA: Final = (
    "CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    *notebook.SCHEMA,
    """CREATE TABLE requests(
        id INTEGER PRIMARY KEY AUTOINCREMENT, client_id TEXT NOT NULL, request_id INTEGER NOT NULL,
        checksum INTEGER NOT NULL, reply BLOB NOT NULL, UNIQUE (client_id, request_id))""",
    *names.SCHEMA,
    *executions.SCHEMA,
    *events.SCHEMA,
    *audit.SCHEMA,
)
_UPGRADES: Final = (
    # No client can resend a request to the release that wrote version 1: it speaks another protocol.
    (*executions.UPGRADE, *notebook.UPGRADE, "DELETE FROM requests"),
    history.UPGRADE,
)


class SessionStore:
    """One open session database, locked exclusively.

    Args:
        path: Created with mode 0600 if it does not exist.
        session_id: The session, for log lines; empty if it is unknown.
        read_only: See `Database`.

    Attributes:
        notebook: The notebook's rows, document and pending edits.

    Raises:
        StorageError: If it is in use, cannot be opened, was written by a newer runtimed, or is damaged. A damaged file
            is moved to the path in the attribute `set_aside`; opening the path again starts with an empty one.
    """

    def __init__(self, path: Path, session_id: str = "", *, read_only: bool = False) -> None:
        self._db = Database(
            path,
            schema=_SCHEMA,
            version=SCHEMA_VERSION,
            application_id=_APPLICATION_ID,
            upgrades=_UPGRADES,
            automatic=4 * AUTOMATIC,
            read_only=read_only,
            on_rollback=self._forget,
            about=f"session {session_id!r}: " if session_id else "",
        )
        self.notebook = NotebookTables(self._db)
        self._executions = ExecutionTable(self._db)
        self._names = NameTable(self._db)
        self._events = EventTable(self._db, self._names)
        self._audit = AuditTable(self._db, self._names)
        self._remembered = 0

    def _forget(self) -> None:
        self._executions.forget()
        self._names.forget()
        self._events.forget()
        self._audit.forget()

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def database(self) -> Database:
        """The database itself, for what concerns all of its tables."""
        return self._db

    def close(self) -> Path | None:
        """Close the database; an open transaction is rolled back. Idempotent.

        Returns:
            The new path of the file, if it proved damaged while it was open; None if it stayed in place.
        """
        return self._db.close()

    @property
    def is_new(self) -> bool:
        """Whether the database was empty when it was opened."""
        return self._db.is_new

    @property
    def damaged_wal(self) -> Path | None:
        """The copy of a WAL whose latest transactions could not be read; see `Database`."""
        return self._db.damaged_wal

    @property
    def is_closed(self) -> bool:
        """Whether the store is closed."""
        return self._db.is_closed

    @property
    def is_empty(self) -> bool:
        """Whether the session has no stored data at all."""
        return self.last_seq == 0 and self.notebook.is_empty and not self.notebook.set_aside_at()

    @property
    def wal_is_long(self) -> bool:
        """Whether a checkpoint is due."""
        return self._db.wal_is_long

    def begin_checkpoint(self) -> Callable[[], None]:
        """See `Database.begin_checkpoint`."""
        return self._db.begin_checkpoint()

    def transaction(self) -> AbstractContextManager[None]:
        """Return a context manager that commits all that its block writes, or nothing if it raises.

        A nested transaction joins the outer one, which rolls back if any part failed.
        """
        return self._db.transaction()

    # Requests

    def remember_request(self, client_id: str, request_id: int, reply: bytes) -> None:
        """Store the reply to a request, so that a resent request is deduplicated; a stored reply is not replaced."""
        self._db.execute(
            """INSERT INTO requests(client_id, request_id, checksum, reply) VALUES (?, ?, ?, ?)
            ON CONFLICT(client_id, request_id) DO NOTHING""",
            (client_id, request_id, checksum_of(f"{client_id} {request_id}", reply), reply),
        )
        self._remembered += 1
        if self._remembered >= _PRUNE_EVERY:
            self._remembered = 0
            self._db.execute(_PRUNE, (KEPT_REQUESTS, KEPT_FOR_CLIENTS, KEPT_OF_CLIENT))

    def find_request(self, client_id: str, request_id: int) -> bytes | None:
        """Return the stored reply to a request, None if it is unknown or too old.

        Raises:
            StorageError: If it is damaged.
        """
        query = "SELECT checksum, reply FROM requests WHERE client_id = ? AND request_id = ?"
        row = self._db.row(query, (client_id, request_id))
        if row is None:
            return None
        check, reply = row
        if not isinstance(reply, bytes) or check != checksum_of(f"{client_id} {request_id}", reply):
            raise damaged_row(self._db.path, f"the reply to request {request_id} of client {client_id}")
        return bytes(reply)

    # Executions

    def add_execution(
        self,
        execution_id: str,
        cell_id: str,
        author: str,
        source: str,
        *,
        queued_at: float,
        stdin: bool = False,
        silent: bool = False,
        store_history: bool = True,
        stop_on_error: bool = True,
        user_expressions: str = "{}",
        status: ExecutionStatus = "queued",
    ) -> bool:
        """Append a new execution; return False, and change nothing, if the id exists."""
        return self._executions.add(
            execution_id,
            cell_id,
            author,
            source,
            queued_at=queued_at,
            stdin=stdin,
            silent=silent,
            store_history=store_history,
            stop_on_error=stop_on_error,
            user_expressions=user_expressions,
            status=status,
        )

    def update_execution(self, execution_id: str, **fields: Unpack[ExecutionUpdate]) -> bool:
        """Change an execution's status, started_at, ended_at or execution_count; return whether it exists."""
        return self._executions.update(execution_id, fields)

    def execution(self, execution_id: str) -> ExecutionRow | None:
        """Return an execution, None if there is none of this id.

        Raises:
            StorageError: If its row is damaged (attribute `execution_id`).
        """
        return self._executions.get(execution_id)

    def unfinished_executions(self) -> list[ExecutionRow]:
        """Return the queued and running executions, in the order of the queue.

        Damaged ones are left out and logged, since their code is unknown.
        """
        return self._executions.unfinished()

    def drop_executions(self, upto: str, author: str | None, spared: str | None, reason: str) -> None:
        """Cancel any number of queued executions in constant time; `next_dropped` returns them to be ended.

        Args:
            upto: Id of the last one; later ones stay queued.
            author: Only those of this client; None for all.
            spared: Id of the execution that the kernel runs, which is not cancelled.
            reason: Why, for the clients that wait for them.
        """
        self._executions.drop(upto, author, spared, reason)

    def next_dropped(self, max_rows: int) -> list[tuple[ExecutionRow, str]]:
        """Return some executions that `drop_executions` cancelled and that have not ended, each with the reason."""
        return self._executions.next_dropped(max_rows)

    def find_executions(self, prefix: str, max_rows: int) -> list[ExecutionRow]:
        """Return the executions whose ids begin with a prefix, newest first. Damaged ones are left out and logged."""
        return self._executions.find(prefix, max_rows)

    def show_execution(self, cell_id: str, execution_id: str | None) -> None:
        """Record which execution a cell shows, None for none; call it in the transaction that edits the cell."""
        self._executions.show(cell_id, execution_id)

    def show_display(self, display_id: str, execution_id: str, cell_id: str) -> None:
        """Record that an execution's outputs contain a display, and so get its updates. Idempotent."""
        self._executions.show_display(display_id, execution_id, cell_id)

    def displays(self) -> list[tuple[str, str, str]]:
        """Return the recorded displays, oldest first: display, execution and cell id. Damaged rows are left out."""
        return self._executions.displays()

    def forget_displays(self, execution_id: str | None = None) -> None:
        """Delete the displays of an execution, or all of them after their kernel has ended."""
        self._executions.forget_displays(execution_id)

    def shown_execution(self, cell_id: str) -> str | None:
        """Return the execution that a cell shows, None for none.

        Raises:
            StorageError: If the row is damaged.
        """
        return self._executions.shown_by(cell_id)

    # Events

    def append_event(
        self,
        body: bytes,
        *,
        execution_id: str | None,
        cell_id: str | None,
        host: tuple[HostEpoch, int] | None = None,
        output: int | None = None,
        clears: bool = False,
        blobs: Iterable[str] = (),
    ) -> int | None:
        """Store one event.

        Args:
            body: The encoded event.
            execution_id: The execution that it belongs to.
            cell_id: The cell that it belongs to.
            host: For an event of a host, the host and the event's number there, from 1.
            output: For an output, the bytes that it adds to the outputs of its execution.
            clears: Whether it clears the outputs of its execution.
            blobs: SHA-256 of the blobs that it refers to; see `blobs`.

        Returns:
            Its number in this session: from 1, strictly increasing, and never reused once committed, not even after
            deletions. None if this event of the host is stored already.
        """
        return self._events.append(body, execution_id, cell_id, host, output, blobs, clears=clears)

    def last_event_of_host(self, epoch: str) -> int:
        """Return the highest number of a host's stored events, 0 if there is none."""
        return self._events.last_of_host(epoch)

    def read_events(
        self,
        after: int,
        *,
        execution_id: str | None = None,
        upto: int | None = None,
        max_bytes: int = 4 * 2**20,
        max_rows: int = 2000,
        max_output: int | None = None,
        outputs: bool = True,
    ) -> list[tuple[int, bytes]]:
        """Return one page of events in order, as pairs of number and body; at least one if there is any.

        A damaged event is replaced by a `Failed` event named StorageError.

        Args:
            after: Return events with higher numbers than this.
            execution_id: Only events of this execution; None for all.
            upto: The highest number to return.
            max_bytes: Largest size of a page's bodies, in bytes.
            max_rows: Most events of a page.
            max_output: The page ends, even if it is empty, before an output that makes the outputs of its execution
                since they were last cleared larger than this.
            outputs: Whether to return the execution's outputs; without them the number of outputs costs no time.
        """
        return self._events.read(after, execution_id, upto, max_bytes, max_rows, max_output, outputs=outputs)

    def output_size(self, execution_id: str, upto: int | None = None) -> int:
        """Return the size of an execution's outputs since they were last cleared, in bytes.

        Args:
            execution_id: The execution.
            upto: Up to the event of this number; None for all.
        """
        return self._events.output_size(execution_id, upto)

    def count_events(self, execution_id: str) -> int:
        """Return the number of an execution's stored events."""
        return self._events.count(execution_id)

    def last_event_of_execution(self, execution_id: str) -> int:
        """Return the number of an execution's last event, 0 if it has none."""
        return self._events.last_of_execution(execution_id)

    @property
    def last_seq(self) -> int:
        """The highest number ever assigned to an event of this session, 0 if there was none."""
        return self._events.last_seq

    @property
    def last_deleted_event(self) -> int:
        """The highest number of a deleted event, 0 if there is none: a reader that got to it has missed nothing."""
        return self._events.last_deleted

    # Retention

    def executions_ended_before(self, before: float, after: int, max_rows: int) -> list[tuple[int, ExecutionId]]:
        """Return old executions in the order of the queue, as pairs of sequence and id.

        Args:
            before: Unix time in seconds; the result ends at the first execution that ended later, or has not ended.
            after: Return executions with higher sequences than this.
            max_rows: Most executions to return.
        """
        return self._executions.ended_before(before, after, max_rows)

    def shown_executions(self) -> frozenset[str]:
        """Return the executions that cells show.

        Raises:
            StorageError: If a row is damaged.
        """
        return self._executions.shown()

    def shown_by_cells(self) -> dict[str, str]:
        """Return the execution that each cell shows, by cell id. Damaged rows are left out."""
        return self._executions.shown_by_cells()

    def delete_execution(self, execution_id: str) -> None:
        """Delete an execution; its events are deleted by `delete_some_events`."""
        with self._db.transaction():
            self._executions.delete(execution_id)
            self._events.delete_of_execution(execution_id)

    @property
    def is_deleting_events(self) -> bool:
        """Whether events of deleted executions are still to be deleted."""
        return self._events.is_deleting

    def delete_some_events(self, max_bytes: int, max_rows: int) -> bool:
        """Delete about this many events of deleted executions; return whether there was anything to delete."""
        return self._events.delete_some(max_bytes, max_rows)

    def events_of_no_execution(self, upto: int, max_rows: int) -> list[tuple[int, bytes]]:
        """Return the oldest events that belong to no execution, as pairs of number and body, unverified.

        Args:
            upto: The highest number to return.
            max_rows: Most events to return.
        """
        return self._events.of_no_execution(upto, max_rows)

    def delete_events_of_no_execution(self, upto: int) -> None:
        """Delete the events that belong to no execution, up to this number."""
        self._events.delete_of_no_execution(upto)

    def blobs(self) -> set[str]:
        """Return the SHA-256 of every blob that an event refers to.

        Raises:
            StorageError: If a reference is damaged.
        """
        return self._events.blobs()

    @property
    def free_pages(self) -> int:
        """See `Database.free_pages`."""
        return self._db.free_pages

    def give_back(self, pages: int) -> None:
        """See `Database.give_back`."""
        self._db.give_back(pages)

    # Audit

    def note(self, row: AuditRow) -> None:
        """Add an entry to the audit log; call it in the transaction of the change that it describes.

        Edits of one kind by one client to one cell within MERGED_WITHIN seconds are merged into one entry.
        """
        self._audit.note(row)

    def audit(self) -> Generator[AuditRow, None, None]:
        """Yield the entries of the audit log, newest first. Damaged ones are left out and logged.

        They are in the order of insertion, even if the clock was set back. `close()` the iterator if you stop early.
        """
        return self._audit.rows()

    def last_edits(self, cell_ids: Sequence[str]) -> dict[str, tuple[Actor, float]]:
        """Return the last editor of each of these cells and the time, by cell id; deleted cells are left out."""
        return self._audit.last_edits(cell_ids)

    def actor(self, client_id: str) -> Actor:
        """Return the record of a client; an unknown or damaged one has only the user."""
        # Only this user may connect.
        return self._audit.actor(client_id) or Actor(ClientId(client_id), label=None, uid=os.getuid(), pid=None)

    def prune_audit(self, before: float) -> int:
        """Delete the entries that ended before a moment (Unix time in seconds), except each existing cell's last edit.

        Returns:
            Number of deleted entries.
        """
        return self._audit.prune(before)

    def forgettable_hosts(self) -> list[str]:
        """Return the hosts whose events are all deleted, and of which only the highest number is kept."""
        return self._events.forgettable_hosts()

    def forget_host(self, epoch: str) -> None:
        """Delete the highest number of a host that cannot come back and whose events are all deleted."""
        with self._db.transaction():
            self._events.forget_host(epoch)

    def unused_names(self) -> UnusedNames:
        """Begin the garbage collection of interned ids; each of its steps needs a transaction."""
        return UnusedNames(self._db, self._forget)
