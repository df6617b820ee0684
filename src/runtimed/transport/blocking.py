"""A connection over a socket with blocking calls: no thread, no event loop.

An asynchronous exception (Ctrl-C, a signal handler that raises) during a wait leaves the channel usable. One that
strikes while bytes are moved closes the channel, since the number of moved bytes is unknown then.
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
"""Bytes of one read."""

_LONGEST_POLL: Final = 86_400.0
"""Seconds of one `poll`: its milliseconds must fit into a C int, which holds 24 days."""


class WaitTimeout(ExecutionTimeout):
    """Nothing arrived before the deadline; the channel is still usable."""


class BlockingChannel:
    """One connection of an asking side, for one thread at a time.

    Attributes:
        side: The asking side. Its messages leave with the next `flush`.
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
        """False once the channel was closed or found broken."""
        return self._open

    def flush(self, deadline: float | None = None) -> None:
        """Send the side's messages, and wait while the peer does not read.

        Args:
            deadline: On the clock of `time.monotonic`; None waits without limit.

        Raises:
            ConnectionLost: If the peer has closed the connection.
            WaitTimeout: If the peer did not take the bytes in time; the channel is closed then.
        """
        self._check_open()
        # An exception before the last byte leaves a partial frame behind.
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
        """Return the next event. `Ended` is the last one.

        Args:
            deadline: On the clock of `time.monotonic`; None waits without limit.

        Raises:
            ConnectionLost: If the channel is closed.
            WaitTimeout: If nothing arrived in time.
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
        # A buffer that is kept: `recv` allocates a whole chunk for each small message.
        data = bytes(self._view[: self._sock.recv_into(self._view)])
        self._arrived.extend(self.side.receive_data(data))
        if data and self.side.error is None:
            self._open = True
        else:
            self._arrived.extend(self.side.receive_eof())

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._open = False
        self._sock.close()

    def hang_up(self) -> None:
        """Shut the connection down while another thread waits in a call, which then fails with `ConnectionLost`."""
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
