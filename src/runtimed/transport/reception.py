"""Limits for the connections of one listener: the time until the greeting, and the memory for unfinished frames.

Nothing here reads a socket.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

from runtimed.protocol.codec import MAX_FRAME

__all__ = ["GREETING_DEADLINE", "SMALL_FRAME", "Receiving", "Reception"]

GREETING_DEADLINE: Final = 10.0
"""Seconds within which a connection must greet."""

SMALL_FRAME: Final = 2**16
"""Largest frame that needs no grant of memory, in bytes."""

MAX_WAITING: Final = 128
"""Largest number of connections that wait for a grant. The next one is closed, and may connect again."""

SILENCE: Final = 30.0
"""Seconds without a byte after which the connection of an unfinished frame is closed."""

STALLED: Final = 2.0
"""Seconds without a byte after which a granted frame is evicted for one that waits."""

SLOW_AFTER: Final = 10.0
"""Age in seconds from which a slow frame is evicted for one that waits."""

LEAST_RATE: Final = 2**17
"""Rate below which a frame is slow, in bytes per second."""

LOOK_EVERY: Final = 0.5
"""Seconds between two checks of the unfinished frames."""


class Receiving(Protocol):
    """A connection as the reception sees it."""

    @property
    def is_read(self) -> bool:
        """Whether its bytes are read from the socket now."""

    def go_on(self) -> None:
        """Read the frame that had to wait."""

    def refuse(self, reason: str, error: str = "ProtocolError") -> None:
        """Send the peer the reason and close."""


class _Frame:
    """A frame that has arrived in part."""

    def __init__(self, size: int, now: float) -> None:
        self.size = size
        self.begun_at = now
        self.heard_at = now
        self.received = 0

    def is_slow(self, now: float) -> bool:
        """Whether it may be evicted for another frame."""
        age = now - self.begun_at
        return now - self.heard_at > STALLED or (age > SLOW_AFTER and self.received < LEAST_RATE * age)


class Reception:
    """The limits of one listener, which all its connections share.

    A frame of more than SMALL_FRAME bytes is read once its size is free in the budget. Until then its connection is not
    read, so back-pressure stops the sender. Slow frames are evicted while others wait.
    """

    def __init__(self, max_strangers: int, budget: int = 4 * MAX_FRAME) -> None:
        """Start without connections.

        Args:
            max_strangers: Largest number of connections without a greeting. One more evicts the oldest of them.
            budget: Bytes for unfinished frames, at least MAX_FRAME.
        """
        self._max_strangers = max_strangers
        self._free = budget
        self._strangers: dict[Receiving, asyncio.TimerHandle] = {}
        self._frames: dict[Receiving, _Frame] = {}
        self._granted: set[Receiving] = set()
        self._waiting: dict[Receiving, None] = {}
        self._next_look: asyncio.TimerHandle | None = None

    # --- greetings ---

    @property
    def strangers(self) -> int:
        """Number of connections that have not greeted."""
        return len(self._strangers)

    def came(self, connection: Receiving) -> None:
        """Register a new connection."""
        loop = asyncio.get_running_loop()
        self._strangers[connection] = loop.call_later(GREETING_DEADLINE, self._turn_away_late, connection)
        if len(self._strangers) > self._max_strangers:
            self._turn_away(next(iter(self._strangers)), "Too many connections wait here without a greeting")

    def greeted(self, connection: Receiving) -> None:
        """Note that a connection has greeted."""
        timer = self._strangers.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def gone(self, connection: Receiving) -> None:
        """Note that a connection is closed or about to be. Idempotent."""
        self.greeted(connection)
        self.finished(connection)

    def _turn_away_late(self, stranger: Receiving) -> None:
        self._turn_away(stranger, f"No greeting came within {GREETING_DEADLINE:g} seconds")

    def _turn_away(self, stranger: Receiving, reason: str) -> None:
        self.gone(stranger)
        stranger.refuse(reason)

    # --- unfinished frames ---

    def unfinished(self, connection: Receiving, size: int, received: int) -> bool:
        """Note that a frame has arrived in part.

        Args:
            connection: The frame's connection.
            size: Bytes of the whole frame.
            received: Bytes that have arrived.

        Returns:
            Whether to read on. If not, `go_on` follows once there is memory, or the connection is refused.
        """
        now = time.monotonic()
        frame = self._frames.get(connection)
        if frame is None:
            frame = self._frames[connection] = _Frame(size, now)
            self._look_later()
        frame.heard_at, frame.received = now, received
        if connection not in self._granted:
            frame.size = size  # known from the fourth byte on
        if size <= SMALL_FRAME or connection in self._granted:
            return True
        if not self._waiting and size <= self._free:
            self._grant(connection, frame)
            return True
        if len(self._waiting) >= MAX_WAITING and connection not in self._waiting:
            self._give_up(connection, "Too many large messages are on their way to this process")
        else:
            self._waiting[connection] = None
        return False

    def finished(self, connection: Receiving) -> None:
        """Note that a frame is complete, or never will be. Idempotent."""
        frame = self._frames.pop(connection, None)
        self._waiting.pop(connection, None)
        if frame is not None and connection in self._granted:
            self._granted.discard(connection)
            self._free += frame.size
            self._let_wait_no_more()

    def _grant(self, connection: Receiving, frame: _Frame) -> None:
        self._granted.add(connection)
        self._free -= frame.size
        frame.begun_at = frame.heard_at = time.monotonic()

    def _let_wait_no_more(self) -> None:
        while self._waiting:
            first = next(iter(self._waiting))
            frame = self._frames[first]
            if frame.size > self._free:
                return
            del self._waiting[first]
            self._grant(first, frame)
            first.go_on()

    def _look_later(self) -> None:
        if self._next_look is None and self._frames:
            self._next_look = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._next_look = None
        now = time.monotonic()
        for connection, frame in list(self._frames.items()):
            if not connection.is_read:
                # The frame waits for this side, not for its sender.
                frame.heard_at = now
            elif now - frame.heard_at > SILENCE:
                self._give_up(connection, f"The rest of a message of {frame.size} bytes did not come")
            elif self._waiting and connection in self._granted and frame.is_slow(now):
                self._give_up(connection, f"A message of {frame.size} bytes came too slowly, and others wait")
        self._look_later()

    def _give_up(self, connection: Receiving, reason: str) -> None:
        self.gone(connection)
        # A well-behaved client connects and sends again.
        connection.refuse(reason, "ConnectionLost")
