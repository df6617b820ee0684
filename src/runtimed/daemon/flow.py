"""Shares the event loop fairly among the sessions: the bulk of one waits while clients of others send requests.

A session's bulk is what its host sends, and what its streams read again from storage. It comes in pieces of about a
millisecond, so a request of another client never waits long. But if another piece always followed, most requests would
wait for one. So a session that exceeded its share pauses, and its bulk stays where it is: in the spool of its host, and
in storage.
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
"""Share of the time for one session's bulk while clients of other sessions send requests."""

CREDIT: Final = 0.005
"""Burst: seconds of work beyond its share before a session waits. An ordinary cell never reaches it."""

MAX_DEBT: Final = 0.02
"""Largest debt of a session, in seconds of work, however much it did while it was alone."""

LATELY: Final = 0.1
"""Seconds for which a client that sent a request counts as present."""


class Demand:
    """Records whose clients sent requests lately; one for all sessions of a daemon."""

    def __init__(self) -> None:
        self._latest: tuple[object, float] = (None, -LATELY)
        self._before = -LATELY

    def note(self, session: object) -> None:
        """Note a request of a client.

        Args:
            session: The session's key.
        """
        now = time.monotonic()
        if self._latest[0] != session:
            self._before = self._latest[1]
        self._latest = session, now

    def of_others(self, session: object, now: float) -> bool:
        """Whether clients of other sessions have sent requests lately."""
        latest, at = self._latest
        return now - (self._before if latest == session else at) < LATELY


class Flow:
    """Decides when the bulk of one session may go on.

    Its waiters are bounded: the session's host, and each of its streams once.
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
        """Let everything wait until `release` was called as often: another thread uses the session's storage."""
        self._holds += 1

    def release(self) -> None:
        """Let everything go on, unless there is another `hold`."""
        self._holds -= 1
        if self._holds:
            return
        released, self._released = self._released, []
        for work in released:
            work()
        self._schedule()

    def when_released(self, work: Callable[[], None]) -> None:
        """Call a function as soon as nothing is held any more, whatever the share."""
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
        """Count the seconds that a piece of bulk took."""
        now = time.monotonic()
        self._debt = min(max(self._debt - (now - self._counted_at) * SHARE, 0.0) + seconds, MAX_DEBT)
        self._counted_at = now

    @property
    def is_open(self) -> bool:
        """Whether the bulk of this session may go on at once."""
        return not self.is_held and not self._delay()

    def later(self, work: Callable[[], None]) -> None:
        """Run a piece of bulk in a turn of its own, as soon as the session's share allows."""
        self._waiting.append(work)
        self._schedule()

    def _delay(self) -> float:
        if self._debt <= CREDIT:
            return 0.0
        now = time.monotonic()
        if not self._demand.of_others(self._session, now):
            return 0.0
        # Just long enough to see whether other clients are still there.
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
