"""A rate limit: a token bucket. Nothing here waits or reads a clock."""

from __future__ import annotations

from typing import Final

__all__ = ["TokenBucket"]

_ENOUGH: Final = 1 - 1e-6  # a rounding error must not ask for another wait after the returned one


class TokenBucket:
    """A token bucket: `rate` tokens per second, with a burst of at most `rate` after a pause."""

    def __init__(self, rate: float) -> None:
        """Make a full bucket.

        Args:
            rate: Tokens per second, at least 1.
        """
        self._rate = rate
        self._tokens = rate
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Take a token, or return how long to wait for one.

        Args:
            now: Seconds on any clock. A clock that is set back counts as stopped.

        Returns:
            0.0 if a token was taken; otherwise the seconds until there is one.
        """
        before = now if self._at is None else self._at
        self._at = max(now, before)
        self._tokens = min(self._rate, self._tokens + (self._at - before) * self._rate)
        if self._tokens >= _ENOUGH:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate
