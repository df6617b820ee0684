"""Drives flows over an asyncio connection: many at a time, each answered by its own events and reply."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import msgspec

from runtimed.client.flows import Flow, Follow, OnEvent, Step
from runtimed.client.identity import (
    ENDING_DEADLINE,
    HANDSHAKE_DEADLINE,
    RECONNECT_DEADLINE,
    Identity,
    check_welcome,
    no_answer,
)
from runtimed.errors import ConnectionLost, DaemonUnavailable, RuntimedError, error_from_wire
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Event
from runtimed.protocol.messages import Cancel, EventFrame, Failure, Message, Refusal, Reply, Request, Welcome
from runtimed.protocol.operations import Join, Operation
from runtimed.settings import Settings, read_settings
from runtimed.transport.aio import Channel, ChannelHandler, connect
from runtimed.transport.autostart import daemon_answers, ensure_daemon
from runtimed.transport.blocking import WaitTimeout

__all__ = ["AsyncConnection"]

T = TypeVar("T")


class _Pending:
    """A request in flight."""

    def __init__(self, operation: Operation, on_event: OnEvent | None) -> None:
        self.operation = operation
        self.on_event = on_event
        self.reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def event(self, message: EventFrame) -> None:
        # Where to go on if the connection breaks.
        self.operation = msgspec.structs.replace(self.operation, after=message.seq)
        if self.on_event is not None:
            self.on_event(decode_event(message.event))


class _Link(ChannelHandler):
    """One connection to the daemon; `AsyncConnection` makes the next when it breaks."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.pending: dict[int, _Pending] = {}
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.joined: dict[str, Any] = {}

    @property
    def is_open(self) -> bool:
        return self.channel is not None and self.channel.is_open

    def received(self, messages: list[Message]) -> None:
        for message in messages:
            match message:
                case EventFrame():
                    if message.id in self.pending:
                        self.pending[message.id].event(message)
                case Reply():
                    self._settle(message.id, message.result)
                case Failure():
                    self._settle(message.id, error_from_wire(message.error, message.message, message.data))
                case Welcome() | Refusal() if not self.greeted.done():
                    try:
                        check_welcome(message)
                    except RuntimedError as exc:
                        self.greeted.set_exception(exc)
                    else:
                        self.greeted.set_result(None)
                case _:
                    if self.channel is not None:
                        self.channel.close()

    def closed(self, error: Exception | None) -> None:
        lost = ConnectionLost(f"The connection to the daemon broke: {error or 'the daemon closed it'}")
        if not self.greeted.done():
            self.greeted.set_exception(lost)
        pending, self.pending = self.pending, {}
        for request in pending.values():
            if not request.reply.done():
                request.reply.set_exception(lost)

    def _settle(self, request_id: int, result: dict[str, Any] | Exception) -> None:
        request = self.pending.pop(request_id, None)
        if request is None or request.reply.done():
            return
        if isinstance(result, Exception):
            request.reply.set_exception(result)
        else:
            request.reply.set_result(result)


