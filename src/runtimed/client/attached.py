"""Playwright in this process, attached to the browser of a session.

It runs a driver process, which ends with this one. Closing it does not change the browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from runtimed.browser.driver_death import expect_death
from runtimed.display import running_shell
from runtimed.errors import BrowserError, BrowserUnavailable
from runtimed.protocol.browser_operations import GetBrowserAddressReply

if TYPE_CHECKING:
    import playwright.async_api
    import playwright.sync_api

__all__ = ["ATTEMPTS", "AsyncAttached", "Attached", "check_can_attach", "check_page_answers", "not_found"]

APPEARS: Final = 2.0
"""Seconds within which Playwright must know a tab that the session knows."""
ATTEMPTS: Final = 3
"""Number of attempts to find the active tab: each may be closed meanwhile."""
_CHROMIUM_ANSWERS: Final = 10_000.0
"""Milliseconds for Chromium's answer to a question, which follows its messages about tabs and downloads."""
_PAGE_ANSWERS: Final = 1000.0
"""Milliseconds for a page's answer to a question, which follows its messages about its address."""
END_DEADLINE: Final = 5.0
"""Seconds for a driver to disconnect from a browser, and to end."""


class _Driver:
    """Playwright's driver process of one thread, which allows only one: all pages of the thread are in it.

    An interrupt during a step of Playwright's event loop can lose a part of that step, and then the loop waits without
    end for the driver. So nothing here waits for the driver without a limit.
    """

    _of_this_thread = threading.local()

    def __init__(self, sync_playwright: Any) -> None:
        manager = sync_playwright()
        self.playwright: playwright.sync_api.Playwright = manager.start()
        expect_death(manager)
        # Between two calls, Playwright leaves its loop marked as running.
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.users = 0
        self._is_over = False
        self._is_set_aside = False
        self._shell = running_shell()
        if self._shell is not None:
            self._shell.events.register("pre_execute", self._fetch)
            self._shell.events.register("post_execute", self._set_aside)

    @classmethod
    def get(cls) -> _Driver:
        """Return the driver of this thread; start one if there is none, or it has died."""
        sync_playwright = _import("sync_api").sync_playwright
        driver: _Driver | None = getattr(cls._of_this_thread, "driver", None)
        if driver is not None and driver.is_alive:
            return driver
        if _running_loop() is not None:
            if asyncio.current_task() is None:  # between its calls, Playwright leaves its loop marked as running
                raise BrowserError(
                    "Another sync_playwright() runs in this thread, which can have one only. Attach that one with "
                    "`playwright.chromium.connect_over_cdp(session.cdp_url())`, or end it before `session.page`"
                )
            raise BrowserError(
                "Playwright's blocking page does not work inside a running event loop, as in a notebook; use "
                "`page = await session.async_page()`"
            )
        if driver is not None:
            driver._stop(END_DEADLINE)
        cls._of_this_thread.driver = driver = cls(sync_playwright)
        return driver

    @property
    def is_alive(self) -> bool:
        """Whether it answers, as far as earlier calls showed; other threads cannot tell."""
        return not self._is_over and (threading.get_ident() != self._thread or _running_loop() is self._loop)

    @property
    def is_here(self) -> bool:
        """Whether it belongs to this thread."""
        return threading.get_ident() == self._thread

    def close(self, browser: playwright.sync_api.Browser | None) -> None:
        """Disconnect from a browser. The driver ends with the last one, or if it does not answer.

        Another thread cannot end it: then it ends with this process.
        """
        if threading.get_ident() != self._thread:
            return
        self.users -= 1
        if self._is_over:
            return
        if browser is not None and not self._in_time(browser.close, END_DEADLINE):
            # One turn of its loop closes its pipe, which ends it.
            self._stop(0)
        elif not self.users:
            self._stop(END_DEADLINE)

    def _stop(self, deadline: float) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._shell is not None:
            self._shell.events.unregister("pre_execute", self._fetch)
            self._shell.events.unregister("post_execute", self._set_aside)
        self._in_time(self.playwright.stop, deadline)

    def _set_aside(self) -> None:
        """Leave the thread without a running loop: between two cells, a terminal's IPython runs one for its prompt."""
        if _running_loop() is self._loop:
            asyncio._set_running_loop(None)  # asyncio has it for implementers of loops
            self._is_set_aside = True

    def _fetch(self) -> None:
        """Mark the loop as running again, for the calls of a cell."""
        if self._is_set_aside and _running_loop() is None:
            asyncio._set_running_loop(self._loop)  # see _set_aside
            self._is_set_aside = False

    def _in_time(self, call: Callable[[], object], deadline: float) -> bool:
        """Make a call that ends something; return False if it is not answered within these seconds."""
        timer = self._loop.call_later(deadline, _give_up)
        try:
            with contextlib.suppress(Exception):  # it has died, or a call was interrupted at any place
                call()
        except _Unanswered:
            return False
        finally:
            timer.cancel()
        return True


