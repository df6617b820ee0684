"""Records what pages do and say by themselves, for the action log and for viewers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playwright.async_api import Error as PlaywrightError

from runtimed.browser.action_log import ActionLog
from runtimed.browser.open_tab import OpenTab, TabsListener
from runtimed.browser.screencast import Screencast
from runtimed.browser.tabs import Tabs

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, CDPSession, ConsoleMessage, Page, Response, WebError
    from playwright.async_api import Request as PageRequest

__all__ = ["Witness"]


class Witness(TabsListener):
    """Logs what pages do.

    Args:
        context: The browser's default context.
        log: The action log.
        cast: Shows the active tab.
    """

    def __init__(self, context: BrowserContext, log: ActionLog, cast: Screencast) -> None:
        self._log = log
        self._cast = cast
        self._tabs: Tabs | None = None
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        context.on("response", self._on_response)
        context.on("requestfailed", self._on_failure)

    async def watch(self, tabs: Tabs, cdp: CDPSession) -> None:
        """Begin to watch these tabs; `cdp` reports new ones."""
        self._tabs = tabs
        self.tabs_changed()
        await cdp.send("Target.setDiscoverTargets", {"discover": True})
        cdp.on("Target.targetCreated", self._on_created)  # last: existing targets were reported before

    def tabs_changed(self) -> None:
        """See `TabsListener.tabs_changed`."""
        if self._tabs is not None:
            self._cast.show(self._tabs.latest)

    def tab_happened(self, tab: OpenTab, kind: Any, text: str, data: dict[str, Any]) -> None:
        """See `TabsListener.tab_happened`."""
        self._log.add(kind, tab.id, text, data)

    def _on_created(self, event: dict[str, Any]) -> None:
        info = event["targetInfo"]
        if info["type"] == "page" and self._tabs is not None and self._tabs.shared.is_ours(info):
            self._tabs.announce()

    def _on_console(self, message: ConsoleMessage) -> None:
        place = message.location
        data = {"type": message.type, "source": f"{place['url']}:{place['lineNumber'] + 1}" if place["url"] else ""}
        self._log.add("console", self._tab(message.page), f"{message.type}: {message.text}", data)

    def _on_error(self, error: WebError) -> None:
        self._log.add("console", self._tab(error.page), f"uncaught: {error.error.message}", {"type": "uncaught"})

    def _on_response(self, response: Response) -> None:
        request = response.request
        self._log.add(
            "network",
            self._tab_of(request),
            f"{response.status} {request.method} {response.url}",
            {"status": response.status, "method": request.method, "url": response.url, "type": request.resource_type},
        )

    def _on_failure(self, request: PageRequest) -> None:
        failure = request.failure or "failed"
        self._log.add(
            "network",
            self._tab_of(request),
            f"{failure} {request.method} {request.url}",
            {"error": failure, "method": request.method, "url": request.url, "type": request.resource_type},
        )

    def _tab_of(self, request: PageRequest) -> str | None:
        try:
            return self._tab(request.frame.page)
        except PlaywrightError:  # a service worker's, or its frame is just being created
            return None

    def _tab(self, page: Page | None) -> str | None:
        tab = None if page is None or self._tabs is None else self._tabs.of_page(page)
        return None if tab is None else tab.id
