"""The operations that concern the session itself: its state and its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Ask, Flow
from runtimed.errors import SessionNotFound
from runtimed.models import SessionStatus
from runtimed.protocol import operations as ops

__all__ = ["get_session", "leave", "session_status", "stop"]


def get_session(notebook: Notebook) -> Flow[SessionStatus]:
    """Return the session's state. Asking is no use of the session: its idle time goes on.

    Raises:
        SessionNotFound: If it never started.
    """
    reply = yield Ask(ops.GetSession(notebook_id=notebook.id))
    return session_status(reply)


def stop(notebook: Notebook) -> Flow[None]:
    """End the session for everybody: its kernel ends, its cells and outputs stay readable.

    Stopping twice, or a session that never started, is harmless.
    """
    try:
        yield Ask(ops.StopSession(notebook_id=notebook.id))
    except SessionNotFound:
        return


def leave(notebook: Notebook, *, failed: bool) -> Flow[None]:
    """End the session if this client started it; used when a `with` block ends."""
    try:
        yield Ask(
            ops.StopSession(
                notebook_id=notebook.id, reason="error" if failed else "stopped", only_if_started_by_me=True
            )
        )
    except SessionNotFound:
        return


def session_status(fields: dict[str, Any]) -> SessionStatus:
    """Return a session's status from the map that the daemon sends."""
    times = {
        name: None if fields[name] is None else datetime.fromtimestamp(fields[name], UTC)
        for name in ("created_at", "closed_at", "last_accessed_at")
    }
    return SessionStatus(**{**fields, **times, "duration": timedelta(seconds=fields["duration"])})
