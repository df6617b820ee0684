"""Rate limits for pages. Nothing here waits or reads a clock."""

from __future__ import annotations

__all__ = ["Allowance"]


class Allowance:
    """A token bucket with a total: a burst, a rate per second, and an overall maximum.

    Args:
        burst: Its capacity, with which it starts.
        rate: Its gain per second.
        total: Largest amount that can be taken in total.
    """

    def __init__(self, *, burst: float, rate: float, total: float) -> None:
        self._burst = burst
        self._rate = rate
        self._left = total
        self._holds = burst
        self._filled_at: float | None = None

    def take(self, amount: float, now: float) -> bool:
        """Take an amount if it is available; else take nothing.

        Args:
            amount: The amount; more than a burst is never available.
            now: The time in seconds, from any origin.
        """
        if self._filled_at is not None:
            self._holds = min(self._burst, self._holds + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if amount > self._holds or amount > self._left:
            return False
        self._holds -= amount
        self._left -= amount
        return True
