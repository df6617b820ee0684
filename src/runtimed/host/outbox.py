"""The host's outgoing events: numbered, spooled, sent, and kept until the daemon has stored them.

The spool's file is the queue; memory has only what is in flight, at most WINDOW bytes. Nothing here waits: it only says
when the kernel should. While an attached daemon stores more slowly than the kernel prints, that is from SPOOLED bytes
on. Without a daemon the kernel goes on as long as the disk has space.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from runtimed.errors import StorageError
from runtimed.protocol.codec import encode_event
from runtimed.protocol.events import Comm, CommsMissed, Event
from runtimed.storage.disk import check_room
from runtimed.storage.spool import Spool

__all__ = ["RETRY", "SPOOLED", "WINDOW", "EventSink", "Outbox"]

logger = logging.getLogger(__name__)

WINDOW: Final = 4 * 2**20
"""Flow-control window: bytes of events in flight without an acknowledgement. The rest waits in the spool."""

SPOOLED: Final = 64 * 2**20
"""High-water mark of the spool in bytes: above it the kernel waits for an attached daemon. The low mark is a half."""

RETRY: Final = 1.0
"""Seconds between two attempts to write to a full disk."""

_PAGE: Final = 2**20


class EventSink(Protocol):
    """Where events are sent: a connection to a daemon."""

    @property
    def takes_events(self) -> bool:
        """Whether it takes more now; else the owner calls `Outbox.pump` later."""

    def send_event(self, seq: int, event: bytes) -> None:
        """Send an event's own bytes; its number is 0 if it is not to be stored."""


class Outbox:
    """Numbers events from 1, in the order of `add`.

    Args:
        spool: Keeps them until they are acknowledged.
        changed: Called when `stuck` or `crowded` has changed.

    Attributes:
        stuck: Whether the spool cannot be written. The owner should add as little as possible: added events wait in
            memory.
        crowded: Whether the spool is above its high-water mark.
    """

    def __init__(self, spool: Spool, changed: Callable[[], None]) -> None:
        self._spool = spool
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._added: list[tuple[int, bytes]] = []
        self._last = spool.last
        self._sink: EventSink | None = None
        self._sent = 0
        self._acknowledged = 0
        self._under_way: deque[tuple[int, int]] = deque()  # number and size
        self._under_way_bytes = 0
        self._empty_waiters: list[asyncio.Future[None]] = []
        self._reported = False
        self._missed = 0
        self._missed_at = 0.0
        self.stuck = False
        self.crowded = False

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._last

    def add(self, event: Event) -> None:
        """Number an event; the next `flush` sends it."""
        self._last += 1
        self._added.append((self._last, encode_event(event)))

    def tell(self, event: Event) -> bool:
        """Send an event without a number, at most once. Return whether it was sent."""
        if self._sink is None or not self._sink.takes_events:
            return False
        self._sink.send_event(0, encode_event(event))
        return True

    def tell_comm(self, event: Comm | CommsMissed) -> None:
        """Send an event without a number, at most once. How many were not sent is told when the sink takes more."""
        self._tell_missed()
        if not self.tell(event):
            self._missed += 1
            self._missed_at = event.at

    def _tell_missed(self) -> None:
        if self._missed and self.tell(CommsMissed(at=self._missed_at, count=self._missed)):
            self._missed = 0

    def flush(self) -> None:
        """Spool the added events, then send what may be sent."""
        if not self._added or self.stuck:
            return
        batch = self._added
        try:
            check_room(self._spool.folder)
            self._spool.append_many(batch)
        except StorageError as exc:
            self.get_stuck(exc)
            return
        self._added = []
        self._look()
        sink = self._sink
        if sink is None:
            return
        for n, body in batch:
            # Straight from memory, if all earlier events were sent.
            if self._sent != n - 1 or not self._has_room(sink):
                self.pump()
                return
            self._send(sink, n, body)

    def get_stuck(self, reason: StorageError) -> None:
        """Stop until the disk has space again; attempts to write go on."""
        if self.stuck:
            return
        self.stuck = True
        if not self._reported:
            self._reported = True
            logger.error("the spool cannot be written, so the kernel's output waits: %s", reason)
        self._changed()
        self._loop.call_later(RETRY, self._retry)

    def attach(self, sink: EventSink, after: int) -> None:
        """Send all events numbered above `after` to this sink from now on; the others count as stored."""
        self._sink = sink
        self._sent = min(after, self._last)
        self._under_way.clear()
        self._under_way_bytes = 0
        self.acknowledge(after)

    def detach(self) -> None:
        """Send nothing until a sink is attached again."""
        self._sink = None
        self._look()

    def acknowledge(self, n: int) -> None:
        """Drop the events up to this number, and reuse their space."""
        n = min(n, self._last)
        if n > self._acknowledged:
            self._acknowledged = n
            while self._under_way and self._under_way[0][0] <= n:
                self._under_way_bytes -= self._under_way.popleft()[1]
            try:
                self._spool.acknowledge(n)
            except StorageError as exc:
                logger.warning("the spool cannot be trimmed: %s", exc)
        self._look()
        self.pump()
        self._notify_empty()

    def pump(self) -> None:
        """Send from the spool, as far as the window and the sink allow."""
        self._tell_missed()
        sink = self._sink
        while sink is not None and self._sent < self._spool.last and self._has_room(sink):
            try:
                page = self._spool.read_after(self._sent, _PAGE)
            except StorageError:
                logger.exception("the event after %d cannot be read", self._sent)
                return
            if not page:
                logger.error("the events after %d are missing in the spool", self._sent)
                return
            for n, body in page:
                if not self._has_room(sink):
                    return
                self._send(sink, n, body)

    async def wait_empty(self) -> None:
        """Return when everything is acknowledged."""
        while self._added or self._acknowledged < self._last:
            waiter = self._loop.create_future()
            self._empty_waiters.append(waiter)
            await waiter

    def _has_room(self, sink: EventSink) -> bool:
        return sink.takes_events and self._under_way_bytes < WINDOW

    def _send(self, sink: EventSink, n: int, body: bytes) -> None:
        sink.send_event(n, body)
        self._sent = n
        self._under_way.append((n, len(body)))
        self._under_way_bytes += len(body)

    def _retry(self) -> None:
        self.stuck = False
        self.flush()
        if not self.stuck:
            self._reported = False
            self._changed()

    def _look(self) -> None:
        limit = SPOOLED // 2 if self.crowded else SPOOLED
        crowded = self._sink is not None and self._spool.size > limit
        if crowded != self.crowded:
            self.crowded = crowded
            self._changed()

    def _notify_empty(self) -> None:
        waiters, self._empty_waiters = self._empty_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
