"""Performs the operations of actions on elements and pages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.browser.choosing import check_options, no_option, select
from runtimed.browser.doing import LONG_TIMEOUT, TIMEOUT, Doing, Refused, allowance, milliseconds
from runtimed.browser.downloads import Downloads
from runtimed.browser.elements import Elements
from runtimed.browser.fetching import fetch
from runtimed.browser.filling import begin, check, clear, fill, type_anywhere, type_text
from runtimed.browser.handing import drop, upload
from runtimed.browser.isolated import ask
from runtimed.browser.journey import Journey
from runtimed.browser.keys import key_of
from runtimed.browser.open_tab import OpenTab
from runtimed.browser.pointing import click, drag, hover, point_of, reach
from runtimed.browser.scripting import evaluate
from runtimed.browser.words import HIDDEN, is_found, obstacle

if TYPE_CHECKING:
    from playwright.async_api import Locator

__all__ = ["FUNCTIONS", "Operator"]

T = TypeVar("T")

_PATIENT: Final = 1.0
"""Seconds for a page to enable or uncover an element, if the action sets no time."""

# The page itself, or what scrolls in its middle if the page as a whole does not.
_SCROLL: Final = """(element, amount) => {
  const root = document.scrollingElement ?? document.documentElement;
  let box = root;
  if (root.scrollHeight <= innerHeight) {
    let around = document.elementFromPoint(innerWidth / 2, innerHeight / 2);
    while (around && !(around.scrollHeight > around.clientHeight
        && /auto|scroll/.test(getComputedStyle(around).overflowY))) around = around.parentElement;
    box = around ?? root;
  }
  const before = box.scrollTop;
  box.scrollBy({ top: amount ?? box.clientHeight * 0.9, behavior: 'instant' });
  return Math.round(box.scrollTop - before);
}"""

_SCROLL_ELEMENT: Final = """(element, amount) => {
  const before = element.scrollTop;
  element.scrollBy({ top: amount, behavior: 'instant' });
  return Math.round(element.scrollTop - before);
}"""


_NOWHERE: Final = ("about", "chrome-error")
"""Schemes of tabs that were loaded from no address."""

# Chromium wraps a PDF or a picture in a document of its own.
_SAVE: Final = """() => {
  const link = document.createElement('a');
  link.href = location.href;
  link.download = '';
  link.click();
}"""

_WHY_COVERED: Final = """(element, point) => {
  const { width, height } = element.getBoundingClientRect();
  if (point && (point[0] < 0 || point[0] >= width || point[1] < 0 || point[1] >= height))
    return `is ${width} by ${height}, and the point ${point[0]}, ${point[1]} is outside of it`;
  if (getComputedStyle(element).pointerEvents === 'none')
    return 'is transparent for the pointer (pointer-events: none)';
}"""

_IS_HIDDEN: Final = """element => {
  const { width, height } = element.getBoundingClientRect();
  return !(width > 0 && height > 0 && element.checkVisibility({ visibilityProperty: true }));
}"""

FUNCTIONS: Final = {
    "scroll": _SCROLL,
    "scrollElement": _SCROLL_ELEMENT,
    "save": _SAVE,
    "whyCovered": _WHY_COVERED,
    "isHidden": _IS_HIDDEN,
}
"""JavaScript functions for pages; see `isolated`."""


class Operator:
    """Operates elements and pages.

    Args:
        elements: Finds the targets of drags.
        downloads: Takes downloads.
    """

    def __init__(self, elements: Elements, downloads: Downloads) -> None:
        self._elements = elements
        self._downloads = downloads

    async def touch(self, action: Any, tab: OpenTab, found: Locator | None, what: str, doing: Doing) -> str:
        """Operate an element, or the page if there is none; return what was done."""
        if found is not None:
            return await self._touch_element(action, tab, found, what, doing)
        if isinstance(action, actions.Drag):
            return await self._drag(action, tab, None, what, doing)
        # Typing has its own time limit, and reports how far it came.
        async with asyncio.timeout(None if isinstance(action, actions.Type) else allowance(action)):
            match action:
                case actions.EvaluateJs():
                    doing.data = await evaluate(tab.page, action.code)
                    return "Evaluated"
                case actions.DownloadFile():
                    return await self._download(action, tab, None, doing)
                case actions.PressKey():
                    await tab.page.keyboard.press(key_of(action.key))
                    return f"Pressed {action.key}"
                case actions.Type():
                    await type_anywhere(action, tab)
                    return "Typed"
                case actions.Click():
                    await click(action, tab, None, doing, 0)
                    return f"Clicked {what}"
                case actions.Hover():
                    await hover(action, tab, None, 0)
                    return f"The pointer is over {what}"
                case actions.Scroll():
                    moved = await ask(tab.page.locator(":root"), "scroll", action.amount)
                    return f"Scrolled by {moved} px" if moved else "There is nothing more to scroll"
        raise AssertionError(f"no way to perform {action!r}")

    async def _touch_element(self, action: Any, tab: OpenTab, found: Locator, what: str, doing: Doing) -> str:
        limit = milliseconds(action, TIMEOUT)
        match action:
            case actions.Click():
                await self._click(action, tab, found, what, doing)
                return f"Clicked {what}"
            case actions.Fill() | actions.Type() | actions.Clear():
                return await self._write(action, tab, found, what, doing)
            case actions.PressKey():
                await found.press(key_of(action.key), timeout=limit)
                return f"Pressed {action.key} in {what}"
            case actions.Check():
                return await _patiently(
                    action, what, found, lambda limit: check(action, tab, found, what, doing, limit)
                )
            case actions.SelectOption():
                return await self._select(action, found, what, doing)
            case actions.Hover():
                await _patiently(action, what, found, lambda limit: hover(action, tab, found, limit))
                return f"The pointer is over {what}"
            case actions.Drag():
                return await self._drag(action, tab, found, what, doing)
            case actions.UploadFile():
                return await upload(action, tab, found, what)
            case actions.DropFiles():
                return await drop(action, tab, found, what)
            case actions.DownloadFile():
                return await self._download(action, tab, found, doing)
            case actions.Scroll():
                if action.amount is None:
                    await _patiently(action, what, found, lambda limit: found.scroll_into_view_if_needed(timeout=limit))
                    return f"{what} is in view"
                moved = await ask(found, "scrollElement", action.amount, limit=limit)
                return f"Scrolled {what} by {moved} px" if moved else f"There is nothing more to scroll in {what}"
            case _:
                raise AssertionError(f"no way to perform {action!r}")

    async def _click(self, action: actions.Click, tab: OpenTab, found: Locator, what: str, doing: Doing) -> None:
        """Click an element that was guessed to be the only match, in the main frame."""
        whole = allowance(action)
        first = min(whole, _PATIENT)
        clicking = click(action, tab, found, doing, first * 1000)
        try:
            if await _while_there(clicking, None if action.ref is None else found):
                return
        except PlaywrightTimeout as exc:
            if action.timeout is None:
                await _refuse(exc, what, found, point_of(action))
            if first == whole and is_found(exc):
                await _refuse(exc, what, found, point_of(action), whole)
                raise
        except PlaywrightError as exc:
            if "strict mode violation" not in exc.message:
                raise
        sure = await self._elements.find_surely(action, tab, doing)
        left = doing.left(action)
        await _patiently(action, what, sure, lambda limit: click(action, tab, sure, doing, limit), left)

    async def _write(
        self,
        action: actions.Fill | actions.Type | actions.Clear,
        tab: OpenTab,
        found: Locator,
        what: str,
        doing: Doing,
    ) -> str:
        """Write into a field that was guessed to be the only match, in the main frame."""
        before = await begin(action, found)
        if before.count != 1:
            found = await self._elements.find_surely(action, tab, doing)
            before = await begin(action, found)

        async def work(limit: float) -> str:
            match action:
                case actions.Fill():
                    return await fill(action, found, what, before, limit)
                case actions.Type():
                    return await type_text(action, found, what, before, limit)
                case actions.Clear():
                    return await clear(found, what, before, limit)

        # The keys of a long text have a time limit of their own.
        left = min(doing.left(action), action.timeout or TIMEOUT)
        return await _patiently(action, what, found, work, left)

    async def _select(self, action: actions.SelectOption, found: Locator, what: str, doing: Doing) -> str:
        await check_options(action, found, what)
        lacked: list[str | None] = []

        async def work(limit: float) -> tuple[str, list[str]]:
            try:
                return await select(action, found, what, limit)
            except PlaywrightTimeout as exc:
                lacked.append(await no_option(action, found))
                if lacked[-1] is None:
                    raise
                if action.timeout is not None:
                    raise Refused(f"{what} has had {lacked[-1]}, for {action.timeout:g} s", error="Timeout") from exc
                if lacked[-1] in lacked[:-1]:  # it stands still
                    raise Refused(f"{what} has {lacked[-1]}; timeout= waits for it", error="Refused") from exc
                raise

        said, doing.data = await _patiently(action, what, found, work)
        return said

    async def _drag(self, action: actions.Drag, tab: OpenTab, found: Locator | None, what: str, doing: Doing) -> str:
        target, where = await self._elements.find(action.to, tab, doing, within=doing.left(action), of=action)
        await self._elements.look_at(action.to, target, doing, 1)
        left, end = doing.left(action), point_of(action.to)
        if target is not None:  # refusals come before a button is pressed
            await _patiently(action, where, target, lambda limit: reach(target, end, limit), left, end)

        async def work(limit: float) -> str:
            return await drag(action, tab, found, target, where, limit)

        said = await _patiently(action, what, found, work, doing.left(action))
        return f"Dragged {what} to {where}{said}"

    async def _download(self, action: actions.DownloadFile, tab: OpenTab, found: Locator | None, doing: Doing) -> str:
        timeout = action.timeout or LONG_TIMEOUT
        if found is None and tab.page.url.partition(":")[0] in _NOWHERE:
            raise Refused(f"{tab.id} shows nothing that could be saved: no address was loaded there", error="Refused")
        journey = Journey(tab, tab.page.url if found is None else None)
        beginning = self._downloads.expect(tab.elsewhere(), journey.leads_to)
        with journey.followed():
            begin = ask(tab.page.locator(":root"), "save") if found is None else found.click(timeout=timeout * 1000)
            said, doing.data = await fetch(beginning, begin, timeout, journey, is_patient=action.timeout is not None)
        return said


async def _while_there(work: Coroutine[Any, Any, None], named: Locator | None) -> bool:
    """Do something, unless the element of a ref is gone: waiting does not bring it back. Return whether it was done.

    Args:
        work: Does it.
        named: The ref's element; None to do it in any case.
    """
    if named is None:
        await work
        return True
    asking = asyncio.ensure_future(named.count())
    asking.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.sleep(0)  # its question comes first
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({asking, working}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and (asking.exception() is not None or asking.result() == 0):
            return False
        await working
        return True
    finally:
        working.cancel()
        asking.cancel()


async def _patiently(
    action: Any,
    what: str,
    found: Locator | None,
    work: Callable[[float], Awaitable[T]],
    whole: float | None = None,
    point: tuple[float, float] | None = None,
) -> T:
    """Do something to an element within the time of its action, in milliseconds.

    Args:
        action: The action.
        what: The element's name in messages.
        found: The element.
        work: Does it.
        whole: Remaining seconds; None for all of the action's.
        point: The point of the element that is meant; None for the action's, if any.

    Raises:
        Refused: If the element is still disabled, inert or covered after its time, or, if the action sets none, after
            a moment.
    """
    point = point_of(action) if point is None else point
    whole = allowance(action) if whole is None else whole
    if action.timeout is None:
        # A busy machine may not have checked the element in the first moment.
        for part in (_PATIENT, 2 * _PATIENT):
            if whole <= part:
                break
            try:
                return await work(part * 1000)
            except PlaywrightTimeout as exc:
                await _refuse(exc, what, found, point)
            whole -= part
    try:
        return await work(whole * 1000)
    except PlaywrightTimeout as exc:
        await _refuse(exc, what, found, point, allowance(action))
        raise


async def _refuse(
    exc: PlaywrightTimeout,
    what: str,
    found: Locator | None,
    point: tuple[float, float] | None,
    waited: float | None = None,
) -> None:
    """Raise a refusal that says what keeps an element from being used, if that is known.

    Args:
        exc: Playwright's error.
        what: The element's name in messages.
        found: The element.
        point: The point of it that is meant.
        waited: Seconds of waiting; None if `timeout` was not given.

    Raises:
        Refused: If it is known.
    """
    why = obstacle(exc)
    # A busy machine may not have said yet what is at a point.
    unsaid = why is None and point is not None and is_found(exc)
    if found is not None and (unsaid or (why or "").startswith("is covered")):
        with contextlib.suppress(PlaywrightError):  # it is gone meanwhile
            why = await ask(found, "whyCovered", point, limit=_PATIENT * 1000) or why
    if why is None and found is not None and waited is not None:  # nor what it waits for
        with contextlib.suppress(PlaywrightError):
            why = HIDDEN if await ask(found, "isHidden", limit=_PATIENT * 1000) else None
    if why is None or (why == HIDDEN and waited is None):
        return
    if waited is None:
        raise Refused(f"{what} {why}; timeout= waits until it is not", error="Refused") from exc
    raise Refused(f"{what} {why}, still after {waited:g} s", error="Timeout") from exc
