"""Observes pages: takes snapshots, gives their elements refs that every client can use, remembers what was shown."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed.browser import outline
from runtimed.browser.outline import REF, Line
from runtimed.browser.tabs import DialogOpened, OpenTab, TabGone, Tabs
from runtimed.errors import BrowserError, StaleElement
from runtimed.pages import Element, Observation, Scroll

__all__ = ["Observer"]

_KEPT_LINES: Final = 200_000
"""Lines of past observations that are kept, for differences and for what refs meant."""

_TRIES: Final = 5
_PATIENCE: Final = 10.0
"""Seconds in which a page must answer."""

_PLACE: Final = """(() => {
  const root = document.scrollingElement ?? document.documentElement;
  return [document.title, scrollX, scrollY, innerWidth, innerHeight, root?.scrollWidth ?? 0, root?.scrollHeight ?? 0];
})()"""


class _Shown(msgspec.Struct, frozen=True):
    tab: str
    lines: list[Line]
    whole: list[Line]
    elements: dict[str, Element]


class Observer:
    """Takes observations of the tabs.

    Args:
        tabs: The tabs.
        mask: Takes the texts of secrets out of a text.
    """

    def __init__(self, tabs: Tabs, mask: Callable[[str], str]) -> None:
        self._tabs = tabs
        self._mask = mask
        self._count = 0
        self._shown: OrderedDict[str, _Shown] = OrderedDict()
        self._kept = 0

    async def observe(
        self,
        *,
        scope: str | None = None,
        depth: int | None = None,
        interactive_only: bool = False,
        max_chars: int | None = None,
        since: str | None = None,
    ) -> Observation:
        """Return what the active tab shows.

        Raises:
            StaleElement: If `scope` is the ref of an element that is gone.
            BrowserError: If `scope` is a selector that finds nothing, or `depth` no level.
        """
        if depth is not None and depth < 1:
            raise BrowserError(f"depth is a number of levels from 1, not {depth}")
        tab = await self._tabs.active()
        await tab.ready
        try:
            lines, whole, place = await tab.run(self._look(tab, scope))
        except TabGone:
            if not tab.closed:
                raise
            return await self.observe(
                scope=scope, depth=depth, interactive_only=interactive_only, max_chars=max_chars, since=since
            )
        except DialogOpened:
            return Observation(
                id=self._next_id(),
                tab=tab.id,
                url=tab.address,
                title=self._tabs.mask(tab.title),
                tree="",
                tabs=self._tabs.listed(),
                dialog=tab.dialog,
            )
        tab.title = place[0]
        name = self._next_id()
        elements = outline.elements(whole)
        self._remember(name, _Shown(tab.id, lines, whole, elements))

        def view(seen: Sequence[Line]) -> Sequence[Line]:
            if scope is not None and REF.fullmatch(scope):
                seen = outline.subtree(seen, scope) or []
            if depth is not None:
                seen = outline.shallow(seen, depth)
            return outline.interactive(seen) if interactive_only else seen

        shown = view(lines)
        before = self._shown.get(since) if since is not None else None
        if before is not None and before.tab == tab.id:
            tree = outline.difference(view(before.lines), shown)
            shown = [line for line in shown if line.ref is not None and f"[ref={line.ref}]" in tree]
        else:
            since = None
            if scope is not None and REF.fullmatch(scope) and not shown:
                raise self.stale(scope, lines)
            tree = outline.text_of(shown)
        # First: of a secret that is cut off what is left would not be recognized.
        tree, omitted = outline.at_most(self._mask(tree), max_chars)
        if omitted:
            shown = [line for line in shown if line.ref is not None and f"[ref={line.ref}]" in tree]
        return Observation(
            id=name,
            tab=tab.id,
            url=tab.address,
            title=self._tabs.mask(tab.title),
            tree=tree,
            tabs=self._tabs.listed(),
            scroll=Scroll(**dict(zip(Scroll.__struct_fields__, map(round, place[1:]), strict=True))),
            since=since,
            omitted=omitted,
            elements=tuple(elements[line.ref] for line in shown if line.ref in elements),
        )

    async def present(self, tab: OpenTab) -> list[Line]:
        """Take a snapshot for our own use; afterwards every ref of the page that is still there can be used."""
        lines, _, _ = await self._look(tab, None)
        return lines

    def stale(self, ref: str, lines: Sequence[Line]) -> StaleElement:
        """Return the error for a ref whose element is gone, with the nearest one of these lines."""
        meant = self._meaning(ref)
        if meant is None:
            return StaleElement(
                f"There is no element {ref!r}; observe() shows those that there are", ref=ref, nearest=None
            )
        near = outline.nearest(meant.role, meant.name, lines)
        hint = (
            f"the nearest one is {near.ref} ({_words(near)})"
            if near is not None
            else "observe() shows what there is now"
        )
        return StaleElement(
            f"The element {ref} ({_words(meant)}) is no longer on the page; {hint}",
            ref=ref,
            nearest=None if near is None else near.ref,
        )

    def recall(self, ref: str) -> tuple[str, str | None]:
        """Return what a ref was observed as, in words, and a selector that finds it on a later visit of the page."""
        meant = self._meaning(ref)
        return (ref, None) if meant is None else (_words(meant), meant.selector)

    def _meaning(self, ref: str) -> Element | None:
        for shown in reversed(self._shown.values()):
            if ref in shown.elements:
                return shown.elements[ref]
        return None

    async def _look(self, tab: OpenTab, scope: str | None) -> tuple[list[Line], list[Line], list[Any]]:
        """Take a snapshot that belongs to one document from its first line to its last.

        Returns:
            What the scope shows, if it is a selector; all that the page shows; and where it is scrolled to.
        """
        page = tab.page
        for attempt in range(_TRIES):
            before = tab.generation
            try:
                part = None
                if scope is not None and not REF.fullmatch(scope):
                    found = page.locator(scope).first
                    if not await found.count():
                        raise BrowserError(f"The scope {scope!r} finds nothing on the page", scope=scope)
                    part = await found.aria_snapshot(mode="ai")
                # Last, and of all: Playwright finds the refs of its latest snapshot alone.
                # The small question first: it is answered while the large one is still on its way (measured: 0.5 ms).
                place, snapshot = await asyncio.gather(
                    _find_place(tab), page.aria_snapshot(mode="ai", timeout=_PATIENCE * 1000)
                )
                if "- iframe" in snapshot:
                    await tab.learn_frames(snapshot)
            except PlaywrightTimeout as exc:
                raise BrowserError(
                    f"The page in {tab.id} has not answered within {_PATIENCE:.0f} s: it is busy, or waits for the "
                    "page that it is to show next. Wait, or go elsewhere with goto",
                    tab=tab.id,
                ) from exc
            except PlaywrightError as exc:
                # The page may have gone before the news of that came.
                if (tab.generation != before or attempt == 0) and not tab.closed:
                    continue
                raise BrowserError(f"The page cannot be observed: {exc.message}", tab=tab.id) from exc
            if tab.generation == before:
                prefixes: dict[str, str] = {}

                def number(prefix: str, known: dict[str, str] = prefixes) -> str:
                    if prefix not in known:
                        known[prefix] = self._tabs.number(tab.document_key(prefix))
                    return known[prefix]

                whole = outline.read_outline(snapshot, number)
                return whole if part is None else outline.read_outline(part, number), whole, place
        raise BrowserError("The page does not stop navigating; wait for it, then observe again", tab=tab.id)

    def _next_id(self) -> str:
        self._count += 1
        return f"o{self._count}"

    def _remember(self, name: str, shown: _Shown) -> None:
        self._shown[name] = shown
        self._kept += len(shown.whole)
        while self._kept > _KEPT_LINES and len(self._shown) > 1:
            self._kept -= len(self._shown.popitem(last=False)[1].whole)


async def _find_place(tab: OpenTab) -> list[Any]:
    """Return the title of a page and the fields of its `Scroll`."""
    if tab.cdp is None:
        raise BrowserError(f"The tab {tab.id} cannot be used; close it", tab=tab.id)
    answer = await tab.cdp.send("Runtime.evaluate", {"expression": _PLACE, "returnByValue": True})
    place: list[Any] = answer["result"].get("value") or ["", 0, 0, 0, 0, 0, 0]
    return place


def _words(line: Line | Element) -> str:
    return f'{line.role} "{line.name}"' if line.name else line.role
