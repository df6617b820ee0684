"""The host's side of its socket: one daemon at a time is attached, gets the events, and sends requests."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final

from runtimed.errors import ConnectionLost, NoKernel, ProtocolError, RuntimedError
from runtimed.host.blobs import HostBlobs
from runtimed.host.outbox import Outbox
from runtimed.host.owned import Owned
from runtimed.protocol.codec import decode_asked_of_host
from runtimed.protocol.connection import (
    Abandoned,
    Acknowledged,
    Asked,
    Cancelled,
    Greeting,
    ServingEvent,
    ServingSide,
)
from runtimed.protocol.handshake import check_daemon
from runtimed.protocol.host_operations import (
    Attach,
    AttachReply,
    HostDetach,
    HostDropBlob,
    HostOperation,
    HostReadBlob,
    OfSpare,
)
from runtimed.protocol.operation import ReplyBody, named
from runtimed.protocol.replies import Done, GetBlobReply
from runtimed.transport.channel import Channel, ChannelHandler
from runtimed.transport.sockets import PeerCredentials
from runtimed.version import __version__

__all__ = ["Answer", "Connection", "HostServer"]

logger = logging.getLogger(__name__)

MAX_UNDER_WAY: Final = 4000
"""Largest number of slow requests in flight, of all connections together; one more is refused. A client of the daemon
has at most 1000, so a single client does not block the others."""

MAX_UNREAD: Final = 2**25
"""Bytes in the write buffer above which no more requests are read. Far more than the events in flight: requests are
served while the daemon is slow to store events."""

HostChannel = Channel[ServingSide[HostOperation, asyncio.Task[None]]]
"""A connection to this host."""

HostAsked = Asked[HostOperation, asyncio.Task[None]]
"""A request on it."""

Answer = ReplyBody | Coroutine[Any, Any, ReplyBody]
"""The reply to a request, or the task that makes it and goes on when the connection is gone."""


class HostServer:
    """Serves the connections to this host. A subclass performs the requests to its kernel or browser.

    Args:
        epoch: The host's id.
        owned: The kernel or browser.
        outbox: The events for the attached daemon.
        tasks: Runs slow requests; they go on when the connection is gone.
        daemon_changed: Called when a daemon attaches or is lost.
        blobs: The large values to which events refer.
    """

    def __init__(
        self,
        epoch: str,
        owned: Owned,
        outbox: Outbox,
        tasks: asyncio.TaskGroup,
        daemon_changed: Callable[[], None],
        blobs: HostBlobs,
    ) -> None:
        self.epoch = epoch
        self.owned = owned
        self.outbox = outbox
        self.tasks = tasks
        self._daemon_changed = daemon_changed
        self.blobs = blobs
        self._attached: Connection | None = None
        self._keeper: Connection | None = None
        self._connections: set[Connection] = set()
        self._under_way = 0
        self.is_lonely = False
        """Whether the daemon was lost; False for one that detached (`HostDetach`)."""

    def facts(self) -> AttachReply:
        """Return what a daemon learns of this host when it attaches."""
        raise NotImplementedError

    def perform(self, operation: HostOperation) -> Answer:
        """Perform a request of the attached daemon.

        Raises:
            ProtocolError: If this kind of host does not know the operation.
        """
        raise NotImplementedError

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what makes the reply to a request."""
        self._under_way += 1
        task = self.tasks.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._under_way -= 1

    def check_load(self, operation: HostOperation) -> None:
        """Refuse a request that may take time while too many are in flight.

        Raises:
            RuntimedError: If there are too many.
        """
        if self._under_way >= MAX_UNDER_WAY and not operation.is_quick:
            raise RuntimedError(
                f"{self._under_way:,} requests to this session wait for their answers already; try again when it has "
                "answered some of them"
            )

    def cancelled(self, task: asyncio.Task[None]) -> None:
        """Note that a request is cancelled while its connection is open."""

    @staticmethod
    def new_side() -> ServingSide[HostOperation, asyncio.Task[None]]:
        """Make the host's side of a new connection."""
        return ServingSide(decode_asked_of_host, check_daemon, __version__, os.getpid(), has_stream=True)

    def accept(self, channel: HostChannel, _credentials: PeerCredentials) -> Connection:
        """Make the handler of a new connection."""
        connection = Connection(self, channel)
        self._connections.add(connection)
        return connection

    @property
    def has_daemon(self) -> bool:
        """Whether a daemon is attached."""
        return self._attached is not None

    def attach(self, connection: Connection, after: int) -> None:
        """Send the events to this connection; the one that had them is closed."""
        previous, self._attached = self._attached, connection
        if previous is not None and previous is not connection:
            logger.info("a newer daemon takes over")
            previous.channel.refuse("Another daemon has attached itself to this host", "ConnectionLost")
        self.is_lonely = False
        self.outbox.attach(connection, after)
        self._daemon_changed()

    def keep(self, connection: Connection) -> None:
        """Keep the spare alive as long as this connection, until it belongs to a session.

        Raises:
            NoKernel: If it is no spare, or another connection keeps it.
        """
        if not self.owned.is_spare or self._keeper not in (None, connection):
            raise NoKernel("This host is no spare, or that of another daemon")
        self._keeper = connection

    @property
    def is_kept(self) -> bool:
        """Whether a connection keeps this spare, or it is one no longer."""
        return self._keeper is not None or not self.owned.is_spare

    def is_attached(self, connection: Connection) -> bool:
        """Whether this connection gets the events."""
        return self._attached is connection

    def lost(self, connection: Connection, *, said_goodbye: bool) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)
        if connection is self._keeper:
            self._keeper = None
            if self.owned.is_spare:
                logger.info("the daemon that made this spare is gone")
                self.owned.kill()
        if self._attached is connection:
            self._attached = None
            self.outbox.detach()
            self.is_lonely = not said_goodbye
            self._daemon_changed()

    def close(self) -> None:
        """Close all connections, once their write buffers are sent."""
        for connection in list(self._connections):
            connection.channel.close()


