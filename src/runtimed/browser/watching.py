"""Sees whether a page changes while an action is performed, from a place where the page cannot see that."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error as PlaywrightError

if TYPE_CHECKING:
    from runtimed.browser.tabs import OpenTab

__all__ = ["end_watch", "put_away", "start_watch"]

# What listens stays in the document: whoever begins to listen to its scrolling has Chromium draw it anew, in the middle
# of the action (a click took 1.3 times as long).
_WATCH: Final = """() => {
  let changes = 0, x = 0, y = 0;
  const observer = new MutationObserver(records => { changes += records.length; });
  for (const type of ['input', 'change', 'scroll'])
    document.addEventListener(type, () => { changes += 1; }, { capture: true, passive: true });
  const watch = {
    begin: () => {
      changes = 0;
      [x, y] = [scrollX, scrollY];
      observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
      return watch;
    },
    end: () => {
      changes += observer.takeRecords().length;
      if (x !== scrollX || y !== scrollY) changes += 1;  // the event comes with the next frame
      observer.disconnect();
      return changes;
    },
  };
  return watch.begin();
}"""

_BEGIN: Final = {"functionDeclaration": "function () { this.begin(); }"}
_END: Final = {"functionDeclaration": "function () { return this.end(); }", "returnByValue": True}


async def start_watch(tab: OpenTab) -> str | None:
    """Begin to watch a page; None if it cannot be watched just now: it navigates, which is seen in another way.

    Chromium is asked itself: a handle of Playwright's is one more object in its driver and here.
    """
    if tab.cdp is None:
        return None
    if tab.watch is not None:
        with contextlib.suppress(PlaywrightError):  # its document is gone
            await tab.cdp.send("Runtime.callFunctionOn", {**_BEGIN, "objectId": tab.watch})
            return tab.watch
    tab.watch = None
    with contextlib.suppress(PlaywrightError):
        answer = await tab.cdp.send("Runtime.evaluate", {"expression": f"({_WATCH})()"})
        if "exceptionDetails" not in answer:
            tab.watch = answer["result"]["objectId"]
    return tab.watch


async def end_watch(tab: OpenTab, watch: str) -> bool:
    """Stop watching, and return what was seen."""
    if tab.cdp is None:
        raise AssertionError("a tab that was watched has its session")
    try:
        answer = await tab.cdp.send("Runtime.callFunctionOn", {**_END, "objectId": watch})
    except PlaywrightError:  # its document is gone
        return True
    return bool(answer["result"].get("value", True))


async def put_away(tab: OpenTab, watching: asyncio.Future[str | None]) -> None:
    """Stop a watch that nobody asks for what it has seen, unless the next one has begun: they share what watches."""
    watch = await watching
    if watch is not None and tab.watching is watching:
        await end_watch(tab, watch)
