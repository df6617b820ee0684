"""Messages over Unix sockets with asyncio: callbacks for what arrives, a buffer with a mark for what leaves."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, cast

from runtimed.errors import ProtocolError, RuntimedError, wire_name
from runtimed.protocol.codec import (
    MAX_FRAME,
    MAX_GREETING,
    FrameReader,
    decode_answer,
    decode_greeting,
    encode_message,
)
from runtimed.protocol.messages import Failure, Message, Refusal
from runtimed.transport.reception import Reception
from runtimed.transport.sockets import BACKLOG, PeerCredentials, check_listener, listen, peer_credentials

__all__ = ["HIGH_WATER", "TURN", "Channel", "ChannelHandler", "connect", "serve", "shortened"]

logger = logging.getLogger(__name__)

HIGH_WATER: Final = 2**20
"""Bytes that wait to be sent above which a channel is not `writable`; the owner then stops giving it events."""


MAX_SENTENCE: Final = 1000
"""Characters that are left of a sentence which does not fit into a frame."""

TURN: Final = 0.001
"""Seconds of handling one connection's messages after which everything else on the event loop has its turn."""


def shortened(sentence: str) -> str:
    """Return a sentence that fits into any frame."""
    return sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[:MAX_SENTENCE]}…"


class ChannelHandler:
    """What the owner of a channel does when something happens. All methods are plain calls on the event loop.

    Attributes:
        batch: So many messages are handed over at a time, at most. Between two batches the channel looks at the time,
            and whether its owner wants to read on.
    """

    batch: int = 64

    def received(self, messages: list[Message]) -> None:
        """Messages arrived, in order, at most `batch` of them."""
        raise NotImplementedError

    def writable(self) -> None:
        """What waited to be sent has shrunk: `Channel.writable` is True again."""

    def closed(self, error: Exception | None) -> None:
        """The connection is gone, once. `error` says why unless this or the other side closed it."""
        raise NotImplementedError


