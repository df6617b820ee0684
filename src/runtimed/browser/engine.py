"""The engine of a browser session: one Chromium with all that drives, guards and shows it.

It knows no daemon and no protocol; what owns it is told of everything through a `BrowserListener`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any, Final, Protocol

from playwright.async_api import Browser as Driven
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Playwright, async_playwright

from runtimed.actions import Action
from runtimed.browser import domains
from runtimed.browser.chromium import Chromium
from runtimed.browser.downloads import Download, Downloads
from runtimed.browser.perform import Performer
from runtimed.browser.snapshot import Observer
from runtimed.browser.tabs import OpenTab, Tabs, TabsListener
from runtimed.errors import BrowserError, BrowserUnavailable
from runtimed.pages import ActionResult, BrowserConfig, LogEntry, Observation

__all__ = ["Browser", "BrowserListener"]

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT: Final = 5.0


class BrowserListener(Protocol):
    """Hears what a browser does; called in its event loop, and must return at once."""

    def started(self, pid: int) -> None:
        """Chromium's process is there: a process group of this number."""

    def used(self) -> None:
        """A client talks to the browser through the relay."""

    def logged(self, entry: LogEntry) -> None:
        """There is one more entry of the action log."""


class Browser:
    """A running browser session.

    Attributes:
        pid: Chromium's process id.
        headless: Whether there is no window: asked for, or for lack of a display.
        ended: Resolves with the reason, a sentence, when Chromium is gone without `close()`.
    """

    def __init__(self, config: BrowserConfig, folder: Path, listener: BrowserListener) -> None:
        self._config = config
        self._folder = folder
        self._listener = listener
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._exit = contextlib.AsyncExitStack()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, config: BrowserConfig, folder: Path, listener: BrowserListener) -> Browser:
        """Start a Chromium.

        Args:
            config: What it is started with.
            folder: The session's own, mode 0700.
            listener: Hears what it does.

        Raises:
            BrowserUnavailable: If there is no Chromium, or it does not start.
            BrowserError: If the config cannot be: a cookie file that holds no cookies, a domain that is none.
        """
        domains.check_domains(config.allowed_domains)
        browser = cls(config, folder, listener)
        try:
            await browser._start()
        except BaseException:
            await browser._exit.aclose()
            raise
        return browser

    async def _start(self) -> None:
        config, folder = self._config, self._folder
        profile = folder / "profile"
        profile.mkdir(mode=0o700, parents=True, exist_ok=True)
        driver = asyncio.create_task(self._start_driver())
        try:
            self._chromium = await Chromium.start(config, profile, folder, self._listener.started)
        except BaseException:
            with contextlib.suppress(Exception):
                await (await driver).stop()
            raise
        self._exit.push_async_callback(self._chromium.close)
        self.pid = self._chromium.pid
        self.headless = self._chromium.headless
        playwright = await driver
        self._exit.push_async_callback(playwright.stop)
        host, port = self._chromium.address
        try:
            self._driven: Driven = await playwright.chromium.connect_over_cdp(
                f"ws://{host}:{port}{self._chromium.path}", is_local=True
            )
        except PlaywrightError as exc:
            raise BrowserUnavailable(f"Chromium cannot be driven: {exc.message}") from exc
        context = self._driven.contexts[0]
        cdp = await self._driven.new_browser_cdp_session()
        downloads = Path(config.downloads_dir) if config.downloads_dir else folder / "downloads"
        self._downloads = Downloads(downloads, folder / "partial", self._on_downloaded)
        await self._downloads.watch(cdp)
        self._tabs = Tabs(context, _Listener(self), self._equip, self._check_address)
        self._observer = Observer(self._tabs, lambda text: text)
        self._performer = Performer(config, self._tabs, self._observer, self._downloads)
        for tab in self._tabs.all:
            await tab.ready
        self._chromium.ended.add_done_callback(self._on_ended)

    @staticmethod
    async def _start_driver() -> Playwright:
        return await async_playwright().start()

    # --- what it is asked ---

    async def observe(
        self,
        *,
        scope: str | None = None,
        depth: int | None = None,
        interactive_only: bool = False,
        max_chars: int | None = None,
        since: str | None = None,
    ) -> Observation:
        """Return what the active tab shows. See `Observer.observe`."""
        return await self._observer.observe(
            scope=scope, depth=depth, interactive_only=interactive_only, max_chars=max_chars, since=since
        )

    async def execute(self, action: Action) -> ActionResult:
        """Perform an action. What the page refuses is part of the result."""
        performed = await self._performer.perform(action)
        return performed.result

    async def screenshot(self, *, full_page: bool = False) -> bytes:
        """Return a picture of the active tab as PNG.

        Raises:
            BrowserError: If there is no tab, or it does not answer.
        """
        tab = self._tabs.active
        await tab.ready
        try:
            return await tab.run(tab.page.screenshot(full_page=full_page))
        except PlaywrightError as exc:
            raise BrowserError(f"There is no picture of {tab.id}: {exc.message}", tab=tab.id) from exc

    async def cookies(self) -> list[dict[str, Any]]:
        """Return all cookies."""
        return [dict(cookie) for cookie in await self._driven.contexts[0].cookies()]

    async def close(self) -> None:
        """End Chromium politely. Harmless twice."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._performer.close()
        await self._exit.aclose()

    # --- what happens ---

    def _on_ended(self, ended: asyncio.Future[str]) -> None:
        if self._closing is None and not self.ended.done():
            self.ended.set_result(ended.result())

    def _on_downloaded(self, download: Download) -> None:
        pass

    async def _equip(self, tab: OpenTab) -> None:
        """Give a new tab the session's size, and keep it from what the session must not open."""
        await tab.page.set_viewport_size({"width": self._config.viewport_width, "height": self._config.viewport_height})

    def _check_address(self, tab: OpenTab) -> None:
        pass


class _Listener(TabsListener):
    def __init__(self, browser: Browser) -> None:
        self._browser = browser
