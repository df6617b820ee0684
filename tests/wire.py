"""Messages by hand over a socket, for tests that say what no honest side would."""

from __future__ import annotations

import socket
import time
from collections import deque

from runtimed.errors import ConnectionLost
from runtimed.protocol.codec import FrameReader, decode_answer, encode_message
from runtimed.protocol.messages import Message

__all__ = ["Wire"]


class Wire:
    """A connection on which a test sends and receives single messages.

    Attributes:
        sock: For bytes that are no message.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader = FrameReader()
        self._arrived: deque[Message] = deque()

    def send(self, message: Message) -> None:
        self.sock.settimeout(None)
        self.sock.sendall(encode_message(message))

    def receive(self, deadline: float) -> Message:
        """Return the next message.

        Raises:
            ConnectionLost: If the other side is gone.
            TimeoutError: If nothing came until the deadline, on the clock of `time.monotonic`.
        """
        while not self._arrived:
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            data = self.sock.recv(2**18)
            if not data:
                raise ConnectionLost("the other side closed the connection")
            self._arrived.extend(map(decode_answer, self._reader.receive_data(data)))
        return self._arrived.popleft()

    def close(self) -> None:
        self.sock.close()
