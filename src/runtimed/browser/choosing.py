"""Chooses options of a list, and says which ones there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from playwright.async_api import Error as PlaywrightError

from runtimed import actions
from runtimed.browser.doing import NoEffect, Refused, allowance
from runtimed.browser.held import FIELD
from runtimed.browser.isolated import ask

if TYPE_CHECKING:
    from playwright.async_api import Locator

__all__ = ["FUNCTIONS", "check_options", "no_option", "select"]

_READING: Final = 1000.0
"""Milliseconds in which a list tells what it has; one that is gone since tells nothing."""
_MOST_TOLD: Final = 20
"""Most options that a sentence names."""

_CHOSEN: Final = f"element => {{ {FIELD} return [...field.selectedOptions ?? []].map(option => option.value); }}"
_TAKES_ONE: Final = f"element => {{ {FIELD} return field.multiple === false; }}"
_OPTIONS: Final = (
    f"element => {{ {FIELD} return [...field.options ?? []].map(({{ value, label }}) => [value, label]); }}"
)

FUNCTIONS: Final = {"chosen": _CHOSEN, "takesOne": _TAKES_ONE, "options": _OPTIONS}
"""What pages are asked; see `isolated`."""


async def check_options(action: actions.SelectOption, found: Locator, what: str) -> None:
    """See that a list takes as many options as an action names.

    Raises:
        Refused: If it takes one.
    """
    if len(_asked(action)) > 1 and await ask(found, "takesOne", limit=allowance(action) * 1000):
        names = ", ".join(map(repr, _asked(action)))
        raise Refused(f"{what} takes one option, not several: {names}; nothing was chosen", error="Refused")


async def select(action: actions.SelectOption, found: Locator, what: str, limit: float) -> tuple[str, list[str]]:
    """Choose options of a list; return what was done, and the values of the options.

    Raises:
        NoEffect: If others are chosen then.
    """
    chosen = await found.select_option(_asked(action), timeout=limit)
    try:
        held = await ask(found, "chosen", limit=_READING)
    except PlaywrightError:  # the page has another list, or is another page
        held = chosen
    if held != chosen:
        raise NoEffect(f"{what} has {', '.join(held) or 'nothing'} chosen, not {', '.join(chosen)}", error="Refused")
    return f"Selected {', '.join(chosen) or 'nothing'} in {what}", chosen


async def no_option(action: actions.SelectOption, found: Locator, what: str) -> Refused | None:
    """Return what says that a list has not had the options of an action in time; None if that is not so."""
    try:
        options: list[tuple[str, str]] = await ask(found, "options", limit=_READING)
    except PlaywrightError:  # it is gone
        return None
    missing = [repr(one) for one in _asked(action) if not any(one in option for option in options)]
    if not missing:
        return None
    told = [repr(label) if label == value else f"{label!r} ({value!r})" for value, label in options[:_MOST_TOLD]]
    more = [f"{len(options) - _MOST_TOLD} more"] if len(options) > _MOST_TOLD else []
    return Refused(
        f"{what} has had no option {', '.join(missing)} for {allowance(action):g} s; "
        f"it has {', '.join([*told, *more]) or 'none'}",
        error="Timeout",
    )


def _asked(action: actions.SelectOption) -> list[str]:
    return [action.value] if isinstance(action.value, str) else list(dict.fromkeys(action.value))
