"""All sessions, and what commands say of one."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Final

from runtimed.client.calls import SessionState
from runtimed.client.client import Client
from runtimed.models import SessionStatus

__all__ = ["all_sessions", "ending", "unused_kernels"]

PAGE: Final = 200
"""Sessions asked for at a time."""

UNUSED: Final = timedelta(days=1)
"""A kernel that nobody has used for so long is named."""


def all_sessions(client: Client, status: SessionState | None = None, kind: str | None = None) -> list[SessionStatus]:
    """Return all sessions, newest access first."""
    found: list[SessionStatus] = []
    for page in itertools.count(1):
        more = client.sessions.list(status, kind, page, PAGE)  # type: ignore[arg-type]  # argparse checked
        found += more
        if len(more) < PAGE:
            break
    return found


def unused_kernels(sessions: list[SessionStatus]) -> list[SessionStatus]:
    """Return the sessions whose kernels run idle, and that nobody has used for a day."""
    before = datetime.now(UTC) - UNUSED
    return [
        one
        for one in sessions
        if one.status == "active" and one.kernel_status == "idle" and one.last_accessed_at <= before
    ]


def ending(session: SessionStatus) -> str:
    """Say how a session is, and why it ended."""
    return session.status if session.close_reason is None else f"{session.status} ({session.close_reason})"
