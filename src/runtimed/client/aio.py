"""Drives flows with asyncio: many at a time, each with its own events and reply, in whichever event loop calls.

Each event loop has a connection of its own, so that none waits for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

import msgspec

from runtimed.client.flows import Flow, Follow, OnEvent, Step, resumed
from runtimed.client.identity import (
    ENDING_DEADLINE,
    HANDSHAKE_DEADLINE,
    RECONNECT_DEADLINE,
    Identity,
    no_answer,
    no_daemon,
    note_version,
)
from runtimed.client.process import Described
from runtimed.errors import ConnectionLost, DaemonUnavailable, RuntimedError
from runtimed.protocol.codec import decode_event
from runtimed.protocol.connection import (
    AskingEvent,
    AskingSide,
    Ended,
    EventReceived,
    Failed,
    Greeted,
    Numbered,
    Replied,
)
from runtimed.protocol.events import Event
from runtimed.protocol.messages import Hello
from runtimed.protocol.operation import Operation
from runtimed.protocol.session_operations import Join
from runtimed.settings import Settings, read_settings
from runtimed.transport.autostart import daemon_answers, ensure_daemon
from runtimed.transport.blocking import WaitTimeout
from runtimed.transport.loop_channel import LoopChannel, connect_here

__all__ = ["AsyncConnection", "AsyncEvents"]

AHEAD: Final = 2**18
"""High-water mark of the events that wait for a stream's consumer, in bytes; at least one event fits."""

T = TypeVar("T")


class _Call:
    """A request in flight."""

    def __init__(self, operation: Operation[Any], take: Callable[[bytes], None] | None) -> None:
        self.operation = operation
        self.take = take
        self.reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def event(self, received: EventReceived[_Call]) -> None:
        # Where to continue if the connection breaks.
        self.operation = msgspec.structs.replace(self.operation, after=received.seq)
        if self.take is not None:
            self.take(received.event)

    def succeed(self, result: dict[str, Any]) -> None:
        if not self.reply.done():
            self.reply.set_result(result)

    def fail(self, error: RuntimedError) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


class _Link:
    """One connection to the daemon; `AsyncConnection` makes the next one when it breaks."""

    def __init__(self, identity: Identity) -> None:
        self.pid = identity.pid
        self._identity = identity
        self._described = Described()
        self.side: AskingSide[_Call] = AskingSide("the daemon")
        self.channel: LoopChannel[_Call] | None = None
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.joined: dict[str, Any] = {}

    @property
    def is_open(self) -> bool:
        return self.channel is not None and self.channel.is_open

    def greet(self, hello: Hello) -> None:
        self.side.hello(hello)
        self._flush()

    def ask(self, number: int, operation: Operation[Any], take: Callable[[bytes], None] | None = None) -> _Call:
        news = self._described.news_for(operation)
        if news is not None:
            told = _Call(news, None)
            told.reply.add_done_callback(_take_note)
            self.side.ask(news, told, self._identity.number())
        call = _Call(operation, take)
        self.side.ask(operation, call, number)
        self._flush()
        return call

    def cancel(self, number: int) -> bool:
        was_under_way = self.side.cancel(number)
        if was_under_way:
            self._flush()
        return was_under_way

    def _flush(self) -> None:
        if self.channel is not None:
            self.channel.flush()

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()

    def resume_reading(self) -> None:
        if self.channel is not None:
            self.channel.resume_reading()

    def pause_reading(self) -> None:
        if self.channel is not None:
            self.channel.pause_reading()

    def received(self, event: AskingEvent[_Call]) -> None:
        match event:
            case EventReceived(waiter=call):
                call.event(event)
            case Replied(waiter=call, result=result):
                call.succeed(result)
            case Failed(waiter=call, error=error):
                call.fail(error)
            case Greeted(version=version):
                note_version(version)
                if not self.greeted.done():
                    self.greeted.set_result(None)
            case Ended(error=error):
                if not self.greeted.done():
                    self.greeted.set_exception(error)
            case Numbered():
                pass  # only hosts send them


