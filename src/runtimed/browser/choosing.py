"""Selects options of a list, and names the available ones in errors."""

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
"""Milliseconds within which a list must name its options; one that is gone meanwhile names none."""
_MOST_TOLD: Final = 20
"""Largest number of options in a sentence."""

_CHOSEN: Final = f"element => {{ {FIELD} return [...field.selectedOptions ?? []].map(option => option.value); }}"
_TAKES_ONE: Final = f"element => {{ {FIELD} return field.multiple === false; }}"
_OPTIONS: Final = f"""element => {{
  {FIELD}
  return [...field.options ?? []].map(option => [option.value, option.label, option.matches(':disabled')]);
}}"""

FUNCTIONS: Final = {"chosen": _CHOSEN, "takesOne": _TAKES_ONE, "options": _OPTIONS}
"""JavaScript functions for pages; see `isolated`."""


async def check_options(action: actions.SelectOption, found: Locator, what: str) -> None:
    """Check that a list takes as many options as an action names.

    Raises:
        Refused: If it takes one only.
    """
    if len(_asked(action)) > 1 and await ask(found, "takesOne", limit=allowance(action) * 1000):
        names = ", ".join(map(repr, _asked(action)))
        raise Refused(f"{what} takes one option, not several: {names}; nothing was chosen", error="Refused")


async def select(action: actions.SelectOption, found: Locator, what: str, limit: float) -> tuple[str, list[str]]:
    """Choose options of a list; return what was done, and the values of the options.

    Raises:
        NoEffect: If other options are chosen afterwards.
    """
    chosen = await found.select_option(_asked(action), timeout=limit)
    try:
        held = await ask(found, "chosen", limit=_READING)
    except PlaywrightError:  # the page has another list, or is another page
        held = chosen
    if held != chosen:
        raise NoEffect(f"{what} has {', '.join(held) or 'nothing'} chosen, not {', '.join(chosen)}", error="Refused")
    return f"Selected {', '.join(chosen) or 'nothing'} in {what}", chosen


async def no_option(action: actions.SelectOption, found: Locator) -> str | None:
    """Name the options of an action that a list lacks or disables, and those that it has; None if none is missing."""
    try:
        options: list[tuple[str, str, bool]] = await ask(found, "options", limit=_READING)
    except PlaywrightError:  # it is gone
        return None
    wanted = {one: [option for option in options if one in option[:2]] for one in _asked(action)}
    lacking = [repr(one) for one, having in wanted.items() if not having]
    lacking += [f"{one!r} that is enabled" for one, having in wanted.items() if having and all(o[2] for o in having)]
    if not lacking:
        return None
    told = [_told(*option) for option in options[:_MOST_TOLD]]
    more = [f"{len(options) - _MOST_TOLD} more"] if len(options) > _MOST_TOLD else []
    return f"no option {', '.join(lacking)}; it has {', '.join([*told, *more]) or 'none'}"


def _told(value: str, label: str, is_disabled: bool) -> str:  # as the page tells it
    named = repr(label) if label == value else f"{label!r} ({value!r})"
    return f"{named} (disabled)" if is_disabled else named


def _asked(action: actions.SelectOption) -> list[str]:
    return [action.value] if isinstance(action.value, str) else list(dict.fromkeys(action.value))
