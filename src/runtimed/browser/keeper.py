"""Protects a session's browser from its other clients: what they may not open, and settings that must stay."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

from runtimed.browser.attached_client import Delivery, SharedBrowser
from runtimed.browser.downloads import Downloads
from runtimed.browser.emulation import emulate, emulate_in
from runtimed.browser.open_tab import OpenTab
from runtimed.browser.tabs import Tabs
from runtimed.errors import BrowserError
from runtimed.pages import BrowserConfig

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

__all__ = ["Keeper"]

logger = logging.getLogger(__name__)

_RESTORED: Final = 5.0
"""Seconds within which a tab must have the session's settings again; one that hangs goes without."""


class Keeper:
    """The relay's doorkeeper.

    Args:
        config: Says what may be opened.
        tabs: The tabs.
        downloads: The downloads.
        cdp: A DevTools session with the browser itself.
        used: Called when a client sends something.
    """

    def __init__(
        self, config: BrowserConfig, tabs: Tabs, downloads: Downloads, cdp: CDPSession, used: Callable[[], None]
    ) -> None:
        self._config = config
        self._tabs = tabs
        self._downloads = downloads
        self._cdp = cdp
        self._is_driven = False
        self._opening = asyncio.Lock()
        self._refusing: set[asyncio.Task[None]] = set()
        self.used = used

    async def equip(self, tab: OpenTab) -> None:
        """Apply the session's settings to a new tab."""
        if self._is_driven:
            await self._guard(tab)
        await emulate_in(tab, self._config)

    # --- see `Doorkeeper` ---

    async def admit(self) -> SharedBrowser:
        """See `Doorkeeper`: a client could open files, which pages and actions cannot."""
        self._is_driven = True
        for tab in self._tabs.all:
            await tab.ready
            with contextlib.suppress(PlaywrightError):  # the tab is gone
                await self._guard(tab)
        shared = self._tabs.shared
        async with self._opening:
            if not shared.aside:
                contexts = await self._cdp.send("Target.getBrowserContexts")
                shared.default_context = contexts["defaultBrowserContextId"]
                aside = await self._cdp.send("Target.createBrowserContext", {"disposeOnDetach": True})
                shared.aside = aside["browserContextId"]
        return shared

    async def deliver(self, delivery: Delivery) -> None:
        """See `Doorkeeper`."""
        await self._downloads.deliver(delivery)

    async def left(self, changed: set[str]) -> None:
        """See `Doorkeeper`: Chromium forgets a setting of several clients as soon as one of them leaves."""
        try:
            async with asyncio.timeout(_RESTORED):
                await emulate(self._tabs.context, self._config)
        except (PlaywrightError, TimeoutError, BrowserError) as exc:
            logger.info("a client's settings for all pages stay: %s", exc)
        if any("DeviceMetrics" in method or "Locale" in method for method in changed):
            await asyncio.gather(*(self._restore(tab) for tab in self._tabs.all))

    async def _restore(self, tab: OpenTab) -> None:
        higher = self._config.viewport_height + 1
        try:
            async with asyncio.timeout(_RESTORED):
                await tab.ready
                # Playwright does not repeat what it has sent before.
                await emulate_in(tab, msgspec.structs.replace(self._config, viewport_height=higher))
                await emulate_in(tab, self._config)
        except (PlaywrightError, TimeoutError) as exc:
            logger.info("a client's settings of the tab %s stay: %s", tab.id, exc)

    async def close(self) -> None:
        """Stop refusing. Idempotent."""
        for task in list(self._refusing):
            task.cancel()
        await asyncio.gather(*self._refusing, return_exceptions=True)

    # --- files ---

    async def _guard(self, tab: OpenTab) -> None:
        """Keep a tab from files. As late as possible, since Chromium then asks at each navigation.

        Measured: a `goto` takes 1.25 times as long.
        """
        if tab.cdp is not None and not tab.guarded and not self._config.allow_files:
            tab.guarded = True
            tab.cdp.on("Fetch.requestPaused", lambda event: self._refuse(tab, event))
            await tab.cdp.send("Fetch.enable", {"patterns": [{"urlPattern": "file://*"}]})

    def _refuse(self, tab: OpenTab, event: dict[str, Any]) -> None:
        async def refuse() -> None:
            with contextlib.suppress(PlaywrightError):  # the tab is gone
                if tab.cdp is not None:
                    await tab.cdp.send(
                        "Fetch.failRequest", {"requestId": event["requestId"], "errorReason": "AccessDenied"}
                    )

        url = event["request"]["url"]
        self._tabs.listener.tab_happened(tab, "network", f"refused {url}", {"url": url, "error": "refused"})
        task = asyncio.create_task(refuse())
        self._refusing.add(task)
        task.add_done_callback(self._refusing.discard)
