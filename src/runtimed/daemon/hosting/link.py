"""The daemon's end of the connection to one host: starts or finds the host, asks it, and takes its numbered events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Protocol

from runtimed.daemon.flow import Flow
from runtimed.errors import ConnectionLost, ProtocolError, RuntimedError, StorageError, error_from_wire
from runtimed.host.bootstrap import HostBootstrap, encode_bootstrap
from runtimed.host.group import end_group
from runtimed.host.memory import clear_leftovers
from runtimed.ids import HostEpoch
from runtimed.protocol.host_operations import Attach
from runtimed.protocol.messages import (
    PROTOCOL_VERSION,
    Ack,
    Cancel,
    EventFrame,
    Failure,
    Hello,
    Message,
    Refusal,
    Reply,
    Request,
    Welcome,
)
from runtimed.protocol.operation import Operation
from runtimed.storage.spool import Spool
from runtimed.texts import printable
from runtimed.transport.aio import Channel, ChannelHandler, connect
from runtimed.version import __version__

__all__ = [
    "HostConnection",
    "HostLink",
    "HostNotStarted",
    "HostOwner",
    "reap_hosts",
    "remove_host_folder",
    "spawn_host",
]

logger = logging.getLogger(__name__)

RETRY: Final = 1.0
"""Seconds after which storing what a host has said is tried again."""

START_DEADLINE: Final = 30.0
"""Seconds within which a host's process must listen."""

_children: set[subprocess.Popen[bytes]] = set()


class HostNotStarted(RuntimedError):
    """A host's process ended, or said nothing in time; with its last lines on standard error, as `stderr`."""


class HostOwner(Protocol):
    """What a link tells the room that owns it."""

    def check_room(self) -> None:
        """See that events can be stored.

        Raises:
            StorageError: If the disk is full.
        """

    def host_news(self, event: bytes) -> None:
        """The host says something that is not to be stored, and comes once or never."""

    def host_events(self, events: list[tuple[int, bytes]]) -> None:
        """Store these events. After a normal return they are acknowledged.

        Raises:
            StorageError: If they could not be stored: they will come again.
        """

    def last_stored(self, link: HostLink) -> int:
        """Return the number of the last event of this host that is stored."""

    def host_goes_on(self, reply: dict[str, Any]) -> None:
        """Events could not be stored, and come again behind this reply to a new `Attach`."""

    def host_gone(self, link: HostLink) -> None:
        """The connection to the host is closed."""


async def spawn_host(bootstrap: HostBootstrap, module: str = "runtimed.host") -> int:
    """Start a host's process; it listens when this returns.

    Args:
        module: What it runs.
        bootstrap: What the host is told. Its lock is held already, so that a daemon which comes after this one does not
            take a host that only starts for dead; this process lets go of it here.

    Returns:
        Its process id.

    Raises:
        HostNotStarted: If it ends or says nothing in time.
    """
    reap_hosts()
    folder = Path(bootstrap.folder)
    try:
        frame = encode_bootstrap(bootstrap)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(folder / "host.err", flags, 0o600), "wb") as errors:
            process = subprocess.Popen(  # noqa: ASYNC220  # takes 1 ms; nothing waits on it
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                start_new_session=True,
                pass_fds=(bootstrap.lock,),
            )
    finally:
        os.close(bootstrap.lock)
    _children.add(process)
    try:
        async with asyncio.timeout(START_DEADLINE):
            said = await asyncio.to_thread(_hand_over, process, frame)
    except TimeoutError:
        process.kill()
        said = b""
    if said != b"ready\n":
        last_lines = printable((folder / "host.err").read_text(errors="replace")[-2000:], "\n")
        shutil.rmtree(folder, ignore_errors=True)
        raise HostNotStarted(
            f"The process of its host did not start: {last_lines.strip() or 'it said nothing'}",
            stderr=last_lines,
        )
    return process.pid


def _hand_over(process: subprocess.Popen[bytes], bootstrap: bytes) -> bytes:
    assert process.stdin is not None  # noqa: S101  # both are pipes, see spawn_host
    assert process.stdout is not None  # noqa: S101
    with process.stdout, contextlib.suppress(BrokenPipeError):
        with process.stdin:
            process.stdin.write(bootstrap)
        return process.stdout.readline()
    return b""


def reap_hosts() -> int:
    """Collect the exit codes of hosts that ended, so that none stays a zombie; return how many of ours still run."""
    _children.difference_update([child for child in _children if child.poll() is not None])
    return len(_children)


def remove_host_folder(folder: Path) -> None:
    """End and remove all that a dead host has left; what cannot be removed is left to the next daemon.

    Waits for what it has left running in its kernel's cgroup, some seconds at most.
    """
    end_group(folder)
    if clear_leftovers(folder):
        shutil.rmtree(folder, ignore_errors=True)


