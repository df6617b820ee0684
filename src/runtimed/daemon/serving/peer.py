"""One connected client: the handshake, its requests in flight, and the streams that answer them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, Protocol, cast

from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.events import MISTAKE, Stream
from runtimed.daemon.rooms.room import Room
from runtimed.errors import DaemonUnavailable, ProtocolError, RuntimedError
from runtimed.ids import ClientId, NotebookId
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.codec import decode_asked_of_daemon
from runtimed.protocol.handshake import answer_hello
from runtimed.protocol.messages import Cancel, Hello, Message, Refusal, Reply, Request, Welcome
from runtimed.protocol.operation import ReplyBody
from runtimed.protocol.pacing import TokenBucket
from runtimed.settings import DaemonLimits
from runtimed.storage.audit import Actor
from runtimed.transport.aio import Channel, ChannelHandler
from runtimed.version import __version__

__all__ = ["Answer", "Peer", "PeerOwner"]

logger = logging.getLogger(__name__)

MAX_UNANSWERED: Final = 1000
"""Requests of one connection that may be under way; the next one is read when one of them is answered."""


Answer = ReplyBody | Coroutine[Any, Any, ReplyBody] | Stream
"""The reply, or something that will make it."""


class PeerOwner(Protocol):
    """What a daemon offers to its peers."""

    limits: DaemonLimits
    pid: int
    demand: Demand

    def admit(self, peer: Peer) -> None:
        """A connection has said who it is.

        Raises:
            DaemonUnavailable: If there are too many.
        """

    def peer_gone(self, peer: Peer) -> None:
        """A connection is closed."""

    def open_room(self, notebook_id: NotebookId) -> Room | None:
        """Return the room of a session if it is open."""

    def flow_of(self, notebook_id: str | None) -> Flow | None:
        """Return the flow of a session whose room is open."""


class Peer(ChannelHandler):
    """A client as the daemon sees it, as long as one connection lasts."""

    batch = 1  # so that many requests that come at once let others in between

    def __init__(
        self, daemon: PeerOwner, channel: Channel, answer: Callable[[Peer, int, ClientOperation], Answer]
    ) -> None:
        self.channel = channel
        # What the operating system says of it, not what it says of itself; its pid is 0 in another container.
        self.actor = Actor(ClientId(""), label=None, uid=channel.peer.uid, pid=channel.peer.pid or None)
        self.rooms: set[Room] = set()
        self._daemon = daemon
        self._dispatch = answer
        self._greeted = False
        self._waits = False
        self._takes_replies = True
        rate = daemon.limits.max_request_rate
        self._bucket = None if rate is None else TokenBucket(rate)
        self._streams: dict[int, Stream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def client_id(self) -> ClientId:
        """What the client called itself; empty before it did."""
        return self.actor.client_id

    def received(self, messages: list[Message]) -> None:
        """Called by the channel."""
        for message in messages:
            if not self.channel.is_open:
                return
            match message:
                case Request() if self._greeted:
                    self._take(cast("Request[ClientOperation]", message))  # what was trusted sends no other
                case Cancel() if self._greeted:
                    self._forget(message.id)
                case Hello() if not self._greeted:
                    self._greet(message)
                case _:
                    self.channel.refuse(f"a {type(message).__name__} was not expected here")

    def _greet(self, hello: Hello) -> None:
        reply = answer_hello(hello, __version__, self._daemon.pid)
        match reply:
            case Welcome():
                try:
                    self._daemon.admit(self)
                except DaemonUnavailable as exc:
                    self.channel.refuse(exc.message, type(exc).__name__)
                    return
                self.actor = replace(self.actor, client_id=ClientId(hello.client_id), label=hello.label)
                self._greeted = True
                self.channel.trust(decode_asked_of_daemon)
                self.channel.send(reply)
            case Refusal():
                self.channel.refuse(reply.message)

    def _take(self, request: Request[ClientOperation]) -> None:
        if request.id in self._streams or request.id in self._tasks:
            # The other side could not tell whose the answers are, and only one of them could be cancelled.
            self.channel.refuse(f"Request {request.id} is not answered yet: give each request a number of its own")
            return
        loop = asyncio.get_running_loop()
        delay = 0.0 if self._bucket is None else self._bucket.take(loop.time())
        if delay:
            self._hold()
            loop.call_later(delay, self._go_on, self._take, request)
        else:
            self._begin(request)

    def _begin(self, request: Request[ClientOperation]) -> None:
        notebook_id: str | None = getattr(request.operation, "notebook_id", None)
        self._daemon.demand.note(notebook_id)
        flow = self._daemon.flow_of(notebook_id)
        if flow is None or not flow.is_held:
            self._answer(request)
            return
        # Its database is at work: to ask it for something now would hold up everybody.
        self._hold()
        flow.when_released(lambda: self._go_on(self._begin, request))

    def _waits_for_check(self, request: Request[ClientOperation]) -> bool:
        """Let a request that failed be answered again, if its session's document has come into doubt just now."""
        room = self._daemon.open_room(getattr(request.operation, "notebook_id", NotebookId("")))
        if room is None or not room.is_checked:
            return False
        self._hold()
        room.flow.when_released(lambda: self._go_on(self._begin, request))
        return True

    def _hold(self) -> None:
        """Let a request wait, and with it all that come after it."""
        self._waits = True
        self._set_reading()

    def _go_on(self, step: Callable[[Request[ClientOperation]], None], request: Request[ClientOperation]) -> None:
        if self.channel.is_open:
            self._waits = False
            step(request)
            self._set_reading()

    def _set_reading(self) -> None:
        """Read no more while a request waits, too many are under way, or the client does not take its replies."""
        if self._waits or not self._takes_replies or len(self._streams) + len(self._tasks) >= MAX_UNANSWERED:
            self.channel.pause_reading()
        else:
            self.channel.resume_reading()

    def _answer(self, request: Request[ClientOperation]) -> None:
        try:
            answer = self._dispatch(self, request.id, request.operation)
        except RuntimedError as exc:
            if not self._waits_for_check(request):
                self.channel.fail(request.id, exc)
            return
        except Exception:
            logger.exception("request %s of client %s failed", type(request.operation).__name__, self.client_id)
            self.channel.fail(request.id, RuntimedError(MISTAKE))
            return
        if isinstance(answer, ReplyBody):
            self._reply(request.id, answer)
        elif isinstance(answer, Stream):
            self._streams[request.id] = answer
            answer.begin(lambda: self._ended(request.id))
        else:
            self._tasks[request.id] = asyncio.get_running_loop().create_task(self._finish(request.id, answer))
        self._set_reading()

    def _ended(self, request_id: int) -> None:
        self._streams.pop(request_id, None)
        self._set_reading()

    async def _finish(self, request_id: int, work: Coroutine[Any, Any, ReplyBody]) -> None:
        try:
            self._reply(request_id, await work)
        except RuntimedError as exc:
            self.channel.fail(request_id, exc)
        except Exception:
            logger.exception("a request of client %s failed", self.client_id)
            self.channel.fail(request_id, RuntimedError(MISTAKE))
        finally:
            if self._tasks.get(request_id) is asyncio.current_task():
                del self._tasks[request_id]
            self._set_reading()

    def _reply(self, request_id: int, result: ReplyBody) -> None:
        try:
            self.channel.send(Reply(request_id, result))
        except ProtocolError as exc:
            self.channel.fail(request_id, exc)
        if not self.channel.writable:
            self._takes_replies = False
            self._set_reading()

    def _forget(self, request_id: int) -> None:
        stream = self._streams.pop(request_id, None)
        if stream is not None:
            stream.close()
        # What a task does for the session (a kernel's start) goes on; just the waiting ends.
        task = self._tasks.pop(request_id, None)
        if task is not None:
            task.cancel()

    def writable(self) -> None:
        """Called by the channel: the client has taken what was sent."""
        if not self._takes_replies:
            self._takes_replies = True
            self._set_reading()
        for stream in list(self._streams.values()):
            stream.advance()

    def closed(self, error: Exception | None) -> None:
        """Called by the channel."""
        if error is not None:
            logger.info("lost client %s: %s", self.client_id, error)
        for request_id in [*self._streams, *self._tasks]:
            self._forget(request_id)
        for room in self.rooms:
            room.leave(self)
        self._daemon.peer_gone(self)
