"""A connection over a socket with blocking calls: no thread, no event loop.

An exception from outside (Ctrl-C, a signal handler that raises) while a call waits leaves the channel in step. One that
strikes in the moment in which bytes are being moved closes it, since nobody can tell any more how many were.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from typing import Final

from runtimed.errors import ConnectionLost, ExecutionTimeout
from runtimed.protocol.connection import AskingEvent, AskingSide

__all__ = ["BlockingChannel", "WaitTimeout"]

_CHUNK: Final = 2**18
"""Bytes asked of the socket at a time."""

_LONGEST_POLL: Final = 86_400.0
"""Seconds of one `poll`, which takes no more milliseconds than a C int holds: 24 days."""


class WaitTimeout(ExecutionTimeout):
    """Nothing arrived before the deadline; the channel is as it was."""


class BlockingChannel:
    """One connection of an asking side, for one thread at a time.

    Attributes:
        side: What is said with it leaves with the next `flush`.
    """

    def __init__(self, sock: socket.socket, side: AskingSide[None]) -> None:
        sock.setblocking(False)
        self.side = side
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._view = memoryview(bytearray(_CHUNK))
        self._arrived: deque[AskingEvent[None]] = deque()
        self._open = True

    @property
    def is_open(self) -> bool:
        """False once it was closed or found broken."""
        return self._open

    def flush(self, deadline: float | None = None) -> None:
        """Send what the side has said, waiting as long as the other side does not read.

        Args:
            deadline: On the clock of `time.monotonic`.

        Raises:
            ConnectionLost: If the other side is gone.
            WaitTimeout: If it did not take the bytes in time; the channel is closed then.
        """
        self._check_open()
        # Until the last byte is sent, an exception leaves a torn frame behind.
        self._open = False
        try:
            rest = memoryview(b"".join(self.side.data_to_send()))
            while rest:
                try:
                    rest = rest[self._sock.send(rest) :]
                except BlockingIOError:
                    self._wait(select.POLLOUT, deadline)
                except OSError as exc:
                    raise ConnectionLost(f"The connection to the daemon broke: {exc.strerror}") from exc
            self._open = True
        finally:
            if not self._open:
                self.close()

    def receive(self, deadline: float | None = None) -> AskingEvent[None]:
        """Return the next event; `Ended`, and then nothing more, when the connection is over.

        Args:
            deadline: On the clock of `time.monotonic`; None waits for ever.

        Raises:
            ConnectionLost: If the channel is closed.
            WaitTimeout: If nothing came in time.
        """
        while not self._arrived:
            self._check_open()
            self._wait(select.POLLIN, deadline)
            self._open = False
            try:
                self._take()
            except BlockingIOError:
                self._open = True
            except OSError as exc:
                self._arrived.extend(self.side.receive_eof(exc.strerror or str(exc)))
            finally:
                if not self._open:
                    self.close()
        return self._arrived.popleft()

    def _take(self) -> None:
        # Into a buffer that stays: `recv` would allocate a whole chunk for each small message.
        data = bytes(self._view[: self._sock.recv_into(self._view)])
        self._arrived.extend(self.side.receive_data(data))
        if data and self.side.error is None:
            self._open = True
        else:
            self._arrived.extend(self.side.receive_eof())

    def close(self) -> None:
        """Close the connection. Closing twice is harmless."""
        self._open = False
        self._sock.close()

    def hang_up(self) -> None:
        """End the connection under a call that waits in another thread, which then finds it closed."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _check_open(self) -> None:
        if not self._open:
            raise ConnectionLost("The connection to the daemon is closed")

    def _wait(self, event: int, deadline: float | None) -> None:
        self._poll.modify(self._sock, event)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._poll.poll(None if left is None else min(left, _LONGEST_POLL) * 1000):
                return
            if left is not None and left <= _LONGEST_POLL:
                raise WaitTimeout("Nothing arrived in time")
