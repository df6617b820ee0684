"""Drives flows over a blocking socket: no thread, no event loop, so it works in scripts and inside a running loop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import msgspec

from runtimed.client.flows import Flow, Follow, Step, resumed
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
from runtimed.errors import ConnectionLost, DaemonUnavailable
from runtimed.protocol.codec import decode_event
from runtimed.protocol.connection import AskingSide, Ended, EventReceived, Failed, Greeted, Replied
from runtimed.protocol.events import Event
from runtimed.protocol.operation import Operation
from runtimed.protocol.session_operations import Join
from runtimed.settings import Settings, read_settings
from runtimed.transport.autostart import connect_socket, open_or_start
from runtimed.transport.blocking import BlockingChannel, WaitTimeout

__all__ = ["Connection"]

T = TypeVar("T")


class Connection:
    """A connection to the daemon that reconnects by itself, for one call at a time; see `Connections`. Opened once.

    Attributes:
        joined: The reply to `Join` on the present connection.
    """

    def __init__(
        self,
        identity: Identity,
        join: Join | None = None,
        *,
        start_daemon: bool = True,
        patience: float | None = None,
    ) -> None:
        """Describe a connection; `open` makes it.

        Args:
            identity: The client.
            join: Sent first, on each new connection.
            start_daemon: Whether to start a daemon if none answers.
            patience: Seconds within which the daemon must take and answer the greeting, and then each request that has
                only a reply. None for the usual deadlines.
        """
        self._identity = identity
        self._join = join
        self._start_daemon = start_daemon
        self._patience = math.inf if patience is None else patience
        self._settings: Settings | None = None
        self._channel: BlockingChannel | None = None
        self._described = Described()
        self._pid = identity.pid
        self._is_in_use = False
        self._is_closed = False
        self.joined: dict[str, Any] = {}

    @property
    def is_open(self) -> bool:
        """Whether it was opened, not closed since, and is not known to be broken."""
        return self._channel is not None and self._channel.is_open and self._pid == self._identity.pid

    def open(self, settings: Settings | None = None) -> None:
        """Connect.

        Args:
            settings: Where the daemon is; None for the present environment's settings.

        Raises:
            DaemonUnavailable: If no daemon answers, and none can or should be started.
            ProtocolError: If the daemon is of another version.
        """
        self._settings = settings or read_settings()
        try:
            self._connect(self._settings)
        except ConnectionLost:
            # The daemon was just ending.
            self._reconnect()

    def close(self) -> None:
        """Disconnect, for good. A call that waits in another thread ends with ConnectionLost. Idempotent."""
        self._is_closed = True
        channel = self._channel
        if channel is None:
            return
        if self._pid == self._identity.pid:
            channel.hang_up()  # a thread may begin to wait just now
        if not self._is_in_use or self._pid != self._identity.pid:
            channel.close()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        self._is_in_use = True
        try:
            yield
        finally:
            self._is_in_use = False
            if self._is_closed and self._channel is not None:
                self._channel.close()

    def perform(self, flow: Flow[T]) -> T:
        """Drive a flow to its end.

        Raises:
            WaitTimeout: If an answer did not come in time.
        """
        with self._in_use(), contextlib.closing(flow):
            try:
                step = next(flow)
                while True:
                    try:
                        reply = self._do(step)
                    except Exception as exc:  # noqa: BLE001  # it is the flow's to answer
                        step = flow.throw(exc)
                    else:
                        step = flow.send(reply)
            except StopIteration as stop:
                result: T = stop.value
                return result

    def stream(self, follow: Follow) -> Generator[Event]:
        """Return the events of a request as they come.

        Back-pressure: events that the consumer does not take stay with the daemon.

        Raises:
            WaitTimeout: If the reply did not come in time.
        """
        number, operation = self._identity.number(), follow.operation
        deadline = None if follow.timeout is None else time.monotonic() + follow.timeout
        while True:
            try:
                with contextlib.closing(self._exchange(number, operation, deadline)) as answer:
                    while True:
                        with self._in_use():
                            event = next(answer, None)
                        if not isinstance(event, EventReceived):
                            return
                        operation = msgspec.structs.replace(operation, after=event.seq)
                        yield decode_event(event.event)
            except ConnectionLost:
                operation = resumed(operation)
                with self._in_use():
                    self._reconnect()

    def _do(self, step: Step) -> dict[str, Any]:
        number, operation = self._identity.number(), step.operation
        timeout = step.timeout if isinstance(step, Follow) else self._patience
        deadline = None if timeout is None or timeout == math.inf else time.monotonic() + timeout
        while True:
            try:
                for event in self._exchange(number, operation, deadline):
                    if isinstance(event, Replied):
                        return event.result
                    if isinstance(step, Follow):
                        operation = msgspec.structs.replace(operation, after=event.seq)
                        step.on_event(decode_event(event.event))
            except ConnectionLost:
                self._reconnect()

    def _exchange(
        self, number: int, operation: Operation[Any], deadline: float | None
    ) -> Generator[EventReceived[None] | Replied[None]]:
        """Send a request and yield its events, and the reply last."""
        if not self.is_open:
            raise ConnectionLost("The connection to the daemon is closed")
        channel = self._channel
        assert channel is not None  # noqa: S101  # is_open says so
        news = self._described.news_for(operation)
        if news is not None:
            channel.side.ask(news, None, self._identity.number())
        channel.side.ask(operation, None, number)
        try:
            channel.flush(deadline)
            while True:
                if self._pid != self._identity.pid:  # forked meanwhile: the answers are the parent's
                    raise ConnectionLost("The connection to the daemon is the parent's")
                match channel.receive(deadline):
                    case EventReceived(id=id) as event if id == number:
                        yield event
                    case Replied(id=id) as event if id == number:
                        yield event
                        return
                    case Failed(id=id, error=error) if id == number:
                        raise error
                    case Ended(error=error):
                        raise error
                    case _:
                        pass  # arrived before its request was cancelled
        finally:
            if channel.side.cancel(number) and self.is_open:
                with contextlib.suppress(ConnectionLost, WaitTimeout):
                    channel.flush(deadline=time.monotonic() + 1.0)

    def _connect(self, settings: Settings) -> None:
        if self._start_daemon:
            sock = open_or_start(settings)
        else:
            found = connect_socket(settings.socket_path, wait=self._patience == math.inf)
            if found is None:
                raise no_daemon(settings.socket_path)
            sock = found
        channel = BlockingChannel(sock, AskingSide("the daemon"))
        try:
            deadline = time.monotonic() + min(HANDSHAKE_DEADLINE, self._patience)
            channel.side.hello(self._identity.hello())
            channel.flush(deadline)
            _await_greeting(channel, deadline, settings)
            if self._join is not None:
                channel.side.ask(self._join, None, self._identity.number())
                channel.flush(deadline)
                self.joined = _await_reply(channel, deadline)
        except BaseException:
            channel.close()
            raise
        broken, self._channel = self._channel, channel
        self._described = Described()
        self._pid = self._identity.pid
        if broken is not None:
            broken.close()
        if self._is_closed:  # by another thread, which did not see this channel
            channel.close()
            raise ConnectionLost("The connection to the daemon is closed")

    def _reconnect(self) -> None:
        """Reconnect after the connection broke.

        Raises:
            ConnectionLost: If that takes longer than RECONNECT_DEADLINE, or the connection was closed here.
        """
        settings = self._settings or read_settings()
        deadline = time.monotonic() + (RECONNECT_DEADLINE if self._start_daemon else ENDING_DEADLINE)
        delay = 0.01
        while True:
            if self._is_closed:
                raise ConnectionLost("The connection to the daemon is closed")
            try:
                self._connect(settings)
            except (ConnectionLost, DaemonUnavailable, WaitTimeout) as exc:
                if isinstance(exc, DaemonUnavailable) and not self._start_daemon:
                    raise
                if time.monotonic() > deadline:
                    raise ConnectionLost(f"The connection to the daemon broke and does not come back: {exc}") from exc
                time.sleep(delay)
                delay = min(2 * delay, 1.0)
            else:
                return


def _await_greeting(channel: BlockingChannel, deadline: float, settings: Settings) -> None:
    try:
        event = channel.receive(deadline)
    except WaitTimeout:
        raise no_answer(settings.socket_path) from None
    if isinstance(event, Ended):
        raise event.error
    if isinstance(event, Greeted):
        note_version(event.version)


def _await_reply(channel: BlockingChannel, deadline: float) -> dict[str, Any]:
    while True:
        match channel.receive(deadline):
            case Replied(result=result):
                return result
            case Failed(error=error) | Ended(error=error):
                raise error
