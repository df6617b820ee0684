"""The tabs of a browser: their ids, which one is active, and the numbers of the documents that they show."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from playwright.async_api import Error as PlaywrightError

from runtimed.browser.attached_client import SharedBrowser
from runtimed.browser.open_tab import ANSWER, DocumentKey, OpenTab, TabGone, TabsListener
from runtimed.pages import Tab

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page
    from playwright.async_api import Dialog as OpenDialog

__all__ = ["Tabs"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_OPENING: Final = 2.0
"""Seconds within which a tab that Chromium announced must exist."""
_MAX_DOCUMENTS: Final = 4096
"""Number of documents whose numbers are remembered; refs of older ones are stale."""


class Tabs:
    """All tabs.

    Attributes:
        hearers: Called when the result of `listed` changes.
        shared: What other clients of the browser must know of its tabs.

    Args:
        context: The browser's default context, which all clients share.
        listener: Hears what happens.
        mask: Removes secrets and passwords from a text.
        address: Host and port of Chromium's debugging port.
    """

    def __init__(
        self, context: BrowserContext, listener: TabsListener, mask: Callable[[str], str], address: tuple[str, int]
    ) -> None:
        self.listener = listener
        self.mask = mask
        self.address = address
        self.shared = SharedBrowser()
        self.changes = 0
        self.context = context
        self.hearers: list[Callable[[], None]] = []
        self._open: dict[str, OpenTab] = {}
        self._order: list[OpenTab] = []  # the most recently active one last
        self._count = 0
        self._opening = asyncio.Lock()
        self._announced = len(context.pages)
        self._complete = asyncio.Event()
        self._complete.set()
        self._numbers: dict[DocumentKey, str] = {}
        self._documents: dict[str, DocumentKey] = {}
        self._document_count = 0

    def begin(self, equip: Callable[[OpenTab], Coroutine[Any, Any, None]]) -> None:
        """Take the existing tabs, and each that opens; `equip` prepares it."""
        self.equip = equip
        for page in self.context.pages:
            self._add(page)
        self.context.on("page", self._add)
        self.context.on("dialog", self._on_dialog)

    def announce(self) -> None:
        """Note that a tab opens: Chromium reports it at once, Playwright once it knows the page."""
        self._announced += 1
        self.changes += 1
        self._complete.clear()

    async def settled(self) -> None:
        """Wait until the opening tabs exist."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OPENING):
                await self._complete.wait()
        self._announced = self._count

    def _add(self, page: Page) -> None:
        self._count += 1
        if self._count >= self._announced:
            self._complete.set()
        tab = OpenTab(f"t{self._count}", page, self)
        self._open[tab.id] = tab
        self._order.append(tab)
        self.changes += 1
        self.note_change()

    def _on_dialog(self, opened: OpenDialog) -> None:
        # Playwright does not know a page that opens with a dialog, nor can it before the answer.
        tab = self.latest if opened.page is None else self.of_page(opened.page)
        if tab is not None:  # a listener that does nothing leaves another client's dialog open
            tab.show_dialog(opened)

    def note_change(self) -> None:
        """Notify listeners that the result of `listed` has changed."""
        self.listener.tabs_changed()
        for hearer in list(self.hearers):
            hearer()

    def forget(self, tab: OpenTab) -> None:
        """Remove a closed tab; the one that was active before it is active again."""
        if self.leave(tab):
            self.listener.tab_happened(tab, "tab", f"{tab.id} was closed", {})

    def leave(self, tab: OpenTab) -> bool:
        """Remove a tab from the list; return whether it was there."""
        if self._open.pop(tab.id, None) is None:
            return False
        self._order.remove(tab)
        self.shared.forget(tab.target)
        self.changes += 1
        self.note_change()
        return True

    async def active(self) -> OpenTab:
        """Return the tab that actions concern; an empty one if the last one was closed."""
        async with self._opening:
            if not self._order:
                await self._open_window()
            return self._order[-1]

    async def _open_window(self) -> None:
        """Open a tab in a window of its own: the last tab's window may be about to close, with all that opens in it."""
        browser = self.context.browser
        if browser is None:
            raise AssertionError("a context that is attached to has a browser")
        cdp = await browser.new_browser_cdp_session()
        async with self.context.expect_page() as opening:
            await cdp.send("Target.createTarget", {"url": "about:blank", "newWindow": True})
        await opening.value
        await cdp.detach()

    @property
    def latest(self) -> OpenTab | None:
        """The tab that actions concern, None if there is none."""
        return self._order[-1] if self._order else None

    @property
    def all(self) -> list[OpenTab]:
        """The tabs in the order of their opening."""
        return list(self._open.values())

    def get(self, tab_id: str) -> OpenTab:
        """Return a tab.

        Raises:
            TabGone: If it does not exist.
        """
        tab = self._open.get(tab_id)
        if tab is None:
            raise TabGone(f"There is no tab {tab_id!r}; there are: {', '.join(self._open) or 'none'}", tab=tab_id)
        return tab

    def activate(self, tab: OpenTab) -> None:
        """Let actions concern this tab."""
        self._order.remove(tab)
        self._order.append(tab)
        self.changes += 1
        self.note_change()

    def end(self) -> None:
        """Notify nobody any more of what tabs do."""
        self.context.remove_listener("page", self._add)
        self.context.remove_listener("dialog", self._on_dialog)
        self.listener = TabsListener()
        self.hearers.clear()

    async def trouble(self) -> Exception | None:
        """Return why the browser cannot be driven any more; None if it answers. At its death its tabs close, too."""
        try:
            async with asyncio.timeout(ANSWER):
                await self.context.cookies("http://localhost")
        except (PlaywrightError, TimeoutError) as exc:
            return exc
        return None

    def of_page(self, page: Page) -> OpenTab | None:
        """Return the tab of a page."""
        return next((tab for tab in self._open.values() if tab.page == page), None)

    def listed(self) -> tuple[Tab, ...]:
        """Return what clients see of the tabs."""
        return tuple(
            Tab(
                id=tab.id,
                url=tab.address,
                title=self.mask(tab.title),
                active=tab is self.latest,
                dialog=tab.dialog,
            )
            for tab in self._open.values()
        )

    # --- documents ---

    def number(self, key: DocumentKey) -> str:
        """Return the number of a document in refs; a new document gets one that none had before."""
        known = self._numbers.get(key)
        if known is None:
            self._document_count += 1
            known = self._numbers[key] = f"d{self._document_count}"
            self._documents[known] = key
            if len(self._documents) > _MAX_DOCUMENTS:
                oldest = next(iter(self._documents))
                del self._numbers[self._documents.pop(oldest)]
        return known

    def locate(self, document: str) -> tuple[OpenTab, str] | None:
        """Return the tab and the frame (Playwright's prefix) that show a document now; None if none does."""
        key = self._documents.get(document)
        tab = None if key is None else self._open.get(key[0])
        if key is None or tab is None or tab.document_key(key[1]) != key:
            return None
        return tab, key[1]
