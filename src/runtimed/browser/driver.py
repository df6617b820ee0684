"""Playwright's driver: the process that speaks to Chromium for this one, and the functions that it knows for pages."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Final

from playwright.async_api import BrowserContext, CDPSession, Playwright, async_playwright

from runtimed.browser import choosing, data, filling, handing, held, isolated, operating, pointing, scrape, survey
from runtimed.browser.driver_death import expect_death

__all__ = ["drive", "end_driver", "start_driver"]

logger = logging.getLogger(__name__)

_FUNCTIONS: Final = {
    **choosing.FUNCTIONS,
    **data.FUNCTIONS,
    **filling.FUNCTIONS,
    **handing.FUNCTIONS,
    **operating.FUNCTIONS,
    **pointing.FUNCTIONS,
    **scrape.FUNCTIONS,
}
"""Name → JavaScript function that runs in a page's isolated world."""


async def start_driver() -> Playwright:
    """Start Playwright's driver without compression of what it sends to Chromium."""
    before = os.environ.get("NODE_OPTIONS")
    uncompressed = f"--require {json.dumps(str(Path(__file__).with_name('uncompressed.cjs')), ensure_ascii=False)}"
    os.environ["NODE_OPTIONS"] = uncompressed if before is None else f"{before} {uncompressed}"
    try:
        manager = async_playwright()
        playwright = await manager.start()
    finally:
        if before is None:
            del os.environ["NODE_OPTIONS"]
        else:
            os.environ["NODE_OPTIONS"] = before
    expect_death(manager)
    return playwright


async def drive(playwright: Playwright, url: str, artifacts: Path) -> tuple[BrowserContext, CDPSession]:
    """Connect a driver to a Chromium and register all functions for pages with it.

    Args:
        playwright: The driver.
        url: Chromium's debugging WebSocket.
        artifacts: Folder for the driver's temporary files.

    Returns:
        Chromium's default context, which all its clients share, and a DevTools session with the browser itself.

    Raises:
        PlaywrightError: If Chromium does not answer.
    """
    # Without `artifacts_dir` the driver makes a temporary folder, and leaves it when it is killed.
    driven = await playwright.chromium.connect_over_cdp(url, is_local=True, artifacts_dir=artifacts)
    functions = isolated.register(playwright, _FUNCTIONS)
    await asyncio.gather(survey.register(playwright), held.register(playwright), functions)
    return driven.contexts[0], await driven.new_browser_cdp_session()


async def end_driver(driver: asyncio.Task[Playwright]) -> None:
    """Stop a driver once it has started; its errors are logged only."""
    try:
        await (await driver).stop()
    except Exception:  # it may fail because Chromium is gone, which is what was wanted
        logger.debug("the driver failed while it stopped", exc_info=True)
