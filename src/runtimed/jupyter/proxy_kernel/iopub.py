"""Flow control of IOPub: what is published waits while a frontend is behind, and none of it is lost.

At its high-water mark a publishing socket drops messages. Here it refuses them instead (`XPUB_NODROP`), for all
frontends, since it cannot send to some. So one that does not read holds up the others, for `PATIENCE` at most.

Source: ZeroMQ, zmq_setsockopt(3), ZMQ_SNDHWM and ZMQ_XPUB_NODROP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import zmq

__all__ = ["PATIENCE", "Publisher"]

logger = logging.getLogger(__name__)

HIGH_WATER: Final = 64
"""High-water mark of what one frontend has not read, in messages; a text has at most 1 MiB."""

PATIENCE: Final = 60.0
"""Seconds for which frontends that read nothing hold up the others. Then they miss what comes until they read again."""

BATCH: Final = 16
"""Messages that are sent at a time past frontends that read nothing: the others, who have room for more, get all."""

PACE: Final = 0.05
"""Seconds between two such batches."""

ZERO_COPY: Final = 2**16
"""Size of the messages whose bytes all frontends share, in bytes; copying smaller ones is cheaper."""


class Publisher:
    """The IOPub socket's sending side, in the running event loop."""

    def __init__(self, socket: Any) -> None:
        """Set the options of an XPUB socket that is not bound yet."""
        socket.sndhwm = HIGH_WATER
        socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Sequence[bytes]] = deque()
        self._is_drained = asyncio.Event()
        self._is_drained.set()
        self._deadline: asyncio.TimerHandle | None = None
        self._is_missed = False
        self._forced = 0

    def send(self, parts: Sequence[bytes]) -> None:
        """Send a message, or keep it while a frontend is behind.

        What is kept has no limit of its own: await `drained` before taking more from a source that has one.
        """
        self._waiting.append(parts)
        if len(self._waiting) == 1:
            self.flush()

    def flush(self) -> None:
        """Send what waits, as far as all frontends have room. Call it when the socket's descriptor is readable."""
        while self._waiting and self._is_sent(self._waiting[0]):
            self._waiting.popleft()
            self._stop_waiting()
        if not self._waiting:
            self._is_drained.set()
        elif self._deadline is None:
            self._is_drained.clear()
            self._deadline = self._loop.call_later(PACE if self._is_missed else PATIENCE, self._go_on)

    async def drained(self) -> None:
        """Wait until nothing waits."""
        await self._is_drained.wait()

    def close(self) -> None:
        """Drop what waits. Idempotent."""
        self._waiting.clear()
        self._stop_waiting()

    def _is_sent(self, parts: Sequence[bytes]) -> bool:
        copy = max(map(len, parts)) < ZERO_COPY
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=copy)
        except zmq.Again:
            if not self._forced:
                return False
            self._forced -= 1
            self._socket.setsockopt(zmq.XPUB_NODROP, 0)
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=copy)
            self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        else:
            self._is_missed, self._forced = False, 0
        return True

    def _stop_waiting(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _go_on(self) -> None:
        """Send past frontends that read nothing."""
        if not self._is_missed:
            logger.warning("a frontend has read nothing for %g seconds, and misses what comes until it does", PATIENCE)
        self._is_missed, self._forced = True, BATCH
        self._deadline = None
        self.flush()