class _Home:
    """The state of a connection in one event loop."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.link: _Link | None = None


class AsyncConnection:
    """A connection to the daemon that reconnects by itself, one for each event loop that uses it.

    Attributes:
        was_opened: Whether it was opened and not closed since. A broken one reconnects.
    """

    def __init__(self, identity: Identity, join: Join | None = None, *, start_daemon: bool = True) -> None:
        """Describe a connection; `open` makes it. The arguments are those of `blocking.Connection`."""
        self._identity = identity
        self._join = join
        self._start_daemon = start_daemon
        self._settings: Settings | None = None
        self._homes: dict[asyncio.AbstractEventLoop, _Home] = {}
        self._closed_times = 0
        self.was_opened = False

    def __del__(self) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether it was opened, not closed since, and is not known to be broken, in this event loop or in any."""
        here = self._here()
        homes = list(self._homes.values()) if here is None else [here]
        return any(self._is_usable(home.link) for home in homes)

    @property
    def joined(self) -> dict[str, Any]:
        """The reply to `Join` on the present connection of this event loop."""
        link = self._home().link
        return link.joined if link is not None else {}

    def _is_usable(self, link: _Link | None) -> bool:
        return link is not None and link.is_open and link.pid == self._identity.pid

    def _here(self) -> _Home | None:
        """Return the state in the running event loop; None without a loop, or if it was never used in it."""
        try:
            return self._homes.get(asyncio.get_running_loop())
        except RuntimeError:
            return None

    def _home(self) -> _Home:
        return self._homes.setdefault(asyncio.get_running_loop(), _Home())

    def _leave_ended_loops(self) -> None:
        for loop in [loop for loop in list(self._homes) if loop.is_closed()]:
            home = self._homes.pop(loop, None)
            if home is not None and home.link is not None:
                home.link.close()

    async def open(self) -> None:
        """Connect. Idempotent. Raises what `blocking.Connection.open` raises."""
        home = self._home()
        async with home.lock:
            if not self._is_usable(home.link):
                closed_times = self._closed_times
                self._settings = read_settings()
                try:
                    await self._connect(home, self._settings)
                except ConnectionLost:
                    # The daemon was just ending.
                    await self._keep_connecting(home, self._settings)
                self._check_not_closed(closed_times)
                self.was_opened = True

    def close(self) -> None:
        """Disconnect, in all event loops. Idempotent."""
        self._closed_times += 1
        self.was_opened = False
        for home in list(self._homes.values()):
            link, home.link = home.link, None
            if link is not None:
                link.close()
        self._leave_ended_loops()

    def post(self, operation: Operation[Any]) -> asyncio.Future[dict[str, Any]] | None:
        """Send a request now, if this event loop has a usable connection; None if it has none.

        Returns:
            The reply's map; ConnectionLost if the connection breaks before it came.
        """
        home = self._here()
        if home is None or home.link is None or not self._is_usable(home.link):
            return None
        call = home.link.ask(self._identity.number(), operation)
        call.reply.add_done_callback(_take_note)
        return call.reply

    async def perform(self, flow: Flow[T]) -> T:
        """Drive a flow to its end."""
        with contextlib.closing(flow):
            try:
                step = next(flow)
                while True:
                    try:
                        reply = await self._do(step)
                    except Exception as exc:  # noqa: BLE001  # it is the flow's to answer
                        step = flow.throw(exc)
                    else:
                        step = flow.send(reply)
            except StopIteration as stop:
                result: T = stop.value
                return result

    def stream(self, follow: Follow) -> AsyncEvents:
        """Return the events of a request as they come."""
        return AsyncEvents(self, follow)

    async def _do(self, step: Step) -> dict[str, Any]:
        number = self._identity.number()
        take, timeout = (_decoding(step.on_event), step.timeout) if isinstance(step, Follow) else (None, None)
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        operation = step.operation
        while True:
            link = await self._usable_link()
            call = link.ask(number, operation, take)
            try:
                async with asyncio.timeout_at(deadline):
                    return await call.reply
            except ConnectionLost:
                operation = call.operation
            except TimeoutError as exc:
                if isinstance(exc, WaitTimeout) or deadline is None:
                    raise
                raise WaitTimeout("Nothing arrived in time") from None
            finally:
                link.cancel(number)

    async def _usable_link(self) -> _Link:
        """Return the link of this event loop. A broken one is replaced, once for all requests that were in flight.

        Raises:
            ConnectionLost: If that takes longer than RECONNECT_DEADLINE, or the connection was closed here.
        """
        home = self._home()
        if home.link is None or not self._is_usable(home.link):
            async with home.lock:
                if not self._is_usable(home.link):
                    self._check_opened()
                    closed_times = self._closed_times
                    await self._keep_connecting(home, self._settings or read_settings())
                    self._check_not_closed(closed_times)
        assert home.link is not None  # noqa: S101  # it is usable
        return home.link

    def _check_opened(self) -> None:
        if not self.was_opened:
            raise ConnectionLost("The connection to the daemon is closed")

    def _check_not_closed(self, closed_times: int) -> None:
        """Raise ConnectionLost if `close` was called since: it did not see a link that was just being made."""
        if self._closed_times != closed_times:
            self.close()
            raise ConnectionLost("The connection to the daemon is closed")

    async def _connect(self, home: _Home, settings: Settings) -> None:
        if self._start_daemon and not daemon_answers(settings):
            await asyncio.to_thread(ensure_daemon, settings)
        link = _Link(self._identity)
        try:
            link.channel = await connect_here(settings.socket_path, link.side, link.received)
        except OSError as exc:
            raise no_daemon(settings.socket_path) from exc
        try:
            link.greet(self._identity.hello())
            async with asyncio.timeout(HANDSHAKE_DEADLINE):
                await link.greeted
                if self._join is not None:
                    link.joined = await link.ask(self._identity.number(), self._join).reply
        except TimeoutError:
            link.close()
            raise no_answer(settings.socket_path) from None
        except BaseException:
            link.close()
            raise
        home.link = link
        self._leave_ended_loops()

    async def _keep_connecting(self, home: _Home, settings: Settings) -> None:
        deadline = time.monotonic() + (RECONNECT_DEADLINE if self._start_daemon else ENDING_DEADLINE)
        delay, closed_times = 0.01, self._closed_times
        while True:
            self._check_not_closed(closed_times)
            try:
                await self._connect(home, settings)
            except (ConnectionLost, DaemonUnavailable) as exc:
                if isinstance(exc, DaemonUnavailable) and not self._start_daemon:
                    raise
                if time.monotonic() > deadline:
                    raise ConnectionLost(f"The connection to the daemon broke and does not come back: {exc}") from exc
                await asyncio.sleep(delay)
                delay = min(2 * delay, 1.0)
            else:
                return


