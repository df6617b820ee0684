"""Pictures for the action log, taken from the screencast: how the page looked before an action and after it.

An action never waits for its picture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from runtimed.browser.action_log import ActionLog
from runtimed.browser.screencast import Frame, Screencast

__all__ = ["Pictures"]

_PATIENCE: Final = 1.5
"""Seconds after an action in which a changed page shows itself; one that did not change shows nothing new."""


class Pictures:
    """Adds pictures to the log.

    Args:
        cast: Has them.
        log: Gets them.
    """

    def __init__(self, cast: Screencast, log: ActionLog) -> None:
        self._cast = cast
        self._log = log
        self._logged: Frame | None = None
        self._awaiting: int | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._end: Callable[[], None] = cast.listen(self._on_frame)

    def before(self) -> Frame | None:
        """Return the picture from before an action that is about to begin."""
        self._settle()
        return self._cast.latest

    def after(self, action: int, before: Frame | None) -> None:
        """Add the pictures of an action that has ended: the one from before now, the one from after when it comes."""
        self._settle()
        if before is not None and before is not self._logged:
            self._add(action, "before", before)
        self._awaiting = action
        self._patience = asyncio.get_running_loop().call_later(_PATIENCE, self._settle)

    def close(self) -> None:
        """Take what there is as the last picture."""
        self._settle()
        self._end()

    def _on_frame(self, _frame: Frame) -> None:
        self._settle()

    def _settle(self) -> None:
        """Let the newest picture be the one after the latest action."""
        action, self._awaiting = self._awaiting, None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        frame = self._cast.latest
        if action is not None and frame is not None and frame is not self._logged:
            self._add(action, "after", frame)

    def _add(self, action: int, moment: str, frame: Frame) -> None:
        self._logged = frame
        self._log.add("picture", frame.tab, "", action=action, moment=moment, image=frame.image)
