"""A connection over a Unix socket for clients: its event loop may end at any time, and a process may have several.

It uses no asyncio transport, since only the transport's own loop can close that. `LoopChannel.close` works from any
thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

from runtimed.protocol.connection import AskingEvent, AskingSide
from runtimed.transport.sockets import check_listener

__all__ = ["LoopChannel", "connect_here"]

_CHUNK: Final = 2**18
"""Bytes of one read, which one turn of the loop handles."""


T = TypeVar("T")


class LoopChannel(Generic[T]):
    """One connection of an asking side, for the event loop in which it was made.

    Args:
        sock: A connected, non-blocking socket.
        side: The asking side. Its messages leave with the next `flush`.
        received: Called with one event at a time, on that loop.
    """

    def __init__(self, sock: socket.socket, side: AskingSide[T], received: Callable[[AskingEvent[T]], None]) -> None:
        self.side = side
        self.loop = asyncio.get_running_loop()
        self._sock = sock
        self._received = received
        self._pid = os.getpid()
        self._unsent = bytearray()
        self._view = memoryview(bytearray(_CHUNK))
        self._paused = False
        self._next_turn: asyncio.Handle | None = None
        self.is_open = True
        """False once either side has closed it."""
        self.loop.add_reader(sock.fileno(), self._read)
        # A loop that ends drops its readers silently; the socket is closed with the last reference to this object.
        weakref.finalize(self, sock.close)

    def flush(self) -> None:
        """Send the side's messages; call it on the channel's own loop. A closed channel drops them."""
        if self.is_open:
            waits = bool(self._unsent)
            self._unsent += b"".join(self.side.data_to_send())
            if not waits:
                self._write()

    def pause_reading(self) -> None:
        """Stop handing over events; back-pressure stops the peer."""
        if self.is_open and not self._paused:
            self._paused = True
            self.loop.remove_reader(self._sock.fileno())

    def resume_reading(self) -> None:
        """Hand over events again, first those that arrived before the pause."""
        if self._paused and self._sock.fileno() >= 0:
            self._paused = False
            self.loop.add_reader(self._sock.fileno(), self._read)
            self._next_turn = self._next_turn or self.loop.call_soon(self._take)

    def close(self) -> None:
        """Close the channel from any thread, whether its loop runs or not. Idempotent."""
        if not self.is_open:
            return
        if self._pid != os.getpid() or self.loop.is_closed():
            self.is_open = False
            self._sock.close()
        elif self.loop is _running_loop():
            self._end(None)
        else:
            # Only the loop may touch its readers; if it runs, it sees the end of the stream.
            self.is_open = False
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    # --- on its loop ---

    def _read(self) -> None:
        try:
            # A buffer that is kept: `recv` allocates a whole chunk for each small message.
            data = bytes(self._view[: self._sock.recv_into(self._view)])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._end(exc)
            return
        if data:
            self._take(data)
        else:
            self._end(None)

    def _take(self, data: bytes = b"") -> None:
        """Hand over events until the owner pauses reading."""
        self._next_turn = None
        with closing(self.side.receive_data(data)) as events:
            for event in events:
                self._received(event)
                if self._paused or not self.is_open:
                    return
        if self.side.error is not None:
            self._end(None)

    def _write(self) -> None:
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                self.loop.add_writer(self._sock.fileno(), self._write)
                return
            except OSError as exc:
                self._end(exc)
                return
            del self._unsent[:sent]
        self.loop.remove_writer(self._sock.fileno())

    def _end(self, error: Exception | None) -> None:
        if self._sock.fileno() < 0:
            return
        self.is_open = False
        self.loop.remove_reader(self._sock.fileno())
        self.loop.remove_writer(self._sock.fileno())
        self._sock.close()
        if self._next_turn is not None:
            self._next_turn.cancel()
        self.loop.call_soon(self._tell_end, "" if error is None else str(error))

    def _tell_end(self, reason: str) -> None:
        for event in self.side.receive_eof(reason):
            self._received(event)


async def connect_here(path: Path, side: AskingSide[T], received: Callable[[AskingEvent[T]], None]) -> LoopChannel[T]:
    """Connect to a socket's path in the running loop; the other arguments are those of `LoopChannel`.

    Raises:
        OSError: If no process listens there, or another user's does.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(path))
        check_listener(sock)
        return LoopChannel(sock, side, received)
    except BaseException:
        sock.close()
        raise


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
