"""The host of a session: connects to it, reconnects, ends it, and stores the events that a dead one left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, Final, Protocol

from runtimed.daemon.flow import Flow
from runtimed.daemon.hosting.launcher import Launcher, Place
from runtimed.daemon.hosting.link import HostLink
from runtimed.daemon.trouble import Trouble
from runtimed.errors import ConnectionLost, ProtocolError, RuntimedError, StorageError
from runtimed.ids import HostEpoch, SessionId
from runtimed.protocol.host_operations import AttachReply, HostDetach, HostShutdown
from runtimed.settings import Settings
from runtimed.storage.disk import check_room, has_room, no_room
from runtimed.storage.session_store import SessionStore

__all__ = ["HostKeeper", "HostUser", "in_pieces"]

logger = logging.getLogger(__name__)

SHUTDOWN_DEADLINE: Final = 10.0
"""Seconds within which a host must end what it owns and itself; then it is killed."""

PIECE: Final = 2**18
"""Bytes of a dead host's events in one transaction."""

LOOK: Final = 0.1
"""Seconds between two checks whether an owned process has ended whose host cannot report it on a full disk."""

DETACH_DEADLINE: Final = 2.0
"""Seconds within which a host must acknowledge its daemon's end. One that does not starts the next daemon."""


class HostUser(Protocol):
    """Knows the thing that a host owns."""

    @property
    def pid(self) -> int | None:
        """The process that the host owns, if known."""

    @property
    def has_ended(self) -> bool:
        """Whether that process has ended. Then the host is asked nothing more, and its end is awaited."""

    def host_events(self, epoch: HostEpoch, events: list[tuple[int, bytes]]) -> None:
        """See `HostOwner`."""

    def host_news(self, event: bytes) -> None:
        """See `HostOwner`."""

    def host_goes_on(self, reply: AttachReply) -> None:
        """See `HostOwner`."""

    def host_answers(self, link: HostLink, reply: AttachReply) -> None:
        """Take the host's reply to `Attach` on a new connection."""

    def host_died(self) -> None:
        """Store the end of a host whose process is gone. All its events were taken.

        Raises:
            StorageError: If that cannot be stored; then the call is repeated.
        """

    def host_out_of_reach(self, link: HostLink, error: ProtocolError) -> None:
        """Note that the host lives but speaks another protocol. `host_forgotten` follows."""

    def host_forgotten(self, *, wanted: bool) -> None:
        """Note that there is no host any more.

        Args:
            wanted: Whether its end was asked for.

        Raises:
            StorageError: If that cannot be stored; then the call is repeated.
        """

    def host_problem(self, sentence: str) -> None:
        """Report what a host had kept and is damaged, or cannot be read yet."""


