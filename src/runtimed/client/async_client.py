"""`AsyncClient`: the daemon itself, the list of its sessions, and its profiles, for asyncio."""

from __future__ import annotations

import builtins
from typing import Any, TypeVar

from runtimed.client import calls
from runtimed.client.async_apart import apart
from runtimed.client.async_browser_session import AsyncBrowserSession
from runtimed.client.async_pages import AsyncItems
from runtimed.client.async_session import AsyncSession
from runtimed.client.flows import Flow
from runtimed.client.identity import Identity
from runtimed.durations import check_duration
from runtimed.errors import ConnectionLost, DaemonUnavailable, ExecutionTimeout, ProtocolError
from runtimed.ids import CellId
from runtimed.models import AuditEntry, DaemonStatus, ExecutionSummary, SessionStatus
from runtimed.settings import read_settings
from runtimed.transport.autostart import daemon_answers

__all__ = ["AsyncClient", "AsyncProfiles", "AsyncSessions"]

T = TypeVar("T")


class AsyncClient:
    """The daemon of this user: is it there, what does it hold; and handles of its sessions.

    Example:
        >>> client = AsyncClient()
        >>> async with client.Session("analysis") as session:
        ...     await session.run("1 + 1")
        >>> [status.session_id for status in await client.sessions.list(status="active")]
        ['analysis']
    """

    def __init__(self, *, label: str | None = None, patience: float | None = None) -> None:
        """Make a client; nothing happens before a call.

        Args:
            label: What people call this client: one line of plain text, at most 256 characters.
            patience: Seconds to wait for a daemon that is busy or hangs, after which a call raises DaemonUnavailable or
                ExecutionTimeout; None for the usual deadlines. Handles of sessions wait as they always do.

        Raises:
            SessionError: If the label cannot be one.
        """
        self._label = label
        self._patience = check_duration("patience", patience)
        self._identity = Identity(label)
        self.sessions = AsyncSessions(self)
        self.profiles = AsyncProfiles(self)

    async def ping(self) -> bool:
        """Whether a daemon of this version answers. Starts none."""
        try:
            return await self.status() is not None
        except (DaemonUnavailable, ConnectionLost, ExecutionTimeout, ProtocolError):
            return False

    async def is_running(self) -> bool:
        """Whether somebody listens on the daemon's socket. Starts none."""
        try:
            return daemon_answers(read_settings())
        except DaemonUnavailable:
            return False

    async def status(self) -> DaemonStatus | None:
        """Return the daemon's state, None if none runs. Starts none.

        Raises:
            DaemonUnavailable: If one runs and does not answer, or takes no more connections.
        """
        try:
            return await self._perform(calls.daemon_status()) if await self.is_running() else None
        except DaemonUnavailable:
            if await self.is_running():
                raise
            return None  # it was just ending

    async def shutdown(self, keep_kernels: bool = False) -> None:  # the name is a promise
        """End the daemon; harmless if none runs.

        Args:
            keep_kernels: Leave the kernels running for the next daemon; else every session ends as `stopped`.
        """
        if await self.is_running():
            await self._perform(calls.shutdown(keep_kernels=keep_kernels))

    def Session(  # noqa: N802  # as in the reference
        self, notebook_id: str | None = None, **options: Any
    ) -> AsyncSession:
        """Make a handle of a session; the arguments are those of `runtimed.AsyncSession`."""
        return AsyncSession(notebook_id, **{"label": self._label, **options})

    def BrowserSession(  # noqa: N802  # as Session
        self, session_id: str | None = None, **options: Any
    ) -> AsyncBrowserSession:
        """Make a handle of a browser session; the arguments are those of `runtimed.AsyncBrowserSession`."""
        return AsyncBrowserSession(session_id, **{"label": self._label, **options})

    async def _perform(self, flow: Flow[T]) -> T:
        return await apart(self._identity, flow, start_daemon=False, patience=self._patience)

    async def _page(self, flow: Flow[calls.Page[T]]) -> calls.Page[T]:
        """Read a page; an empty one if no daemon runs."""
        return await self._perform(flow) if await self.is_running() else calls.Page([], None)


