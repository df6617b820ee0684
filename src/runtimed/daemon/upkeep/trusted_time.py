"""The time by which ages are measured, guarded against a clock that is set wrong: deletions cannot be undone.

A clock that jumps ahead by more than a day is trusted after it has agreed with this machine's own time for a day, under
whatever daemons. Until then the trusted time advances with the time that passed. Nothing here reads a clock.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["DRIFT", "PROOF", "SLACK", "TrustedTime"]

logger = logging.getLogger(__name__)

SLACK: Final = 24 * 3600.0
"""Seconds by which the clock may be ahead of the observed time: no daemon ran, or the machine slept."""

PROOF: Final = 24 * 3600.0
"""Seconds to observe before a clock that is further ahead is trusted."""

DRIFT: Final = 3600.0
"""Seconds by which a clock that is ahead may vary meanwhile."""


class _State(msgspec.Struct):
    trusted: float
    seen: float
    ahead: float | None = None
    witnessed: float = 0.0


class TrustedTime:
    """The trusted time, kept in a file for the next daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steady: float | None = None
        self._state: _State | None = None
        with contextlib.suppress(OSError, msgspec.MsgspecError):  # as on the first start
            self._state = msgspec.json.decode(path.read_bytes(), type=_State)

    def look(self, now: float, steady: float) -> float:
        """Observe the clock.

        Args:
            now: The clock, in Unix time.
            steady: Seconds of a clock that cannot be set, from any origin.

        Returns:
            The trusted time, in Unix time; never later than `now`.
        """
        state = self._state
        if state is None:
            state = self._state = _State(now, now)
        elif self._steady is None:
            # While no daemon ran, the time that passed is unknown.
            gap = now - state.seen
            state.trusted += gap if 0 < gap <= SLACK else 0.0
        passed = 0.0 if self._steady is None else max(steady - self._steady, 0.0)
        self._steady, state.seen = steady, now
        state.trusted += passed
        ahead = now - state.trusted
        if ahead <= SLACK:
            self._believe(state, now)
        elif state.ahead is None or abs(ahead - state.ahead) > DRIFT:
            logger.warning("the clock is %.1f days ahead of the observed time", ahead / 86400)
            state.ahead, state.witnessed = ahead, 0.0
        else:
            state.witnessed += passed
            if state.witnessed >= PROOF:
                self._believe(state, now)
        return state.trusted

    @staticmethod
    def _believe(state: _State, now: float) -> None:
        state.trusted, state.ahead, state.witnessed = now, None, 0.0

    def save(self) -> None:
        """Store the state for the next daemon. On a full disk the previous state stays."""
        if self._state is None:
            return
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.touch(mode=0o600)
            new.write_bytes(msgspec.json.encode(self._state))
            new.replace(self._path)
        except OSError as exc:
            logger.warning("%s is not written: %s", self._path, exc)
