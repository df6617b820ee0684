"""The operations on the daemon itself, and on the list of its sessions."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import msgspec

from runtimed.client.calls.pages import Page, Pages
from runtimed.client.flows import Flow, ask
from runtimed.client.given import check_choice, check_count
from runtimed.errors import ConnectionLost, DaemonUnavailable
from runtimed.models import DaemonStatus, SessionStatus
from runtimed.protocol import session_operations as session_ops

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
"""More than the number of sessions."""

SessionState = Literal["active", "closed", "error", "timed_out"]
SessionKind = Literal["kernel", "browser"]


def daemon_status() -> Flow[DaemonStatus]:
    """Return the daemon's status."""
    return (yield from ask(session_ops.GetStatus())).status


def list_rooms() -> Flow[list[dict[str, Any]]]:
    """Return the open rooms; see `DaemonClient.list_rooms`."""

    def read(first: int) -> Flow[Page[dict[str, Any]]]:
        reply = yield from ask(session_ops.GetStatus(first_room=first))
        return Page(list(map(msgspec.structs.asdict, reply.rooms)), reply.next_room)

    return (yield from Pages(read).all())


def flush_pool() -> Flow[None]:
    """End the spares."""
    yield from ask(session_ops.FlushPool())


def shutdown(*, keep_kernels: bool) -> Flow[None]:
    """End the daemon; see `Client.shutdown`."""
    try:
        yield from ask(session_ops.ShutdownDaemon(keep_kernels=keep_kernels))
    except (ConnectionLost, DaemonUnavailable):
        # It ended before its reply was read.
        return


def list_sessions(
    status: SessionState | None, kind: SessionKind | None, page: int, page_size: int
) -> Flow[list[SessionStatus]]:
    """Return a page of sessions; see `Sessions.list`."""
    end = check_count("page", page, 1) * check_count("page_size", page_size, 1)
    return (yield from _sessions(status, kind, end - page_size, end).all())


def iter_sessions(status: SessionState | None, kind: SessionKind | None) -> Pages[SessionStatus]:
    """Iterate over all sessions; see `Sessions.iter`."""
    return _sessions(status, kind, 0, MOST)


def _sessions(status: SessionState | None, kind: SessionKind | None, start: int, end: int) -> Pages[SessionStatus]:
    check_choice("status", status, get_args(SessionState), is_optional=True)
    check_choice("kind", kind, get_args(SessionKind), is_optional=True)

    def read(at: int) -> Flow[Page[SessionStatus]]:
        reply = yield from ask(session_ops.ListSessions(status=status, kind=kind, start=at, count=end - at))
        return Page(reply.sessions, reply.next)

    return Pages(read, start)


def find_sessions(prefix: str, status: SessionState | None, kind: SessionKind | None) -> Flow[list[str]]:
    """Return the ids of sessions that begin with a text; see `Sessions.find`."""
    return (yield from ask(session_ops.FindSessions(prefix=prefix, status=status, kind=kind))).ids
