"""How fast somebody may go on: a bucket of tokens. Nothing here waits or reads a clock."""

from __future__ import annotations

from typing import Final

__all__ = ["TokenBucket"]

_ENOUGH: Final = 1 - 1e-6  # after the time that was asked for, rounding must not ask for a little more


class TokenBucket:
    """Lets through `rate` things a second, and as many as one second's at once after a pause."""

    def __init__(self, rate: float) -> None:
        """Make a full bucket.

        Args:
            rate: Things a second, at least 1.
        """
        self._rate = rate
        self._tokens = rate
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Let one thing through, or say how long it has to wait.

        Args:
            now: Seconds on a clock of which only differences count; one that goes back counts as one that stands.

        Returns:
            0.0 if it went through; else the seconds until it would.
        """
        before = now if self._at is None else self._at
        self._at = max(now, before)
        self._tokens = min(self._rate, self._tokens + (self._at - before) * self._rate)
        if self._tokens >= _ENOUGH:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate
