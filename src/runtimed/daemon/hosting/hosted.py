"""The kernel or browser of a session: the start, adoption, end and death that both have in common.

`rooms/kernel.py` and `rooms/browser.py` add what is particular to each. `HostKeeper` keeps the host.
"""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, NoReturn, Protocol

from runtimed.daemon.flow import Flow
from runtimed.daemon.hosting.keeper import HostKeeper
from runtimed.daemon.hosting.launcher import HostNotStarted, Owner, Place
from runtimed.daemon.hosting.link import HostLink
from runtimed.daemon.hosting.pool import Pool
from runtimed.daemon.hosting.start import HostStarter, Wanted
from runtimed.errors import ProtocolError, RuntimedError, SessionClosed, StorageError
from runtimed.ids import HostEpoch, SessionId
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Event
from runtimed.protocol.host_operations import AttachReply, HostShutdown
from runtimed.settings import Settings
from runtimed.storage.audit import Actor
from runtimed.storage.disk import is_no_room, no_room
from runtimed.storage.session_store import SessionStore

__all__ = ["Hosted", "HostedListener", "HostedLog"]

logger = logging.getLogger(__name__)


class HostedListener(Protocol):
    """What a hosted thing tells its room."""

    def hosted_facts(self, **fields: Any) -> None:
        """Store facts in the session's row of the registry.

        Raises:
            StorageError: If they cannot be stored.
        """

    def hosted_used(self, at: float | None = None) -> None:
        """Note the last use, now or at that time; the session's idle time counts from it."""

    def hosted_lost(self, why: Literal["died", "host_lost"], error: str) -> None:
        """Note that it ended without being asked to."""

    def hosted_found(self) -> None:
        """Note that the host of an earlier daemon answers, and is wanted."""

    def hosted_fate(self) -> str:
        """Return why the session has none, as a sentence without its full stop."""

    def hosted_problem(self, sentence: str) -> None:
        """Report damage, or what is out of reach, to the users."""


