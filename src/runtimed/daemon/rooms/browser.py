"""The browser of a room: how it is started, asked and ended. What becomes of its host is `RoomHost`'s matter."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Protocol

import msgspec

from runtimed.browser.profiles import kept_profile
from runtimed.daemon.hosting.browser_start import BrowserStarter
from runtimed.daemon.hosting.folder import Owner
from runtimed.daemon.hosting.hosted import RoomHost
from runtimed.daemon.hosting.link import HostLink
from runtimed.daemon.hosting.pool import Pool
from runtimed.daemon.rooms.events import EventLog
from runtimed.errors import (
    BrowserError,
    BrowserUnavailable,
    ConnectionLost,
    KernelStartFailed,
    ProtocolError,
    RuntimedError,
    SessionClosed,
    StorageError,
    error_from_wire,
)
from runtimed.ids import HostEpoch, NotebookId
from runtimed.protocol.browser_operations import Act, BrowserOperation, StartBrowser
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import BrowserState, BrowserUsed
from runtimed.protocol.host_operations import HostBrowserUsed, HostShutdown
from runtimed.settings import Settings
from runtimed.storage.audit import Actor
from runtimed.storage.disk import is_no_room, no_room
from runtimed.storage.session_store import SessionStore

__all__ = ["BrowserListener", "RoomBrowser"]

logger = logging.getLogger(__name__)

PATIENCE: Final = 30.0
"""Seconds for which a request waits for a host that is out of reach: its connection broke, or this daemon is new."""

Status = Literal["not_started", "starting", "ready", "dead"]


class BrowserListener(Protocol):
    """What the browser tells its room."""

    def browser_facts(self, **fields: Any) -> None:
        """Facts for the session's row in the registry."""

    def browser_used(self, at: float | None = None) -> None:
        """It was used, now or at that time."""

    def browser_lost(self, why: Literal["died", "host_lost"], error: str) -> None:
        """The browser ended, and nobody had asked for it."""

    def browser_found(self) -> None:
        """The host that an earlier daemon had left answers, and is wanted."""

    def browser_fate(self) -> str:
        """Return in a sentence, without its full stop, why the session has no browser."""

    def browser_problem(self, sentence: str) -> None:
        """Something is damaged or out of reach, and somebody should look after it."""


