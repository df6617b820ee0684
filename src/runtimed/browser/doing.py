"""The state of an action in progress, and its refusals."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from runtimed import actions
from runtimed.errors import BrowserError

if TYPE_CHECKING:
    from playwright.async_api import Locator

    from runtimed.browser.open_tab import OpenTab

__all__ = ["LONG_TIMEOUT", "TIMEOUT", "Doing", "NoEffect", "Noted", "Refused", "allowance", "milliseconds"]

TIMEOUT: Final = 10.0
"""Default time limit of an action, in seconds."""
LONG_TIMEOUT: Final = 30.0
"""Default time limit of navigation, waiting and downloads, in seconds."""

_KEY: Final = 0.05
"""Seconds that a key may take: a page may run code for each."""
_LAST: Final = 0.5
"""Least seconds for an element that was found when the action's time was over."""


class Refused(BrowserError):
    """An action was refused by us; `error` is the kind of refusal."""


class NoEffect(Refused):
    """An action on a page had no effect."""


class Noted(msgspec.Struct, frozen=True):
    """How an element is found on a later visit of the page, and what it must be then, as far as that is known."""

    selector: str | None
    role: str | None = None
    name: str | None = None
    place: actions.Place | None = None

    @property
    def element(self) -> dict[str, Any]:
        """What it must be, in the log's form."""
        known: dict[str, Any] = {"role": self.role, "name": self.name, "place": msgspec.to_builtins(self.place)}
        return {key: value for key, value in known.items() if value is not None}


class Doing:
    """The state of an action in progress.

    Attributes:
        watching: The watch of the page during the action.
        done: What was done, once only its consequences are still awaited.
        selectors: Find the named elements on a later visit of the page, in the action's order.
        elements: Role, name and place that these elements must have then, as far as known.
        since: Begin of the work on the page, on the clock of `time.monotonic`.
        exact: Finds the elements whose whole name is the action's, where its meaning is a guess.
        describing: Requests to the page for more of the same, by the elements' places.
    """

    def __init__(self) -> None:
        self.tab: OpenTab | None = None
        self.watching: asyncio.Future[str | None] | None = None
        self.done: str | None = None
        self.selectors: list[str | None] = []
        self.elements: list[dict[str, Any]] = []
        self.exact: Locator | None = None
        self.describing: dict[int, asyncio.Task[Noted | None]] = {}
        self.data: Any = None
        self.changed = False
        self.begun = False
        self.since = time.monotonic()

    def left(self, action: Any) -> float:
        """Return the action's remaining seconds; a moment for what was found when they were over."""
        return max(self.since + allowance(action) - time.monotonic(), _LAST)

    def note(self, noted: Noted) -> None:
        """Note how an element is found again, and what it must be then."""
        self.selectors.append(noted.selector)
        self.elements.append(noted.element)


def allowance(action: Any) -> float:
    """Return the time limit of an action on the page, in seconds."""
    if action.timeout is not None:
        return float(action.timeout)
    if isinstance(action, actions.DownloadFile):
        return LONG_TIMEOUT
    if isinstance(action, actions.Type):
        text = action.value.secret if isinstance(action.value, actions.Secret) else action.value
        return TIMEOUT + len(text) * (action.delay + _KEY)
    return TIMEOUT


def milliseconds(action: Any, default: float) -> float:
    """Return the time limit of an action in milliseconds; `default` is in seconds."""
    return float((action.timeout or default) * 1000)
