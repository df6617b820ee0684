"""The blocking part of a session handle: how it makes a call, and how it iterates over events."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from runtimed.client import calls
from runtimed.client.apart import apart
from runtimed.client.blocking import Connection
from runtimed.client.connections import Connections
from runtimed.client.flows import Flow
from runtimed.client.handle import Handle
from runtimed.errors import RuntimedError
from runtimed.execution.outputs import blobs_in
from runtimed.texts import printable

__all__ = ["BlockingHandle", "EventIterator"]

T = TypeVar("T")
EventT = TypeVar("EventT")


class BlockingHandle(Handle):
    """A name for a session, and its connections, one for each call that waits."""

    def _prepare(self) -> None:
        self._connection = Connections(self._identity, self._join)

    def __repr__(self) -> str:
        state = "disconnected"
        if self._connection.is_open:
            state = "kernel_running" if self._has_kernel() else "connected"
        return f"Session(id={printable(self.notebook_id)}, status={state})"

    def _has_kernel(self) -> bool:
        try:
            return self._apart(calls.get_session(self._notebook), start_daemon=False).kernel_pid is not None
        except RuntimedError:
            return False

    def _check_connected(self) -> None:
        if not self._connection.was_opened:
            raise self._not_connected()

    def _perform(self, flow: Flow[T]) -> T:
        self._check_connected()
        return self._connection.perform(flow)

    def _apart(self, flow: Flow[T], *, start_daemon: bool = True) -> T:
        """Use a short connection, so that it works while another call waits, and after the end."""
        return apart(self._identity, flow, start_daemon=start_daemon)

    def _stream(self, plan: calls.Stream[EventT]) -> EventIterator[EventT]:
        self._perform(plan.prepare())
        connection = Connection(self._identity, self._join)
        connection.open()
        stream = EventIterator(self, connection, plan)
        self._streams[id(stream)] = stream
        self._check_connected()  # another thread may have closed the handle before it knew this stream
        return stream


class EventIterator(Iterator[EventT], Generic[EventT]):
    """The events of a session or of one execution, on a connection of their own, for one thread at a time.

    A slow consumer delays nothing else. `close` ends the iterator early, from any thread; so does dropping it, as
    `break` does. Closing the session's handle ends it with NotConnected. In a forked child it continues as a stream of
    its own.
    """

    def __init__(self, session: BlockingHandle, connection: Connection, plan: calls.Stream[EventT]) -> None:
        self._session = session
        self._connection = connection
        self._plan = plan
        self._events = connection.stream(plan.begin(connection.joined["last"]))
        self._turn = threading.Lock()
        self._is_over = False
        self._is_left = False

    def __del__(self) -> None:
        self.close()

    def __next__(self) -> EventT:
        if not self._turn.acquire(blocking=False):
            raise RuntimedError("Another thread waits for the next of these events; give each thread an iterator")
        try:
            while not self._is_over:
                event = self._step()
                if event is not None:
                    return event
        except BaseException as exc:
            was_over = self._is_over
            self.close()
            if isinstance(exc, RuntimedError) and self._is_left:
                raise self._session._not_connected() from None
            if isinstance(exc, RuntimedError) and was_over:  # closed during the wait
                raise StopIteration from None
            raise
        finally:
            self._turn.release()
        raise StopIteration

    def _step(self) -> EventT | None:
        if self._is_left:
            raise self._session._not_connected()
        with self._plan.translated_errors():
            event = next(self._events)
        blobs = self._session._perform(calls.fetch_blobs(self._session._notebook, blobs_in(event)))
        if self._plan.is_last(event):
            self.close()
        return self._plan.shown(event, blobs)

    def close(self) -> None:
        """End the stream; the execution goes on. Idempotent."""
        self._is_over = True
        with contextlib.suppress(ValueError):  # another thread waits in it, and the end of the connection wakes that
            self._events.close()
        self._connection.close()

    def leave(self) -> None:
        """See `HandleStream`."""
        if not self._is_over:
            self._is_left = True
            self._connection.close()

    def __enter__(self) -> EventIterator[EventT]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