class Connection(ChannelHandler[ServingEvent[HostOperation, asyncio.Task[None]]]):
    """One connection, from its greeting to its end."""

    def __init__(self, server: HostServer, channel: HostChannel) -> None:
        self.channel = channel
        self._server = server
        self._said_goodbye = False

    # --- the channel's side ---

    def received(self, events: list[ServingEvent[HostOperation, asyncio.Task[None]]]) -> None:
        """See `ChannelHandler`."""
        for event in events:
            match event:
                case Asked():
                    self._take(event)
                case Acknowledged(seq=seq) if self._server.is_attached(self):
                    self._server.outbox.acknowledge(seq)
                case Cancelled(asked=asked) if asked.work is not None:
                    self._server.cancelled(asked.work)
                case Greeting():
                    self.channel.side.welcome()
                    self.channel.flush()
                case Acknowledged() | Cancelled() | Abandoned():
                    pass  # of a daemon that another one has replaced; or the work goes on without it

    def writable(self) -> None:
        """See `ChannelHandler`."""
        self.channel.resume_reading()
        if self._server.is_attached(self):
            self._server.outbox.pump()

    def closed(self, error: Exception | None) -> None:
        """See `ChannelHandler`."""
        if error is not None:
            logger.info("a daemon's connection broke: %s", error)
        self._server.lost(self, said_goodbye=self._said_goodbye)

    # --- the outbox's side ---

    @property
    def takes_events(self) -> bool:
        """See `EventSink`."""
        return self.channel.writable

    def send_event(self, seq: int, event: bytes) -> None:
        """See `EventSink`."""
        self.channel.side.send_numbered(seq, event)
        self.channel.flush()

    # --- requests ---

    def _take(self, asked: HostAsked) -> None:
        try:
            result = self._perform(asked)
        except RuntimedError as exc:
            self._fail(asked, exc)
        except Exception as exc:
            logger.exception("%s failed", named(asked.operation))
            self._fail(asked, _unforeseen(exc))
        else:
            if result is not None:
                self._reply(asked, result)
        self._set_reading()

    def _set_reading(self) -> None:
        """Pause reading while the peer does not read its replies; `writable` resumes it."""
        if self.channel.unsent > MAX_UNREAD:
            self.channel.pause_reading()

    def _perform(self, asked: HostAsked) -> ReplyBody | None:
        """Perform a request; None if the reply comes later."""
        operation = asked.operation
        if isinstance(operation, OfSpare):
            self._server.keep(self)
        elif not isinstance(operation, Attach) and not self._server.is_attached(self):
            raise ProtocolError("Attach to the host before asking it for anything; a newer daemon may have taken over")
        self._server.check_load(operation)
        match operation:
            case Attach(after=after):
                self._attach(asked, after)
                return None
            case HostDetach():
                self._said_goodbye = True
                return Done()
            case HostReadBlob(sha256=sha256, offset=offset):
                return GetBlobReply(data=self._server.blobs.read(sha256, offset))
            case HostDropBlob(sha256=sha256):
                self._server.blobs.drop(sha256)
                return Done()
            case _:
                answer = self._server.perform(operation)
                if isinstance(answer, ReplyBody):
                    return answer
                asked.work = self._server.begin(self._serve(asked, answer))
                return None

    def _attach(self, asked: HostAsked, after: int) -> None:
        server = self._server
        if server.owned.is_spare:
            # The daemon died after it had stored the spare's session; the spare is about to notice that.
            raise ConnectionLost("This spare ends, as the daemon that made it did")
        self._said_goodbye = False
        # The reply comes first: the daemon learns the epoch before it gets an event.
        self._reply(asked, server.facts())
        server.attach(self, after)

    async def _serve(self, asked: HostAsked, work: Coroutine[Any, Any, ReplyBody]) -> None:
        try:
            result = await work
        except RuntimedError as exc:
            self._fail(asked, exc)
        except Exception as exc:
            logger.exception("%s failed", named(asked.operation))
            self._fail(asked, _unforeseen(exc))
        else:
            self._reply(asked, result)
        finally:
            self._set_reading()

    def _reply(self, asked: HostAsked, result: ReplyBody) -> None:
        self.channel.side.reply(asked, result)
        self.channel.flush()

    def _fail(self, asked: HostAsked, error: RuntimedError) -> None:
        self.channel.side.fail(asked, error)
        self.channel.flush()


def _unforeseen(error: Exception) -> RuntimedError:
    return RuntimedError(f"The host failed: {type(error).__name__}: {error}")
