"""The operations that concern the daemon itself, and the list of its sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, get_args

from runtimed.client.calls.pages import following
from runtimed.client.calls.sessions import session_status
from runtimed.client.flows import Ask, Flow
from runtimed.errors import ConnectionLost, DaemonUnavailable
from runtimed.models import DaemonStatus, SessionStatus
from runtimed.protocol import client_operations as ops

__all__ = [
    "SessionKind",
    "SessionState",
    "daemon_status",
    "flush_pool",
    "list_rooms",
    "list_sessions",
    "shutdown",
]

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
    rooms: list[dict[str, Any]] = []
    first: int | None = 0
    while first is not None:
        page = yield Ask(ops.GetStatus(first_room=first))
        rooms += page["rooms"]
        first = None if page["next_room"] is None else following(first, page["next_room"])
    return rooms


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
    for name, given, known in (("status", status, get_args(SessionState)), ("kind", kind, get_args(SessionKind))):
        if given is not None and given not in known:
            raise ValueError(f"{name} is {', '.join(known)} or None; not {given!r}")
    found: list[SessionStatus] = []
    end = page * page_size
    start: int | None = end - page_size
    while start is not None:
        reply = yield Ask(ops.ListSessions(status=status, kind=kind, start=start, count=end - start))
        found += [session_status(fields) for fields in reply["sessions"]]
        start = None if reply["next"] is None else following(start, reply["next"])
    return found
