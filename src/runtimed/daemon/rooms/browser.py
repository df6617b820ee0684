"""The browser of a room: what `Hosted` leaves to a browser, and its clients' requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from runtimed.browser.profiles import kept_profile
from runtimed.daemon.hosting.browser_start import BrowserWanted
from runtimed.daemon.hosting.hosted import Hosted, HostedListener
from runtimed.daemon.hosting.launcher import Owner
from runtimed.daemon.hosting.link import HostLink
from runtimed.daemon.hosting.pool import Pool
from runtimed.daemon.rooms.events import EventLog
from runtimed.errors import (
    BrowserError,
    BrowserUnavailable,
    ConnectionLost,
    RuntimedError,
    SessionClosed,
    StorageError,
    error_from_wire,
)
from runtimed.ids import SessionId
from runtimed.protocol.browser_operations import Act, BrowserOperation, StartBrowser
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import BrowserState, BrowserUsed, Event
from runtimed.protocol.host_operations import AttachReply, HostBrowserUsed
from runtimed.protocol.operation import ReplyBody
from runtimed.settings import Settings
from runtimed.storage.audit import Actor
from runtimed.storage.session_store import SessionStore

__all__ = ["RoomBrowser"]

PATIENCE: Final = 30.0
"""Seconds for which a request waits for a host out of reach: its connection broke, or this daemon is new."""

Status = Literal["not_started", "starting", "ready", "dead"]


class RoomBrowser(Hosted):
    """At most one browser, and its clients' requests."""

    what = "browser"
    start_error = BrowserUnavailable
    start_errors = (BrowserError, StorageError)
    status: Status

    def __init__(
        self,
        notebook_id: SessionId,
        settings: Settings,
        store: SessionStore,
        log: EventLog,
        pool: Pool,
        listener: HostedListener,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(notebook_id, settings, store, log, pool, listener, clock)
        self._asked = 0
        self._profile: str | None = None

    @property
    def works(self) -> bool:
        """See `Hosted`: whether a client's request is in progress."""
        return self._asked > 0

    @property
    def kept_profile(self) -> str | None:
        """Name under which the browser will store its profile at its end; None for none."""
        return self._profile if self.in_use else None

    # --- life ---

    async def await_adopted(self) -> None:
        """Wait until an earlier daemon's host has answered or is known to be dead; without one, do nothing.

        Raises:
            BrowserUnavailable: If neither happens in time.
        """
        if self.exists and self._starting is None:
            with contextlib.suppress(SessionClosed):
                await self._open_link()

    async def start(self, request: StartBrowser) -> None:
        """Start a browser unless there is one; return when it can be driven.

        Raises:
            BrowserUnavailable: If it does not start; the message says why.
            BrowserError: If its configuration is invalid.
            SessionClosed: If a client ended it before it was ready.
            StorageError: If the disk is full.
        """
        link = self._host.link
        if self._starting is None and self.status == "ready" and link is not None and link.is_attached:
            link.tell(HostBrowserUsed())
        self._begin(lambda: self._want(request))
        await self._await_start()
        # A browser that was adopted during its start may not be ready.
        await self._open_link()

    async def _want(self, request: StartBrowser) -> BrowserWanted:
        self._profile = kept_profile(request.config)
        return BrowserWanted(notebook_id=self._notebook_id, settings=self._settings, request=request)

    def _say_not_started(self, error: RuntimedError) -> None:
        if self.status == "starting":
            self._say_dead(error.message)

    def _adopted(self, owner: Owner) -> None:  # noqa: ARG002  # it names only the browser's host
        self.status = "ready"

    # --- requests ---

    async def ask(self, operation: BrowserOperation, actor: Actor, request_id: int) -> ReplyBody:
        """Have the host perform an operation exactly once, even if the request is resent on a new connection.

        Args:
            operation: The operation.
            actor: The client.
            request_id: Number of the request. The host deduplicates by it and the client's id.

        Returns:
            The host's reply, unchanged.

        Raises:
            SessionClosed: If there is no browser, or it ends before the reply.
            RuntimedError: If the host reports one.
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
                    # `_open_link` waits until the host is connected again or known to be dead.
                    continue
                except RuntimedError:
                    if self.exists:
                        raise
                    raise self._ended() from None
        finally:
            self._asked -= 1
            self._listener.hosted_used()

    async def _open_link(self) -> HostLink:
        """Return the connection to the host once the daemon is attached.

        Raises:
            SessionClosed: If there is no browser any more.
            BrowserUnavailable: If its host does not answer in time.
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
            f"Session {self._notebook_id!r} has no browser: {self._listener.hosted_fate()}. start() starts one under "
            "the same id",
            notebook_id=self._notebook_id,
        )

    # --- reports of the host ---

    def _described(self, reply: AttachReply) -> None:
        self.status, self._pid, self._profile = reply.status, reply.pid, reply.profile

    def host_goes_on(self, reply: AttachReply) -> None:
        """See `HostOwner`."""
        if reply.used_at and not self._host.stopping:
            self._listener.hosted_used(reply.used_at)

    def host_news(self, event: bytes) -> None:
        """See `HostOwner`."""
        if isinstance(used := decode_event(event), BrowserUsed) and self.exists:
            self._listener.hosted_used(used.at)

    def _take(self, event: Event) -> None:
        if isinstance(event, BrowserState):
            self._changed(event)

    def _changed(self, event: BrowserState) -> None:
        self.status, self._pid = event.status, event.pid
        is_starting = self._is_starting
        if event.status == "ready" and self._ready is not None and is_starting:
            self._ready.set_result(None)
        elif event.status == "dead":
            if self._ready is not None and is_starting:
                reason = event.reason or "The browser was stopped as it started"
                self._ready.set_exception(error_from_wire(event.error or "BrowserUnavailable", reason, event.data))
            elif not event.expected:
                self._listener.hosted_lost("died", event.reason or "The browser ended")
        self._news.set()

    def _dead_event(self, reason: str) -> BrowserState:
        return BrowserState(at=self._clock(), status="dead", expected=self._host.stopping, reason=reason)
