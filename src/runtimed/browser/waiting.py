"""Waits for what an action names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runtimed import actions
from runtimed.browser.doing import LONG_TIMEOUT, milliseconds
from runtimed.browser.words import short

if TYPE_CHECKING:
    from playwright.async_api import Page

__all__ = ["wait"]


async def wait(action: actions.Wait, page: Page) -> str:
    """Wait, and return what has come of it."""
    timeout = milliseconds(action, LONG_TIMEOUT)
    if action.seconds is not None:
        await asyncio.sleep(action.seconds)
        return f"Waited {action.seconds:g} s"
    if action.text is not None:
        await page.get_by_text(action.text).first.wait_for(timeout=timeout)
        return f"The text {action.text!r} is there"
    if action.selector is not None:
        await page.locator(action.selector).first.wait_for(timeout=timeout)
        return f"{action.selector} is there"
    if action.url is not None:
        await page.wait_for_url(action.url, wait_until="commit", timeout=timeout)
        return f"The page is at {short(page.url)}"
    await page.wait_for_load_state(action.load_state or "load", timeout=timeout)
    return f"The page has reached {action.load_state}"
