"""Sees whether a page changes while an action is performed, from a place where the page cannot see that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error as PlaywrightError

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

    from runtimed.browser.tabs import OpenTab

__all__ = ["end_watch", "put_away", "start_watch"]

_WATCH: Final = """() => {
  let changes = 0;
  const observer = new MutationObserver(records => { changes += records.length; });
  observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  const end = new AbortController();
  for (const type of ['input', 'change', 'scroll'])
    document.addEventListener(type, () => { changes += 1; }, { capture: true, passive: true, signal: end.signal });
  return { stop: () => {
    changes += observer.takeRecords().length;
    observer.disconnect();
    end.abort();
    return changes;
  } };
}"""

_STOP: Final = {"functionDeclaration": "function () { return this.stop(); }", "returnByValue": True}


async def start_watch(tab: OpenTab) -> str | None:
    """Begin to watch a page; None if it cannot be watched just now: it navigates, which is seen in another way.

    Chromium is asked itself: a handle of Playwright's is one more object in its driver and here.
    """
    if tab.cdp is None:
        return None
    try:
        answer = await tab.cdp.send("Runtime.evaluate", {"expression": f"({_WATCH})()"})
    except PlaywrightError:
        return None
    return None if "exceptionDetails" in answer else answer["result"]["objectId"]


async def end_watch(tab: OpenTab, watch: str) -> bool:
    """Stop watching, and return what was seen."""
    try:
        answer = await _of_page(tab).send("Runtime.callFunctionOn", {**_STOP, "objectId": watch})
    except PlaywrightError:  # its document is gone
        return True
    return bool(answer["result"].get("value", True))


async def put_away(tab: OpenTab, watching: asyncio.Future[str | None], *, stopped: bool) -> None:
    """Leave nothing of a watch in the page."""
    watch = await watching
    if watch is not None:
        if not stopped:
            await end_watch(tab, watch)
        await _of_page(tab).send("Runtime.releaseObject", {"objectId": watch})


def _of_page(tab: OpenTab) -> CDPSession:
    if tab.cdp is None:
        raise AssertionError("a tab that was watched has its session")
    return tab.cdp
