"""Observes pages: outlines with refs that every client can use, and a memory of what was shown."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from runtimed.browser import outline, pieces, views
from runtimed.browser.doing import Noted
from runtimed.browser.open_tab import DialogOpened, OpenTab, TabGone
from runtimed.browser.outline import REF, REF_SHOWN, Line
from runtimed.browser.pieces import Piece
from runtimed.browser.snapshot import ScopeGone, Seen, Snapshots
from runtimed.browser.surveyor import Surveyor
from runtimed.browser.tabs import Tabs
from runtimed.errors import BrowserError, StaleElement
from runtimed.pages import Element, Observation, Scroll

__all__ = ["Observer"]

_KEPT_LINES: Final = 200_000
"""Lines of past observations that are kept, for differences and for the meaning of refs."""
_LEAST_PIECE: Final = 250
_EACH: Final = 20
"""Elements of a piece: at least so many, or one per so many characters that are asked for."""
_LEAST_GROWTH: Final = 4
_MOST_GROWTH: Final = 64
"""Factor by which a piece grows that was too short."""


class _View(msgspec.Struct, frozen=True):
    """The shown part of an outline.

    Attributes:
        inside: The ref of the element that is shown whole; None for everything.
    """

    inside: str | None
    depth: int | None
    interactive_only: bool

    def of(self, seen: Seen) -> Sequence[Line]:
        lines: Sequence[Line] = seen.lines
        if self.inside is not None:
            lines = views.subtree(lines, self.inside) or []
        if self.depth is not None:
            lines = views.shallow(lines, self.depth)
        return views.interactive(lines, seen.known) if self.interactive_only else lines

    def former(self, before: Seen, now: Seen) -> tuple[Sequence[Line], Sequence[Line]] | None:
        """Return the same part of both; None if one is a piece without the element."""
        if before.piece is not None:
            if self.inside is not None and views.subtree(before.lines, self.inside) is None:
                return None
            now = msgspec.structs.replace(now, lines=pieces.same_part(now.lines, before.lines, before.piece))
        return self.of(before), self.of(now)


class _Shown(msgspec.Struct, frozen=True):
    tab: str
    scope: str | None
    seen: Seen
    elements: dict[str, Element]


class Observer:
    """Takes observations of the tabs.

    Args:
        tabs: The tabs.
        mask: Removes secrets from a text.
    """

    def __init__(self, tabs: Tabs, mask: Callable[[str], str]) -> None:
        self._tabs = tabs
        self._mask = mask
        self._surveyor = Surveyor(tabs)
        self._snapshots = Snapshots(tabs, self._surveyor)
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
        start: str | None = None,
    ) -> Observation:
        """Return what the active tab shows.

        Raises:
            StaleElement: If `scope` or `start` is the ref of an element that is gone.
            BrowserError: If `scope` is a selector that finds nothing, `depth` is no level, `max_chars` is no number of
                characters, `since` is no observation, or `start` is not in the outline.
        """
        self._check(depth, max_chars, since, start)
        wanted = None
        if max_chars is not None and since is None:
            wanted = Piece(start, max(_LEAST_PIECE, max_chars // _EACH))
        while True:
            tab = await self._tabs.active()
            await tab.ready
            before = self._shown.get(since or "")
            if before is not None and before.tab != tab.id:
                before = None
            # An observation of more than the scope is reduced to the scope before the comparison.
            inside = scope if scope is not None and REF.fullmatch(scope) and before and before.scope != scope else None
            view = _View(inside, depth, interactive_only)
            part = scope if inside is None else None
            try:
                seen = await tab.run(self._look(tab, part, wanted))
            except TabGone:
                if not tab.closed:
                    raise
                continue
            except DialogOpened:
                return self._in_dialog(tab)
            if inside is not None and not views.subtree(seen.lines, inside):
                raise await self.stale(tab, inside, seen.lines)
            if before is not None and (former := view.former(before.seen, seen)) is not None:
                shown, text, least = former[1], views.difference(*former), 1
            else:
                since = None
                shown, least = await self._shown_from(tab, start, view.of(seen), seen.lines, scope, max_chars)
                text = views.text_of(shown)
            # First: a secret that is cut could not be recognized.
            text = self._mask(text)
            tree, omitted, following = views.at_most(text, max_chars, least)
            if wanted is None or seen.piece is None or seen.piece.until is None or following is not None:
                break
            growth = 2 * (max_chars or 0) // max(1, len(text))
            wanted = msgspec.structs.replace(
                wanted, elements=wanted.elements * min(max(_LEAST_GROWTH, growth), _MOST_GROWTH)
            )
        tab.title = seen.place[0]
        name = self._next_id()
        elements = outline.elements(seen.lines, seen.known)
        self._keep(name, _Shown(tab.id, part, seen, elements))
        if seen.piece is not None:
            omitted += seen.piece.estimate(len(text))
        if omitted or since is not None:
            present = set(REF_SHOWN.findall(tree))
            shown = [line for line in shown if line.ref in present]
        return Observation(
            id=name,
            tab=tab.id,
            url=tab.address,
            title=self._tabs.mask(tab.title),
            tree=tree,
            tabs=self._tabs.listed(),
            scroll=Scroll(**dict(zip(Scroll.__struct_fields__, map(round, seen.place[1:]), strict=True))),
            since=since,
            omitted=omitted,
            next=following if since is None else None,
            elements=tuple(elements[line.ref] for line in shown if line.ref in elements),
        )

    def _check(self, depth: int | None, max_chars: int | None, since: str | None, start: str | None) -> None:
        if start is not None and since is not None:
            raise BrowserError("What is different since= an observation has no start=; leave one of them out")
        if depth is not None and depth < 1:
            raise BrowserError(f"depth is a number of levels from 1, not {depth}")
        if max_chars is not None and max_chars < 1:
            raise BrowserError(f"max_chars is a number of characters from 1, not {max_chars}")
        if since is not None and not self._has_given(since):
            raise BrowserError(
                f"There is no observation {since!r} of this browser; observe() without since= gives everything"
            )

    async def _look(self, tab: OpenTab, scope: str | None, wanted: Piece | None) -> Seen:
        try:
            return await self._snapshots.look(tab, scope, wanted)
        except ScopeGone as exc:
            raise await self.stale(tab, scope or "", exc.lines) from None

    def _in_dialog(self, tab: OpenTab) -> Observation:
        return Observation(
            id=self._next_id(),
            tab=tab.id,
            url=tab.address,
            title=self._tabs.mask(tab.title),
            tree="",
            tabs=self._tabs.listed(),
            dialog=tab.dialog,
        )

    async def _shown_from(
        self,
        tab: OpenTab,
        start: str | None,
        shown: Sequence[Line],
        lines: Sequence[Line],
        scope: str | None,
        max_chars: int | None,
    ) -> tuple[Sequence[Line], int]:
        """Return what an outline shows from an element on, with its ancestors, and how many lines it must have.

        Raises:
            StaleElement: If the element is gone.
            BrowserError: If the outline does not show it.
        """
        if start is None:
            return shown, 1
        around, behind = await self._begin(tab, start, shown, lines, scope)
        if max_chars is not None and 2 * len(views.text_of(around)) > max_chars:
            around = []
        return [*around, *behind], len(around) + 1

    async def _begin(
        self, tab: OpenTab, start: str, shown: Sequence[Line], lines: Sequence[Line], scope: str | None
    ) -> tuple[list[Line], list[Line]]:
        """Return the ancestors of an element, and what an outline shows from it on.

        Raises:
            StaleElement: If it is gone.
            BrowserError: If the outline does not show it.
        """
        found = views.beginning(shown, start)
        if found is not None:
            return found
        if scope is not None or any(line.ref == start for line in lines):
            raise BrowserError(
                f"The outline that is asked for does not show {start}; take scope=, depth= and interactive_only= as "
                "they were for the page before"
            )
        raise await self.stale(tab, start, lines)

    async def present(self, tab: OpenTab) -> list[Line]:
        """Take a snapshot for internal use; afterwards every ref of a present element works."""
        return (await self._snapshots.look(tab, None)).lines

    async def stale(self, tab: OpenTab, ref: str, lines: Sequence[Line]) -> StaleElement:
        """Return the error for a ref whose element is gone or has changed.

        Args:
            tab: The tab in which it is searched.
            ref: The ref.
            lines: What the tab shows now.
        """
        shown = self._showing(ref)
        if shown is None:
            return StaleElement(
                f"There is no element {ref!r}; observe() shows those that there are", ref=ref, nearest=None
            )
        meant = shown.elements[ref]
        now = await self._surveyor.changed(tab, ref)
        near = next((line for line in lines if line.ref == now), None) if now is not None else None
        if near is not None:
            says = f"has changed: it is {near.ref} ({_words(near)}) now"
        else:
            near = views.nearest(ref, shown.seen.lines, self._known_with(shown), lines)
            hint = (
                "observe() shows what there is now"
                if near is None
                else f"the nearest one is {near.ref} ({_words(near)})"
            )
            says = f"is no longer on the page; {hint}"
        return StaleElement(
            f"The element {ref} ({_words(meant)}) {says}", ref=ref, nearest=None if near is None else near.ref
        )

    def recall(self, ref: str) -> str:
        """Return what an element was when it was observed."""
        meant = self._meaning(ref)
        return ref if meant is None else _words(meant)

    async def remember(self, tab: OpenTab, ref: str) -> Noted | None:
        """Return what an element is, and a selector that finds it now and on a later visit of the page.

        An observation was right when it was taken; the page may have changed since.
        """
        meant = self._meaning(ref)
        if meant is None:
            return None
        value = meant.name if meant.role == "generic" else ""
        known = await self._surveyor.find_again(
            tab, Line(0, "", meant.role, meant.name, value, ref, pointer=bool(value))
        )
        return Noted(known.selector, meant.role, value or known.name, known.place)

    def _known_with(self, shown: _Shown) -> set[str]:
        """Return the refs of an observation and of those before it."""
        refs: set[str] = set()
        for one in self._shown.values():
            refs.update(line.ref for line in one.seen.lines if line.ref is not None)
            if one is shown:
                break
        return refs

    def _showing(self, ref: str) -> _Shown | None:
        return next((shown for shown in reversed(self._shown.values()) if ref in shown.elements), None)

    def _meaning(self, ref: str) -> Element | None:
        shown = self._showing(ref)
        return None if shown is None else shown.elements[ref]

    def _has_given(self, name: str) -> bool:
        number = name.removeprefix("o")
        return name.startswith("o") and number.isdecimal() and 1 <= int(number) <= self._count

    def _next_id(self) -> str:
        self._count += 1
        return f"o{self._count}"

    def _keep(self, name: str, shown: _Shown) -> None:
        self._shown[name] = shown
        self._kept += len(shown.seen.lines)
        while self._kept > _KEPT_LINES and len(self._shown) > 1:
            self._kept -= len(self._shown.popitem(last=False)[1].seen.lines)


def _words(line: Line | Element) -> str:
    return f'{line.role} "{line.name}"' if line.name else line.role