class Channel(asyncio.Protocol):
    """One connection that carries messages."""

    def __init__(self, handler: Callable[[Channel], ChannelHandler], reception: Reception | None = None) -> None:
        """Make a channel that asyncio connects.

        Args:
            handler: Makes its owner.
            reception: That of the listener which made the connection; None on the side that connected.
        """
        self._make_handler = handler
        self._reception = reception
        self._handler: ChannelHandler | None = None
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(MAX_FRAME if reception is None else MAX_GREETING)
        self._decode: Callable[[bytes], Message] = decode_answer if reception is None else decode_greeting
        self._waits_for_memory = False
        self._error: Exception | None = None
        self._paused = False
        self._next_turn: asyncio.Handle | None = None
        self.writable = True
        self.peer = PeerCredentials(uid=-1, pid=None)

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self.peer = peer_credentials(cast("socket.socket", transport.get_extra_info("socket")))
        if self.peer.uid == os.getuid():
            if self._reception is not None:
                self._reception.came(self)
            self._handler = self._make_handler(self)
        else:
            logger.warning("refused a connection by user %s", self.peer.uid)
            self.refuse(f"This socket belongs to user {os.getuid()}; you are user {self.peer.uid}")

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._take_turn(data)

    def _take_turn(self, data: bytes = b"") -> None:
        """Hand over what has come, for one turn; the rest waits for the next one, and the other side with it."""
        self._next_turn = None
        end = time.monotonic() + TURN
        more = True
        while more and self.is_open and self._handler is not None:
            # What comes behind a greeting is read by other rules.
            size = 1 if self._decode is decode_greeting else self._handler.batch
            messages, more = self._next_batch(size, data)
            data = b""
            if messages:
                if self._reception is not None:
                    self._reception.finished(self)
                self._hand_over(self._handler, messages)
            if self._error is not None:
                self.refuse(str(self._error))
                return
            if self._paused or time.monotonic() >= end:
                break
        if more and self.is_open and not self._paused:
            self._next_turn = asyncio.get_running_loop().call_soon(self._take_turn)
        if self._reception is not None and not more:
            self._tell_unfinished(self._reception)
        self._set_reading()

    def _tell_unfinished(self, reception: Reception) -> None:
        pending = self._reader.pending
        if not self.is_open or not pending:
            self._waits_for_memory = False
            reception.finished(self)
        else:
            self._waits_for_memory = not reception.unfinished(self, self._reader.announced, pending)

    def _hand_over(self, handler: ChannelHandler, messages: list[Message]) -> None:
        try:
            handler.received(messages)
        except BaseException:
            # Nobody knows what became of these messages.
            self.abort()
            raise

    def _next_batch(self, size: int, data: bytes) -> tuple[list[Message], bool]:
        """Return the next messages, and whether more may be there; those before an unreadable one still count."""
        messages: list[Message] = []
        try:
            with closing(self._reader.receive_data(data)) as bodies:
                for body in bodies:
                    messages.append(self._decode(body))
                    if len(messages) == size:
                        return messages, True
        except ProtocolError as exc:
            # Not the error itself: its traceback holds the frame.
            self._error = ProtocolError(exc.message)
        return messages, False

    def _set_reading(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        wanted = not self._paused and not self._waits_for_memory and self._next_turn is None
        if wanted and not self._transport.is_reading():
            self._transport.resume_reading()
        elif not wanted and self._transport.is_reading():
            self._transport.pause_reading()

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
        self._reader = FrameReader()  # what it holds may be large, and this channel is remembered for a while
        if self._reception is not None:
            self._reception.gone(self)
        if handler is not None:
            handler.closed(self._error or exc)

    # --- the reception's side ---

    @property
    def is_read(self) -> bool:
        """Whether bytes are taken from the socket now."""
        return self._transport is not None and self._transport.is_reading()

    def go_on(self) -> None:
        """Take the rest of a large frame: there is memory for it."""
        self._waits_for_memory = False
        self._set_reading()

    # --- the owner's side ---

    def trust(self, decode: Callable[[bytes], Message]) -> None:
        """The other side has said who it is: from now on it may ask, in frames of any size.

        Args:
            decode: Reads what it may ask.
        """
        self._reader.max_frame = MAX_FRAME
        self._decode = decode
        if self._reception is not None:
            self._reception.greeted(self)

    @property
    def is_open(self) -> bool:
        """False once either side has closed it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that wait until the other side takes them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, message: Message) -> None:
        """Send a message; on a closed channel it goes nowhere.

        Raises:
            ProtocolError: If it is larger than a frame may be.
        """
        self.send_parts(encode_message(message))

    def fail(self, request_id: int, error: RuntimedError) -> None:
        """Answer a request with an error; of a sentence that fits into no frame, its beginning is sent."""
        name, sentence = wire_name(error), error.message
        try:
            self.send(Failure(request_id, name, sentence, error.data))
        except ProtocolError:
            # It repeats what was asked for, and an id of 10 MB does not fit twice; or its data are no plain values.
            self.send(Failure(request_id, name, shortened(sentence), {}))

    def send_parts(self, *parts: bytes) -> None:
        """Send an encoded frame that comes in parts."""
        if self._transport is not None and not self._transport.is_closing():
            if len(parts) == 1:
                self._transport.write(parts[0])
            else:
                self._transport.writelines(parts)

    def pause_reading(self) -> None:
        """Let the other side wait: nothing more is handed over but what `received` is being called with."""
        self._paused = True
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._set_reading()

    def resume_reading(self) -> None:
        """Take up reading again, with what had come before."""
        if self._paused:
            self._paused = False
            self._next_turn = asyncio.get_running_loop().call_soon(self._take_turn)

    def refuse(self, reason: str, error: str = "ProtocolError") -> None:
        """Tell the other side why, and close.

        Args:
            reason: A sentence.
            error: Name of the class of error that it is.
        """
        self.send(Refusal(shortened(reason), error))
        self.close()

    def close(self) -> None:
        """Close after what was sent has left. Closing twice is harmless."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what waits to be sent is dropped."""
        if self._transport is not None:
            self._transport.abort()


async def serve(path: Path, handler: Callable[[Channel], ChannelHandler], reception: Reception) -> asyncio.Server:
    """Listen on a path; each connection gets a channel and its handler, which calls `trust` when it was greeted.

    Raises:
        DaemonUnavailable: If the path cannot be bound (see `sockets.listen`).
    """
    sock = listen(path)
    sock.setblocking(False)
    # asyncio listens once more, with a backlog of its own.
    return await asyncio.get_running_loop().create_unix_server(
        lambda: Channel(handler, reception), sock=sock, backlog=BACKLOG
    )


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
