"""The daemon's end of the connection to one host: sends requests, takes the host's numbered events."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any, Final, NamedTuple, Protocol

from runtimed.daemon.flow import Flow
from runtimed.daemon.hosting.blobs import fetch_blobs
from runtimed.daemon.hosting.launcher import Launcher, Place
from runtimed.errors import ConnectionLost, ProtocolError, StorageError
from runtimed.ids import HostEpoch
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
from runtimed.protocol.host_operations import Attach, AttachReply
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello
from runtimed.protocol.operation import Operation, ReplyT, named, read_reply
from runtimed.storage.blobs import BlobStore
from runtimed.transport.channel import Channel, ChannelHandler
from runtimed.version import __version__

__all__ = ["HostConnection", "HostLink", "HostOwner", "Waiter"]

logger = logging.getLogger(__name__)

RETRY: Final = 1.0
"""Seconds between two attempts to store a host's events."""


class Waiter(NamedTuple):
    """A request and the future of its reply."""

    operation: Operation[Any]
    future: asyncio.Future[Any]


class HostOwner(Protocol):
    """What a link tells its owner."""

    def check_room(self) -> None:
        """Check that events can be stored.

        Raises:
            StorageError: If the disk is full.
        """

    def host_news(self, event: bytes) -> None:
        """Take an event that is not stored. It comes at most once."""

    def host_events(self, events: list[tuple[int, bytes]]) -> None:
        """Store events. A normal return acknowledges them.

        Raises:
            StorageError: If they cannot be stored; the host sends them again.
        """

    def last_stored(self, link: HostLink) -> int:
        """Return the number of this host's last stored event."""

    def host_goes_on(self, reply: AttachReply) -> None:
        """Take the reply to a new `Attach`; the events that could not be stored come again behind it."""

    def host_gone(self, link: HostLink) -> None:
        """Note that the connection to the host has ended."""


class HostConnection(ChannelHandler[AskingEvent[Waiter]]):
    """A connection to the host in a place, for requests.

    Attributes:
        name: The host in log lines, with its session.
        place: Where it is.
        host_pid: The host's process on its machine, if known: the greeting names it.
    """

    def __init__(self, launcher: Launcher, name: str, place: Place, host_pid: int | None) -> None:
        self._launcher = launcher
        self.name = name
        self.place = place
        self.host_pid = host_pid
        self._channel: Channel[AskingSide[Waiter]] | None = None
        self._welcome: asyncio.Future[None] | None = None

    async def greet(self) -> None:
        """Connect and exchange greetings.

        Raises:
            OSError: If no process listens in that place.
            ProtocolError: If the host speaks another protocol.
            ConnectionLost: If the host ends meanwhile.
        """
        self._welcome = asyncio.get_running_loop().create_future()
        side = AskingSide[Waiter]("the session's host")
        self._channel = await self._launcher.connect(self.place, side, lambda _channel: self)
        side.hello(Hello(PROTOCOL_VERSION, __version__, "daemon", None, os.getpid()))
        self._channel.flush()
        await self._welcome

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent now."""
        return self._channel is not None and self._channel.is_open

    def ask(self, operation: Operation[ReplyT]) -> asyncio.Future[ReplyT]:
        """Send a request at once; the future has the reply, or the error that the host reported."""
        future: asyncio.Future[ReplyT] = asyncio.get_running_loop().create_future()
        self._send(operation, future)
        return future

    def tell(self, operation: Operation[Any]) -> None:
        """Send a request whose effect shows in the events; a failure is logged."""
        self._tell(operation)

    def _tell(self, operation: Operation[Any]) -> int | None:
        """See `tell`; return the request's number, None if it could not be sent."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def log_failure(asked: asyncio.Future[Any]) -> None:
            if not asked.cancelled() and (error := asked.exception()) is not None:
                logger.warning("%s in %s refused %s: %s", self.name, self.place, named(operation), error)

        future.add_done_callback(log_failure)
        return self._send(operation, future)

    def _send(self, operation: Operation[Any], future: asyncio.Future[Any]) -> int | None:
        channel = self._channel
        if channel is None or not channel.is_open:
            future.set_exception(ConnectionLost("The connection to the session's host is closed"))
            return None
        request_id = channel.side.ask(operation, Waiter(operation, future))
        channel.flush()

        def abandon(asked: asyncio.Future[Any]) -> None:
            # The reply is not awaited any more; the host decides what the cancellation means.
            if asked.cancelled() and channel.side.cancel(request_id):
                channel.flush()

        future.add_done_callback(abandon)
        return request_id

    def close(self) -> None:
        """Close the connection and leave the host running. Idempotent."""
        if self._channel is not None:
            self._channel.close()

    def is_alive(self) -> bool:
        """Whether the host's process is alive; see `Launcher.is_alive`."""
        self._launcher.reap()
        return self._launcher.is_alive(self.place)

    def signal(self, number: int) -> None:
        """Send a signal to the host's process, if known; see `Launcher.signal`."""
        if self.host_pid is not None:
            self._launcher.signal(self.place, self.host_pid, number)

    def received(self, events: list[AskingEvent[Waiter]]) -> None:
        """Called by the channel."""
        for event in events:
            self._take_answer(event)

    def _take_answer(self, event: AskingEvent[Waiter]) -> None:
        match event:
            case Replied(waiter=waiter, result=result) if not waiter.future.done():
                try:
                    waiter.future.set_result(read_reply(waiter.operation, result))
                except ProtocolError as exc:
                    waiter.future.set_exception(exc)
            case Failed(waiter=waiter, error=error) if not waiter.future.done():
                waiter.future.set_exception(error)
            case Replied() | Failed():
                pass  # the waiter has gone
            case Greeted(pid=pid):
                self.host_pid = pid
                if self._welcome is not None and not self._welcome.done():
                    self._welcome.set_result(None)
            case Ended(error=error):
                if self._welcome is not None and not self._welcome.done():
                    self._welcome.set_exception(error)
            case Numbered() | EventReceived():
                logger.warning("%s in %s sent an unsolicited event", self.name, self.place)

    def closed(self, error: Exception | None) -> None:
        """Called by the channel."""
        if error is not None:
            logger.warning("lost %s in %s: %s", self.name, self.place, error)


