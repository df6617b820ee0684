"""`Client` and `AsyncClient`: the daemon itself and the list of its sessions. `DaemonClient` is a thin alias."""

from __future__ import annotations

import builtins
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from runtimed.client import calls
from runtimed.client.aio import AsyncConnection
from runtimed.client.async_browser_session import AsyncBrowserSession
from runtimed.client.async_session import AsyncSession
from runtimed.client.blocking import Connection
from runtimed.client.browser_session import BrowserSession
from runtimed.client.calls.pages import following
from runtimed.client.flows import Ask, Flow
from runtimed.client.identity import Identity
from runtimed.client.profiles import AsyncProfiles, Profiles
from runtimed.client.session import Session
from runtimed.errors import ConnectionLost, DaemonUnavailable, ProtocolError
from runtimed.ids import check_notebook_id
from runtimed.models import AuditEntry, DaemonStatus, SessionStatus
from runtimed.protocol import operations as ops
from runtimed.settings import read_settings
from runtimed.transport.autostart import daemon_answers

__all__ = ["AsyncClient", "AsyncSessions", "Client", "DaemonClient", "Sessions", "default_socket_path"]

T = TypeVar("T")

SessionState = Literal["active", "closed", "error", "timed_out"]
SessionKind = Literal["kernel", "browser"]


def default_socket_path() -> Path:
    """Return the path of the socket where `connect()` looks for the daemon, as the environment says now."""
    return read_settings().socket_path


def _status() -> Flow[DaemonStatus]:
    reply = yield Ask(ops.GetStatus())
    fields = {key: value for key, value in reply.items() if key not in ("rooms", "next_room")}
    times = {"started_at": datetime.fromtimestamp(reply["started_at"], UTC)}
    return DaemonStatus(**{**fields, **times, "problems": tuple(reply["problems"])})


def _rooms() -> Flow[list[dict[str, Any]]]:
    rooms: list[dict[str, Any]] = []
    first: int | None = 0
    while first is not None:
        page = yield Ask(ops.GetStatus(first_room=first))
        rooms += page["rooms"]
        first = None if page["next_room"] is None else following(first, page["next_room"])
    return rooms


def _flush_pool() -> Flow[None]:
    yield Ask(ops.FlushPool())


def _shutdown(*, keep_kernels: bool) -> Flow[None]:
    try:
        yield Ask(ops.ShutdownDaemon(keep_kernels=keep_kernels))
    except (ConnectionLost, DaemonUnavailable):
        # It ended before its reply was read.
        return


def _list(
    status: SessionState | None, kind: SessionKind | None, page: int, page_size: int
) -> Flow[list[SessionStatus]]:
    if page < 1 or page_size < 1:
        raise ValueError("page and page_size count from 1")
    for name, given, known in (("status", status, get_args(SessionState)), ("kind", kind, get_args(SessionKind))):
        if given is not None and given not in known:
            raise ValueError(f"{name} is {', '.join(known)} or None; not {given!r}")
    found: list[SessionStatus] = []
    end = page * page_size
    start: int | None = end - page_size
    while start is not None:
        reply = yield Ask(ops.ListSessions(status=status, kind=kind, start=start, count=end - start))
        found += [calls.session_status(fields) for fields in reply["sessions"]]
        start = None if reply["next"] is None else following(start, reply["next"])
    return found


def _notebook(session_id: str) -> calls.Notebook:
    return calls.Notebook(check_notebook_id(session_id))