class AsyncSessions:
    """All sessions of the daemon, active and ended. Iterating gives their states, newest access first."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def __aiter__(self) -> AsyncItems[SessionStatus]:
        return self.iter()

    def iter(
        self, status: calls.SessionState | None = None, kind: calls.SessionKind | None = None
    ) -> AsyncItems[SessionStatus]:
        """Iterate over sessions, newest access first; over none if no daemon runs.

        Args:
            status: Only those in this state; all if None.
            kind: Only those of this kind; all if None.
        """

        return AsyncItems(self._client._page, calls.iter_sessions(status, kind))

    async def list(
        self,
        status: calls.SessionState | None = None,
        kind: calls.SessionKind | None = None,
        page: int = 1,
        page_size: int = 100,
    ) -> list[SessionStatus]:
        """Return sessions, newest access first; none if no daemon runs.

        Args:
            status: Only those in this state, so that `"active"` leaves out all that have ended; all if None.
            kind: Only those of this kind; all if None.
            page: Which page, from 1.
            page_size: How many on a page.
        """
        if not await self._client.is_running():
            return []
        return await self._client._perform(calls.list_sessions(status, kind, page, page_size))

    async def get(self, session_id: str) -> SessionStatus:
        """Return the state of one session.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return await self._client._perform(calls.get_session(calls.notebook(session_id)))

    async def log(self, session_id: str, page: int = 1, page_size: int = 100) -> builtins.list[AuditEntry]:
        """Return who did what in a session, and when, the latest first. Asking is no use of the session.

        Ended sessions have their log, too. Sources, outputs and values are never part of it.

        Args:
            session_id: The session.
            page: Which page, from 1.
            page_size: How many entries on a page, at most 1000.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return await self._client._perform(calls.get_log(calls.notebook(session_id), page, page_size))

    def iter_log(self, session_id: str) -> AsyncItems[AuditEntry]:
        """Iterate over who did what in a session, and when, the latest first; see `log`.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return AsyncItems(self._client._perform, calls.iter_log(calls.notebook(session_id)))

    async def find(
        self, prefix: str = "", status: calls.SessionState | None = None, kind: calls.SessionKind | None = None
    ) -> builtins.list[str]:
        """Return the ids of all sessions that begin with a text, newest access first, for somebody who types one.

        Args:
            prefix: What the ids begin with.
            status: Only those in this state; all if None.
            kind: Only those of this kind; all if None.

        Raises:
            DaemonUnavailable: If no daemon runs.
        """
        return await self._client._perform(calls.find_sessions(prefix, status, kind))

    async def find_cells(self, session_id: str, prefix: str = "") -> builtins.list[CellId]:
        """Return the ids of a session's cells that begin with a text, in order. Asking is no use of the session.

        Returns:
            None of a session that never started.

        Raises:
            DaemonUnavailable: If no daemon runs.
        """
        return await self._client._perform(calls.find_cells(calls.notebook(session_id), prefix))

    async def find_executions(self, session_id: str, prefix: str | None = None) -> builtins.list[ExecutionSummary]:
        """Return what a session runs, or ran. Asking is no use of the session.

        Args:
            session_id: The session.
            prefix: None for what runs, and behind it what waits; else the latest whose ids begin so, at most 100, the
                newest first.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return await self._client._perform(calls.find_executions(calls.notebook(session_id), prefix))

    async def complete(self, session_id: str, code: str, cursor_pos: int | None = None) -> dict[str, Any]:
        """Ask a session's kernel for completions without joining the session; see `complete` of a session."""
        return await self._client._perform(calls.complete(calls.notebook(session_id), code, cursor_pos))

    async def inspect(
        self, session_id: str, code: str, cursor_pos: int | None = None, detail_level: int = 0
    ) -> dict[str, Any]:
        """Ask a session's kernel about an object without joining the session; see `inspect` of a session."""
        return await self._client._perform(calls.inspect(calls.notebook(session_id), code, cursor_pos, detail_level))

    async def stop(self, session_id: str) -> None:
        """End a session for everybody; harmless if it ended.

        Raises:
            DaemonUnavailable: If no daemon runs.
        """
        await self._client._perform(calls.stop(calls.notebook(session_id)))

    async def delete(self, session_id: str) -> None:
        """Delete an ended session with its cells, outputs, log, profile and downloads. Its id is free then.

        Clients that are still in it are disconnected. Large values, which sessions share, are removed from the disk
        within a day.

        Raises:
            SessionNotFound: If there is no such session.
            SessionError: If it is active; `stop` it first.
            DaemonUnavailable: If no daemon runs.
        """
        await self._client._perform(calls.delete(calls.notebook(session_id)))

    async def restore(self, session_id: str) -> int:
        """Bring back a session's notebook that was found damaged and set aside, if it is whole after all.

        A process of its own loads it first. Its cells come first, as they were; the cells written since follow. A cell
        that is in both and differs is there twice, and an entry of the notebook's metadata stays as it was written
        since.

        Returns:
            How many cells came back.

        Raises:
            SessionError: If no notebook of this session was set aside, or its whole database was, which stays so.
            StorageError: If it cannot be loaded; it is kept, and the session stays as it is.
            DaemonUnavailable: If no daemon runs.
        """
        return await self._client._perform(calls.restore(calls.notebook(session_id)))


class AsyncProfiles:
    """The named profiles that `save_profile` and `BrowserSession(profile=…)` have left. Iterating gives their names."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def __aiter__(self) -> AsyncItems[str]:
        return AsyncItems(self._client._page, calls.browser.iter_profiles())

    async def list(self) -> builtins.list[str]:
        """Return their names, sorted; none if no daemon runs."""
        if not await self._client.is_running():
            return []
        return await self._client._perform(calls.browser.list_profiles())

    async def delete(self, name: str) -> None:
        """Delete one.

        Raises:
            BrowserError: If there is none of this name, or a session runs that stores it again at its end (attribute
                `session_id`).
            DaemonUnavailable: If no daemon runs.
        """
        await self._client._perform(calls.browser.delete_profile(name))