class AsyncConnection:
    """A connection to the daemon that mends itself.

    Attributes:
        was_opened: Whether it was opened and not closed since; it may be broken, and will mend itself.
    """

    def __init__(self, identity: Identity, join: Join | None = None, *, start_daemon: bool = True) -> None:
        """Describe a connection; `open` makes it. The arguments are those of `blocking.Connection`."""
        self._identity = identity
        self._join = join
        self._start_daemon = start_daemon
        self._settings: Settings | None = None
        self._link: _Link | None = None
        self._pid = identity.pid
        self._lock = asyncio.Lock()
        self.was_opened = False

    @property
    def is_open(self) -> bool:
        """Whether it was opened, not closed since, and is not known to be broken."""
        return self._link is not None and self._link.is_open and self._pid == self._identity.pid

    @property
    def joined(self) -> dict[str, Any]:
        """The reply to `Join` on the present connection."""
        return self._link.joined if self._link is not None else {}

    async def open(self) -> None:
        """Connect; harmless if connected. Raises what `blocking.Connection.open` raises."""
        async with self._lock:
            if not self.is_open:
                self._settings = read_settings()
                try:
                    await self._connect(self._settings)
                except ConnectionLost:
                    # It met a daemon that was just ending.
                    await self._keep_connecting(self._settings)
                self.was_opened = True

    def close(self) -> None:
        """Disconnect. Closing twice is harmless."""
        link, self._link = self._link, None
        self.was_opened = False
        if link is not None and link.channel is not None:
            link.channel.close()

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

    async def stream(self, follow: Follow) -> AsyncGenerator[Event]:
        """Give the events of a request as they come.

        The consumer sets the pace: while a page of events waits for it, the connection is not read.

        Raises:
            WaitTimeout: If the reply did not come in time.
        """
        arrived: list[Event] = []
        news = asyncio.Event()

        def take(event: Event) -> None:
            arrived.append(event)
            news.set()
            if self._link is not None and self._link.channel is not None:
                self._link.channel.pause_reading()

        work = asyncio.ensure_future(self._do(Follow(follow.operation, take, follow.timeout)))
        work.add_done_callback(lambda _work: news.set())
        try:
            while True:
                await news.wait()
                news.clear()
                page, arrived[:] = list(arrived), []
                for event in page:
                    yield event
                if work.done() and not arrived:
                    work.result()
                    return
                if self._link is not None and self._link.channel is not None and not arrived:
                    self._link.channel.resume_reading()
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionLost):
                await work

    async def _do(self, step: Step) -> dict[str, Any]:
        request = self._identity.request(step.operation)
        on_event, timeout = (step.on_event, step.timeout) if isinstance(step, Follow) else (None, None)
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        operation = step.operation
        while True:
            link = self._link
            if link is None or not self.is_open:
                await self._reconnect(link)
                continue
            pending = link.pending[request.id] = _Pending(operation, on_event)
            assert link.channel is not None  # noqa: S101  # is_open says so
            try:
                link.channel.send(Request(request.id, operation))
                async with asyncio.timeout_at(deadline):
                    return await pending.reply
            except ConnectionLost:
                operation = pending.operation
                await self._reconnect(link)
            except TimeoutError as exc:
                if isinstance(exc, WaitTimeout) or deadline is None:
                    raise
                raise WaitTimeout("Nothing arrived in time") from None
            finally:
                if link.pending.pop(request.id, None) is not None and link.is_open:
                    link.channel.send(Cancel(request.id))

    async def _connect(self, settings: Settings) -> None:
        if self._start_daemon and not daemon_answers(settings):
            await asyncio.to_thread(ensure_daemon, settings)
        link = _Link()
        try:
            link.channel = await connect(settings.socket_path, lambda _channel: link)
        except OSError as exc:
            raise DaemonUnavailable(
                f"No daemon listens on {settings.socket_path}: {exc.strerror}", path=str(settings.socket_path)
            ) from exc
        try:
            link.channel.send(self._identity.hello())
            async with asyncio.timeout(HANDSHAKE_DEADLINE):
                await link.greeted
                if self._join is not None:
                    request = self._identity.request(self._join)
                    link.pending[request.id] = pending = _Pending(self._join, None)
                    link.channel.send(request)
                    link.joined = await pending.reply
        except TimeoutError:
            link.channel.close()
            raise no_answer(settings.socket_path) from None
        except BaseException:
            link.channel.close()
            raise
        self._link = link
        self._pid = self._identity.pid

    async def _reconnect(self, broken: _Link | None) -> None:
        """Get the connection back after it broke, once for all requests that were in flight.

        Raises:
            ConnectionLost: If that takes longer than RECONNECT_DEADLINE, or the connection was closed here.
        """
        async with self._lock:
            if self._link is not broken and self.is_open:
                return
            if not self.was_opened:
                raise ConnectionLost("The connection to the daemon is closed")
            await self._keep_connecting(self._settings or read_settings())

    async def _keep_connecting(self, settings: Settings) -> None:
        deadline = time.monotonic() + (RECONNECT_DEADLINE if self._start_daemon else ENDING_DEADLINE)
        delay = 0.01
        while True:
            try:
                await self._connect(settings)
            except (ConnectionLost, DaemonUnavailable) as exc:
                if isinstance(exc, DaemonUnavailable) and not self._start_daemon:
                    raise
                if time.monotonic() > deadline:
                    raise ConnectionLost(f"The connection to the daemon broke and does not come back: {exc}") from exc
                await asyncio.sleep(delay)
                delay = min(2 * delay, 1.0)
            else:
                return
