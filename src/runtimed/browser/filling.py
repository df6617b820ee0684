"""Writes into fields, clears and sets them, and verifies their content."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.actions import Secret
from runtimed.browser.doing import Doing, NoEffect, Refused, allowance
from runtimed.browser.held import BOXES, FIELD, HIDE, TYPED, Held, letters, look, other, outcome
from runtimed.browser.isolated import ask, selector
from runtimed.browser.pointing import was_clicked
from runtimed.browser.watching import hears_keys
from runtimed.browser.words import is_found, obstacle

if TYPE_CHECKING:
    from playwright.async_api import JSHandle, Locator, Page

    from runtimed.browser.open_tab import OpenTab

__all__ = ["FUNCTIONS", "begin", "check", "clear", "fill", "type_anywhere", "type_text"]

_READING: Final = 1000.0
"""Milliseconds within which a field must give its content; one that is gone meanwhile gives none."""
_SWITCHING: Final = 3.0
"""Seconds within which a switch must follow a click, unless the action sets a time: it may ask its server first."""
_LOOKS: Final = 0.05
"""Seconds between two checks of a switch."""
_SLOWLY: Final = 0.1
"""Seconds between two keys, if a page moves the focus to the next box a moment after each."""
_LED: Final = 1.0
"""Seconds within which a page must have moved the focus: a busy one does it late."""
_TRIES: Final = 3
"""How often a code is typed into its boxes slowly."""
_FOCUSED: Final = "field => field.getRootNode().activeElement"
_MOST_KEYS: Final = 40
"""Largest number of keys that empty a field one by one: fields with a text of their own are short."""
_LABELS: Final = "element => [...element.labels ?? []].filter(label => label.checkVisibility()).slice(0, 1)"
_KEYS_AT_ONCE: Final = 50
"""Largest number of keys before the remaining time is checked."""
_KEYS_WITHIN: Final = 1.0
"""Time limit for these in seconds, if there is a delay between them."""

_HIDE_FOCUSED: Final = f"""() => {{
  let field = document.activeElement;
  while (field?.shadowRoot?.activeElement) field = field.shadowRoot.activeElement;
  const elsewhere = !document.hasFocus() || field?.matches('body:not([contenteditable]), iframe, frame');
  if (field && !elsewhere) {{ {HIDE} }}
}}"""

_FULL: Final = f"""(element, most) => {{
  {FIELD}
  {BOXES}
  return boxes.slice(boxes.indexOf(field) + 1).slice(0, most - 1).filter(box => box.value);
}}"""

_HAS_FOCUS: Final = """root => {
  const { activeElement, body } = root.ownerDocument;
  return activeElement !== null && (![body, root].includes(activeElement) || activeElement.isContentEditable);
}"""

FUNCTIONS: Final = {"hasFocus": _HAS_FOCUS, "labels": _LABELS, "hideFocused": _HIDE_FOCUSED, "fullBoxes": _FULL}
"""JavaScript functions for pages; see `isolated`."""

_TYPED: Final = frozenset({*TYPED, "contenteditable"})

_NUMBER: Final = re.compile(r"-?\d+\.?\d*$")


async def begin(action: actions.Fill | actions.Type | actions.Clear, found: Locator) -> Held:
    """Return the content of a field before it is written to, and select it so that new text replaces it."""
    if isinstance(action, actions.Clear):
        return await look(found)
    text, secret = _text_of(action.value)
    return await look(found, text, secret=secret, write=isinstance(action, actions.Fill) and action.clear)


async def fill(action: actions.Fill, found: Locator, what: str, before: Held, limit: float) -> str:
    """Write into a field, check its content, and return what was done.

    Args:
        action: The action.
        found: The field.
        what: Its name in messages.
        before: The result of `begin`.
        limit: Milliseconds.

    Raises:
        NoEffect: If the field contains something else afterwards.
    """
    text, secret = _text_of(action.value)
    held = before.value or ""
    if action.clear:
        await _put(found, text, before, limit)
        wanted = text
    else:
        await found.press("ControlOrMeta+End", timeout=limit)
        await found.page.keyboard.insert_text(text)
        wanted = held + text
    said = await outcome(found, wanted, before, secret=secret)
    if said is None and action.clear and before.kind in _TYPED:
        # What follows each key by itself takes nothing at once, and what it holds by itself goes key by key, too.
        if _in_boxes(before, text):
            # A busy page may still move the focus for keys of the time before.
            for _ in range(_TRIES):
                await _empty_boxes(found, text, limit)
                is_led = await _type_slowly(found, text)
                said = await outcome(found, wanted, before, secret=secret, kept=True)
                if said is not None or not is_led:
                    break
        else:
            await _erase(found, limit)
            before = await look(found, text)
            await _press_keys(action, found.page, text, what)
            said = await outcome(found, wanted, before, secret=secret, kept=True)
    if said is None:
        raise await other(found, what, "filled in", before, wanted, secret=secret)
    if action.press_enter:
        await found.press("Enter", timeout=limit)
    return f"Filled {what}{said}"


async def _put(found: Locator, text: str, before: Held, limit: float) -> None:
    """Replace the content of a field: as from the clipboard, with the last character as a key."""
    kind, last = before.kind, text[-1:]
    if _in_boxes(before, text):
        await _empty_boxes(found, text, limit)
        await found.page.keyboard.type(text)
        return
    if kind not in _TYPED or not last.isprintable() or (kind == "number" and not _NUMBER.match(text[:-1])):
        try:
            await found.fill(text, timeout=limit)
        except PlaywrightError as exc:
            if "Malformed value" not in exc.message and "Cannot type text" not in exc.message:
                raise  # the field's content says the rest
        return
    keyboard = found.page.keyboard
    if not before.taken or not last:
        await found.fill(text[:-1], timeout=limit)
        await keyboard.type(last)
    elif len(text) == 1:
        await keyboard.type(last)
    else:  # Chromium takes both in this order
        await asyncio.gather(keyboard.insert_text(text[:-1]), keyboard.type(last))


def _in_boxes(field: Held, text: str) -> bool:
    return field.most == 1 and len(text) > 1 and field.kind in _TYPED


async def _empty_boxes(found: Locator, text: str, limit: float) -> None:
    """Empty the boxes over which a text is spread; a full box takes no key."""
    element = await found.element_handle(timeout=limit)
    for box in await element.query_selector_all(selector("find", "fullBoxes", len(text))):
        await box.fill("", timeout=limit)
    await found.fill("", timeout=limit)


async def _type_slowly(found: Locator, text: str) -> bool:
    """Type over the boxes of a code, each when the page has moved on; return whether it moves on from the first."""
    for index, character in enumerate(text[:-1]):
        box = await found.evaluate_handle(_FOCUSED)
        await found.page.keyboard.type(character)
        if not await _is_led_from(box):
            return index > 0 or not await found.evaluate("(field, box) => field === box", box)
    await found.page.keyboard.type(text[-1:])
    await asyncio.sleep(_SLOWLY)
    return True


async def _is_led_from(box: JSHandle) -> bool:
    """Whether the page moves from one box of a code to the next, which a busy page does late."""
    end = time.monotonic() + _LED
    while time.monotonic() < end:
        await asyncio.sleep(_SLOWLY)
        if await box.evaluate("box => box?.getRootNode().activeElement !== box"):
            return True
    return False


async def type_text(action: actions.Type, found: Locator, what: str, before: Held, limit: float) -> str:
    """Type key by key into a field, behind its content or at its caret; return what was done.

    Args:
        action: The action.
        found: The field, or another element that takes keys.
        what: Its name in messages.
        before: The result of `begin`.
        limit: Milliseconds.

    Raises:
        NoEffect: If it is a field and does not contain the text afterwards.
    """
    text, secret = _text_of(action.value)
    if action.clear:
        await _empty(found, limit)
    elif not before.focused:
        if before.value is None:
            await found.focus(timeout=limit)
        else:
            await found.press("ControlOrMeta+End", timeout=limit)
    await _press_keys(action, found.page, text, what)
    said: str | None = ""
    leaves = "\n" in text and before.kind not in ("textarea", "contenteditable")
    if before.value is not None and not leaves:
        front, rear = ("", "") if action.clear else (before.value, "")
        anywhere = before.focused and before.around is None and not action.clear
        if before.focused and not action.clear:
            front, rear = before.around or ("", "")
        wanted = front + text + rear
        said = await outcome(found, wanted, before, secret=secret, kept=not action.clear, within=anywhere)
    if said is None:
        raise await other(found, what, "typed", before, text, secret=secret)
    if action.press_enter:
        await found.page.keyboard.press("Enter")
    return f"Typed into {what}{said}"


async def clear(found: Locator, what: str, before: Held, limit: float) -> str:
    """Empty a field, and return what was done.

    Raises:
        NoEffect: If it is not empty afterwards.
    """
    if not await _empty(found, limit):
        raise await other(found, what, "cleared", before)
    return f"Cleared {what}"


async def _empty(found: Locator, limit: float) -> bool:
    """Empty a field, and return whether it is empty, but for what a mask leaves."""
    await found.fill("", timeout=limit)
    return not await _held_letters(found) or await _erase(found, limit)


async def _erase(found: Locator, limit: float) -> bool:
    """Empty a field by its keys, and return whether it is empty, but for what a mask leaves.

    A field that keeps a text of its own, and takes Backspace for "the last character less", must get each key.
    """
    await found.press("ControlOrMeta+End", timeout=limit)
    held = (await look(found)).value or ""
    for _ in range(len(held) if len(held) <= _MOST_KEYS else 0):
        await found.press("Backspace", timeout=limit)
        held, before = (await look(found)).value or "", held
        if not held or held == before:
            break
    if not letters(held):
        return True
    await found.press("ControlOrMeta+A", timeout=limit)
    await found.press("Delete", timeout=limit)
    if await _held_letters(found):
        await found.fill("", timeout=limit)
    return not await _held_letters(found)


async def _held_letters(found: Locator) -> str:
    return letters((await look(found)).value or "")


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
            # Pages draw their own controls, over or instead of the browser's: people click the label.
            labels = found.locator(selector("find", "labels"))
            if not await labels.count():
                raise
            await labels.click(timeout=limit)
        elif not isinstance(exc, PlaywrightTimeout) and "did not change its state" not in exc.message:
            raise
        end = time.monotonic() + (action.timeout or _SWITCHING)
        while await found.is_checked(timeout=_READING) is not action.value:
            if time.monotonic() > end:
                raise NoEffect(f"{what} was clicked, and is not {state} since", error="Refused") from None
            await asyncio.sleep(_LOOKS)
    return f"{state.capitalize()} {what}"


async def type_anywhere(action: actions.Type, tab: OpenTab) -> None:
    """Type key by key into the focused element, or to a page that listens for keys.

    Raises:
        Refused: If nothing gets them.
    """
    page = tab.page
    if not await ask(page.locator(":root"), "hasFocus") and not await hears_keys(tab):
        raise Refused(
            "Nothing has the focus, and the page does not listen for keys: name the field, or click it first",
            error="Refused",
        )
    text, secret = _text_of(action.value)
    if secret:
        await asyncio.gather(*(ask(frame, "hideFocused") for frame in page.frames))
    await _press_keys(action, page, text, "the page")
    if action.press_enter:
        await page.keyboard.press("Enter")


async def _press_keys(action: actions.Fill | actions.Type, page: Page, text: str, what: str) -> None:
    """Type key by key into the focused element, within the action's time.

    Args:
        action: The action.
        page: The page.
        text: The text.
        what: The element's name in messages.

    Raises:
        Refused: If the time is too short; the other keys are not pressed.
    """
    delay = action.delay if isinstance(action, actions.Type) else 0.0
    at_once = max(min(_KEYS_AT_ONCE, int(_KEYS_WITHIN / delay)), 1) if delay else _KEYS_AT_ONCE
    end = time.monotonic() + allowance(action)
    for typed in range(0, len(text), at_once):
        if typed and time.monotonic() > end:
            raise Refused(
                f"Only {typed} of {len(text)} characters were typed into {what} within {allowance(action):g} s; "
                "raise timeout=, or let fill put them there at once",
                error="Timeout",
            )
        await page.keyboard.type(text[typed : typed + at_once], delay=delay * 1000)


def _text_of(value: str | Secret) -> tuple[str, bool]:
    return (value.secret, True) if isinstance(value, Secret) else (value, False)
