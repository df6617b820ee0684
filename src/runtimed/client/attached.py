"""Playwright in this process, attached to the browser of a session.

It runs a driver process, which ends with it. Closing it leaves the browser as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from runtimed.errors import BrowserError, BrowserUnavailable

if TYPE_CHECKING:
    import playwright.async_api
    import playwright.sync_api

__all__ = ["AsyncAttached", "Attached"]


class Attached:
    """Playwright's blocking face; it belongs to the thread that made it."""

    def __init__(self, cdp_url: str) -> None:
        """Attach to the browser at the address of its relay.

        Raises:
            BrowserUnavailable: If there is no Playwright.
            BrowserError: If an event loop runs here, or nobody answers at that address.
        """
        sync_playwright = _import("sync_api").sync_playwright
        if _loop_runs():
            raise BrowserError(
                "Playwright's blocking page does not work inside a running event loop, as in a notebook; use "
                "`page = await session.async_page()`"
            )
        self._playwright: playwright.sync_api.Playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.connect_over_cdp(cdp_url)
        except BaseException as exc:
            self._playwright.stop()
            if isinstance(exc, Exception):
                raise _no_answer(exc) from exc
            raise
        self._page: playwright.sync_api.Page | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the browser is still there."""
        return bool(self._browser.is_connected())

    @property
    def page(self) -> playwright.sync_api.Page | None:
        """The page that was found last, until it is closed."""
        return None if self._page is None or self._page.is_closed() else self._page

    def find(self, target: str) -> playwright.sync_api.Page:
        """Return the page of a tab, or another one if that was closed meanwhile.

        Args:
            target: Chromium's id of the tab. Chromium itself is asked, as a page may be waiting in a dialog.
        """
        context: playwright.sync_api.BrowserContext = self._browser.contexts[0]
        for page in context.pages:
            session = context.new_cdp_session(page)
            info = session.send("Target.getTargetInfo")
            session.detach()
            if info["targetInfo"]["targetId"] == target:
                self._page = page
                return page
        self._page = next(iter(context.pages), None) or context.new_page()
        return self._page

    def close(self) -> None:
        """Let go of the browser, and end the driver."""
        with contextlib.suppress(Exception):  # a call may have been interrupted at any place
            self._browser.close()
        with contextlib.suppress(Exception):
            self._playwright.stop()


class AsyncAttached:
    """Playwright's face for asyncio; it belongs to the event loop in which it was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._playwright: playwright.async_api.Playwright | None = None
        self._browser: playwright.async_api.Browser | None = None
        self._page: playwright.async_api.Page | None = None

    async def attach(self, cdp_url: str) -> None:
        """Attach to the browser at the address of its relay; raises what `Attached` raises."""
        self._playwright = await _import("async_api").async_playwright().start()
        try:
            self._browser = await self._playwright.chromium.connect_over_cdp(cdp_url)
        except BaseException as exc:
            await self._playwright.stop()
            if isinstance(exc, Exception):
                raise _no_answer(exc) from exc
            raise

    @property
    def is_usable(self) -> bool:
        """Whether the browser is still there, and the event loop this one's."""
        return self._browser is not None and self._browser.is_connected() and self._loop is asyncio.get_running_loop()

    @property
    def page(self) -> playwright.async_api.Page | None:
        """The page that was found last, until it is closed."""
        return None if self._page is None or self._page.is_closed() else self._page

    async def find(self, target: str) -> playwright.async_api.Page:
        """Return the page of a tab; see `Attached.find`."""
        assert self._browser is not None  # noqa: S101  # attach made it
        context = self._browser.contexts[0]
        for page in context.pages:
            session = await context.new_cdp_session(page)
            info = await session.send("Target.getTargetInfo")
            await session.detach()
            if info["targetInfo"]["targetId"] == target:
                self._page = page
                return page
        self._page = next(iter(context.pages), None) or await context.new_page()
        return self._page

    async def close(self) -> None:
        """Let go of the browser, and end the driver."""
        with contextlib.suppress(Exception):  # a call may have been interrupted at any place
            if self._browser is not None:
                await self._browser.close()
        with contextlib.suppress(Exception):
            if self._playwright is not None:
                await self._playwright.stop()

    def close_soon(self) -> None:
        """Close it from outside of a coroutine: in its event loop, if that still runs."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self.close(), self._loop)


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _import(name: str) -> Any:
    try:
        return importlib.import_module(f"playwright.{name}")
    except ImportError as exc:
        raise BrowserUnavailable(
            "Playwright is not installed here, and a page is Playwright's: pip install 'ipython-runtimed[browser]'"
        ) from exc


def _no_answer(exc: Exception) -> BrowserError:
    return BrowserError(f"Playwright cannot attach itself to the browser: {exc}")
