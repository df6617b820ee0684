"""Shares the event loop among the sessions: the bulk of one waits while clients of others ask for something.

A session's bulk is what its host sends, and what its streams read again from storage. It comes in pieces of about a
millisecond, so a request of another client never waits long; but were there always a next piece, most requests would
wait for one. So a session that has had more than its share is left alone for a while, and what it wants to say stays
where it is: in the spool of its host, and in storage.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["Demand", "Flow"]

SHARE: Final = 0.1
"""Part of the time that one session's bulk may take while clients of other sessions ask for something."""

CREDIT: Final = 0.005
"""Seconds of work that a session may have had beyond its share before it waits: an ordinary cell never does."""

MAX_DEBT: Final = 0.02
"""Seconds of work beyond its share that are held against a session, however much it had while it was alone."""

LATELY: Final = 0.1
"""Seconds for which a request counts as one of a client that may ask again at any moment."""


class Demand:
    """Whose clients asked for something lately; one for all sessions of a daemon."""

    def __init__(self) -> None:
        self._latest: tuple[object, float] = (None, -LATELY)
        self._before = -LATELY

    def note(self, session: object) -> None:
        """A client asks for something.

        Args:
            session: What tells this session from others.
        """
        now = time.monotonic()
        if self._latest[0] != session:
            self._before = self._latest[1]
        self._latest = session, now

    def of_others(self, session: object, now: float) -> bool:
        """Whether clients of other sessions have asked for something lately."""
        latest, at = self._latest
        return now - (self._before if latest == session else at) < LATELY


class Flow:
    """When the bulk of one session may go on.

    What waits is bounded by who waits: the session's host, and each of its streams once.
    """

    def __init__(self, demand: Demand, session: object) -> None:
        self._demand = demand
        self._session = session
        self._waiting: deque[Callable[[], None]] = deque()
        self._handle: asyncio.Handle | None = None
        self._released: list[Callable[[], None]] = []
        self._debt = 0.0
        self._counted_at = 0.0
        self._holds = 0

    @property
    def is_held(self) -> bool:
        """Whether everything waits."""
        return self._holds > 0

    def hold(self) -> None:
        """Let everything wait until as many calls of `release`: the session's storage is at work elsewhere."""
        self._holds += 1

    def release(self) -> None:
        """Let everything go on, unless somebody else holds it."""
        self._holds -= 1
        if self._holds:
            return
        released, self._released = self._released, []
        for work in released:
            work()
        self._schedule()

    def when_released(self, work: Callable[[], None]) -> None:
        """Call this as soon as nothing is held any more; it waits for no share."""
        self._released.append(work)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time that the block takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent(time.perf_counter() - started)

    async def turn(self) -> None:
        """Wait until the next piece may go on."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.later(lambda: None if future.done() else future.set_result(None))
        await future

    def spent(self, seconds: float) -> None:
        """Say how long a piece of bulk took."""
        now = time.monotonic()
        self._debt = min(max(self._debt - (now - self._counted_at) * SHARE, 0.0) + seconds, MAX_DEBT)
        self._counted_at = now

    @property
    def is_open(self) -> bool:
        """Whether the bulk of this session may go on at once."""
        return not self.is_held and not self._delay()

    def later(self, work: Callable[[], None]) -> None:
        """Do a piece of bulk in a turn of its own, as soon as it is this session's."""
        self._waiting.append(work)
        self._schedule()

    def _delay(self) -> float:
        if self._debt <= CREDIT:
            return 0.0
        now = time.monotonic()
        if not self._demand.of_others(self._session, now):
            return 0.0
        # No longer than it takes to see whether anybody else is still there.
        return min(max(self._debt / SHARE - (now - self._counted_at), 0.0), LATELY)

    def _schedule(self) -> None:
        if not self._waiting or self._handle is not None or self.is_held:
            return
        loop, delay = asyncio.get_running_loop(), self._delay()
        self._handle = loop.call_later(delay, self._take_turn) if delay else loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._handle = None
        try:
            if self._waiting and self.is_open:
                with self.counted():
                    self._waiting.popleft()()
        finally:
            self._schedule()