class HostedLog(Protocol):
    """Stores the events of a host."""

    flow: Flow

    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything written in the block as one transaction."""

    def append(self, event: Event, *, body: bytes | None = None, host: tuple[HostEpoch, int] | None = None) -> bool:
        """Store an event; return False if one of that epoch and number is stored already."""


class Hosted(abc.ABC):
    """At most one kernel or one browser, with its host.

    Attributes:
        status: Its state.
    """

    what: ClassVar[str]
    """Its name in messages."""

    start_error: ClassVar[type[RuntimedError]]
    """Error of a failed start that names no cause of its own."""

    start_errors: ClassVar[tuple[type[RuntimedError], ...]]
    """Errors of a start that say by themselves what happened."""

    def __init__(
        self,
        notebook_id: SessionId,
        settings: Settings,
        store: SessionStore,
        log: HostedLog,
        pool: Pool,
        listener: HostedListener,
        clock: Callable[[], float],
    ) -> None:
        self._notebook_id = notebook_id
        self._settings = settings
        self._store = store
        self._events = log
        self._listener = listener
        self._clock = clock
        self._launcher = pool.launcher
        self._starter = HostStarter(pool, listener.hosted_facts)
        self._host = HostKeeper(notebook_id, pool.launcher, settings, store, log.flow, self)
        self._starting: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._start_unwanted = False
        self._news = asyncio.Event()
        self._pid: int | None = None
        self.status: str = "not_started"

    # --- what each kind adds ---

    @property
    @abc.abstractmethod
    def works(self) -> bool:
        """Whether anything that a client asked of it is in progress."""

    @abc.abstractmethod
    def _say_not_started(self, error: RuntimedError) -> None:
        """Store that a start has failed.

        Raises:
            StorageError: If that cannot be stored.
        """

    @abc.abstractmethod
    def _adopted(self, owner: Owner) -> None:
        """Set the status, and what the owner says, of one that an earlier daemon started."""

    @abc.abstractmethod
    def _described(self, reply: AttachReply) -> None:
        """Take the state that the host gives in reply to `Attach`."""

    @abc.abstractmethod
    def _take(self, event: Event) -> None:
        """Apply an event of the host that was just stored."""

    @abc.abstractmethod
    def _dead_event(self, reason: str) -> Event:
        """Return the event that says that it died with its host."""

    @abc.abstractmethod
    def host_goes_on(self, reply: AttachReply) -> None:
        """See `HostOwner`."""

    @abc.abstractmethod
    def host_news(self, event: bytes) -> None:
        """See `HostOwner`."""

    def tidy(self) -> None:  # noqa: B027  # a browser leaves nothing to do
        """Do what is due, or possible again.

        Raises:
            StorageError: If something cannot be stored yet; the next call does it.
        """

    def forget_execution(self, execution_id: str) -> None:  # noqa: B027  # a browser executes nothing
        """Forget an old execution that was deleted."""

    def _facts(self) -> dict[str, Any]:
        """Return the facts for the registry about one that was found again."""
        return {}

    def _will_end(self) -> None:  # noqa: B027  # a browser has nothing that waits
        """Prepare for its end; the host is told next."""

    def _is_gone(self, reason: str) -> None:  # noqa: B027  # as above
        """Store what follows from its process being gone or out of reach.

        Raises:
            StorageError: If that cannot be stored.
        """

    # --- facts ---

    @property
    def exists(self) -> bool:
        """Whether one runs or starts. One that was told to end does not count."""
        return self.status not in ("not_started", "dead") and not self._host.stopping

    @property
    def busy(self) -> bool:
        """Whether anything that a client asked of it is in progress, a start included."""
        return self.works or self._starting is not None

    @property
    def in_use(self) -> bool:
        """Whether there is one, a host that still ends, or anything to do."""
        return self.exists or self.busy or self._host.link is not None

    @property
    def stored_of_host(self) -> tuple[Place, int] | None:
        """The host's place and the number of its last stored event; None without a host."""
        return self._host.stored

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._pid

    @property
    def waits(self) -> str | None:
        """See `HostKeeper.waits`."""
        return self._host.waits

    @property
    def has_ended(self) -> bool:
        """See `HostUser`."""
        return self.status == "dead"

    @property
    def _is_starting(self) -> bool:
        return self._ready is not None and not self._ready.done()

    # --- start ---

    def _begin(self, decide: Callable[[], Awaitable[Wanted]]) -> bool:
        """Begin a start unless one runs or starts.

        Args:
            decide: Returns what is to be started; an error of it ends the start.

        Returns:
            Whether this call began the start.
        """
        if self._starting is not None or self.exists:
            return False
        self._start_unwanted = False
        self._starting = self._host.spawn(self._start(decide))
        self._starting.add_done_callback(self._start_ended)
        return True

    async def _await_start(self) -> None:
        """Wait for the start in progress, if there is one."""
        if self._starting is not None:
            # A client that stops waiting does not end the start: others may wait for it, too.
            await asyncio.shield(self._starting)

    async def _start(self, decide: Callable[[], Awaitable[Wanted]]) -> None:
        # The host of a dead one may be about to end.
        await self._host.wait_ended()
        self._check_still_wanted()
        self._host.check_gone(self.what)
        self.status = "starting"
        wanted = await decide()
        try:
            await self._start_host(wanted)
        except (OSError, RuntimedError) as exc:
            self._start_failed(exc)

    async def _start_host(self, wanted: Wanted) -> None:
        self._ready = asyncio.get_running_loop().create_future()
        host = await self._starter.start(wanted)
        link = self._host.attach_to(host.place, host.epoch, host.pid)
        await link.open(after=0)
        try:
            self._listener.hosted_facts(host_pid=host.pid)
        except StorageError:
            link.tell(HostShutdown())
            raise
        if self._start_unwanted:
            link.tell(HostShutdown())
        await self._ready
        self._starter.is_ready(host)

    def _start_failed(self, exc: OSError | RuntimedError) -> NoReturn:
        """Forget one that did not start, and raise the error that says why."""
        if isinstance(exc, self.start_errors):
            error = exc
        elif isinstance(exc, HostNotStarted):
            error = self.start_error(exc.message, **exc.data)
        elif is_no_room(exc):
            error = no_room(self._settings.hosts_dir, exc)
        else:
            error = self.start_error(f"The {self.what} did not start: {exc}")
        try:
            self._say_not_started(error)
            if not self._start_unwanted:
                self._listener.hosted_lost("died", str(error))
        except StorageError as trouble:
            logger.error(  # noqa: TRY400  # the disk is full, which is no news here
                "session %r: the failed start of its %s cannot be stored: %s", self._notebook_id, self.what, trouble
            )
        self._check_still_wanted()
        raise error from exc

    def _check_still_wanted(self) -> None:
        if self._start_unwanted:
            raise SessionClosed(
                f"Session {self._notebook_id!r} was stopped, or its {self.what} shut down, before the {self.what} had "
                "started",
                notebook_id=self._notebook_id,
            )

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        self._listener.hosted_used()
        if not task.cancelled():
            task.exception()  # raised to the waiting clients; the registry keeps it

    # --- adoption and end ---

    def adopt(self, place: Place, owner: Owner, host_pid: int | None, *, wanted: bool) -> asyncio.Task[None]:
        """Adopt the host of an earlier daemon. From now on there is one, even if it does not answer yet.

        If the host is dead its spool is read, and the room learns of the loss.

        Args:
            place: Where the host is.
            owner: The session it belongs to.
            host_pid: Its process, if known.
            wanted: False if the session has ended: the host is told to end as well.

        Returns:
            A task that ends once the host has answered or is known to be dead. A stopped process does neither, so the
            task may never end.
        """
        # First: if this fails there is none, and nothing waits for it.
        self._adopted(owner)
        link = self._host.attach_to(place, HostEpoch(owner.epoch), host_pid)
        if not wanted:
            self._host.stopping = True
            self._host.spawn(self.shutdown())
        return self._host.find_again(link)

    async def shutdown(self, actor: Actor | None = None) -> None:  # noqa: ARG002  # a kernel's end is noted
        """End it and its host, even during a start. Idempotent.

        Args:
            actor: The client that asked for this; None where it is part of the session's end.
        """
        starting, self._start_unwanted = self._starting, True
        self._will_end()
        await self._host.end(starting)

    async def detach(self) -> None:
        """Leave it running for the next daemon. One that is about to end is awaited."""
        await self._host.detach()

    def close(self) -> None:
        """Detach from the host and leave it running. Idempotent."""
        self._host.close()

    # --- reports of the host ---

    def host_answers(self, link: HostLink, reply: AttachReply) -> None:
        """See `HostUser`."""
        self._described(reply)
        if self._host.stopping:
            link.tell(HostShutdown())
        elif self.status != "dead":
            self._listener.hosted_found()
            self._listener.hosted_facts(host_pid=link.host_pid, **self._facts())
            self.host_goes_on(reply)
        self._news.set()

    def host_events(self, epoch: HostEpoch, events: list[tuple[int, bytes]]) -> None:
        """See `HostOwner`."""
        decoded = [decode_event(body) for _, body in events]
        status = self.status
        try:
            with self._events.transaction():
                for (n, body), event in zip(events, decoded, strict=True):
                    if self._events.append(event, body=body, host=(epoch, n)):
                        self._take(event)
        except StorageError:
            # They come again; until then nothing of this has happened.
            self.status = status
            raise

    def host_out_of_reach(self, link: HostLink, error: ProtocolError) -> None:
        """See `HostUser`."""
        reason = (
            f"The {self.what} lives on, but its host, process {link.host_pid}, cannot be taken over: {error.message}. "
            f"What it says is kept in {link.place}; `kill {link.host_pid}` ends both"
        )
        self.host_problem(reason)
        self._is_gone(reason)
        self._say_dead(reason)
        self._listener.hosted_lost("host_lost", reason)

    def host_died(self) -> None:
        """See `HostUser`."""
        reason = f"The process that owned the {self.what} ended, and the {self.what} with it"
        self._is_gone(reason)
        if self.status == "dead":
            return
        is_starting = self._is_starting
        if not is_starting and not self._host.stopping:
            self._listener.hosted_lost("host_lost", reason)
        self._say_dead(reason)
        if self._ready is not None and is_starting:
            self._ready.set_exception(self.start_error(f"The {self.what} did not start: {reason}"))

    def host_forgotten(self, *, wanted: bool) -> None:
        """See `HostUser`."""
        self._listener.hosted_facts(host_epoch=None, host_dir=None, host_pid=None, kernel_pid=None)
        if wanted:
            self.status = "not_started"
        self._news.set()

    def host_problem(self, sentence: str) -> None:
        """See `HostUser`."""
        self._listener.hosted_problem(f"Session {self._notebook_id!r}: {sentence}")

    def _say_dead(self, reason: str) -> None:
        with self._events.transaction():
            self._events.append(self._dead_event(reason))
        self.status, self._pid = "dead", None
        self._news.set()
