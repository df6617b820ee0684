"""A connection over any asyncio transport: callbacks for events, a write buffer with a high-water mark.

A channel knows nothing of its peer's identity; the acceptor does (`unix`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, Generic, TypeVar, cast

from runtimed.protocol.connection import Side
from runtimed.transport.reception import Reception

__all__ = ["HIGH_WATER", "TURN", "Channel", "ChannelHandler"]

HIGH_WATER: Final = 2**20
"""High-water mark of the write buffer, in bytes. Above it a channel is not `writable` and its owner sends no events."""

TURN: Final = 0.001
"""Time slice of one connection's messages, in seconds. Then everything else on the event loop has its turn."""

E = TypeVar("E")
S = TypeVar("S", bound=Side[Any])


class ChannelHandler(Generic[E]):
    """Callbacks of a channel's owner. The event loop calls all of them; none may block.

    Attributes:
        batch: Largest number of events in one call of `received`. Between two batches the channel checks its time
            slice, and whether its owner has paused reading.
    """

    batch: int = 64

    def received(self, events: list[E]) -> None:
        """Handle events in their order, at most `batch` of them. The end of the connection comes as events, too."""
        raise NotImplementedError

    def writable(self) -> None:
        """The write buffer has drained: `Channel.writable` is True again."""

    def closed(self, error: Exception | None) -> None:
        """The connection has ended; called once. `error` is None if one of the two sides closed it."""
        raise NotImplementedError


class Channel(asyncio.Protocol, Generic[S]):
    """One connection, joined to this end's side of the protocol.

    Attributes:
        side: This end's side. Its messages leave with the next `flush`.
        writable: Whether the write buffer is below the high-water mark.
    """

    def __init__(
        self, side: S, handler: Callable[[Channel[S]], ChannelHandler[Any]], reception: Reception | None = None
    ) -> None:
        """Create a channel; asyncio connects it.

        Args:
            side: This end's side of the protocol.
            handler: Makes the channel's owner.
            reception: The listener's reception for an accepted connection; None for any other.
        """
        self.side = side
        self._make_handler = handler
        self._reception = reception
        self._handler: ChannelHandler[Any] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_stranger = reception is not None
        self._waits_for_memory = False
        self._paused = False
        self._next_turn: asyncio.Handle | None = None
        self.writable = True

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        if self._reception is not None:
            self._reception.came(self)
        self._handler = self._make_handler(self)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._take_turn(data)

    def _take_turn(self, data: bytes = b"") -> None:
        """Hand over events for one time slice. The rest waits for the next one, and back-pressure stops the peer."""
        self._next_turn = None
        end = time.monotonic() + TURN
        more = True
        while more and self.is_open and self._handler is not None:
            # Messages behind a greeting wait until it is accepted.
            size = self._handler.batch if self.side.is_greeted else 1
            events, more = self._next_batch(size, data)
            data = b""
            if events:
                if self._reception is not None:
                    self._reception.finished(self)
                self._hand_over(self._handler, events)
            if self.side.error is not None:
                self.refuse(self.side.error.message)
                return
            if self._paused or time.monotonic() >= end:
                break
        if more and self.is_open and not self._paused:
            self._next_turn = asyncio.get_running_loop().call_soon(self._take_turn)
        if self._reception is not None and not more:
            self._tell_unfinished(self._reception)
        self._set_reading()

    def _tell_unfinished(self, reception: Reception) -> None:
        size, pending = self.side.unfinished
        if not self.is_open or not pending:
            self._waits_for_memory = False
            reception.finished(self)
        else:
            self._waits_for_memory = not reception.unfinished(self, size, pending)

    def _hand_over(self, handler: ChannelHandler[Any], events: list[Any]) -> None:
        try:
            handler.received(events)
        except BaseException:
            # It is unknown which of these messages were handled.
            self.abort()
            raise

    def _next_batch(self, size: int, data: bytes) -> tuple[list[Any], bool]:
        """Return the next events, and whether more may follow. Events before an unreadable message count."""
        events: list[Any] = []
        with closing(self.side.receive_data(data)) as arrived:
            for event in arrived:
                events.append(event)
                if len(events) == size:
                    return events, True
        return events, False

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
        if self._reception is not None:
            self._reception.gone(self)
        events = self.side.receive_eof("" if exc is None else str(exc))
        if handler is not None:
            try:
                if events:
                    handler.received(events)
            finally:
                handler.closed(self.side.error or exc)

    # --- the reception's side ---

    @property
    def is_read(self) -> bool:
        """Whether bytes are read from the socket now."""
        return self._transport is not None and self._transport.is_reading()

    def go_on(self) -> None:
        """Read the rest of a large frame: its memory was granted."""
        self._waits_for_memory = False
        self._set_reading()

    # --- the owner's side ---

    @property
    def is_open(self) -> bool:
        """False once either side has closed it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes in the write buffer."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def flush(self) -> None:
        """Send the side's messages. A closed channel drops them."""
        if self._is_stranger and self.side.is_greeted and self._reception is not None:
            self._is_stranger = False
            self._reception.greeted(self)
        parts = self.side.data_to_send()
        if parts and self._transport is not None and not self._transport.is_closing():
            if len(parts) == 1:
                self._transport.write(parts[0])
            else:
                self._transport.writelines(parts)

    def pause_reading(self) -> None:
        """Stop handing over events after the present call of `received`; back-pressure stops the peer."""
        self._paused = True
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._set_reading()

    def resume_reading(self) -> None:
        """Hand over events again, first those that arrived before the pause."""
        if self._paused:
            self._paused = False
            self._next_turn = asyncio.get_running_loop().call_soon(self._take_turn)

    def refuse(self, reason: str, error: str = "ProtocolError") -> None:
        """Send the peer the reason and close.

        Args:
            reason: A sentence.
            error: Name of the error's class.
        """
        self.side.refuse(reason, error)
        self.flush()
        self.close()

    def close(self) -> None:
        """Close once the write buffer is sent. Idempotent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once and drop the write buffer. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
