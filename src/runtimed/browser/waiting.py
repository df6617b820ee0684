"""Performs the `wait` action, in all frames of the page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.browser.doing import LONG_TIMEOUT, Refused, milliseconds
from runtimed.browser.frames import Locate, await_gone, await_visible
from runtimed.browser.words import short

if TYPE_CHECKING:
    from playwright.async_api import Page

    from runtimed.browser.open_tab import OpenTab

__all__ = ["wait"]


async def wait(action: actions.Wait, tab: OpenTab) -> str:
    """Wait, and return the outcome.

    Raises:
        Refused: If it did not come in time.
    """
    page = tab.page
    seconds = action.timeout or LONG_TIMEOUT
    if action.seconds is not None:
        await asyncio.sleep(action.seconds)
        return f"Waited {action.seconds:g} s"
    if action.text is not None:
        text = action.text
        await _seen(page, lambda frame: frame.get_by_text(text), f"The text {text!r}", seconds)
        return f"The text {text!r} is there"
    if action.selector is not None:
        selector = action.selector
        await _seen(page, lambda frame: frame.locator(selector), selector, seconds)
        return f"{selector} is there"
    if action.gone is not None:
        gone = action.gone
        went = await await_gone(page, lambda frame: frame.locator(gone), seconds)
        if went is None:
            raise Refused(
                f"The page did not answer within {seconds:g} s whether {gone} is still there; raise timeout=, or end a "
                "page that hangs with close_tab",
                error="Timeout",
            )
        if not went:
            raise Refused(f"{gone} is still there after {seconds:g} s; raise timeout=", error="Timeout")
        return f"{gone} is not there"
    timeout = milliseconds(action, LONG_TIMEOUT)
    try:
        if action.url is not None:
            await page.wait_for_url(action.url, wait_until="commit", timeout=timeout)
            return f"The page is at {short(tab.address)}"
        await page.wait_for_load_state(action.load_state or "load", timeout=timeout)
    except PlaywrightTimeout as exc:
        lacks = f"not at {action.url}" if action.url is not None else f"and has not reached {action.load_state}"
        raise Refused(
            f"The page is at {short(tab.address)}, {lacks}, after {seconds:g} s; raise timeout=", error="Timeout"
        ) from exc
    return f"The page has reached {action.load_state}"


async def _seen(page: Page, locate: Locate, what: str, seconds: float) -> None:
    if await await_visible(page, locate, seconds) is None:
        raise Refused(f"{what} was not there within {seconds:g} s, in no frame; raise timeout=", error="Timeout")
