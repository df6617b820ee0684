"""Follows the requests of a navigation, and decides whether they end in a page or a download."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from playwright.async_api import Error as PlaywrightError

from runtimed.browser.doing import Refused
from runtimed.browser.open_tab import OpenTab
from runtimed.browser.words import short

if TYPE_CHECKING:
    from playwright.async_api import Request, Response

__all__ = ["Journey"]

_NOTHING: Final = (204, 205)
"""Statuses after which a browser stays on its page. Source: RFC 9110, sections 15.3.5 and 15.3.6."""
_COMES: Final = 1.0
"""Seconds within which related messages arrive."""
_LOOKS: Final = 0.05
"""Seconds between two checks."""


class Journey:
    """Requests and responses for the page of a tab during a navigation.

    Attributes:
        empty: The last response after which a browser stays on its page.
        answer: The last other response.

    Args:
        tab: The tab.
        address: The target; None for a step in the history.
    """

    def __init__(self, tab: OpenTab, address: str | None) -> None:
        self.empty: Response | None = None
        self.answer: Response | None = None
        self.has_failed = False
        self._tab = tab
        self._document = tab.document_key("")
        self._address = address
        self._asked: list[Request] = []

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Listen while the block runs."""
        page = self._tab.page
        page.on("request", self._on_request)
        page.on("response", self._on_answer)
        page.on("requestfailed", self._on_failure)
        try:
            yield
        finally:
            page.remove_listener("request", self._on_request)
            page.remove_listener("response", self._on_answer)
            page.remove_listener("requestfailed", self._on_failure)

    @property
    def has_arrived(self) -> bool:
        """Whether the tab shows another document than before."""
        return self._tab.document_key("") != self._document

    async def page_instead(self, download: asyncio.Future[Any], within: float) -> bool:
        """Wait for the outcome of an address after a download; return whether it is a page.

        For Playwright any download of a tab ends its navigation; for Chromium only the address itself does.

        Raises:
            Refused: If it is neither.
        """
        end = time.monotonic() + within
        while not (download.done() or self.has_arrived) and time.monotonic() < end:
            if self.has_failed:  # as it does for what is downloaded, a moment before that
                end, self.has_failed = min(end, time.monotonic() + _COMES), False
            await asyncio.sleep(_LOOKS)
        if not (download.done() or self.has_arrived):
            raise Refused("Nothing has come of the address: the page went elsewhere meanwhile", error="Navigation")
        return not download.done()

    async def no_download(self, patience: float) -> str:
        """Wait until something else than a download has come; return what.

        Args:
            patience: Seconds for a page to begin one.
        """
        while self.empty is None and not self.has_arrived:  # noqa: ASYNC110  # several parties set it
            await asyncio.sleep(_LOOKS)
        await asyncio.sleep(_COMES if self.empty is not None else patience)
        return self.said()

    def said(self) -> str:
        """Return a sentence about what has come so far."""
        if self.has_arrived:
            return f"the tab is at {short(self._tab.address)}"
        return "" if self.empty is None else f"the answer was {self.empty.status}, with no file"

    def leads_to(self, url: str) -> bool:
        """Whether an address is what the journey leads to, not a request of the page meanwhile."""
        return self._address is None or _plain(url) == _plain(self._address) or url in self._stages()

    def _stages(self) -> list[str]:
        """Return the addresses to which the first one has led so far."""
        first = next((one for one in self._asked if _plain(one.url) == _plain(self._address or "")), None)
        origin = first or (self._asked[0] if self._asked else None)
        return [one.url for one in self._asked if _origin(one) == origin]

    def _is_page(self, request: Request) -> bool:
        with contextlib.suppress(PlaywrightError):  # of a frame that does not exist yet
            return request.is_navigation_request() and request.frame == self._tab.page.main_frame
        return False

    def _on_request(self, request: Request) -> None:
        if self._is_page(request):
            self._asked.append(request)

    def _on_answer(self, response: Response) -> None:
        if not self._is_page(response.request):
            return
        if response.status in _NOTHING:
            self.empty = response
        else:
            self.answer = response

    def _on_failure(self, request: Request) -> None:
        if self._is_page(request) and request.url in self._stages():
            self.has_failed = True


def _origin(request: Request) -> Request:
    """Return the request from which redirects led to this one."""
    while request.redirected_from is not None:
        request = request.redirected_from
    return request


def _plain(url: str) -> str:
    """Return an address in a normal form."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        port = f":{parts.port}" if parts.port not in (None, {"http": 80, "https": 443}.get(parts.scheme)) else ""
    except ValueError:  # not an address; UnicodeError is a ValueError
        return url
    return unquote(f"{parts.scheme}://{host}{port}{parts.path or '/'}?{parts.query}")