class HostKeeper:
    """At most one host.

    Attributes:
        link: The connection to it; None without a host.
        stopping: Whether it was told to end, or will be once it answers.
        unread: Why the spool of a dead host cannot be read yet; None if it can.
    """

    def __init__(
        self,
        notebook_id: SessionId,
        launcher: Launcher,
        settings: Settings,
        store: SessionStore,
        flow: Flow,
        user: HostUser,
    ) -> None:
        self._notebook_id = notebook_id
        self._launcher = launcher
        self._settings = settings
        self._store = store
        self._flow = flow
        self._user = user
        self._tasks: set[asyncio.Task[Any]] = set()
        self._gone: asyncio.Future[None] | None = None
        self._rejoining = False
        self._trouble = Trouble(user.host_problem, f"session {notebook_id!r}: ")
        self.link: HostLink | None = None
        self.stopping = False
        self.unread: StorageError | None = None

    @property
    def stored(self) -> tuple[Place, int] | None:
        """Its place and the number of its last stored event; None without a host."""
        return None if self.link is None else (self.link.place, self.last_stored(self.link))

    # --- its life ---

    def attach_to(self, place: Place, epoch: HostEpoch, host_pid: int | None) -> HostLink:
        """Make this the room's host; return its connection, which is not open yet."""
        name = f"the host of session {self._notebook_id!r}"
        link = HostLink(self._launcher, name, place, epoch, self._flow, self, host_pid)
        self.link = link
        self.unread = None
        self._gone = asyncio.get_running_loop().create_future()
        return link

    def find_again(self, link: HostLink) -> asyncio.Task[None]:
        """Connect to a host of an earlier daemon; if it is dead, take what it left.

        Returns:
            A task that ends once the host has answered or is known to be dead. A stopped process does neither, so the
            task may never end.
        """
        self._rejoining = True
        return self.spawn(self._keep_rejoining(link, delay=0.0))

    async def end(self, starting: asyncio.Task[None] | None) -> None:
        """End the host with what it owns, and return when both are gone. Idempotent.

        Args:
            starting: The start in progress, which knows that it is unwanted.
        """
        if self.link is not None:
            self.stopping = True
            if self.link.is_open:
                self.link.tell(HostShutdown())
            await self.wait_ended()
        if starting is not None:
            with contextlib.suppress(RuntimedError):
                await asyncio.shield(starting)
            await self.wait_ended()

    async def wait_ended(self) -> None:
        """Wait until the present host, which is ending, is gone; on a full disk, until the process that it owns is.

        On a full disk the host lives on until its events are stored. An unreadable spool of a dead host is not awaited:
        it is taken once it can be read.
        """
        gone, link = self._gone, self.link
        if gone is None or link is None:
            return
        try:
            async with asyncio.timeout(SHUTDOWN_DEADLINE):
                while not gone.done() and self.unread is None and (self._has_room(link) or self._owned_runs(link)):
                    await asyncio.wait({gone}, timeout=LOOK)
        except TimeoutError:
            if link.host_pid is None or not self._has_room(link) or not link.is_alive():
                return
            logger.warning("%s in %s does not end; it is killed", link.name, link.place)
            link.signal(signal.SIGKILL)
            await asyncio.wait({gone}, timeout=SHUTDOWN_DEADLINE)

    @property
    def waits(self) -> str | None:
        """A sentence about a dead host's spool that waits for a readable disk; None if none does."""
        if self.link is None or self.unread is None:
            return None
        return (
            f"What the host in {self.link.place} had kept when it ended cannot be read: {self.unread.message}. It "
            "stays there, and is taken as soon as it can be"
        )

    def check_gone(self, what: str) -> None:
        """Refuse a start while the previous host, which has ended, has events to hand over.

        Args:
            what: What the hosts own.

        Raises:
            StorageError: If it has.
        """
        if self.waits is not None:
            raise StorageError(f"There is no new {what} yet. {self.waits}", notebook_id=self._notebook_id)
        if self.link is not None:
            raise no_room(self._settings.data_dir, f"events of the previous {what} are not stored yet")

    def _owned_runs(self, link: HostLink) -> bool:
        return self._user.pid is not None and self._launcher.runs(link.place, self._user.pid)

    def _has_room(self, link: HostLink) -> bool:
        """Whether a host can hand over its events."""
        return not link.keeps_events and has_room(self._settings.data_dir)

    async def detach(self) -> None:
        """Leave the host running for the next daemon. One that is about to end is awaited."""
        if self.stopping:
            await self.wait_ended()
        if self.link is not None and self.link.is_open:
            with contextlib.suppress(RuntimedError, TimeoutError):
                async with asyncio.timeout(DETACH_DEADLINE):
                    await self.link.ask(HostDetach())
        self.close()

    def close(self) -> None:
        """Detach from the host and leave it running. Idempotent."""
        link, self.link = self.link, None
        for task in self._tasks:
            task.cancel()
        if link is not None:
            link.close()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine until it ends or `close` is called."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- reports of the host ---

    def check_room(self) -> None:
        """See `HostOwner`."""
        check_room(self._settings.data_dir)

    def last_stored(self, link: HostLink) -> int:
        """See `HostOwner`."""
        return self._store.last_event_of_host(link.epoch)

    def host_goes_on(self, reply: AttachReply) -> None:
        """See `HostOwner`."""
        self._user.host_goes_on(reply)

    def host_news(self, event: bytes) -> None:
        """See `HostOwner`."""
        self._user.host_news(event)

    def host_events(self, events: list[tuple[int, bytes]]) -> None:
        """See `HostOwner`."""
        if self.link is None:
            raise StorageError("The room has detached from this host", notebook_id=self._notebook_id)
        self.check_room()
        self._user.host_events(self.link.epoch, events)

    def host_gone(self, link: HostLink) -> None:
        """See `HostOwner`."""
        if link is self.link and not self._rejoining:
            self._rejoining = True
            # A host that is ending holds its lock for some more milliseconds.
            self.spawn(self._keep_rejoining(link, delay=0.01))

    # --- after the connection broke ---

    async def _keep_rejoining(self, link: HostLink, delay: float) -> None:
        """Reconnect to the host, or take what a dead one has left, until either succeeds."""
        try:
            while link is self.link:
                await asyncio.sleep(delay)
                delay = min(max(2 * delay, 0.01), 1.0)
                with (
                    self._trouble.contained(f"the connection to the host in {link.place}"),
                    self._trouble.noted(f"what the host in {link.place} has kept"),
                ):
                    if await self._rejoin(link):
                        return
        finally:
            self._rejoining = False

    async def _rejoin(self, link: HostLink) -> bool:
        """Try once to find the host, dead or alive; return whether it is connected.

        Raises:
            StorageError: If its events cannot be stored.
        """
        try:
            if not link.is_alive():
                await self._bury(link)
            elif not self._user.has_ended:
                reply = await link.open(after=self.last_stored(link))
                if self.link is not None:
                    self._user.host_answers(self.link, reply)
        except ProtocolError as exc:
            await self._give_up(link, exc)
        except (OSError, ConnectionLost) as exc:
            logger.info("%s in %s does not answer yet: %s", link.name, link.place, exc)
        except StorageError as exc:
            self.unread = exc if "errno" in exc.data else None
            link.close()
            raise
        except Exception:
            # The next attempt may succeed, as after any unforeseen error in one session.
            link.close()
            raise
        self.unread = None
        # The connection may have broken again before this task had its turn.
        return link is self.link and link.is_open

    async def _give_up(self, link: HostLink, error: ProtocolError) -> None:
        """Report a host of another version, which cannot be served. It lives on unless its session has ended."""
        link.host_pid = link.host_pid or await self._launcher.find_pid(link.place)
        if self.stopping and link.host_pid is not None:
            link.signal(signal.SIGTERM)  # needs no protocol; its end is awaited
            return
        self._user.host_out_of_reach(link, error)
        self._forget()

    async def _bury(self, link: HostLink) -> None:
        """Store the spool of a host whose process is gone, and forget the host. A repeated call continues.

        Raises:
            StorageError: If there is no space for the events, or they cannot be read.
        """
        await self._take_what_is_left(link)
        self.unread = None
        self._user.host_died()
        await asyncio.to_thread(self._launcher.forget, link.place)
        self._forget()

    def _forget(self) -> None:
        self._user.host_forgotten(wanted=self.stopping)
        self.link = None
        self.stopping = False
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    async def _take_what_is_left(self, link: HostLink) -> None:
        after = self.last_stored(link)
        async with (
            contextlib.aclosing(self._launcher.leftovers(link.place, after, self._user.host_problem)) as events,
            contextlib.aclosing(in_pieces(events)) as pieces,
        ):
            # In pieces: a spool may have a gigabyte.
            async for piece in pieces:
                with self._flow.counted():
                    self.host_events(piece)
                await self._flow.turn()


async def in_pieces(events: AsyncIterator[tuple[int, bytes]]) -> AsyncGenerator[list[tuple[int, bytes]]]:
    """Yield events in lists of at most PIECE bytes and 64 events, but at least one event.

    Raises:
        StorageError: If the source fails, behind all events that it gave.
    """
    piece: list[tuple[int, bytes]] = []
    size = 0
    trouble = None
    try:
        async for n, body in events:
            if piece and (size + len(body) > PIECE or len(piece) == 64):
                yield piece
                piece, size = [], 0
            piece.append((n, body))
            size += len(body)
    except StorageError as exc:
        trouble = exc
    if piece:
        yield piece
    if trouble is not None:
        raise trouble
