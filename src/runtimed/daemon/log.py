"""The log of one session: every event gets a number, is committed, and only then goes to those who watch.

A `Stream` is a cursor over the log. While its client keeps up it is live and shares the event's bytes with all others;
when the client reads slowly the stream falls behind, and goes on from storage as fast as the client takes it. So a slow
reader costs no memory and loses nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from runtimed.errors import StorageError
from runtimed.ids import HostEpoch
from runtimed.protocol.codec import decode_event, encode_event, encode_event_frame
from runtimed.protocol.events import Event
from runtimed.protocol.messages import Failure, Reply
from runtimed.storage.session_store import SessionStore
from runtimed.transport.aio import Channel

__all__ = ["EventLog", "Stream"]

_PAGE: Final = 2**20
"""Bytes of stored events that a stream reads at a time when it is behind."""

Entry = tuple[int, Event, bytes]
"""Number, event, and the event's own bytes."""


class Stream:
    """The answer to one `Enqueue`, `Watch` or `Subscribe` request.

    Attributes:
        cursor: Number of the last event that was sent.
    """

    def __init__(
        self,
        channel: Channel,
        request_id: int,
        log: EventLog,
        *,
        after: int,
        execution_id: str | None = None,
        cell_ids: frozenset[str] | None = None,
        only: type[Event] | None = None,
        outcome: Callable[[], dict[str, Any] | None] = lambda: None,
    ) -> None:
        """Make a stream that is behind; `advance` brings it up.

        Args:
            after: Number of the last event that the client has.
            execution_id: Only events of this execution.
            cell_ids: Only events of these cells, and those that concern no cell.
            only: Only events of this type.
            outcome: Asked when all events were sent: the final reply, or None if more may come.
        """
        self._channel = channel
        self._request_id = request_id
        self._log = log
        self._execution_id = execution_id
        self._cell_ids = cell_ids
        self._only = only
        self._outcome = outcome
        self._live = False
        self._open = True
        self.cursor = after
        log.attach(self)

    @property
    def is_open(self) -> bool:
        """Whether more may be sent."""
        return self._open

    def close(self) -> None:
        """Send nothing more. Closing twice is harmless."""
        self._open = False
        self._log.detach(self)

    def offer(self, entries: list[Entry]) -> None:
        """Take events that were just committed, if the stream is up to date."""
        if not self._live:
            return
        if not self._channel.writable:
            self._live = False
            return
        self._send((seq, body) for seq, event, body in entries if seq > self.cursor and self._wants(event))
        self._conclude()

    def advance(self) -> None:
        """Send what storage holds, as far as the client takes it."""
        while self._open and not self._live and self._channel.writable and self._channel.is_open:
            try:
                page = self._log.read(self.cursor, execution_id=self._execution_id, max_bytes=_PAGE)
            except StorageError as exc:
                self.close()
                self._channel.send(Failure(self._request_id, "StorageError", exc.message, exc.data))
                return
            if not page:
                self._live = True
                self._conclude()
                return
            if self._cell_ids is None and self._only is None:
                self._send(iter(page))
            else:
                self._send((seq, body) for seq, body in page if self._wants(decode_event(body)))
            self.cursor = page[-1][0]

    def _wants(self, event: Event) -> bool:
        if self._only is not None and not isinstance(event, self._only):
            return False
        if self._execution_id is not None:
            return event.execution_id == self._execution_id
        return self._cell_ids is None or event.cell_id is None or event.cell_id in self._cell_ids

    def _send(self, events: Iterator[tuple[int, bytes]]) -> None:
        parts: list[bytes] = []
        for seq, body in events:
            parts += encode_event_frame(self._request_id, seq, body)
            self.cursor = seq
        if parts:
            self._channel.send_parts(*parts)

    def _conclude(self) -> None:
        result = self._outcome()
        if result is not None:
            self.close()
            self._channel.send(Reply(self._request_id, result))


class EventLog:
    """Appends to a session's stored events and hands the committed ones to the streams."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._streams: dict[Stream, None] = {}
        self._depth = 0
        self._committing: list[Entry] = []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything written inside as one, then publish the events. Inner ones join the outermost."""
        self._depth += 1
        try:
            with self._store.transaction():
                yield
        except BaseException:
            if self._depth == 1:
                self._committing.clear()
            raise
        finally:
            self._depth -= 1
        if self._depth == 0 and self._committing:
            entries, self._committing = self._committing, []
            for stream in list(self._streams):
                stream.offer(entries)

    def append(self, event: Event, *, body: bytes | None = None, host: tuple[HostEpoch, int] | None = None) -> bool:
        """Add an event, inside a `transaction`.

        Args:
            body: The event's own bytes, where they are known.
            host: Epoch and number that a host gave it.

        Returns:
            False if an event of that epoch and number is there already.
        """
        body = encode_event(event) if body is None else body
        seq = self._store.append_event(body, execution_id=event.execution_id, cell_id=event.cell_id, host=host)
        if seq is None:
            return False
        self._committing.append((seq, event, body))
        return True

    def read(self, after: int, *, execution_id: str | None = None, max_bytes: int) -> list[tuple[int, bytes]]:
        """Read committed events in order, at least one if there is any; see `SessionStore.read_events`."""
        return self._store.read_events(after, execution_id=execution_id, max_bytes=max_bytes)

    @property
    def last(self) -> int:
        """Number of the latest event."""
        return self._store.last_seq

    def attach(self, stream: Stream) -> None:
        """Let a stream have what will be committed."""
        self._streams[stream] = None

    def detach(self, stream: Stream) -> None:
        """Forget a stream."""
        self._streams.pop(stream, None)
