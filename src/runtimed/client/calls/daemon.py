"""The operations that concern the daemon itself, and the list of its sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from runtimed.client.calls.pages import Page, Pages
from runtimed.client.calls.sessions import session_status
from runtimed.client.flows import Ask, Flow
from runtimed.errors import ConnectionLost, DaemonUnavailable
from runtimed.models import DaemonStatus, SessionStatus
from runtimed.protocol import client_operations as ops

__all__ = [
    "SessionKind",
    "SessionState",
    "daemon_status",
    "find_sessions",
    "flush_pool",
    "iter_sessions",
    "list_rooms",
    "list_sessions",
    "shutdown",
]

MOST: Final = 2**31
"""More sessions than anybody has."""

SessionState = Literal["active", "closed", "error", "timed_out"]
SessionKind = Literal["kernel", "browser"]


def daemon_status() -> Flow[DaemonStatus]:
    """Return the daemon's state."""
    reply = yield Ask(ops.GetStatus())
    fields = {key: value for key, value in reply.items() if key not in ("rooms", "next_room")}
    times = {"started_at": datetime.fromtimestamp(reply["started_at"], UTC)}
    return DaemonStatus(**{**fields, **times, "problems": tuple(reply["problems"])})


def list_rooms() -> Flow[list[dict[str, Any]]]:
    """Return the open rooms; see `DaemonClient.list_rooms`."""

    def read(first: int) -> Flow[Page[dict[str, Any]]]:
        reply = yield Ask(ops.GetStatus(first_room=first))
        return Page(reply["rooms"], reply["next_room"])

    return (yield from Pages(read).all())


def flush_pool() -> Flow[None]:
    """End the spares."""
    yield Ask(ops.FlushPool())


def shutdown(*, keep_kernels: bool) -> Flow[None]:
    """End the daemon; see `Client.shutdown`."""
    try:
        yield Ask(ops.ShutdownDaemon(keep_kernels=keep_kernels))
    except (ConnectionLost, DaemonUnavailable):
        # It ended before its reply was read.
        return


def list_sessions(
    status: SessionState | None, kind: SessionKind | None, page: int, page_size: int
) -> Flow[list[SessionStatus]]:
    """Return a page of sessions; see `Sessions.list`."""
    if page < 1 or page_size < 1:
        raise ValueError("page and page_size count from 1")
    end = page * page_size
    return (yield from _sessions(status, kind, end - page_size, end).all())


def iter_sessions(status: SessionState | None, kind: SessionKind | None) -> Pages[SessionStatus]:
    """Iterate over all sessions; see `Sessions.iter`."""
    return _sessions(status, kind, 0, MOST)


def _sessions(status: SessionState | None, kind: SessionKind | None, start: int, end: int) -> Pages[SessionStatus]:
    for name, given, known in (("status", status, get_args(SessionState)), ("kind", kind, get_args(SessionKind))):
        if given is not None and given not in known:
            raise ValueError(f"{name} is {', '.join(known)} or None; not {given!r}")

    def read(at: int) -> Flow[Page[SessionStatus]]:
        reply = yield Ask(ops.ListSessions(status=status, kind=kind, start=at, count=end - at))
        return Page([session_status(fields) for fields in reply["sessions"]], reply["next"])

    return Pages(read, start)


def find_sessions(prefix: str, status: SessionState | None, kind: SessionKind | None) -> Flow[list[str]]:
    """Return the ids of sessions that begin with a text; see `Sessions.find`."""
    reply = yield Ask(ops.FindSessions(prefix=prefix, status=status, kind=kind))
    found: list[str] = reply["ids"]
    return found
