"""Messages over Unix sockets with asyncio: callbacks for what arrives, a buffer with a mark for what leaves."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from runtimed.errors import ProtocolError
from runtimed.protocol.codec import FrameReader, decode_message, encode_message
from runtimed.protocol.messages import Message, Refusal
from runtimed.transport.sockets import PeerCredentials, check_listener, listen, peer_credentials

__all__ = ["HIGH_WATER", "Channel", "ChannelHandler", "connect", "serve"]

logger = logging.getLogger(__name__)

HIGH_WATER: Final = 2**20
"""Bytes that wait to be sent above which a channel is not `writable`; the owner then stops giving it events."""


class ChannelHandler:
    """What the owner of a channel does when something happens. All methods are plain calls on the event loop."""

    def received(self, messages: list[Message]) -> None:
        """Messages arrived, in order; all that one read of the socket completed."""
        raise NotImplementedError

    def writable(self) -> None:
        """What waited to be sent has shrunk: `Channel.writable` is True again."""

    def closed(self, error: Exception | None) -> None:
        """The connection is gone, once. `error` says why unless this or the other side closed it."""
        raise NotImplementedError


class Channel(asyncio.Protocol):
    """One connection that carries messages."""

    def __init__(self, handler: Callable[[Channel], ChannelHandler]) -> None:
        self._make_handler = handler
        self._handler: ChannelHandler | None = None
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._error: Exception | None = None
        self.writable = True
        self.peer = PeerCredentials(uid=-1, pid=None)

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self.peer = peer_credentials(cast("socket.socket", transport.get_extra_info("socket")))
        if self.peer.uid == os.getuid():
            self._handler = self._make_handler(self)
        else:
            logger.warning("refused a connection by user %s", self.peer.uid)
            self.refuse(f"This socket belongs to user {os.getuid()}; you are user {self.peer.uid}")

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._transport is None or self._transport.is_closing() or self._handler is None:
            return
        messages: list[Message] = []
        error: ProtocolError | None = None
        try:
            for body in self._reader.receive_data(data):
                messages.append(decode_message(body))  # noqa: PERF401  # those before a bad one still count
        except ProtocolError as exc:
            error = exc
        if messages:
            self._handler.received(messages)
        if error is not None:
            self._error = error
            self.refuse(str(error))

    def pause_writing(self) -> None:
        """Called by asyncio."""
        self.writable = False

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self.writable = True
        if self._handler is not None:
            self._handler.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        handler, self._handler, self._transport = self._handler, None, None
        if handler is not None:
            handler.closed(self._error or exc)

    # --- the owner's side ---

    @property
    def is_open(self) -> bool:
        """False once either side has closed it."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Message) -> None:
        """Send a message; on a closed channel it goes nowhere.

        Raises:
            ProtocolError: If it is larger than a frame may be.
        """
        self.send_parts(encode_message(message))

    def send_parts(self, *parts: bytes) -> None:
        """Send an encoded frame that comes in parts."""
        if self._transport is not None and not self._transport.is_closing():
            if len(parts) == 1:
                self._transport.write(parts[0])
            else:
                self._transport.writelines(parts)

    def pause_reading(self) -> None:
        """Let the other side wait."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take up reading again."""
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def refuse(self, reason: str) -> None:
        """Tell the other side why, and close."""
        self.send(Refusal(reason))
        self.close()

    def close(self) -> None:
        """Close after what was sent has left. Closing twice is harmless."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what waits to be sent is dropped."""
        if self._transport is not None:
            self._transport.abort()


async def serve(path: Path, handler: Callable[[Channel], ChannelHandler]) -> asyncio.Server:
    """Listen on a path; each connection gets a channel and its handler.

    Raises:
        DaemonUnavailable: If the path cannot be bound (see `sockets.listen`).
    """
    sock = listen(path)
    sock.setblocking(False)
    return await asyncio.get_running_loop().create_unix_server(lambda: Channel(handler), sock=sock)


async def connect(path: Path, handler: Callable[[Channel], ChannelHandler]) -> Channel:
    """Connect to a path.

    Raises:
        OSError: If nobody answers there, or somebody else than this user.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, str(path))
        check_listener(sock)
        _transport, channel = await loop.create_unix_connection(lambda: Channel(handler), sock=sock)
    except BaseException:
        sock.close()
        raise
    return channel