class HostLink(HostConnection):
    """A connection that also takes the host's events. `flow` decides when they may come."""

    def __init__(
        self,
        launcher: Launcher,
        name: str,
        place: Place,
        epoch: HostEpoch,
        flow: Flow,
        owner: HostOwner,
        host_pid: int | None,
    ) -> None:
        super().__init__(launcher, name, place, host_pid)
        self.epoch = epoch
        self._flow = flow
        self._owner = owner
        self._refuses = False  # whether events are refused until they can be stored
        self._has_refused = False  # whether any were refused since the last one was stored
        self._attached = False
        self._new_attach: int | None = None
        self._arrived: list[tuple[int, bytes]] = []
        self._fetching: asyncio.Task[None] | None = None

    async def open(self, after: int) -> AttachReply:
        """Connect, and have the events with numbers above `after` sent to the owner.

        Returns:
            The host's reply to `Attach`.

        Raises:
            OSError, ProtocolError, ConnectionLost: As `greet`.
        """
        self._refuses, self._new_attach, self._attached = False, None, False
        await self.greet()
        reply = await self.ask(Attach(after=after))
        self._attached = True
        return reply

    @property
    def is_attached(self) -> bool:
        """Whether the host sends its events to this connection, and so takes its requests."""
        return self._attached and self.is_open

    def received(self, events: list[AskingEvent[Waiter]]) -> None:
        """Called by the channel."""
        with self._flow.counted():
            self._handle(events)
        if self._channel is not None and not self._flow.is_open:
            self._channel.pause_reading()
            self._flow.later(self._channel.resume_reading)

    def _handle(self, events: list[AskingEvent[Waiter]]) -> None:
        numbered: list[tuple[int, bytes]] = []
        for event in events:
            if isinstance(event, Numbered):
                if event.seq == 0:
                    # What came before it goes first: a frontend captures the output behind a widget's message.
                    self._take(numbered)
                    self._owner.host_news(event.event)
                else:
                    numbered.append((event.seq, event.event))
                continue
            self._take(numbered)
            if isinstance(event, Replied) and event.id == self._new_attach:
                self._refuses, self._new_attach = False, None
                self._owner.host_goes_on(read_reply(Attach(), event.result))
            self._take_answer(event)
        self._take(numbered)

    def _take(self, events: list[tuple[int, bytes]]) -> None:
        store = self._launcher.blobs
        if events and store is None:
            self._store(events)
        elif events and store is not None and not self._refuses:
            # At most what the host sends without an acknowledgement.
            self._arrived += events
            if self._fetching is None:
                self._fetching = asyncio.get_running_loop().create_task(self._fetch(store))
        events.clear()

    def _store(self, events: list[tuple[int, bytes]]) -> None:
        if not self._refuses and self._channel is not None and self.is_open:
            try:
                self._owner.host_events(events)
            except StorageError as exc:
                self._refuse(exc)
            else:
                self._channel.side.acknowledge(events[-1][0])
                self._channel.flush()
                if self._has_refused:
                    self._has_refused = False
                    logger.info("the events of %s in %s are stored again", self.name, self.place)

    async def _fetch(self, store: BlobStore) -> None:
        """Store the events that have arrived, each once its large values are here."""
        try:
            while self._arrived and not self._refuses:
                events, self._arrived = self._arrived, []
                await fetch_blobs(self, store, events)
                with self._flow.counted():
                    self._store(events)
        except ConnectionLost:
            pass  # they come again
        except StorageError as exc:
            self._refuse(exc)
        except Exception:
            logger.exception("cannot take the events of %s in %s", self.name, self.place)
            self.close()
        finally:
            if self._fetching is asyncio.current_task():
                # At once, not in a callback of the task: events that arrive from now on need a new task.
                self._fetching = None
                self._arrived.clear()

    def _refuse(self, reason: StorageError) -> None:
        """Refuse events until they can be stored. The host keeps them, and sends them again after a new `Attach`.

        The connection stays open for requests and replies, such as an interrupt's, which need no space.
        """
        self._refuses = True
        if not self._has_refused:
            self._has_refused = True
            logger.error("%s in %s keeps its events, as they cannot be stored: %s", self.name, self.place, reason)
        asyncio.get_running_loop().call_later(RETRY, self._try_again)

    def _try_again(self) -> None:
        if not self.is_open or not self._refuses:
            return
        try:
            self._owner.check_room()
            after = self._owner.last_stored(self)
        except StorageError:
            asyncio.get_running_loop().call_later(RETRY, self._try_again)
        else:
            self._new_attach = self._tell(Attach(after=after))

    @property
    def keeps_events(self) -> bool:
        """Whether the host keeps events that cannot be stored now. Those of a dead host are in its place."""
        return self._has_refused and self.is_open

    def closed(self, error: Exception | None) -> None:
        """Called by the channel."""
        super().closed(error)
        self._arrived.clear()
        if self._fetching is not None:
            self._fetching.cancel()
            self._fetching = None
        self._owner.host_gone(self)
