"""Opens addresses in tabs, goes back and forth in their history, loads them again."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, assert_never

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.browser import domains
from runtimed.browser.doing import LONG_TIMEOUT, Doing, Refused, milliseconds
from runtimed.browser.downloads import Downloads
from runtimed.browser.fetching import fetch
from runtimed.browser.tabs import OpenTab, TabGone, Tabs
from runtimed.browser.words import late, short
from runtimed.pages import BrowserConfig

if TYPE_CHECKING:
    from playwright.async_api import Response

__all__ = ["Navigator"]

_ERROR_PAGE: Final = 3.0
"""Seconds that the browser gets to show why a navigation failed."""

_NOTHING: Final = (204, 205)
"""Statuses after which a browser stays where it is. Source: RFC 9110, sections 15.3.5 and 15.3.6."""


class _NoPage(Exception):
    """The address leads to something that is no page, and that is what the action has done."""

    def __init__(self, said: str, data: dict[str, Any]) -> None:
        super().__init__(said)
        self.data = data


class Navigator:
    """Navigates.

    Args:
        config: Says which addresses may be opened.
        tabs: The tabs.
        downloads: Takes what an address leads to that is no page.
    """

    def __init__(self, config: BrowserConfig, tabs: Tabs, downloads: Downloads) -> None:
        self._config = config
        self._tabs = tabs
        self._downloads = downloads

    async def new_tab(self, action: actions.NewTab, doing: Doing) -> str:
        """Open a tab, return what was done."""
        if action.url is not None:
            url = self._address(action.url)
        page = await self._tabs.context.new_page()
        tab = self._tabs.of_page(page)
        if tab is None:
            raise TabGone("The new tab was closed at once")
        doing.tab, doing.data = tab, tab.id
        await tab.ready
        if action.url is None:
            return f"Opened {tab.id}"
        try:
            await tab.run(self._go(tab, page.goto(url, timeout=milliseconds(action, LONG_TIMEOUT)), action))
        except _NoPage as exc:
            return f"Opened {tab.id}. {exc}"
        return f"Opened {tab.id} at {short(tab.address)}"

    async def navigate(
        self, action: actions.Goto | actions.GoBack | actions.GoForward | actions.Reload, tab: OpenTab, doing: Doing
    ) -> str:
        """Show another page in a tab, or the same anew; return what was done."""
        try:
            return await self._navigate(action, tab, doing)
        except _NoPage as exc:
            doing.data = {"url": tab.address, **exc.data}
            return f"{exc}; {tab.id} stays at {short(tab.address)}"

    async def _navigate(
        self, action: actions.Goto | actions.GoBack | actions.GoForward | actions.Reload, tab: OpenTab, doing: Doing
    ) -> str:
        page = tab.page
        timeout = milliseconds(action, LONG_TIMEOUT)
        before, changes = page.url, tab.changes
        match action:
            case actions.Goto():
                response = await self._go(
                    tab, page.goto(self._address(action.url), wait_until=action.wait_until, timeout=timeout), action
                )
            case actions.GoBack():
                response = await self._go(tab, page.go_back(timeout=timeout), action)
            case actions.GoForward():
                response = await self._go(tab, page.go_forward(timeout=timeout), action)
            case actions.Reload():
                response = await self._go(tab, page.reload(timeout=timeout), action)
            case _:
                assert_never(action)
        stayed = response is None and page.url == before and tab.changes == changes
        if stayed and isinstance(action, actions.GoBack | actions.GoForward):
            where = "back" if isinstance(action, actions.GoBack) else "forward"
            raise Refused(f"There is no page to go {where} to", error="Refused")
        doing.changed = True
        doing.data = {"url": tab.address, "status": None if response is None else response.status}
        return f"{tab.id} is at {short(tab.address)}" + ("" if response is None else f" (status {response.status})")

    async def _go(self, tab: OpenTab, going: Coroutine[Any, Any, Response | None], action: Any) -> Response | None:
        """Navigate; if that fails, wait until the browser shows why: that page would interrupt what comes next.

        Raises:
            _NoPage: If the address leads to something else.
        """
        answers: list[Response] = []

        def on_answer(response: Response) -> None:
            if response.status in _NOTHING and response.request.is_navigation_request():
                with contextlib.suppress(PlaywrightError):  # of a frame that is not there yet
                    if response.frame == tab.page.main_frame:
                        answers.append(response)

        tab.arrived.clear()
        beginning = self._downloads.expect(tab.elsewhere())
        self._tabs.context.on("response", on_answer)
        try:
            return await going
        except PlaywrightTimeout as exc:
            if tab.arrived.is_set():
                raise Refused(f"{late(exc)} What has come of it can be used", error="Timeout") from exc
            if tab.cdp is not None:
                # While it waits for the next page, Playwright does not look at the one that is shown.
                await tab.cdp.send("Page.stopLoading")
            raise Refused(f"{late(exc)} Nothing has come of it; raise timeout=", error="Timeout") from exc
        except PlaywrightError as exc:
            if "Download is starting" in exc.message:
                said, data = await fetch(beginning, None, action.timeout or LONG_TIMEOUT)
                raise _NoPage(f"The address leads to a file. {said}", {"status": None, "download": data}) from exc
            if "net::ERR_ABORTED" in exc.message and answers:
                status = answers[-1].status
                raise _NoPage(f"The address answers {status}, with no page", {"status": status}) from exc
            if "net::ERR_" in exc.message and "net::ERR_ABORTED" not in exc.message:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ERROR_PAGE):
                        await tab.arrived.wait()
            raise
        finally:
            beginning.cancel()
            self._tabs.context.remove_listener("response", on_answer)

    def _address(self, url: str) -> str:
        """Return an address in full.

        Raises:
            Refused: If it must not be opened.
        """
        url = url.strip()
        if not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://|(about|data|blob|javascript|file|chrome|view-source):", url):
            host = re.split(r"[/:?#]", url, maxsplit=1)[0]
            local = (
                host == "localhost" or host.endswith(".localhost") or host.startswith("127.") or url.startswith("[::1]")
            )
            url = f"{'http' if local else 'https'}://{url}"
        reason = domains.refusal(url, self._config.allowed_domains, allow_files=self._config.allow_files)
        if reason is not None:
            raise Refused(f"{short(self._tabs.mask(url))} was not opened: {reason}", error="Refused")
        return url
