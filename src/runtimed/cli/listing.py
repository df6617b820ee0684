"""All sessions, and what commands say of one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from runtimed.models import SessionStatus

__all__ = ["ending", "unused_kernels"]

UNUSED: Final = timedelta(days=1)
"""A kernel that nobody has used for so long is named."""


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
