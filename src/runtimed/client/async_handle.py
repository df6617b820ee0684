"""The asynchronous part of a session handle: how it makes a call, and how it iterates over events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, Generic, TypeVar

from runtimed.client import calls
from runtimed.client.aio import AsyncConnection, AsyncEvents
from runtimed.client.async_apart import apart
from runtimed.client.blocking import Connection
from runtimed.client.flows import Flow
from runtimed.client.handle import Handle
from runtimed.errors import ConnectionLost, RuntimedError
from runtimed.execution.outputs import blobs_in
from runtimed.protocol.events import Event
from runtimed.texts import printable

__all__ = ["AsyncHandle", "EventStream"]

T = TypeVar("T")
EventT = TypeVar("EventT")


class AsyncHandle(Handle):
    """A name for a session, and a connection to it in each event loop that uses it."""

    def _prepare(self) -> None:
        self._connection = AsyncConnection(self._identity, self._join)

    def __repr__(self) -> str:
        state = "connected" if self._connection.is_open else "disconnected"
        return f"AsyncSession(id={printable(self.notebook_id)}, status={state})"

    def _check_connected(self) -> None:
        if not self._connection.was_opened:
            raise self._not_connected()

    async def _perform(self, flow: Flow[T]) -> T:
        self._check_connected()
        return await self._connection.perform(flow)

    async def _apart(self, flow: Flow[T], *, start_daemon: bool = True) -> T:
        """Use a short connection, so that it works after the end, too."""
        return await apart(self._identity, flow, start_daemon=start_daemon)

    def _stream(self, plan: calls.Stream[EventT]) -> EventStream[EventT]:
        stream = EventStream(self, plan)
        self._streams[id(stream)] = stream
        self._check_connected()  # another thread may have closed the handle before it knew this stream
        if plan.counts_from_now:
            stream.pin()
        return stream


class EventStream(AsyncIterator[EventT], Generic[EventT]):
    """The events of a session or of one execution, on a connection of their own, for one task of one event loop.

    Iterate with `async for`; leaving the loop closes it. Awaiting it (`events = await session.subscribe()`) ensures
    that it has begun. `aclose` ends it early. Closing the session's handle ends it with NotConnected.
    """

    def __init__(self, session: AsyncHandle, plan: calls.Stream[EventT]) -> None:
        self._session = session
        self._plan = plan
        self._connection = AsyncConnection(session._identity, session._join)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._after: asyncio.Future[dict[str, Any]] | int | None = None
        self._events: AsyncEvents | None = None
        self._next: Event | None = None
        self._is_taken = False
        self._is_over = False
        self._is_left = False

    def __del__(self) -> None:
        self._close()

    def __await__(self) -> Generator[Any, None, EventStream[EventT]]:
        return self._begun().__await__()

    async def __anext__(self) -> EventT:
        with self._taken():
            try:
                while not self._is_over:
                    event = await self._step()
                    if event is not None:
                        return event
            except asyncio.CancelledError:
                raise  # nothing is lost: it continues where it was
            except BaseException as exc:
                was_over = self._is_over
                self._close()
                if isinstance(exc, RuntimedError) and self._is_left:
                    raise self._session._not_connected() from None
                if isinstance(exc, RuntimedError) and was_over:  # closed during the wait
                    raise StopAsyncIteration from None
                raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream; the execution goes on. Idempotent."""
        self._close()

    async def __aenter__(self) -> EventStream[EventT]:
        return await self._begun()

    async def __aexit__(self, *exc: object) -> None:
        self._close()

    def _close(self) -> None:
        self._is_over = True
        if self._events is not None:
            self._events.close()
        self._connection.close()

    def leave(self) -> None:
        """See `HandleStream`."""
        if not self._is_over:
            self._is_left = True
            self._connection.close()

    def _check_open(self) -> None:
        if self._is_left:
            raise self._session._not_connected()
        if self._is_over:
            raise ConnectionLost("The stream of events is closed")

    def pin(self) -> None:
        """Let the events count from now on."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimedError(
                "subscribe() counts from the call, so call it where its events are awaited: inside of the event loop"
            ) from None
        session = self._session
        # The daemon reads it before any later request. The reply to `Join` gives the position in the log.
        self._after = session._connection.post(session._join)
        if self._after is None:
            connection = Connection(session._identity, session._join)
            connection.open()
            self._after = connection.joined["last"]
            connection.close()

    @contextlib.contextmanager
    def _taken(self) -> Iterator[None]:
        """Refuse a second task, and another event loop."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimedError("This stream belongs to another event loop; make one in this loop")
        if self._is_taken:
            raise RuntimedError("Another task waits for the next event of this stream; give each task one of its own")
        self._is_taken = True
        try:
            yield
        finally:
            self._is_taken = False

    async def _begun(self) -> EventStream[EventT]:
        with self._taken():
            await self._begin()
        return self

    async def _begin(self) -> AsyncEvents:
        """Begin. After a cancellation it begins again with the same ids."""
        self._check_open()
        if self._events is None:
            plan, session = self._plan, self._session
            await session._perform(plan.prepare())
            after = self._after
            if isinstance(after, asyncio.Future):
                try:
                    after = (await asyncio.shield(after))["last"]
                except ConnectionLost:
                    after = None  # the daemon has died: it continues where the next one begins
            await self._connection.open()
            try:
                self._check_open()
            except RuntimedError:
                self._connection.close()  # as another task did meanwhile
                raise
            if after is None:
                after = self._connection.joined["last"]
            self._events = self._connection.stream(plan.begin(after))
        return self._events

    async def _step(self) -> EventT | None:
        """Take one event, and return it as the consumer gets it."""
        plan, session = self._plan, self._session
        events = await self._begin()
        if self._next is None:
            with plan.translated_errors():
                self._next = await anext(events, None)
        event = self._next
        if event is None:
            self._close()
            return None
        wanted = blobs_in(event)
        blobs = await session._perform(calls.fetch_blobs(session._notebook, wanted)) if wanted else {}
        self._next = None
        if plan.is_last(event):
            self._close()
        return plan.shown(event, blobs)
