"""Navigates tabs: addresses, history, reload."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, assert_never

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.browser import domains
from runtimed.browser.doing import LONG_TIMEOUT, Doing, Refused, milliseconds
from runtimed.browser.downloads import Download, Downloads
from runtimed.browser.fetching import fetch
from runtimed.browser.journey import Journey
from runtimed.browser.open_tab import OpenTab, TabGone
from runtimed.browser.tabs import Tabs
from runtimed.browser.words import WANTS_LOGIN, late, short
from runtimed.pages import BrowserConfig

if TYPE_CHECKING:
    from playwright.async_api import Response

__all__ = ["Navigator"]

_ERROR_PAGE: Final = 3.0
"""Seconds for the browser to show why a navigation failed."""

_LAST: Final = 0.5
"""Least seconds for what has begun when the time was over."""


class _NoPage(Exception):
    """The address leads to something else than a page, and that is the action's result."""

    def __init__(self, said: str, data: dict[str, Any]) -> None:
        super().__init__(said)
        self.data = data


class Navigator:
    """Navigates tabs.

    Args:
        config: Says which addresses may be opened.
        tabs: The tabs.
        downloads: Takes files to which an address leads.
    """

    def __init__(self, config: BrowserConfig, tabs: Tabs, downloads: Downloads) -> None:
        self._config = config
        self._tabs = tabs
        self._downloads = downloads

    async def new_tab(self, action: actions.NewTab, doing: Doing) -> str:
        """Open a tab; return what was done."""
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
            await tab.run(self._go(tab, page.goto(url, timeout=milliseconds(action, LONG_TIMEOUT)), action, url))
        except _NoPage as exc:
            return f"Opened {tab.id}. {exc}"
        return f"Opened {tab.id} at {short(tab.address)}"

    async def navigate(
        self, action: actions.Goto | actions.GoBack | actions.GoForward | actions.Reload, tab: OpenTab, doing: Doing
    ) -> str:
        """Show another page in a tab, or the same again; return what was done."""
        try:
            return await self._navigate(action, tab, doing)
        except _NoPage as exc:
            doing.data = {"url": tab.address, **exc.data}
            failed = tab.address.startswith("chrome-error:")  # of the previous page
            return f"{exc}; {tab.id} " + ("shows no page" if failed else f"stays at {short(tab.address)}")

    async def _navigate(
        self, action: actions.Goto | actions.GoBack | actions.GoForward | actions.Reload, tab: OpenTab, doing: Doing
    ) -> str:
        page = tab.page
        timeout = milliseconds(action, LONG_TIMEOUT)
        before, changes = page.url, tab.changes
        match action:
            case actions.Goto():
                url = self._address(action.url)
                going = page.goto(url, wait_until=action.wait_until, timeout=timeout)
                response = await self._go(tab, going, action, url)
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

    async def _go(
        self, tab: OpenTab, going: Coroutine[Any, Any, Response | None], action: Any, address: str | None = None
    ) -> Response | None:
        """Navigate; on failure wait until the browser shows why, since that page would interrupt the next action.

        Args:
            tab: The tab.
            going: Starts the navigation.
            action: The action.
            address: The target; None for a step in the history.

        Raises:
            _NoPage: If the address leads to something else.
            Refused: If it needs a login.
        """
        journey = Journey(tab, address)
        tab.arrived.clear()
        beginning = self._downloads.expect(tab.elsewhere(), journey.leads_to)
        try:
            with journey.followed():
                response = await self._follow(tab, going, action, journey, beginning)
        finally:
            beginning.cancel()
        if response is not None and await _asks_login(response):
            raise Refused(f"{WANTS_LOGIN}: {short(tab.address)} (status {response.status})", error="Navigation")
        return response

    async def _follow(
        self,
        tab: OpenTab,
        going: Coroutine[Any, Any, Response | None],
        action: Any,
        journey: Journey,
        beginning: asyncio.Future[Download],
    ) -> Response | None:
        end = time.monotonic() + (action.timeout or LONG_TIMEOUT)

        def left() -> float:
            return max(end - time.monotonic(), _LAST)

        try:
            return await going
        except PlaywrightTimeout as exc:
            if tab.arrived.is_set():
                raise Refused(f"{late(exc)} What has come of it can be used", error="Timeout") from exc
            if tab.cdp is not None:
                # While it waits for the next page, Playwright ignores the present one.
                await tab.cdp.send("Page.stopLoading")
            raise Refused(f"{late(exc)} Nothing has come of it; raise timeout=", error="Timeout") from exc
        except PlaywrightError as exc:
            if "Download is starting" in exc.message:
                if await journey.page_instead(beginning, left()):
                    state = action.wait_until if isinstance(action, actions.Goto) else "load"
                    if state != "commit":
                        await tab.page.wait_for_load_state(state, timeout=left() * 1000)
                    return journey.answer
                said, data = await fetch(beginning, None, left())
                raise _NoPage(f"The address leads to a file. {said}", {"status": None, "download": data}) from exc
            if "net::ERR_ABORTED" in exc.message and journey.empty is not None:
                status = journey.empty.status
                raise _NoPage(f"The address answers {status}, with no page", {"status": status}) from exc
            if "net::ERR_" in exc.message and "net::ERR_ABORTED" not in exc.message:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ERROR_PAGE):
                        await tab.arrived.wait()
            raise

    def _address(self, url: str) -> str:
        """Return a complete address.

        Raises:
            Refused: If it must not be opened.
        """
        url = url.strip()
        if not url:
            raise Refused("There is no address: url is empty", error="Refused")
        if url.lower().startswith("javascript:"):
            raise Refused("javascript: addresses are not opened; evaluate_js runs code in the page", error="Refused")
        # Anything else before a colon is a host, if a port follows.
        if not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:(//|(?!\d+([/?#]|$)))", url):
            if re.search(r"\s", re.split(r"[/?#]", url, maxsplit=1)[0]):
                raise Refused(f"{url!r} is no address: a host has no spaces", error="Refused")
            host = re.split(r"[/:?#]", url, maxsplit=1)[0]
            local = (
                host == "localhost" or host.endswith(".localhost") or host.startswith("127.") or url.startswith("[::1]")
            )
            url = f"{'http' if local else 'https'}://{url}"
        reason = domains.refusal(url, self._config.allowed_domains, allow_files=self._config.allow_files)
        if reason is not None:
            raise Refused(f"{short(self._tabs.mask(url))} was not opened: {reason}", error="Refused")
        return url


async def _asks_login(response: Response) -> bool:
    """Whether Chromium itself could answer the login request: other schemes are for the page's own scripts."""
    if response.status not in (401, 407):
        return False
    asked = await response.header_values("WWW-Authenticate" if response.status == 401 else "Proxy-Authenticate")
    return any(re.match(r"(basic|digest|ntlm|negotiate)\b", challenge.strip(), re.IGNORECASE) for challenge in asked)