class _Unanswered(SystemExit):
    """Leaves Playwright's event loop, which lets only this and a KeyboardInterrupt pass."""


def _give_up() -> None:
    raise _Unanswered


class Attached:
    """Playwright's blocking face; it belongs to the thread that made it."""

    def __init__(self, cdp_url: str) -> None:
        """Attach to the browser at the address of its relay.

        Raises:
            BrowserUnavailable: If Playwright is not installed.
            BrowserError: If an event loop runs here, or no browser answers at that address.
        """
        self._driver = _Driver.get()
        self._driver.users += 1
        try:
            self._browser = self._driver.playwright.chromium.connect_over_cdp(cdp_url)
            self._cdp = self._browser.new_browser_cdp_session()
        except BaseException as exc:
            self._driver.close(None)
            if isinstance(exc, Exception):
                raise _no_answer(exc) from exc
            raise
        self._targets: dict[playwright.sync_api.Page, tuple[str, playwright.sync_api.CDPSession]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether the browser still exists, and the driver answers."""
        return self._driver.is_alive and bool(self._browser.is_connected())

    def check_thread(self) -> None:
        """Check that this is the thread that attached it.

        Raises:
            BrowserError: If it is another one.
        """
        if not self._driver.is_here:
            raise BrowserError(
                "session.page belongs to the thread that asked for it first; take another BrowserSession of the same "
                "id in this one (execute and observe work in any thread)"
            )

    def find(self, target: str) -> playwright.sync_api.Page | None:
        """Return the page of a tab; None if it does not appear within `APPEARS`, for example because it was closed.

        Args:
            target: Chromium's id of the tab. Chromium itself is asked, as a page may be waiting in a dialog.
        """
        context: playwright.sync_api.BrowserContext = self._browser.contexts[0]
        deadline = time.monotonic() + APPEARS
        while True:
            for page in context.pages:
                if page not in self._targets:
                    with contextlib.suppress(_import("sync_api").Error):  # it is closed meanwhile
                        cdp = context.new_cdp_session(page)
                        self._targets[page] = cdp.send("Target.getTargetInfo")["targetInfo"]["targetId"], cdp
                if page in self._targets and self._targets[page][0] == target:
                    return page
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            with contextlib.suppress(_import("sync_api").TimeoutError):
                context.wait_for_event("page", timeout=left * 1000)

    def catch_up(self, page: playwright.sync_api.Page, *, answers: bool) -> bool:
        """Update a page with what other clients did to it: Playwright notices that only during its calls.

        Args:
            page: The result of `find`.
            answers: Whether it answers, and waits in no dialog.

        Returns:
            Whether it still exists, with a driver that answers.
        """
        error = _import("sync_api").Error
        try:
            self._cdp.send("Browser.getVersion", timeout=_CHROMIUM_ANSWERS)
        except error:
            return False
        if answers:
            with contextlib.suppress(error):
                self._targets[page][1].send("Runtime.getIsolateId", timeout=_PAGE_ANSWERS)
        return not page.is_closed()

    def close(self) -> None:
        """Disconnect from the browser, and end the driver if no other session needs it."""
        self._driver.close(self._browser)


class AsyncAttached:
    """Playwright's face for asyncio; it belongs to the event loop in which it was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._playwright: playwright.async_api.Playwright | None = None
        self._browser: playwright.async_api.Browser | None = None
        self._cdp: playwright.async_api.CDPSession | None = None
        self._targets: dict[playwright.async_api.Page, tuple[str, playwright.async_api.CDPSession]] = {}

    async def attach(self, cdp_url: str) -> None:
        """Attach to the browser at the address of its relay; raises what `Attached` raises."""
        manager = _import("async_api").async_playwright()
        self._playwright = await manager.start()
        expect_death(manager)
        try:
            self._browser = await self._playwright.chromium.connect_over_cdp(cdp_url)
            self._cdp = await self._browser.new_browser_cdp_session()
        except BaseException as exc:
            await self.close()
            if isinstance(exc, Exception):
                raise _no_answer(exc) from exc
            raise

    @property
    def is_usable(self) -> bool:
        """Whether the browser still exists, and the event loop is this one's."""
        return self._browser is not None and self._browser.is_connected() and self._loop is asyncio.get_running_loop()

    async def find(self, target: str) -> playwright.async_api.Page | None:
        """Return the page of a tab; see `Attached.find`."""
        assert self._browser is not None  # noqa: S101  # attach made it
        context = self._browser.contexts[0]
        deadline = time.monotonic() + APPEARS
        while True:
            for page in context.pages:
                if page not in self._targets:
                    with contextlib.suppress(_import("async_api").Error):  # it is closed meanwhile
                        cdp = await context.new_cdp_session(page)
                        info = (await cdp.send("Target.getTargetInfo"))["targetInfo"]
                        self._targets[page] = info["targetId"], cdp
                if page in self._targets and self._targets[page][0] == target:
                    return page
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            with contextlib.suppress(_import("async_api").TimeoutError):
                await context.wait_for_event("page", timeout=left * 1000)

    async def catch_up(self, page: playwright.async_api.Page, *, answers: bool) -> bool:
        """Update a page with what other clients did to it; see `Attached.catch_up`."""
        assert self._cdp is not None  # noqa: S101  # attach made it
        error = _import("async_api").Error
        try:
            await self._cdp.send("Browser.getVersion", timeout=_CHROMIUM_ANSWERS)
        except error:
            return False
        if answers:
            with contextlib.suppress(error):
                await self._targets[page][1].send("Runtime.getIsolateId", timeout=_PAGE_ANSWERS)
        return not page.is_closed()

    async def close(self) -> None:
        """Disconnect from the browser, and end the driver; from another event loop, ask the owning loop to do so."""
        if self._loop is not asyncio.get_running_loop():
            self.close_soon()
            return
        if self._browser is not None:
            await _in_time(self._browser.close())
        if self._playwright is not None:
            await _in_time(self._playwright.stop())

    def close_soon(self) -> None:
        """Close it from outside of a coroutine: in its event loop, if that still runs."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self.close(), self._loop)


async def _in_time(end: Awaitable[None]) -> None:
    """Wait for the end of something, with a limit; see `_Driver`."""
    with contextlib.suppress(Exception):  # it has died, or does not answer in time, or a call was interrupted
        async with asyncio.timeout(END_DEADLINE):
            await end


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _import(name: str) -> Any:
    try:
        return importlib.import_module(f"playwright.{name}")
    except ImportError as exc:
        raise BrowserUnavailable(
            "Playwright is not installed here, and a page is Playwright's: pip install 'ipython-runtimed[browser]'"
        ) from exc


def not_found() -> BrowserError:
    """Return the error for an active tab that is no page of Playwright's."""
    return BrowserError("Playwright does not know the active tab: it was closed, or does not open; ask again")


def check_can_attach(address: GetBrowserAddressReply) -> None:
    """Check that Playwright can attach, which asks something of every page.

    Args:
        address: The reply to `GetBrowserAddress`.

    Raises:
        BrowserError: If a page waits in a dialog, or does not answer.
    """
    dialogs: Mapping[str, str] = address.dialogs
    if dialogs:
        here = dialogs.get(address.target)
        sentence = here or f"{next(iter(dialogs.values()))} in the active tab, so switch_tab comes first"
        raise BrowserError(f"Playwright attaches itself only when no page waits in a dialog. {sentence}")
    if address.silent:
        raise BrowserError(f"Playwright attaches itself only when every page answers. {address.silent[0]}")


def check_page_answers(
    page: playwright.sync_api.Page | playwright.async_api.Page, address: GetBrowserAddressReply
) -> None:
    """Check that the page of the active tab answers, or has a handler for its dialogs.

    Args:
        page: The page.
        address: The reply to `GetBrowserAddress`.

    Raises:
        BrowserError: If it waits in a dialog without a handler here.
    """
    sentence = address.dialogs.get(address.target)
    # Playwright has no public way to list the handlers.
    if sentence is not None and not any(held._impl_obj.listeners("dialog") for held in (page, page.context)):
        raise BrowserError(sentence)


def _no_answer(exc: Exception) -> BrowserError:
    # A log follows that contains the address, and so the token.
    return BrowserError(f"Playwright cannot attach itself to the browser: {str(exc).partition('Call log:')[0].strip()}")
