"""Sees whether a page changes while an action is performed, from a place where the page cannot see that."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error as PlaywrightError

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

    from runtimed.browser.tabs import OpenTab

__all__ = ["end_watch", "put_away", "start_watch"]

# What listens stays in the document: whoever begins to listen to its scrolling has Chromium draw it anew, in the middle
# of the action (a click took 1.3 times as long).
_WATCH: Final = """() => {
  let events = 0;
  for (const type of ['input', 'change', 'scroll'])
    document.addEventListener(type, () => { events += 1; }, { capture: true, passive: true });
  const watch = () => {
    const [before, x, y] = [events, scrollX, scrollY];
    let changes = 0;
    const observer = new MutationObserver(records => { changes += records.length; });
    observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    return { again: watch, stop: () => {
      changes += observer.takeRecords().length + events - before;
      if (x !== scrollX || y !== scrollY) changes += 1;  // the event comes with the next frame
      observer.disconnect();
      return changes;
    } };
  };
  return watch();
}"""

_AGAIN: Final = {"functionDeclaration": "function () { return this.again(); }"}
_STOP: Final = {"functionDeclaration": "function () { return this.stop(); }", "returnByValue": True}


async def start_watch(tab: OpenTab) -> str | None:
    """Begin to watch a page; None if it cannot be watched just now: it navigates, which is seen in another way.

    Chromium is asked itself: a handle of Playwright's is one more object in its driver and here.
    """
    if tab.cdp is None:
        return None
    if tab.first_watch is not None:
        with contextlib.suppress(PlaywrightError):  # its document is gone
            return _watch_in(await tab.cdp.send("Runtime.callFunctionOn", {**_AGAIN, "objectId": tab.first_watch}))
    document = tab.document_key("")
    try:
        watch = _watch_in(await tab.cdp.send("Runtime.evaluate", {"expression": f"({_WATCH})()"}))
    except PlaywrightError:
        return None
    if tab.document_key("") == document:  # it may have been left while the answer came
        tab.first_watch = watch
    return watch


def _watch_in(answer: dict[str, Any]) -> str | None:
    return None if "exceptionDetails" in answer else answer["result"]["objectId"]


async def end_watch(tab: OpenTab, watch: str) -> bool:
    """Stop watching, and return what was seen."""
    try:
        answer = await _of_page(tab).send("Runtime.callFunctionOn", {**_STOP, "objectId": watch})
    except PlaywrightError:  # its document is gone
        return True
    return bool(answer["result"].get("value", True))


async def put_away(tab: OpenTab, watching: asyncio.Future[str | None], *, stopped: bool) -> None:
    """Leave nothing of a watch in the page but what the next one begins with."""
    watch = await watching
    if watch is not None:
        if not stopped:
            await end_watch(tab, watch)
        if watch != tab.first_watch:
            await _of_page(tab).send("Runtime.releaseObject", {"objectId": watch})


def _of_page(tab: OpenTab) -> CDPSession:
    if tab.cdp is None:
        raise AssertionError("a tab that was watched has its session")
    return tab.cdp
