"""Does to elements and to the page what actions ask for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from runtimed import actions
from runtimed.actions import Secret
from runtimed.browser.doing import LONG_TIMEOUT, TIMEOUT, Doing, Refused, milliseconds
from runtimed.browser.downloads import Downloads
from runtimed.browser.elements import Elements
from runtimed.browser.tabs import OpenTab

if TYPE_CHECKING:
    from playwright.async_api import Locator

__all__ = ["Operator"]

_MAX_DATA: Final = 8 * 2**20
"""Largest value that a page may give back, in bytes as it travels."""

# The page itself, or what scrolls in its middle where the page as a whole does not.
_SCROLL: Final = """amount => {
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

# Pictures of the page, and who watches it, must not show it either.
_HIDE_TEXT: Final = "element => { if (element.type !== 'password') element.style.webkitTextSecurity = 'disc'; }"

_IS_FILE_INPUT: Final = "element => ((element.control ?? element).type === 'file')"


class Operator:
    """Operates elements and pages.

    Args:
        elements: Finds what something is dragged to.
        downloads: Takes what is downloaded.
    """

    def __init__(self, elements: Elements, downloads: Downloads) -> None:
        self._elements = elements
        self._downloads = downloads

    async def touch(self, action: Any, tab: OpenTab, found: Locator | None, what: str, doing: Doing) -> str:
        """Do something to an element, or to the page where there is none; return what was done."""
        if found is not None:
            return await self._touch_element(action, tab, found, what, doing)
        async with asyncio.timeout(action.timeout or TIMEOUT):
            match action:
                case actions.EvaluateJs():
                    doing.data = _plain(await tab.page.evaluate(action.code))
                    return "Evaluated"
                case actions.PressKey():
                    await tab.page.keyboard.press(action.key)
                    return f"Pressed {action.key}"
                case actions.Scroll():
                    moved = await tab.page.evaluate(_SCROLL, action.amount)
                    return f"Scrolled by {moved} px" if moved else "There is nothing more to scroll"
        raise AssertionError(f"no way to perform {action!r}")

    async def _touch_element(self, action: Any, tab: OpenTab, found: Locator, what: str, doing: Doing) -> str:
        limit = milliseconds(action, TIMEOUT)
        match action:
            case actions.Click():
                await found.click(
                    button=action.button, click_count=action.count, modifiers=list(action.modifiers), timeout=limit
                )
                return f"Clicked {what}"
            case actions.Fill():
                await self._fill(action, found)
                return f"Filled {what}"
            case actions.PressKey():
                await found.press(action.key, timeout=limit)
                return f"Pressed {action.key} in {what}"
            case actions.Check():
                await found.set_checked(action.value, timeout=limit)
                return f"{'Checked' if action.value else 'Unchecked'} {what}"
            case actions.SelectOption():
                chosen = await found.select_option(
                    action.value if isinstance(action.value, str) else list(action.value), timeout=limit
                )
                doing.data = chosen
                return f"Selected {', '.join(chosen) or 'nothing'} in {what}"
            case actions.Hover():
                await found.hover(timeout=limit)
                return f"The pointer is over {what}"
            case actions.Drag():
                target, where = await self._elements.find(action.to, tab, doing.selectors)
                await found.drag_to(target or found, timeout=limit)
                return f"Dragged {what} to {where}"
            case actions.UploadFile():
                return await self._upload(action, tab, found, what)
            case actions.DownloadFile():
                return await self._download(action, found, doing)
            case actions.Scroll():
                if action.amount is None:
                    await found.scroll_into_view_if_needed(timeout=limit)
                    return f"{what} is in view"
                moved = await found.evaluate(_SCROLL_ELEMENT, action.amount, timeout=limit)
                return f"Scrolled {what} by {moved} px" if moved else f"There is nothing more to scroll in {what}"
            case _:
                raise AssertionError(f"no way to perform {action!r}")

    async def _fill(self, action: actions.Fill, found: Locator) -> None:
        limit = milliseconds(action, TIMEOUT)
        secret = isinstance(action.value, Secret)
        text = action.value.secret if isinstance(action.value, Secret) else action.value
        if secret:
            await found.evaluate(_HIDE_TEXT, timeout=limit)
        if action.clear:
            await found.fill(text, timeout=limit)
        else:
            await found.press("ControlOrMeta+End", timeout=limit)
            await found.page.keyboard.insert_text(text)
        if action.press_enter:
            await found.press("Enter", timeout=limit)

    async def _upload(self, action: actions.UploadFile, tab: OpenTab, found: Locator, what: str) -> str:
        limit = milliseconds(action, TIMEOUT)
        paths = [action.path] if isinstance(action.path, str) else list(action.path)
        for path in paths:
            if not Path(path).is_absolute() or not await asyncio.to_thread(Path(path).is_file):
                raise Refused(f"{path!r} is not the absolute path of a file", error="Refused")
        if await found.evaluate(_IS_FILE_INPUT, timeout=limit):
            await found.set_input_files(paths, timeout=limit)
        else:
            async with tab.page.expect_file_chooser(timeout=limit) as chooser:
                await found.click(timeout=limit)
            await (await chooser.value).set_files(paths, timeout=limit)
        names = ", ".join(Path(path).name for path in paths)
        return f"Gave {names} to {what}" if names else f"Took all files from {what}"

    async def _download(self, action: actions.DownloadFile, found: Locator, doing: Doing) -> str:
        timeout = action.timeout or LONG_TIMEOUT
        beginning = self._downloads.expect()
        try:
            async with asyncio.timeout(timeout):
                await found.click(timeout=timeout * 1000)
                download = await beginning
                path = await asyncio.shield(download.done)
        except TimeoutError:
            state = "did not begin" if beginning.cancelled() or not beginning.done() else "is not whole"
            raise Refused(f"The download {state} after {timeout:g} s; raise timeout=", error="Timeout") from None
        finally:
            beginning.cancel()
        if path is None:
            raise Refused(f"The download of {download.url} failed or was cancelled", error="Refused")
        doing.data = {
            "path": str(path),
            "suggested_filename": download.suggested,
            "url": download.url,
            "size": download.size,
        }
        return f"Downloaded {path.name} ({download.size} bytes)"


def _plain(value: Any) -> Any:
    """Return what a page gave back in a form that can travel."""
    try:
        plain = msgspec.to_builtins(value)
        size = len(msgspec.msgpack.encode(plain))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise Refused(f"The value cannot be given back: {exc}", error="Refused") from exc
    if size > _MAX_DATA:
        raise Refused(f"The value has {size} bytes, more than the {_MAX_DATA} that are allowed", error="Refused")
    return plain