class HostConnection(ChannelHandler):
    """A connection to the host in a folder, which can be asked.

    Attributes:
        host_pid: The host's process, where it is known: the system tells it with the first connection.
    """

    def __init__(self, folder: Path, host_pid: int | None) -> None:
        self.folder = folder
        self.host_pid = host_pid
        self._channel: Channel | None = None
        self._next_request = 1
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._welcome: asyncio.Future[None] | None = None

    async def greet(self) -> None:
        """Connect, and see that the host understands.

        Raises:
            OSError: If nobody listens in that folder.
            ProtocolError: If the host speaks another protocol.
            ConnectionLost: If the host ends meanwhile.
        """
        self._welcome = asyncio.get_running_loop().create_future()
        self._channel = await connect(self.folder / "host.sock", lambda _channel: self)
        self.host_pid = self._channel.peer.pid
        self._channel.send(Hello(PROTOCOL_VERSION, __version__, "daemon", None, os.getpid()))
        await self._welcome

    @property
    def is_open(self) -> bool:
        """Whether the host can be asked now."""
        return self._channel is not None and self._channel.is_open

    def ask(self, operation: Operation) -> asyncio.Future[dict[str, Any]]:
        """Send a request, at once; the future gives the reply or raises the error that the host reported."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if self._channel is None or not self._channel.is_open:
            future.set_exception(ConnectionLost("The connection to the session's host is closed"))
        else:
            request_id, self._next_request = self._next_request, self._next_request + 1
            self._channel.send(Request(request_id, operation))
            self._pending[request_id] = future
            future.add_done_callback(lambda asked: self._abandon(request_id) if asked.cancelled() else None)
        return future

    def _abandon(self, request_id: int) -> None:
        """Nobody waits for this reply any more; the host decides what that means."""
        if self._pending.pop(request_id, None) is not None and self._channel is not None:
            self._channel.send(Cancel(request_id))

    def tell(self, operation: Operation) -> None:
        """Send a request whose success shows in the events; a failure is logged."""
        self.ask(operation).add_done_callback(_log_failure)

    def close(self) -> None:
        """Leave the host alone. Closing twice is harmless."""
        if self._channel is not None:
            self._channel.close()

    def is_alive(self) -> bool:
        """Whether the host's process lives: the operating system releases its lock when it ends."""
        reap_hosts()
        return Spool.is_alive(self.folder)

    def received(self, messages: list[Message]) -> None:
        """Called by the channel."""
        for message in messages:
            self._take_answer(message)

    def _take_answer(self, message: Message) -> None:
        match message:
            case Reply():
                self._settle(message.id, message.result)
            case Failure():
                self._settle(message.id, error_from_wire(message.error, message.message, message.data))
            case Welcome():
                if self._welcome is not None and not self._welcome.done():
                    self._welcome.set_result(None)
            case Refusal():
                if self._welcome is not None and not self._welcome.done():
                    self._welcome.set_exception(ProtocolError(message.message))
            case _:
                logger.warning("a host sent an unexpected %s", type(message).__name__)

    def _settle(self, request_id: int, result: dict[str, Any] | Exception) -> None:
        future = self._pending.pop(request_id, None)
        if future is None or future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def closed(self, error: Exception | None) -> None:
        """Called by the channel."""
        if error is not None:
            logger.warning("lost the host in %s: %s", self.folder, error)
        lost = ConnectionLost("The session's host has closed the connection")
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(lost)
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(lost)


class HostLink(HostConnection):
    """A connection that takes the host's events, too; `flow` says when they may come."""

    def __init__(self, folder: Path, epoch: HostEpoch, flow: Flow, owner: HostOwner, host_pid: int | None) -> None:
        super().__init__(folder, host_pid)
        self.epoch = epoch
        self._flow = flow
        self._owner = owner
        self._refuses = False  # events, until they can be stored
        self._has_refused = False  # and nothing was stored since
        self._attached = False
        self._new_attach: int | None = None

    async def open(self, after: int) -> dict[str, Any]:
        """Connect, and take the events with numbers above `after`, which then come to the owner.

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
        """Whether the host has given its events to this connection, and so takes requests from it."""
        return self._attached and self.is_open

    def received(self, messages: list[Message]) -> None:
        """Called by the channel."""
        with self._flow.counted():
            self._handle(messages)
        if self._channel is not None and not self._flow.is_open:
            self._channel.pause_reading()
            self._flow.later(self._channel.resume_reading)

    def _handle(self, messages: list[Message]) -> None:
        events: list[tuple[int, bytes]] = []
        for message in messages:
            if isinstance(message, EventFrame):
                if message.seq == 0:
                    self._owner.host_news(message.event)
                else:
                    events.append((message.seq, message.event))
                continue
            self._take(events)
            if isinstance(message, Reply) and message.id == self._new_attach:
                self._refuses, self._new_attach = False, None
                self._owner.host_goes_on(message.result)
            self._take_answer(message)
        self._take(events)

    def _take(self, events: list[tuple[int, bytes]]) -> None:
        if events and not self._refuses and self._channel is not None and self.is_open:
            try:
                self._owner.host_events(events)
            except StorageError as exc:
                self._refuse(exc)
            else:
                self._channel.send(Ack(events[-1][0]))
                if self._has_refused:
                    self._has_refused = False
                    logger.info("the events of the host in %s are stored again", self.folder)
        events.clear()

    def _refuse(self, reason: StorageError) -> None:
        """Take no events until they can be stored: the host keeps them, and sends them again when it is asked to.

        The connection stays: replies to requests, of an interrupt for example, are nothing that needs room.
        """
        self._refuses = True
        if not self._has_refused:
            self._has_refused = True
            logger.error("the host in %s keeps its events, for they cannot be stored: %s", self.folder, reason)
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
            self._new_attach = self._next_request
            self.tell(Attach(after=after))

    @property
    def keeps_events(self) -> bool:
        """Whether the host keeps events that cannot be stored now. What a dead one kept is in its folder."""
        return self._has_refused and self.is_open

    def closed(self, error: Exception | None) -> None:
        """Called by the channel."""
        super().closed(error)
        self._owner.host_gone(self)


def _log_failure(future: asyncio.Future[dict[str, Any]]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("a host refused: %s", error)