class AsyncEvents(AsyncIterator[Event]):
    """The events of one request, for one task, in the event loop that asks for the first.

    Back-pressure: while `AHEAD` bytes of events wait for the consumer, the connection is not read. Nothing runs in the
    background, so an abandoned iterator leaves only its request, which `close` cancels.
    """

    def __init__(self, connection: AsyncConnection, follow: Follow) -> None:
        self._connection = connection
        self._number = connection._identity.number()  # a stream and its `Enqueue` are one request in two parts
        self._operation: Operation[Any] = follow.operation
        self._timeout = follow.timeout
        self._deadline: float | None = None
        self._arrived: deque[bytes] = deque()
        self._waiting = 0
        self._link: _Link | None = None
        self._call: _Call | None = None
        self._news = asyncio.Event()
        self._is_over = False

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            WaitTimeout: If the reply did not come in time.
        """
        while not self._arrived:
            if self._is_over:
                raise StopAsyncIteration
            call = self._call or await self._begin()
            if call.reply.done():
                self._conclude(call)
                continue
            if self._link is not None:
                self._link.resume_reading()
            self._news.clear()
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._news.wait()
            except TimeoutError:
                self.close()
                raise WaitTimeout("Nothing arrived in time") from None
        body = self._arrived.popleft()
        self._waiting -= len(body)
        return decode_event(body)

    def close(self) -> None:
        """Cancel the request. Idempotent."""
        self._is_over = True
        link, self._link = self._link, None
        here = self._connection._here()
        if link is None or here is None or here.link is not link:
            return  # it is gone, or another event loop's
        self._news.set()
        if link.cancel(self._number):
            link.resume_reading()

    async def aclose(self) -> None:
        """See `close`."""
        self.close()

    async def _begin(self) -> _Call:
        """Send the request, or repeat it after the connection broke."""
        if self._timeout is not None and self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        self._link = link = await self._connection._usable_link()
        call = self._call = link.ask(self._number, self._operation, self._take)
        call.reply.add_done_callback(self._replied)
        return call

    def _take(self, body: bytes) -> None:
        self._arrived.append(body)
        self._waiting += len(body)
        self._news.set()
        if self._waiting >= AHEAD and self._link is not None:
            self._link.pause_reading()

    def _replied(self, reply: asyncio.Future[dict[str, Any]]) -> None:
        _take_note(reply)
        self._news.set()

    def _conclude(self, call: _Call) -> None:
        try:
            call.reply.result()
        except ConnectionLost:
            # It continues behind the events that have arrived.
            self._call = None
            self._operation = resumed(call.operation)
        except BaseException:
            self._is_over = True
            raise
        else:
            self._is_over = True


def _decoding(on_event: OnEvent) -> Callable[[bytes], None]:
    return lambda body: on_event(decode_event(body))


def _take_note(reply: asyncio.Future[dict[str, Any]]) -> None:
    """Consume an error that nobody awaits any more."""
    if not reply.cancelled():
        reply.exception()
