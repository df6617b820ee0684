"""Messages over a Unix socket with blocking calls: no thread, no event loop.

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

from runtimed.errors import ConnectionLost, ExecutionTimeout, ProtocolError
from runtimed.protocol.codec import FrameReader, decode_answer, encode_message
from runtimed.protocol.messages import Message

__all__ = ["BlockingChannel", "WaitTimeout"]

_CHUNK: Final = 2**18
"""Bytes asked of the socket at a time."""

_LONGEST_POLL: Final = 86_400.0
"""Seconds of one `poll`, which takes no more milliseconds than a C int holds: 24 days."""


class WaitTimeout(ExecutionTimeout):
    """Nothing arrived before the deadline; the channel is as it was."""


class BlockingChannel:
    """One connection that carries messages, for one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._reader = FrameReader()
        self._arrived: deque[Message] = deque()
        self._open = True

    @property
    def is_open(self) -> bool:
        """False once it was closed or found broken."""
        return self._open

    def send(self, message: Message, deadline: float | None = None) -> None:
        """Send a message, waiting as long as the other side does not read.

        Args:
            deadline: On the clock of `time.monotonic`.

        Raises:
            ConnectionLost: If the other side is gone.
            WaitTimeout: If it did not take the message in time; the channel is closed then.
            ProtocolError: If the message is larger than a frame may be.
        """
        rest = memoryview(encode_message(message))
        self._check_open()
        # Until the last byte is sent, an exception leaves a torn frame behind.
        self._open = False
        try:
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

    def receive(self, deadline: float | None = None) -> Message:
        """Return the next message.

        Args:
            deadline: On the clock of `time.monotonic`; None waits for ever.

        Raises:
            ConnectionLost: If the other side is gone.
            WaitTimeout: If nothing came in time.
            ProtocolError: If what came is no message; the channel is closed then.
        """
        while not self._arrived:
            self._check_open()
            self._wait(select.POLLIN, deadline)
            self._open = False
            try:
                data = self._sock.recv(_CHUNK)
                if data:
                    self._arrived.extend(decode_answer(body) for body in self._reader.receive_data(data))
                    self._open = True
            except BlockingIOError:
                self._open = True
            except OSError as exc:
                raise ConnectionLost(f"The connection to the daemon broke: {exc.strerror}") from exc
            except ProtocolError:
                self.close()
                raise
            finally:
                if not self._open:
                    self.close()
            if not self._open:
                raise ConnectionLost("The daemon closed the connection")
        return self._arrived.popleft()

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
