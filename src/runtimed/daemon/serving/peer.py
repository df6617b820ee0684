"""One connected client: its handshake, its requests in flight, and the streams that answer them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, Protocol

from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.events import MISTAKE, PeerChannel, Stream
from runtimed.daemon.rooms.room import Room
from runtimed.errors import DaemonUnavailable, RuntimedError
from runtimed.ids import ClientId, SessionId
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.connection import Abandoned, Acknowledged, Asked, Cancelled, Greeting, ServingEvent
from runtimed.protocol.kernel_operations import DescribeProcess
from runtimed.protocol.messages import Hello
from runtimed.protocol.operation import ReplyBody, named
from runtimed.protocol.pacing import TokenBucket
from runtimed.settings import DaemonLimits
from runtimed.storage.audit import Actor
from runtimed.transport.channel import ChannelHandler
from runtimed.transport.sockets import PeerCredentials

__all__ = ["Answer", "Peer", "PeerOwner", "Work"]

logger = logging.getLogger(__name__)

MAX_UNANSWERED: Final = 1000
"""Largest number of requests in flight on one connection. The next one is read once one of them is answered."""


Answer = ReplyBody | Coroutine[Any, Any, ReplyBody | Stream] | Stream
"""The reply, a coroutine that returns it or a stream, or a stream of events."""

Work = Stream | asyncio.Task[None]
"""Makes the answer to a request of a peer."""


class PeerOwner(Protocol):
    """What a daemon offers to its peers."""

    limits: DaemonLimits
    pid: int
    demand: Demand

    def admit(self, peer: Peer) -> None:
        """Register a peer that has greeted.

        Raises:
            DaemonUnavailable: If there are too many connections.
        """

    def peer_gone(self, peer: Peer) -> None:
        """Forget a peer whose connection has ended."""

    def open_room(self, notebook_id: SessionId) -> Room | None:
        """Return the room of a session; None if it is not open."""

    def flow_of(self, notebook_id: str | None) -> Flow | None:
        """Return the flow of a session; its room must be open."""


class Peer(ChannelHandler[ServingEvent[ClientOperation, Work]]):
    """One connection of a client, as the daemon sees it.

    Attributes:
        process: The client's description of its process; None until it has sent one.
    """

    batch = 1  # a burst of requests must let other connections in between

    def __init__(
        self,
        daemon: PeerOwner,
        channel: PeerChannel,
        credentials: PeerCredentials,
        answer: Callable[[Peer, Asked[ClientOperation, Work]], Answer],
    ) -> None:
        self.channel = channel
        # From the operating system, not from the client. The pid of a process in another container is 0.
        self.actor = Actor(ClientId(""), label=None, uid=credentials.uid, pid=credentials.pid or None)
        self.rooms: set[Room] = set()
        self.process: DescribeProcess | None = None
        self._daemon = daemon
        self._dispatch = answer
        self._waits = False
        self._takes_replies = True
        rate = daemon.limits.max_request_rate
        self._bucket = None if rate is None else TokenBucket(rate)

    @property
    def client_id(self) -> ClientId:
        """The id that the client chose for itself; empty before its greeting."""
        return self.actor.client_id

    def received(self, events: list[ServingEvent[ClientOperation, Work]]) -> None:
        """Called by the channel."""
        for event in events:
            match event:
                case Asked():
                    self._take(event)
                case Cancelled(asked=asked):
                    _give_up(asked)
                    self._set_reading()
                case Abandoned(asked=asked):
                    if isinstance(asked.work, Stream) or not asked.operation.outlives_client:
                        _give_up(asked)
                case Greeting(hello=hello):
                    self._greet(hello)
                case Acknowledged():
                    pass  # acknowledges a stream that only hosts have

    def _greet(self, hello: Hello) -> None:
        try:
            self._daemon.admit(self)
        except DaemonUnavailable as exc:
            self.channel.refuse(exc.message, type(exc).__name__)
            return
        self.actor = replace(self.actor, client_id=ClientId(hello.client_id), label=hello.label)
        self.channel.side.welcome()
        self.channel.flush()

    def _take(self, asked: Asked[ClientOperation, Work]) -> None:
        loop = asyncio.get_running_loop()
        delay = 0.0 if self._bucket is None else self._bucket.take(loop.time())
        if delay:
            self._hold()
            loop.call_later(delay, self._go_on, self._take, asked)
        else:
            self._begin(asked)

    def _begin(self, asked: Asked[ClientOperation, Work]) -> None:
        notebook_id: str | None = getattr(asked.operation, "notebook_id", None)
        self._daemon.demand.note(notebook_id)
        flow = self._daemon.flow_of(notebook_id)
        if flow is None or not flow.is_held:
            self._answer(asked)
            return
        # Its database is busy: a query now would block the event loop.
        self._hold()
        flow.when_released(lambda: self._go_on(self._begin, asked))

    def _waits_for_check(self, asked: Asked[ClientOperation, Work]) -> bool:
        """Retry a failed request once its session's document is checked, if the document has just come into doubt."""
        room = self._daemon.open_room(getattr(asked.operation, "notebook_id", SessionId("")))
        if room is None or not room.is_reading:
            return False
        self._hold()
        room.flow.when_released(lambda: self._go_on(self._begin, asked))
        return True

    def _hold(self) -> None:
        """Let a request wait, and all that follow it."""
        self._waits = True
        self._set_reading()

    def _go_on(self, step: Callable[[Asked[ClientOperation, Work]], None], asked: Asked[ClientOperation, Work]) -> None:
        if self.channel.is_open:
            self._waits = False
            step(asked)
            self._set_reading()

    def _set_reading(self) -> None:
        """Pause reading while a request waits, too many are in flight, or the client does not read its replies."""
        if self._waits or not self._takes_replies or len(self.channel.side.under_way) >= MAX_UNANSWERED:
            self.channel.pause_reading()
        else:
            self.channel.resume_reading()

    def _answer(self, asked: Asked[ClientOperation, Work]) -> None:
        try:
            answer = self._dispatch(self, asked)
        except RuntimedError as exc:
            if not self._waits_for_check(asked):
                self._fail(asked, exc)
            return
        except Exception:
            logger.exception("%s of client %s failed", named(asked.operation), self.client_id)
            self._fail(asked, RuntimedError(MISTAKE))
            return
        if isinstance(answer, ReplyBody):
            self._reply(asked, answer)
        elif isinstance(answer, Stream):
            self._stream(asked, answer)
        else:
            asked.work = asyncio.get_running_loop().create_task(self._finish(asked, answer))
        self._set_reading()

    def _stream(self, asked: Asked[ClientOperation, Work], stream: Stream) -> None:
        if self.channel.side.is_under_way(asked):
            asked.work = stream
            stream.begin(self._set_reading)
        else:
            stream.close()  # given up while it was made

    async def _finish(self, asked: Asked[ClientOperation, Work], work: Coroutine[Any, Any, ReplyBody | Stream]) -> None:
        try:
            answer = await work
            if isinstance(answer, Stream):
                self._stream(asked, answer)
            else:
                self._reply(asked, answer)
        except RuntimedError as exc:
            self._fail(asked, exc)
        except Exception:
            logger.exception("%s of client %s failed", named(asked.operation), self.client_id)
            self._fail(asked, RuntimedError(MISTAKE))
        finally:
            self._set_reading()

    def _reply(self, asked: Asked[ClientOperation, Work], result: ReplyBody) -> None:
        self.channel.side.reply(asked, result)
        self.channel.flush()
        if not self.channel.writable:
            self._takes_replies = False
            self._set_reading()

    def _fail(self, asked: Asked[ClientOperation, Work], error: RuntimedError) -> None:
        self.channel.side.fail(asked, error)
        self.channel.flush()

    def writable(self) -> None:
        """Called by the channel: the write buffer has drained."""
        if not self._takes_replies:
            self._takes_replies = True
            self._set_reading()
        for asked in list(self.channel.side.under_way):
            if isinstance(asked.work, Stream):
                asked.work.advance()

    def closed(self, error: Exception | None) -> None:
        """Called by the channel."""
        if error is not None:
            sessions = ", ".join(sorted(repr(room.notebook_id) for room in self.rooms)) or "none"
            logger.info("lost client %s (sessions: %s): %s", self.client_id, sessions, error)
        for room in self.rooms:
            room.leave(self)
        self._daemon.peer_gone(self)


def _give_up(asked: Asked[ClientOperation, Work]) -> None:
    """Stop answering a request. What its task does for the session (a kernel's start) goes on; only the wait ends."""
    match asked.work:
        case Stream():
            asked.work.close()
        case asyncio.Task():
            # After the first step of the task, which is in the queue already: what it begins there is begun.
            asyncio.get_running_loop().call_soon(asked.work.cancel)
