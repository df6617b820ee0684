"""What is known of an action in progress, and how it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runtimed.errors import BrowserError

if TYPE_CHECKING:
    from runtimed.browser.tabs import OpenTab

__all__ = ["LONG_TIMEOUT", "TIMEOUT", "Doing", "Refused", "milliseconds"]

TIMEOUT: Final = 10.0
"""Seconds that an action may take."""
LONG_TIMEOUT: Final = 30.0
"""Seconds that navigation, waiting and downloads may take."""


class Refused(BrowserError):
    """We refuse an action ourselves; `error` is the word for it."""


class Doing:
    """What an action in progress knows so far.

    Attributes:
        done: What was done, when that is over and only what it has led to is still asked for.
    """

    def __init__(self) -> None:
        self.tab: OpenTab | None = None
        self.done: str | None = None
        self.selectors: list[str | None] = []
        self.data: Any = None
        self.changed = False
        self.begun = False


def milliseconds(action: Any, default: float) -> float:
    """Return how long an action may take; `default` is in seconds."""
    return float((action.timeout or default) * 1000)
