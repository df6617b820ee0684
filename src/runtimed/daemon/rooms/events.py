"""The event log of one session: each event is numbered and committed before any client gets it.

A `Stream` is a cursor over the log. While its client keeps up, the stream is live and sends new events from memory,
their bytes shared with all other streams. When the client reads slowly, the stream falls behind and reads from storage
at the client's pace. So a slow reader costs no memory and loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from cachetools import FIFOCache

from runtimed.daemon.flow import Flow
from runtimed.daemon.rooms.checkpoints import Checkpoints
from runtimed.daemon.rooms.reading import Entry, ExecutionReader
from runtimed.errors import RuntimedError, StorageError
from runtimed.execution.output_sizes import OutputSizes
from runtimed.ids import HostEpoch, SessionId
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.codec import decode_event, encode_event, is_comm
from runtimed.protocol.connection import Asked, ServingSide
from runtimed.protocol.events import CellChanged, Clear, CommsMissed, Display, Event, Failed, Finished, Started
from runtimed.protocol.events import Stream as StreamText
from runtimed.protocol.operation import ReplyBody
from runtimed.storage.session_store import SessionStore
from runtimed.transport.channel import TURN, Channel

__all__ = [
    "MISTAKE",
    "EventLog",
    "PeerChannel",
    "Stream",
]

logger = logging.getLogger(__name__)

MISTAKE: Final = "The daemon made a mistake; its log has the details"
"""Message of the error that a client gets for an unforeseen exception."""

_PAGE: Final = 2**18
"""Bytes of stored events that a stream which is behind reads in one turn."""

_HELD: Final = 2**20
"""Bytes of messages of comms that a stream holds while earlier events wait for their turn; one always fits."""

_READ_REST: Final = 3600.0
"""Seconds for which an execution counts as being read after a page of it was: the reader may want the next page."""

_READ_LATELY: Final = 1000
"""Number of executions that are remembered as being read; the oldest is evicted."""

SHOWN: Final = (CellChanged, Clear, Display, Failed, Finished, Started, StreamText)
"""Events that change what a notebook file shows."""

PeerChannel = Channel[ServingSide[ClientOperation, Any]]
"""The connection to a client."""


class Stream:
    """The answer to one `Enqueue`, `Watch` or `Subscribe` request.

    Attributes:
        cursor: Number of the last event that was sent.
        comms: Whether it sends `Comm` events, too.
    """

    def __init__(
        self,
        channel: PeerChannel,
        asked: Asked[ClientOperation, Any],
        log: EventLog,
        *,
        after: int = 0,
        reader: ExecutionReader | None = None,
        cell_ids: frozenset[str] | None = None,
        only: type[Event] | None = None,
        comms: bool = False,
        resumed: bool = False,
        outcome: Callable[[], ReplyBody | None] = lambda: None,
    ) -> None:
        """Create a stream that is behind; `advance` lets it catch up.

        Args:
            channel: The client's channel.
            asked: The request that it answers.
            log: The session's event log.
            after: Number of the last event that the client has.
            reader: Send only the events of one execution that this reader returns; None for the whole session.
            cell_ids: Send only events of these cells, and those of no cell.
            only: Send only events of this type.
            comms: Whether to send `Comm` events, too, and the number of those that the client missed.
            resumed: Whether the client may have missed some before.
            outcome: Called when all events are sent. Returns the final reply; None if more events may come.
        """
        self._channel = channel
        self._asked = asked
        self._log = log
        self._reader = reader
        self._cell_ids = cell_ids
        self._only = only
        self.comms = comms
        self._missed = 0
        self._held: deque[tuple[int, bytes]] = deque()  # each behind the event of a number
        self._has_gap = comms and resumed
        self._outcome = outcome
        self._live = False
        self._open = True
        self._on_end: Callable[[], None] | None = None
        self._has_turn = False
        self.cursor = after if reader is None else reader.cursor
        log.attach(self)

    @property
    def execution_id(self) -> str | None:
        """The execution whose events it sends; None if it sends those of the session."""
        return None if self._reader is None else self._reader.execution_id

    @property
    def seen(self) -> int:
        """Number of the last event that was sent or filtered out."""
        return self._log.last if self._live else self.cursor

    def close(self) -> None:
        """Send nothing more. Idempotent."""
        self._open = False
        self._log.detach(self)
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def offer(self, entries: list[Entry]) -> None:
        """Send events that were just committed, if the stream is live and the client keeps up."""
        if not self._live:
            return
        if not self._channel.writable:
            self._live = False
            return
        with self._failing():
            if self._reader is not None:
                self._send(self._reader.live(entries))
            else:
                self._send((seq, body) for seq, event, body, _ in entries if seq > self.cursor and self._wants(event))
            self._conclude()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """End this stream, and nothing else, with an error of the block."""
        try:
            yield
        except StorageError as exc:
            self._fail(exc)
        except Exception:
            logger.exception("session %r: a stream failed (execution %s)", self._log.notebook_id, self.execution_id)
            self._fail(RuntimedError(MISTAKE))

    def _fail(self, error: RuntimedError) -> None:
        self._channel.side.fail(self._asked, error)
        self._channel.flush()
        self.close()

    def tell(self, body: bytes) -> None:
        """Send a `Comm` or `CommsMissed` if it is wanted; count it if the client does not keep up."""
        if not self.comms:
            return
        if self._live and self._channel.writable:
            self._send(iter([(self.cursor, body)]))
            return
        self._live = False  # what it has missed is told when it is up to date again
        held = sum(len(other) for _, other in self._held)
        # The client may keep up all the same: the events before this one wait for their turn.
        if self._channel.writable and not self._missed and (not held or held + len(body) <= _HELD):
            self._held.append((self._log.last, body))
        else:
            self._missed += _comms_in(body)

    def _tell_missed(self) -> None:
        if self._missed or self._has_gap:
            missed = self._log.missed(None if self._has_gap else self._missed)
            self._missed, self._has_gap = 0, False
            self._send(iter([(self.cursor, missed)]))

    def fall_behind(self) -> None:
        """Send what was just committed later, from storage."""
        self._live = False
        self.advance()

    def begin(self, on_end: Callable[[], None]) -> None:
        """Send the first page from storage, at once if the session's flow allows.

        Args:
            on_end: Called when the stream is closed.
        """
        self._on_end = on_end
        if self._log.flow.is_open:
            self._send_page()
        else:
            self.advance()

    def advance(self) -> None:
        """Send pages from storage, each in a turn of its own, until the stream is live or the client lags behind."""
        if self._is_behind and not self._has_turn:
            self._has_turn = True
            self._log.flow.later(self._take_turn)

    @property
    def _is_behind(self) -> bool:
        return self._open and not self._live and self._channel.writable and self._channel.is_open

    def _take_turn(self) -> None:
        self._has_turn = False
        if self._is_behind:
            self._send_page()

    def _send_page(self) -> None:
        with self._failing():
            page = self._read()
            if self._cell_ids is None and self._only is None:
                self._send(self._with_held(page))
            else:
                self._send(self._with_held((seq, body) for seq, body in page if self._wants(decode_event(body))))
            if page:
                self.cursor = page[-1][0]
            if not page or self.cursor >= self._log.last:
                self._live = True
                self._send(iter([(self.cursor, body) for _, body in self._held]))
                self._held.clear()
                self._tell_missed()
                self._conclude()
            else:
                self.advance()

    def _with_held(self, events: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """Put the messages of comms that were held in their places between events."""
        for seq, body in events:
            while self._held and self._held[0][0] < seq:
                yield self.cursor, self._held.popleft()[1]
            yield seq, body

    def _read(self) -> list[tuple[int, bytes]]:
        if self._reader is not None:
            return self._reader.page(_PAGE)
        return self._log.read(self.cursor, max_bytes=_PAGE)

    def _wants(self, event: Event) -> bool:
        if self._only is not None and not isinstance(event, self._only):
            return False
        return self._cell_ids is None or event.cell_id is None or event.cell_id in self._cell_ids

    def _send(self, events: Iterator[tuple[int, bytes]]) -> None:
        side, asked = self._channel.side, self._asked
        for seq, body in events:
            side.send_event(asked, seq, body)
            self.cursor = seq
        self._channel.flush()

    def _conclude(self) -> None:
        result = self._outcome()
        if result is not None:
            if self._reader is not None and self._reader.omits:
                self._send(iter([(self._reader.cursor, self._reader.omission())]))
            self._channel.side.reply(self._asked, result)
            self._channel.flush()
            self.close()


class EventLog:
    """Appends to a session's stored events, and gives the committed ones to the streams.

    Args:
        on_change: Called when something was committed that a notebook file shows.

    Attributes:
        notebook_id: The session.
        flow: Decides when streams that are behind may go on.
        on_comms: Called when `wants_comms` may have changed.
    """

    def __init__(
        self,
        notebook_id: SessionId,
        store: SessionStore,
        flow: Flow,
        max_output: int | None,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.notebook_id = notebook_id
        self._on_change = on_change
        self._store = store
        self._checkpoints = Checkpoints(notebook_id, store, flow)
        self._max_output = max_output
        self._clock = clock
        self._read_at: FIFOCache[str, float] = FIFOCache(_READ_LATELY)
        self._sizes = OutputSizes()
        self.flow = flow
        self._streams: dict[Stream, None] = {}
        self._depth = 0
        self._committing: list[Entry] = []
        self.on_comms: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything written in the block as one transaction, then publish its events. Inner blocks join.

        An error that leaves the outermost block means that nothing was committed: an error of a stream ends only that.
        """
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
            self._publish()
        if self._depth == 0:
            self.committed()

    def committed(self) -> None:
        """Note that something was stored, in a `transaction` or without one."""
        self._checkpoints.look()

    def _publish(self) -> None:
        entries, self._committing = self._committing, []
        if any(isinstance(event, SHOWN) for _, event, _, _ in entries):
            self._on_change()
        end = time.monotonic() + TURN
        for place, stream in enumerate(list(self._streams)):
            if place == 0 or time.monotonic() < end:
                stream.offer(entries)
            else:
                # There are too many for one turn: the rest get the events in turns of their own.
                stream.fall_behind()

    def append(self, event: Event, *, body: bytes | None = None, host: tuple[HostEpoch, int] | None = None) -> bool:
        """Add an event, in a `transaction`.

        Args:
            event: The event.
            body: Its encoding, if known.
            host: Epoch and number that a host gave it.

        Returns:
            False if an event of that epoch and number is stored already.
        """
        body = encode_event(event) if body is None else body
        measure = self._sizes.measure(event, len(body))
        seq = self._store.append_event(
            body, execution_id=event.execution_id, cell_id=event.cell_id, host=host, **measure._asdict()
        )
        if seq is None:
            return False
        output = (
            0 if measure.output is None or event.execution_id is None else self._store.output_size(event.execution_id)
        )
        self._committing.append((seq, event, body, output))
        return True

    @property
    def remembered_sizes(self) -> int:
        """Number of remembered sizes; see `OutputSizes.remembered`."""
        return self._sizes.remembered

    @property
    def wants_comms(self) -> bool:
        """Whether any stream sends `Comm` events."""
        return any(stream.comms for stream in self._streams)

    def tell(self, body: bytes) -> None:
        """Send a `Comm`, which is not stored, to the streams that want it and keep up."""
        for stream in list(self._streams):
            stream.tell(body)

    def missed(self, count: int | None) -> bytes:
        """Return the event that says how many messages of comms were missed; None for an unknown number."""
        return encode_event(CommsMissed(at=self._clock(), count=count))

    def forget_sizes(self, execution_id: str | None = None) -> None:
        """Forget the sizes of an execution's displays, or of all displays: they get no more updates."""
        self._sizes.forget(execution_id)

    def reader(self, execution_id: str, *, after: int, whole: bool = False) -> ExecutionReader:
        """Return a reader of an execution's events; see `ExecutionReader`."""
        self._read_at[execution_id] = self._clock()
        return ExecutionReader(self._store, execution_id, after=after, limit=self._max_output, whole=whole)

    def read(self, after: int, *, execution_id: str | None = None, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return committed events in order, at least one if there is any; see `SessionStore.read_events`."""
        return self._store.read_events(after, execution_id=execution_id, max_bytes=max_bytes)

    @property
    def last(self) -> int:
        """Number of the latest event."""
        return self._store.last_seq

    @property
    def watchers(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    def is_read(self, execution_id: str) -> bool:
        """Whether a client reads an execution's events, read some lately, or is behind them in the session's stream."""
        if self._clock() - self._read_at.get(execution_id, -_READ_REST) < _READ_REST:
            return True
        if any(stream.execution_id == execution_id for stream in self._streams):
            return True
        return self._store.last_event_of_execution(execution_id) > self.slowest_cursor

    @property
    def slowest_cursor(self) -> int:
        """Number of the last event that all streams of the session have sent."""
        return min((stream.seen for stream in self._streams if stream.execution_id is None), default=self.last)

    def attach(self, stream: Stream) -> None:
        """Offer the events of later commits to a stream."""
        self._streams[stream] = None
        if stream.comms:
            self.on_comms()

    def detach(self, stream: Stream) -> None:
        """Forget a stream. Idempotent."""
        self._streams.pop(stream, None)
        if stream.comms:
            self.on_comms()


def _comms_in(body: bytes) -> int:
    """Return how many messages of comms whoever does not get this event misses."""
    event = None if is_comm(body) else decode_event(body)
    return event.count or 1 if isinstance(event, CommsMissed) else 1
