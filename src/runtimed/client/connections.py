"""The connections of a blocking handle: one for each call that waits, so that threads do not wait for each other."""

from __future__ import annotations

import os
from collections import deque
from queue import SimpleQueue
from typing import Final, TypeVar

from runtimed.client.blocking import Connection
from runtimed.client.flows import Flow
from runtimed.client.identity import Identity
from runtimed.errors import ConnectionLost
from runtimed.protocol.session_operations import Join
from runtimed.settings import Settings, read_settings

__all__ = ["MAX_CONNECTIONS", "MAX_IDLE", "Connections"]

T = TypeVar("T")

MAX_CONNECTIONS: Final = 32
"""Largest number of calls of one handle that wait at a time; the next one waits for one of them."""

MAX_IDLE: Final = 4
"""Number of idle connections that a handle keeps."""


class Connections:
    """The connections of a handle, for any number of threads, and for signal handlers during a call.

    Nothing here takes a lock: a thread may hold it when a signal handler interrupts the thread, or when a fork leaves
    the thread behind. Everything is atomic instead, or reentrant like `SimpleQueue`.

    Attributes:
        was_opened: Whether it was opened and not closed since. Broken connections are replaced.
    """

    def __init__(self, identity: Identity, join: Join, *, dropped_after: tuple[type[Exception], ...] = ()) -> None:
        """Describe the connections; `open` makes the first one.

        Args:
            identity: The client.
            join: Sent first, on each of them.
            dropped_after: Errors after which a connection is not used again, as there is no session to join.
        """
        self._identity = identity
        self._join = join
        self._dropped_after = dropped_after
        self._settings: Settings | None = None
        self.was_opened = False
        self._closed_times = 0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._permits: SimpleQueue[None] = SimpleQueue()
        for _ in range(MAX_CONNECTIONS):
            self._permits.put(None)

    @property
    def is_open(self) -> bool:
        """Whether it was opened, not closed since, and is not known to be broken."""
        return self.was_opened and any(connection.is_open for connection in [*self._idle, *self._busy])

    def open(self) -> None:
        """Connect. Idempotent. Raises what `Connection.open` raises."""
        if not self.is_open:
            closed_times = self._closed_times
            self._settings = read_settings()
            connection = Connection(self._identity, self._join)
            connection.open(self._settings)
            self._leave_others()
            self._idle.append(connection)
            self.was_opened = True
            try:
                self._check_not_closed(closed_times)
            except ConnectionLost:
                self.close()
                raise

    def close(self) -> None:
        """Disconnect. Calls that wait in other threads, or begin there, end with ConnectionLost. Idempotent."""
        self._closed_times += 1
        self.was_opened = False
        for connection in list(self._busy):
            connection.close()
        while self._idle:
            self._idle.pop().close()

    def perform(self, flow: Flow[T]) -> T:
        """Drive a flow to its end.

        Raises:
            ConnectionLost: If `close` was called, or the connection broke and does not come back.
        """
        if self._pid != os.getpid():
            self._leave_others()
        permits, closed_times = self._permits, self._closed_times
        permits.get()
        try:
            return self._perform(flow, closed_times)
        finally:
            permits.put(None)

    def _perform(self, flow: Flow[T], closed_times: int) -> T:
        busy, connection = self._busy, self._take()
        busy.add(connection)
        is_kept = True
        try:
            self._check_not_closed(closed_times)
            return connection.perform(flow)
        except self._dropped_after:
            is_kept = False
            raise
        finally:
            busy.discard(connection)
            if is_kept and self.was_opened and len(self._idle) < MAX_IDLE and self._pid == os.getpid():
                self._idle.append(connection)
            else:
                connection.close()

    def _take(self) -> Connection:
        if not self.was_opened:
            raise ConnectionLost("The connection to the daemon is closed")
        try:
            return self._idle.pop()
        except IndexError:
            connection = Connection(self._identity, self._join)
            connection.open(self._settings)
            return connection

    def _check_not_closed(self, closed_times: int) -> None:
        """Raise ConnectionLost if `close` was called since: it did not see a connection that was just being made."""
        if self._closed_times != closed_times:
            raise ConnectionLost("The connection to the daemon is closed")

    def _leave_others(self) -> None:
        """Begin anew in a forked process: existing connections belong to the parent."""
        if self._pid != os.getpid():
            others = [*self._idle, *self._busy]
            self._begin()
            for connection in others:
                connection.close()
