"""Descriptions of sessions for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from runtimed.models import SessionStatus

__all__ = ["ending", "unused_kernels"]

UNUSED: Final = timedelta(days=1)
"""Age of the last use from which an idle kernel is named."""


def unused_kernels(sessions: list[SessionStatus]) -> list[SessionStatus]:
    """Return the sessions whose kernels are idle, and that were not used for a day."""
    before = datetime.now(UTC) - UNUSED
    return [
        one
        for one in sessions
        if one.status == "active" and one.kernel_status == "idle" and one.last_accessed_at <= before
    ]


def ending(session: SessionStatus) -> str:
    """Describe a session's state, and why it ended."""
    return session.status if session.close_reason is None else f"{session.status} ({session.close_reason})"
