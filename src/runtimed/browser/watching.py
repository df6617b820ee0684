"""Sees whether a page changes while an action is performed, from a place where the page cannot see that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error as PlaywrightError

if TYPE_CHECKING:
    from playwright.async_api import JSHandle, Page

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


async def start_watch(page: Page) -> JSHandle | None:
    """Begin to watch a page; None if it navigates just now, which is seen in another way."""
    try:
        return await page.evaluate_handle(_WATCH)
    except PlaywrightError:
        return None


async def end_watch(watch: JSHandle) -> bool:
    """Stop watching, and return what was seen."""
    try:
        return bool(await watch.evaluate("watch => watch.stop()"))
    except PlaywrightError:  # its document is gone
        return True


async def put_away(watching: asyncio.Future[JSHandle | None], *, stopped: bool) -> None:
    """Leave nothing of a watch in the page."""
    watch = await watching
    if watch is not None:
        if not stopped:
            await end_watch(watch)
        await watch.dispose()
