"""The remaining time of a browser session, as its host shows it to people. The daemon decides."""

from __future__ import annotations

from typing import Final

from runtimed.lifecycle import Activity, Limits, SessionEvent, next_deadline

__all__ = ["Lifespan"]

_LAST: Final = 1.0
"""Seconds by which the daemon, which learns of each use a little later, may end a session early."""


class Lifespan:
    """The limits of a session, and its use. Times are Unix seconds.

    Args:
        session_id: The session.
        limits: Its limits.
        now: When it became active.

    Attributes:
        session_id: The session.
        died: A sentence about its browser's death; None while it lives, or after an intended end.
    """

    def __init__(self, session_id: str, limits: Limits, now: float) -> None:
        self.session_id = session_id
        self._limits = limits
        self._started_at = now
        self._used_at = now
        self._under_way = 0
        self.died: str | None = None

    def begin(self) -> None:
        """Note that a request to the browser begins."""
        self._under_way += 1

    def end(self, now: float) -> None:
        """Note that a request has ended."""
        self._under_way -= 1
        self.use(now)

    def use(self, now: float) -> None:
        """Note that the session is used."""
        self._used_at = max(now, self._used_at)

    def deadline(self) -> tuple[float, SessionEvent] | None:
        """Return when the session will time out, and why; None for never, or during use."""
        activity = Activity(
            started_at=self._started_at,
            used_at=self._used_at,
            peers=0,
            left_at=self._started_at,
            busy=self._under_way > 0,
        )
        return next_deadline(self._limits, activity)

    def ended_by(self, now: float) -> SessionEvent:
        """Return what ends the session if that is now: the death of its browser, a limit, or a client."""
        if self.died is not None:
            return SessionEvent.DIED
        deadline = self.deadline()
        return SessionEvent.STOPPED if deadline is None or now < deadline[0] - _LAST else deadline[1]
