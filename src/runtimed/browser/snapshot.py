"""Takes snapshots of pages: of the whole, of a part, or of a piece of a large one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

from runtimed.browser import outline, pieces, views
from runtimed.browser.additions import completed
from runtimed.browser.frames import await_match
from runtimed.browser.open_tab import OpenTab
from runtimed.browser.outline import REF, Known, Line
from runtimed.browser.pieces import Piece, Place, Taken
from runtimed.browser.survey import by_ref
from runtimed.browser.surveyor import Surveyor
from runtimed.browser.tabs import Tabs
from runtimed.browser.words import bad_selector
from runtimed.errors import BrowserError

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

__all__ = ["ScopeGone", "Seen", "Snapshots"]

_TRIES: Final = 5
_PATIENCE: Final = 10.0
"""Seconds within which a page must answer."""
_FOR_EACH: Final = 0.003
"""Additional seconds per element of the page: several times what one takes in a snapshot (0.1 ms)."""
_LONGEST: Final = 300.0
"""Upper bound of these seconds."""

_PLACE: Final = """(() => {
  const root = document.scrollingElement ?? document.documentElement;
  return [document.title, scrollX, scrollY, innerWidth, innerHeight, root?.scrollWidth ?? 0, root?.scrollHeight ?? 0,
    document.body !== null, document.getElementsByTagName('*').length];
})()"""


class Seen(msgspec.Struct, frozen=True):
    """The result of a look at a page, or at the scope in it.

    Attributes:
        known: What the page says of its elements, by ref.
        place: The title of the page, and the fields of its `Scroll`.
        piece: Place of the lines in the outline, if they are a piece of it.
    """

    lines: list[Line]
    known: dict[str, Known]
    place: list[Any]
    piece: Place | None = None


class ScopeGone(Exception):  # it is an answer
    """The scope is a ref whose element does not exist.

    Attributes:
        lines: What the page shows.
    """

    def __init__(self, lines: list[Line]) -> None:
        super().__init__()
        self.lines = lines


class Snapshots:
    """Takes snapshots.

    Args:
        tabs: The tabs.
        surveyor: Asks the frames what a snapshot leaves out.
    """

    def __init__(self, tabs: Tabs, surveyor: Surveyor) -> None:
        self._tabs = tabs
        self._surveyor = surveyor

    async def look(self, tab: OpenTab, scope: str | None, wanted: Piece | None = None) -> Seen:
        """Take a snapshot that belongs to one document from its first line to its last.

        Args:
            tab: The tab.
            scope: What is to be observed; None for the whole page.
            wanted: What suffices of a large page; None for all of it.

        Raises:
            ScopeGone: If the scope is a ref whose element is gone.
            BrowserError: If it is a selector that finds nothing, or the page does not answer.
        """
        loop = asyncio.get_running_loop()
        for attempt in range(_TRIES):
            before, began = tab.generation, loop.time()
            try:
                seen = await self._take(tab, scope, wanted)
            except TimeoutError as exc:
                raise BrowserError(
                    f"The page in {tab.id} has not answered within {loop.time() - began:.0f} s: it is busy, or waits "
                    "for the page that it is to show next. Wait, or go elsewhere with goto",
                    tab=tab.id,
                ) from exc
            except PlaywrightError as exc:
                # The page may be gone before that is reported.
                if (tab.generation != before or attempt == 0) and not tab.closed:
                    continue
                said = bad_selector(exc, scope) or f"The page cannot be observed: {exc.message}"
                raise BrowserError(said, tab=tab.id) from exc
            if tab.generation != before:
                continue
            if seen is not None:
                return seen
            # An element that Playwright's snapshot omits cannot be the root of one.
            page = await self.look(tab, None)
            lines = views.subtree(page.lines, scope or "")
            if lines is None:
                raise ScopeGone(page.lines)
            return msgspec.structs.replace(page, lines=lines)
        raise BrowserError("The page does not stop navigating; wait for it, then observe again", tab=tab.id)

    async def _take(self, tab: OpenTab, scope: str | None, wanted: Piece | None) -> Seen | None:
        """Take a snapshot; None if the scope is a ref whose element is gone."""
        async with asyncio.timeout(_PATIENCE) as limit:
            # First: it is answered while the large question is still on its way (measured: 0.5 ms).
            asking = asyncio.ensure_future(_find_place(tab))
            prefixes: dict[str, str] = {}

            def number(prefix: str) -> str:
                document = self._tabs.number(tab.document_key(prefix))
                prefixes[document] = prefix
                return document

            async def take(part: Page | Locator) -> list[Line]:
                snapshot = await self._snapshot(tab, part, asking, limit)
                if "- iframe" in snapshot:
                    await tab.learn_frames(snapshot)
                return outline.read_outline(snapshot, number)

            try:
                await asyncio.sleep(0)
                part = tab.page if scope is None else await self._part(tab, scope)
                if part is None:
                    return None
                taken = None
                if wanted is not None and (await asking)[-1] >= pieces.LARGE:
                    taken = await self._take_piece(tab, part, wanted, take, number)
                lines = await take(part) if taken is None else taken.lines
                *place, _has_body, size = await asking
            finally:
                asking.cancel()
            main = number("") if scope is None else None  # also if nothing has a ref
            if scope is not None and REF.fullmatch(scope) and (not lines or lines[0].ref != scope):
                return None
            piece = None if taken is None else taken.place
            key = None if taken is None or piece is None else taken.key
            told = await self._surveyor.survey(tab, lines, prefixes, size, main, key)
        lines = outline.masked(lines, told.known, told.unseen)
        lines = completed(lines, told.known, told.added, whole=main is not None)
        return Seen(lines if piece is None else pieces.lines_of(lines, piece), told.known, place, piece)

    async def _take_piece(
        self,
        tab: OpenTab,
        part: Page | Locator,
        wanted: Piece,
        take: Callable[[Page | Locator], Awaitable[list[Line]]],
        number: Callable[[str], str],
    ) -> Taken | None:
        """Take a piece of a large page; None if only the whole outline determines it."""
        match = REF.fullmatch(wanted.start or "")
        where = None if match is None else self._tabs.locate(match[1])
        if wanted.start is not None and (match is None or where is None or where[0] is not tab):
            return None
        start = None if match is None or where is None else where[1] + match[2]
        return await pieces.take(part, wanted, start, take, number)

    async def _part(self, tab: OpenTab, scope: str) -> Locator | None:
        """Return the part to be observed; None if it is a ref whose element is gone."""
        match = REF.fullmatch(scope)
        if match is None:
            found = await await_match(tab.page, lambda frame: frame.locator(scope), 0, nearest=True)
            if not found:
                raise BrowserError(f"The scope {scope!r} finds nothing on the page", scope=scope)
            return found[0].first
        where = self._tabs.locate(match[1])
        if where is None or where[0] is not tab:
            return None
        part = by_ref(tab.frame_of(where[1]), where[1] + match[2])
        return part if await part.count() else None

    @staticmethod
    async def _snapshot(
        tab: OpenTab, part: Page | Locator, asking: asyncio.Future[list[Any]], limit: asyncio.Timeout
    ) -> str:
        """Return the snapshot. A page that `asking` reports as large gets more time.

        Later questions about the whole page get the same time.
        """
        loop = asyncio.get_running_loop()
        taking = asyncio.ensure_future(part.aria_snapshot(mode="ai", timeout=_LONGEST * 1000))
        try:
            *_, has_body, size = await asking
            if not has_body and part is tab.page:
                # Playwright waits for a body, which a picture's document lacks.
                taking.cancel()
                part = tab.page.locator(":root")
                if not size:
                    return ""
                taking = asyncio.ensure_future(part.aria_snapshot(mode="ai", timeout=_LONGEST * 1000))
            patience = _PATIENCE + min(size * _FOR_EACH, _LONGEST)
            limit.reschedule(loop.time() + patience)
            snapshot = await taking
            limit.reschedule(loop.time() + patience)
            return snapshot
        finally:
            taking.cancel()


async def _find_place(tab: OpenTab) -> list[Any]:
    """Return a page's title, the fields of its `Scroll`, whether it has a body, and its number of elements."""
    if tab.cdp is None:
        raise BrowserError(f"The tab {tab.id} cannot be used; close it", tab=tab.id)
    answer = await tab.cdp.send("Runtime.evaluate", {"expression": _PLACE, "returnByValue": True})
    place: list[Any] = answer["result"].get("value") or ["", 0, 0, 0, 0, 0, 0, True, 0]
    return place