class Client:
    """The daemon of this user: is it there, what does it hold; and handles of its sessions.

    Example:
        >>> client = Client()
        >>> with client.Session("analysis") as session:
        ...     session.run("1 + 1")
        >>> [status.session_id for status in client.sessions.list(status="active")]
        ['analysis']
    """

    def __init__(self, *, label: str | None = None) -> None:
        """Make a client; nothing happens before a call.

        Args:
            label: What people call this client: one line of plain text, at most 256 characters.

        Raises:
            SessionError: If the label cannot be one.
        """
        self._label = label
        self._identity = Identity(label)
        self.sessions = Sessions(self)
        self.profiles = Profiles(self)

    def ping(self) -> bool:
        """Whether a daemon of this version answers. Starts none."""
        try:
            return self.status() is not None
        except (DaemonUnavailable, ConnectionLost, ProtocolError):
            return False

    def is_running(self) -> bool:
        """Whether somebody listens on the daemon's socket. Starts none."""
        try:
            return daemon_answers(read_settings())
        except DaemonUnavailable:
            return False

    def status(self) -> DaemonStatus | None:
        """Return the daemon's state, None if none runs. Starts none.

        Raises:
            DaemonUnavailable: If one runs and does not answer, or takes no more connections.
        """
        try:
            return self._perform(_status()) if self.is_running() else None
        except DaemonUnavailable:
            if self.is_running():
                raise
            return None  # it was just ending

    def shutdown(self, keep_kernels: bool = False) -> None:  # the name is a promise
        """End the daemon; harmless if none runs.

        Args:
            keep_kernels: Leave the kernels running for the next daemon; else every session ends as `stopped`.
        """
        if self.is_running():
            self._perform(_shutdown(keep_kernels=keep_kernels))

    def Session(self, notebook_id: str | None = None, **options: Any) -> Session:  # noqa: N802  # as in the reference
        """Make a handle of a session; the arguments are those of `runtimed.Session`."""
        return Session(notebook_id, **{"label": self._label, **options})

    def BrowserSession(  # noqa: N802  # as Session
        self, session_id: str | None = None, **options: Any
    ) -> BrowserSession:
        """Make a handle of a browser session; the arguments are those of `runtimed.BrowserSession`."""
        return BrowserSession(session_id, **{"label": self._label, **options})

    def _perform(self, flow: Flow[T]) -> T:
        connection = Connection(self._identity, start_daemon=False)
        connection.open()
        try:
            return connection.perform(flow)
        finally:
            connection.close()


class Sessions:
    """All sessions of the daemon, active and ended."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(
        self,
        status: SessionState | None = None,
        kind: SessionKind | None = None,
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
        if not self._client.is_running():
            return []
        return self._client._perform(_list(status, kind, page, page_size))  # two halves of one thing

    def get(self, session_id: str) -> SessionStatus:
        """Return the state of one session.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return self._client._perform(calls.get_session(_notebook(session_id)))  # as above

    def log(self, session_id: str, page: int = 1, page_size: int = 100) -> builtins.list[AuditEntry]:
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
        return self._client._perform(calls.get_log(_notebook(session_id), page, page_size))  # as above

    def stop(self, session_id: str) -> None:
        """End a session for everybody; harmless if it ended.

        Raises:
            DaemonUnavailable: If no daemon runs.
        """
        self._client._perform(calls.stop(_notebook(session_id)))  # as above

    def delete(self, session_id: str) -> None:
        """Delete an ended session with its cells, outputs, log, profile and downloads. Its id is free then.

        Clients that are still in it are disconnected. Large values, which sessions share, are removed from the disk
        within a day.

        Raises:
            SessionNotFound: If there is no such session.
            SessionError: If it is active; `stop` it first.
            DaemonUnavailable: If no daemon runs.
        """
        self._client._perform(calls.delete(_notebook(session_id)))  # as above

    def restore(self, session_id: str) -> int:
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
        return self._client._perform(calls.restore(_notebook(session_id)))  # as above


class AsyncClient:
    """`Client` with coroutines."""

    def __init__(self, *, label: str | None = None) -> None:
        """Make a client; nothing happens before a call. The arguments are those of `Client`."""
        self._label = label
        self._identity = Identity(label)
        self.sessions = AsyncSessions(self)
        self.profiles = AsyncProfiles(self)

    async def ping(self) -> bool:
        """Whether a daemon of this version answers. Starts none."""
        try:
            return await self.status() is not None
        except (DaemonUnavailable, ConnectionLost, ProtocolError):
            return False

    async def is_running(self) -> bool:
        """Whether somebody listens on the daemon's socket. Starts none."""
        try:
            return daemon_answers(read_settings())
        except DaemonUnavailable:
            return False

    async def status(self) -> DaemonStatus | None:
        """Return the daemon's state, None if none runs; raises what `Client.status` raises. Starts none."""
        try:
            return await self._perform(_status()) if await self.is_running() else None
        except DaemonUnavailable:
            if await self.is_running():
                raise
            return None  # it was just ending

    async def shutdown(self, keep_kernels: bool = False) -> None:  # the name is a promise
        """End the daemon; harmless if none runs. The arguments are those of `Client.shutdown`."""
        if await self.is_running():
            await self._perform(_shutdown(keep_kernels=keep_kernels))

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
        connection = AsyncConnection(self._identity, start_daemon=False)
        await connection.open()
        try:
            return await connection.perform(flow)
        finally:
            connection.close()


