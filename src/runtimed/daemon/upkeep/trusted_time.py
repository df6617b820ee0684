"""How late it is, as far as can be trusted: what is deleted for its age is gone, and a clock may be set wrong.

A clock that runs ahead by more than a day at once is believed when it has said so for a day of this machine's own time,
whichever daemons ran then. Until then time goes on as it was seen to pass. Nothing here reads a clock.
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
"""Seconds by which the clock may be ahead of what was seen to pass: no daemon ran, or the machine slept."""

PROOF: Final = 24 * 3600.0
"""Seconds that have to be seen to pass before a clock that is further ahead is believed."""

DRIFT: Final = 3600.0
"""Seconds by which a clock that is ahead may change its mind meanwhile."""


class _State(msgspec.Struct):
    trusted: float
    seen: float
    ahead: float | None = None
    witnessed: float = 0.0


class TrustedTime:
    """The time that is trusted, kept in a file for the next daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steady: float | None = None
        self._state: _State | None = None
        with contextlib.suppress(OSError, msgspec.MsgspecError):  # as if it was looked at for the first time
            self._state = msgspec.json.decode(path.read_bytes(), type=_State)

    def look(self, now: float, steady: float) -> float:
        """Look at the clock.

        Args:
            now: What it says, in Unix time.
            steady: Seconds that nobody can set, from any beginning.

        Returns:
            The time that is trusted, in Unix time; never later than `now`.
        """
        state = self._state
        if state is None:
            state = self._state = _State(now, now)
        elif self._steady is None:
            # While no daemon ran nobody saw how much time passed.
            gap = now - state.seen
            state.trusted += gap if 0 < gap <= SLACK else 0.0
        passed = 0.0 if self._steady is None else max(steady - self._steady, 0.0)
        self._steady, state.seen = steady, now
        state.trusted += passed
        ahead = now - state.trusted
        if ahead <= SLACK:
            self._believe(state, now)
        elif state.ahead is None or abs(ahead - state.ahead) > DRIFT:
            logger.warning("the clock is %.1f days ahead of the time that was seen to pass", ahead / 86400)
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
        """Keep what is known for the next daemon; without room for it, that one knows what was kept before."""
        if self._state is None:
            return
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.touch(mode=0o600)
            new.write_bytes(msgspec.json.encode(self._state))
            new.replace(self._path)
        except OSError as exc:
            logger.warning("%s is not written: %s", self._path, exc)