class RoomBrowser:
    """At most one browser, and what clients ask of it.

    Attributes:
        status: Where it is in its life.
    """

    def __init__(
        self,
        notebook_id: NotebookId,
        settings: Settings,
        store: SessionStore,
        log: EventLog,
        pool: Pool,
        listener: BrowserListener,
        clock: Callable[[], float],
    ) -> None:
        self._notebook_id = notebook_id
        self._settings = settings
        self._store = store
        self._log = log
        self._listener = listener
        self._clock = clock
        self._host = RoomHost(notebook_id, settings, store, log.flow, self)
        self._starter = BrowserStarter(notebook_id, settings, pool, listener.browser_facts)
        self._starting: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._news = asyncio.Event()
        self._asked = 0
        self._start_unwanted = False
        self._pid: int | None = None
        self._profile: str | None = None
        self.status: Status = "not_started"

    # --- facts ---

    @property
    def exists(self) -> bool:
        """Whether a browser runs or is being started; one that was told to end counts no more."""
        return self.status in ("starting", "ready") and not self._host.stopping

    @property
    def busy(self) -> bool:
        """Whether anything that a client has asked is under way, a start included."""
        return self._asked > 0 or self._starting is not None

    @property
    def in_use(self) -> bool:
        """Whether there is a browser, or a host that still ends."""
        return self.exists or self.busy or self._host.link is not None

    @property
    def stored_of_host(self) -> tuple[Path, int] | None:
        """See `RoomKernel.stored_of_host`."""
        return self._host.stored

    @property
    def pid(self) -> int | None:
        """Chromium's process id."""
        return self._pid

    @property
    def kept_profile(self) -> str | None:
        """The name under which the browser stores its profile at its end; None if under none, or if that is over."""
        return self._profile if self.in_use else None

    @property
    def waits(self) -> str | None:
        """See `RoomHost.waits`."""
        return self._host.waits

    @property
    def has_ended(self) -> bool:
        """See `HostUser`."""
        return self.status == "dead"

    # --- life ---

    async def await_adopted(self) -> None:
        """Wait until it is known whether the host that an earlier daemon has left lives on; without one, do nothing.

        Raises:
            BrowserUnavailable: If that is not known in time.
        """
        if self.exists and self._starting is None:
            with contextlib.suppress(SessionClosed):
                await self._open_link()

    async def start(self, request: StartBrowser) -> None:
        """Start a browser unless there is one, and return when it can be used.

        Raises:
            BrowserUnavailable: If it cannot; the message says why.
            BrowserError: If what it is to be started with cannot be.
            SessionClosed: If somebody ended it before.
            StorageError: If there is no room for it.
        """
        link = self._host.link
        if self._starting is None and self.status == "ready" and link is not None and link.is_attached:
            link.tell(HostBrowserUsed())
        if self._starting is None and not self.exists:
            self._start_unwanted = False
            self._starting = self._host.spawn(self._start(request))
            self._starting.add_done_callback(self._start_ended)
        if self._starting is not None:
            # A client that leaves while it waits does not end the start: others may wait for it, too.
            await asyncio.shield(self._starting)
        # One that an earlier daemon has begun to start may not be ready.
        await self._open_link()

    async def _start(self, request: StartBrowser) -> None:
        # The host of a browser that ended may be about to end.
        await self._host.wait_ended()
        self._check_still_wanted()
        self._host.check_gone("browser")
        self.status = "starting"
        self._profile = kept_profile(request.config)
        try:
            await self._start_host(request)
        except (OSError, ConnectionLost, ProtocolError, KernelStartFailed, BrowserError, StorageError) as exc:
            self._start_failed(exc)

    def _start_failed(self, exc: Exception) -> NoReturn:
        """Forget a browser that did not start, and tell why."""
        if isinstance(exc, BrowserError | StorageError):
            error: RuntimedError = exc
        elif is_no_room(exc):
            error = no_room(self._settings.hosts_dir, exc)
        else:
            error = BrowserUnavailable(f"The browser did not start: {exc}")
        try:
            if self.status == "starting":
                self._say_dead(error.message)
            if not self._start_unwanted:
                self._listener.browser_lost("died", error.message)
        except StorageError as trouble:
            logger.error(  # noqa: TRY400  # the disk is full, which is no news here
                "session %r: it cannot be stored that its browser did not start: %s", self._notebook_id, trouble
            )
        self._check_still_wanted()
        raise error from exc

    async def _start_host(self, request: StartBrowser) -> None:
        self._ready = asyncio.get_running_loop().create_future()
        host = await self._starter.start(request)
        link = self._host.attach_to(host.folder, host.epoch, host.pid)
        await link.open(after=0)
        try:
            self._listener.browser_facts(host_pid=host.pid)
        except StorageError:
            link.tell(HostShutdown())
            raise
        if self._start_unwanted:
            link.tell(HostShutdown())
        await self._ready
        self._starter.is_ready(host)

    def _check_still_wanted(self) -> None:
        if self._start_unwanted:
            raise SessionClosed(
                f"Session {self._notebook_id!r} was stopped before its browser had started",
                notebook_id=self._notebook_id,
            )

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        self._listener.browser_used()
        if not task.cancelled():
            task.exception()  # it is raised to those who wait; without them it is told by the registry

    def adopt(self, folder: Path, owner: Owner, host_pid: int | None, *, wanted: bool) -> asyncio.Task[None]:
        """Take over the host that an earlier daemon left; see `RoomKernel.adopt`."""
        self.status = "ready"
        link = self._host.attach_to(folder, HostEpoch(owner.epoch), host_pid)
        if not wanted:
            self._host.stopping = True
            self._host.spawn(self.shutdown())
        return self._host.find_again(link)

    async def shutdown(self) -> None:
        """End the browser and its host, even one that is still starting; without one, do nothing."""
        starting, self._start_unwanted = self._starting, True
        await self._host.end(starting)

    async def detach(self) -> None:
        """Leave the browser running for the next daemon; one that is about to end is waited for."""
        await self._host.detach()

    def close(self) -> None:
        """Let go of the host; it lives on. Closing twice is harmless."""
        self._host.close()

    # --- what clients ask ---

    async def ask(self, operation: BrowserOperation, actor: Actor, request_id: int) -> dict[str, Any]:
        """Have the host do something, once, though the connection to it may break meanwhile.

        Args:
            operation: What.
            actor: Who asks.
            request_id: Tells this request from all others of that client.

        Returns:
            The host's reply, unchanged.

        Raises:
            SessionClosed: If there is no browser, or it ends before it has answered.
            RuntimedError: As the host reports it.
        """
        operation = msgspec.structs.replace(operation, key=f"{actor.client_id}/{request_id}")
        if isinstance(operation, Act):
            operation = msgspec.structs.replace(operation, client_id=actor.client_id, label=actor.label)
        self._asked += 1
        try:
            while True:
                link = await self._open_link()
                try:
                    return await link.ask(operation)
                except ConnectionLost:
                    # Whether the host is dead or will be found again is about to be known.
                    continue
                except RuntimedError:
                    if self.exists:
                        raise
                    raise self._ended() from None
        finally:
            self._asked -= 1
            self._listener.browser_used()

    async def _open_link(self) -> HostLink:
        """Return the connection to the host as soon as there is one.

        Raises:
            SessionClosed: If there is no browser any more.
            BrowserUnavailable: If its host does not answer.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    if not self.exists:
                        raise self._ended()
                    link = self._host.link
                    if self.status == "ready" and link is not None and link.is_attached:
                        return link
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise BrowserUnavailable(
                f"The host of session {self._notebook_id!r} does not answer; stop the session, or wait and try again",
                notebook_id=self._notebook_id,
            ) from None

    def _ended(self) -> SessionClosed:
        return SessionClosed(
            f"Session {self._notebook_id!r} has no browser: {self._listener.browser_fate()}. start() starts one under "
            "the same id",
            notebook_id=self._notebook_id,
        )

    # --- what the host tells ---

    def host_answers(self, link: HostLink, reply: dict[str, Any]) -> None:
        """See `HostUser`."""
        self.status, self._pid, self._profile = reply["status"], reply["pid"], reply["profile"]
        if self._host.stopping:
            link.tell(HostShutdown())
        elif self.status != "dead":
            self._listener.browser_found()
            self._listener.browser_facts(host_pid=link.host_pid)
            self.host_goes_on(reply)
        self._news.set()

    def host_goes_on(self, reply: dict[str, Any]) -> None:
        """See `HostOwner`."""
        if reply["used_at"] and not self._host.stopping:
            self._listener.browser_used(reply["used_at"])

    def host_news(self, event: bytes) -> None:
        """See `HostOwner`."""
        if isinstance(used := decode_event(event), BrowserUsed) and self.exists:
            self._listener.browser_used(used.at)

    def host_events(self, epoch: HostEpoch, events: list[tuple[int, bytes]]) -> None:
        """See `HostOwner`."""
        status = self.status
        try:
            with self._log.transaction():
                for n, body in events:
                    event = decode_event(body)
                    if self._log.append(event, body=body, host=(epoch, n)) and isinstance(event, BrowserState):
                        self._changed(event)
        except StorageError:
            # They come again; until then nothing of this has happened.
            self.status = status
            raise

    def _changed(self, event: BrowserState) -> None:
        self.status, self._pid = event.status, event.pid
        is_starting = self._ready is not None and not self._ready.done()
        if event.status == "ready" and self._ready is not None and is_starting:
            self._ready.set_result(None)
        elif event.status == "dead":
            if self._ready is not None and is_starting:
                reason = event.reason or "The browser was stopped as it started"
                self._ready.set_exception(error_from_wire(event.error or "BrowserUnavailable", reason, event.data))
            elif not event.expected:
                self._listener.browser_lost("died", event.reason or "The browser ended")
        self._news.set()

    def host_out_of_reach(self, link: HostLink, error: ProtocolError) -> None:
        """See `HostUser`."""
        reason = (
            f"The browser lives on, but its host, process {link.host_pid}, cannot be taken over: {error.message}. "
            f"`kill {link.host_pid}` ends both"
        )
        self.host_problem(reason)
        self._say_dead(reason)
        self._listener.browser_lost("host_lost", reason)

    def host_died(self) -> None:
        """See `HostUser`."""
        if self.status == "dead":
            return
        reason = "The process that owned the browser ended, and the browser with it"
        is_starting = self._ready is not None and not self._ready.done()
        if not is_starting and not self._host.stopping:
            self._listener.browser_lost("host_lost", reason)
        self._say_dead(reason)
        if self._ready is not None and is_starting:
            self._ready.set_exception(BrowserUnavailable(f"The browser did not start: {reason}"))

    def host_forgotten(self, *, wanted: bool) -> None:
        """See `HostUser`."""
        self._listener.browser_facts(host_epoch=None, host_dir=None, host_pid=None)
        if wanted:
            self.status = "not_started"
        self._news.set()

    def host_problem(self, sentence: str) -> None:
        """See `HostUser`."""
        self._listener.browser_problem(f"Session {self._notebook_id!r}: {sentence}")

    def _say_dead(self, reason: str) -> None:
        with self._log.transaction():
            self._log.append(BrowserState(at=self._clock(), status="dead", expected=self._host.stopping, reason=reason))
        self.status, self._pid = "dead", None
        self._news.set()