class AsyncSessions:
    """`Sessions` with coroutines."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(
        self,
        status: SessionState | None = None,
        kind: SessionKind | None = None,
        page: int = 1,
        page_size: int = 100,
    ) -> list[SessionStatus]:
        """Return sessions, newest access first. The arguments are those of `Sessions.list`."""
        if not await self._client.is_running():
            return []
        return await self._client._perform(_list(status, kind, page, page_size))  # two halves of one thing

    async def get(self, session_id: str) -> SessionStatus:
        """Return the state of one session; raises what `Sessions.get` raises."""
        return await self._client._perform(calls.get_session(_notebook(session_id)))  # as above

    async def log(self, session_id: str, page: int = 1, page_size: int = 100) -> builtins.list[AuditEntry]:
        """Return who did what in a session, the latest first. Arguments and errors are those of `Sessions.log`."""
        return await self._client._perform(calls.get_log(_notebook(session_id), page, page_size))  # as above

    async def stop(self, session_id: str) -> None:
        """End a session for everybody; raises what `Sessions.stop` raises."""
        await self._client._perform(calls.stop(_notebook(session_id)))  # as above

    async def delete(self, session_id: str) -> None:
        """Delete an ended session with its data; see `Sessions.delete`."""
        await self._client._perform(calls.delete(_notebook(session_id)))  # as above

    async def restore(self, session_id: str) -> int:
        """Bring back a notebook that was set aside; returns and raises what `Sessions.restore` does."""
        return await self._client._perform(calls.restore(_notebook(session_id)))  # as above


class DaemonClient:
    """The daemon in plain dicts, as the first reference document has it."""

    def __init__(self) -> None:
        self._client = Client()

    def ping(self) -> bool:
        """Whether a daemon of this version answers."""
        return self._client.ping()

    def is_running(self) -> bool:
        """Whether somebody listens on the daemon's socket."""
        return self._client.is_running()

    def status(self) -> dict[str, Any] | None:
        """Return the daemon's state, None if none runs.

        `uv_available`, `conda_available` and `current_available` count spare kernels that wait in such environments,
        `browser_available` spare browsers; `uv_warming`, `conda_warming`, `current_warming` and `browser_warming` count
        those that are being made.
        """
        status = self._client.status()
        if status is None:
            return None
        pool = {name: status.pool.get(name, 0) for name in _POOL_FIGURES}
        return {
            "pid": status.pid,
            "version": status.version,
            "socket_path": status.socket_path,
            "data_dir": status.data_dir,
            "started_at": status.started_at,
            "sessions": status.sessions,
            "peers": status.peers,
            **pool,
        }

    def list_rooms(self) -> list[dict[str, Any]]:
        """Return the open rooms: `notebook_id, active_peers, has_kernel, kernel_type, kernel_status, env_source`."""
        return self._client._perform(_rooms()) if self.is_running() else []  # a thin alias

    def flush_pool(self) -> None:
        """End the spares; more are made after the next start of a kernel or browser. Harmless if no daemon runs."""
        if self.is_running():
            self._client._perform(_flush_pool())  # a thin alias

    def shutdown(self) -> None:
        """End the daemon and every session."""
        self._client.shutdown()


_POOL_FIGURES = (
    "uv_available",
    "uv_warming",
    "conda_available",
    "conda_warming",
    "current_available",
    "current_warming",
    "browser_available",
    "browser_warming",
)
