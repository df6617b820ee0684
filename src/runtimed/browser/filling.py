"""Writes into fields, empties and sets them, and reads back what they hold."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Final

import msgspec
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.actions import Secret
from runtimed.browser.doing import Doing, NoEffect
from runtimed.browser.pointing import was_clicked
from runtimed.browser.words import is_found, obstacle

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

    from runtimed.browser.tabs import OpenTab

__all__ = ["check", "clear", "fill", "select", "type_anywhere", "type_text"]

_READING: Final = 1000.0
"""Milliseconds in which a field tells what it holds; one that is gone since tells nothing."""
_SWITCHING: Final = 3.0
"""Seconds that a switch gets to follow a click where the action names no time: it may ask its server first."""
_LOOKS: Final = 0.05
"""Seconds between two looks at a switch."""

# Pictures of the page, and who watches it, must not show it either.
_HIDE: Final = "if (field.type !== 'password') field.style.webkitTextSecurity = 'disc';"

_FIELD: Final = """const field = element.matches('input, textarea, select') || element.isContentEditable
    ? element : element.closest('label')?.control ?? element;"""

# The boxes of a code hold one character each, and the page leads from one to the next.
_HELD: Final = """{
    kind: field.isContentEditable ? 'contenteditable' : String(field.type ?? ''),
    value: field.isContentEditable ? field.innerText : typeof field.value !== 'string' ? null
      : several && field.maxLength === 1 ? boxes.slice(boxes.indexOf(field)).map(box => box.value).join('')
      : field.value,
    most: field.maxLength > 0 ? field.maxLength : null,
    focused: field === field.getRootNode().activeElement,
  }"""

_LOOK: Final = f"""([element, ...others], [secret, several]) => {{
  if (!element || others.length) return null;
  {_FIELD}
  const boxes = [...(field.form ?? field.getRootNode()).querySelectorAll('input[maxlength="1"]')];
  if (secret) {{ {_HIDE} }}
  return {_HELD};
}}"""

_LABEL: Final = "element => [...element.labels ?? []].find(label => label.checkVisibility()) ?? null"

_CHOSEN: Final = f"element => {{ {_FIELD} return [...field.selectedOptions ?? []].map(option => option.value); }}"

_HIDE_FOCUSED: Final = f"""() => {{
  let field = document.activeElement;
  while (field?.shadowRoot?.activeElement) field = field.shadowRoot.activeElement;
  if (field) {{ {_HIDE} }}
}}"""

_TYPED: Final = frozenset(
    {"text", "search", "email", "url", "tel", "password", "number", "textarea", "contenteditable"}
)
"""Kinds of fields into which people type characters; the others are set."""


_NUMBER: Final = re.compile(r"-?\d+\.?\d*$")

_FORMS: Final = {
    "color": "a colour such as #ff8800",
    "date": "a date such as 2026-11-29",
    "datetime-local": "a date and a time such as 2026-11-29T12:30",
    "month": "a month such as 2026-11",
    "number": "a number such as 12.5",
    "range": "a number between its ends, in its steps",
    "time": "a time such as 12:30",
    "week": "a week such as 2026-W48",
}
"""What a field of a type takes. Source: HTML, 4.10.5.1 "States of the type attribute"."""


class _Held(msgspec.Struct, frozen=True):
    """What a field holds.

    Attributes:
        kind: Its `type`, or `contenteditable`; empty for what is no field.
        value: None if it is no field.
        most: Its `maxlength`.
        focused: Whether it has the focus.
    """

    kind: str = ""
    value: str | None = None
    most: int | None = None
    focused: bool = False


async def fill(action: actions.Fill, found: Locator, what: str, limit: float) -> str:
    """Write into a field, see that it holds that, and return what was done.

    Args:
        action: What to write.
        found: The field.
        what: What to call it.
        limit: Milliseconds.

    Raises:
        NoEffect: If the field holds something else then.
    """
    text, secret = _text_of(action.value)
    before = await _look(found, text, secret=secret)
    held = before.value or ""
    if action.clear:
        await _put(found, text, before, limit)
        wanted = text
    else:
        await found.press("ControlOrMeta+End", timeout=limit)
        await found.page.keyboard.insert_text(text)
        wanted = held + text
    said = await _outcome(found, wanted, before, secret=secret)
    if said is None and action.clear and before.kind in _TYPED:
        # What follows each key by itself takes nothing at once.
        await found.fill("", timeout=limit)
        await found.page.keyboard.type(text)
        said = await _outcome(found, wanted, before, secret=secret)
    if said is None:
        raise await _other(found, what, "filled in", before, secret=secret)
    if action.press_enter:
        await found.press("Enter", timeout=limit)
    return f"Filled {what}{said}"


async def _put(found: Locator, text: str, before: _Held, limit: float) -> None:
    """Put a text in the place of what a field holds: as from the clipboard, its last character as a key."""
    kind, last = before.kind, text[-1:]
    if before.most == 1 and kind in _TYPED:
        await found.fill("", timeout=limit)
        await found.page.keyboard.type(text)
        return
    if kind not in _TYPED or not last.isprintable() or (kind == "number" and not _NUMBER.match(text[:-1])):
        try:
            await found.fill(text, timeout=limit)
        except PlaywrightError as exc:
            if "Malformed value" not in exc.message and "Cannot type text" not in exc.message:
                raise  # what it holds says the rest
        return
    await found.fill(text[:-1], timeout=limit)
    await found.page.keyboard.type(last)


async def type_text(action: actions.Type, found: Locator, what: str, limit: float) -> str:
    """Type key by key into a field, behind what it holds or at its caret; return what was done.

    Args:
        action: What to type.
        found: The field, or what else takes keys.
        what: What to call it.
        limit: Milliseconds.

    Raises:
        NoEffect: If it is a field and does not hold the text then.
    """
    text, secret = _text_of(action.value)
    before = await _look(found, text, secret=secret)
    if action.clear:
        await found.fill("", timeout=limit)
    elif not before.focused:
        if before.value is None:
            await found.focus(timeout=limit)
        else:
            await found.press("ControlOrMeta+End", timeout=limit)
    await found.page.keyboard.type(text, delay=action.delay * 1000)
    said: str | None = ""
    leaves = "\n" in text and before.kind not in ("textarea", "contenteditable")
    if before.value is not None and not leaves:
        wanted = text if action.clear or before.focused else before.value + text
        said = await _outcome(found, wanted, before, secret=secret, within=before.focused)
    if said is None:
        raise await _other(found, what, "typed", before, secret=secret)
    if action.press_enter:
        await found.page.keyboard.press("Enter")
    return f"Typed into {what}{said}"


async def clear(found: Locator, what: str, limit: float) -> str:
    """Empty a field, and return what was done.

    Raises:
        NoEffect: If it is not empty then.
    """
    before = await _look(found)
    await found.fill("", timeout=limit)
    if _letters((await _look(found)).value or ""):
        await found.press("ControlOrMeta+A", timeout=limit)
        await found.press("Delete", timeout=limit)
        if _letters((await _look(found)).value or ""):
            raise await _other(found, what, "cleared", before)
    return f"Cleared {what}"


async def check(action: actions.Check, tab: OpenTab, found: Locator, what: str, doing: Doing, limit: float) -> str:
    """Set a checkbox, a radio button or a switch, wait until it follows, and return what was done.

    Raises:
        NoEffect: If it does not follow.
    """
    state = "checked" if action.value else "unchecked"
    try:
        await found.set_checked(action.value, timeout=limit)
    except PlaywrightError as exc:
        if isinstance(exc, PlaywrightTimeout) and not await was_clicked(exc, tab, doing):
            if obstacle(exc) == "is disabled" or not is_found(exc):
                raise
            # Pages draw their own, over or instead of the browser's: people click its label.
            label = (await found.evaluate_handle(_LABEL, timeout=_READING)).as_element()
            if label is None:
                raise
            await label.click(timeout=limit)
        elif not isinstance(exc, PlaywrightTimeout) and "did not change its state" not in exc.message:
            raise
        end = time.monotonic() + (action.timeout or _SWITCHING)
        while await found.is_checked(timeout=_READING) is not action.value:
            if time.monotonic() > end:
                raise NoEffect(f"{what} was clicked, and is not {state} since", error="Refused") from None
            await asyncio.sleep(_LOOKS)
    return f"{state.capitalize()} {what}"


async def select(action: actions.SelectOption, found: Locator, what: str, limit: float) -> tuple[str, list[str]]:
    """Choose options of a list; return what was done, and the values of the options.

    Raises:
        NoEffect: If others are chosen then.
    """
    asked = action.value if isinstance(action.value, str) else list(action.value)
    chosen = await found.select_option(asked, timeout=limit)
    try:
        held = await found.evaluate(_CHOSEN, timeout=_READING)
    except PlaywrightError:  # the page has another list, or is another page
        held = chosen
    if held != chosen:
        raise NoEffect(f"{what} has {', '.join(held) or 'nothing'} chosen, not {', '.join(chosen)}", error="Refused")
    return f"Selected {', '.join(chosen) or 'nothing'} in {what}", chosen


async def type_anywhere(action: actions.Type, page: Page) -> None:
    """Type key by key into whatever has the focus."""
    text, secret = _text_of(action.value)
    if secret:
        await page.evaluate(_HIDE_FOCUSED)
    await page.keyboard.type(text, delay=action.delay * 1000)
    if action.press_enter:
        await page.keyboard.press("Enter")


# --- what a field holds ---


async def _look(found: Locator, text: str = "", *, secret: bool = False) -> _Held:
    """Return what a field holds; nothing where there is no such field, or several.

    It is there or gone, so nothing waits for it: that would be two more questions to the page.

    Args:
        found: The field.
        text: What it is to hold, or is to hold with the fields that follow it where each holds one character.
        secret: Whether pictures are not to show what is written there.
    """
    return msgspec.convert(await found.evaluate_all(_LOOK, [secret, len(text) > 1]) or {}, _Held)


async def _outcome(found: Locator, wanted: str, before: _Held, *, secret: bool, within: bool = False) -> str | None:
    """Say how a field took a text: empty as it is, a remark if it was changed, None if the field holds another one.

    Args:
        found: The field.
        wanted: What it is to hold.
        before: What it held.
        secret: Whether nothing of what it holds may be said.
        within: Whether it may hold more.
    """
    try:
        held = await _look(found, wanted)
    except PlaywrightError:  # it has led to another page
        held = _Held()
    if not held.kind and before.kind:
        return "; the field is not there any more"
    value = held.value
    if value is None or _same(value, wanted, held.kind) or (within and wanted in value):
        return ""
    asked, given, old = _letters(wanted), _letters(value), _letters(before.value or "")
    # A mask puts its own characters between; one that adds a country's code has the text in it.
    own = held.kind not in _FORMS and asked and asked in given and len(given) <= 2 * len(asked)
    if own and not (old and old in given and old not in asked):
        return "; the page has put it in its own form" if secret else f"; the page has made {value!r} of it"
    return None


def _same(held: str, wanted: str, kind: str) -> bool:
    if kind == "contenteditable":
        return held.split() == wanted.split()
    if kind == "color":
        return held.lower() == wanted.lower()
    if kind in ("number", "range"):
        try:
            return float(held) == float(wanted)
        except ValueError:
            return held == wanted
    lines = wanted.replace("\r\n", "\n").replace("\r", "\n")
    return held == lines or (kind not in ("textarea", "text", "password") and held == lines.strip())


def _letters(text: str) -> str:
    """Return what counts of a text where a page writes it in a form of its own."""
    return "".join(character for character in text.casefold() if character.isalnum())


async def _other(found: Locator, what: str, done: str, before: _Held, *, secret: bool = False) -> NoEffect:
    held = (await _look(found)).value or ""
    if not held and before.kind in _FORMS and done == "filled in":
        return NoEffect(f"{what} holds nothing of that: it takes {_FORMS[before.kind]}", error="Refused")
    holds = f"{len(held)} characters" if secret else repr(held)
    why = f": it takes at most {before.most} characters" if before.most is not None and len(held) >= before.most else ""
    return NoEffect(f"{what} was {done}, and holds {holds}{why}", error="Refused")


def _text_of(value: str | Secret) -> tuple[str, bool]:
    return (value.secret, True) if isinstance(value, Secret) else (value, False)
