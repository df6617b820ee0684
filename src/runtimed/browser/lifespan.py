"""How long a browser session lives on, as its host knows it. The daemon decides; this is what people are shown."""

from __future__ import annotations

from runtimed.lifecycle import Activity, Limits, SessionEvent, next_deadline

__all__ = ["Lifespan"]


class Lifespan:
    """The limits of a session, and its use. Times are Unix seconds.

    Args:
        session_id: Whose.
        limits: Its limits.
        now: When it became active.

    Attributes:
        session_id: Whose.
    """

    def __init__(self, session_id: str, limits: Limits, now: float) -> None:
        self.session_id = session_id
        self._limits = limits
        self._started_at = now
        self._used_at = now
        self._under_way = 0

    def begin(self) -> None:
        """Something that was asked of the browser begins."""
        self._under_way += 1

    def end(self, now: float) -> None:
        """It has ended."""
        self._under_way -= 1
        self.use(now)

    def use(self, now: float) -> None:
        """The session is used."""
        self._used_at = max(now, self._used_at)

    def deadline(self) -> tuple[float, SessionEvent] | None:
        """Return when the session ends by itself if nothing happens before, and why; None for never, or while used."""
        activity = Activity(
            started_at=self._started_at,
            used_at=self._used_at,
            peers=0,
            left_at=self._started_at,
            busy=self._under_way > 0,
        )
        return next_deadline(self._limits, activity)
