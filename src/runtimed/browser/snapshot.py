"""Observes pages: takes snapshots, gives their elements refs that every client can use, remembers what was shown."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

from runtimed.browser import outline, pieces, views
from runtimed.browser.additions import Added, completed
from runtimed.browser.doing import Noted
from runtimed.browser.frames import await_match
from runtimed.browser.outline import REF, REF_SHOWN, Known, Line, number_of, ref_in
from runtimed.browser.pieces import Piece, Place, Taken
from runtimed.browser.survey import Survey, by_ref, changed_ref, survey
from runtimed.browser.tabs import DialogOpened, OpenTab, TabGone, Tabs
from runtimed.browser.words import bad_selector
from runtimed.errors import BrowserError, StaleElement
from runtimed.pages import Element, Observation, Scroll

if TYPE_CHECKING:
    from playwright.async_api import Frame, Locator, Page

__all__ = ["Observer"]

logger = logging.getLogger(__name__)

_KEPT_LINES: Final = 200_000
"""Lines of past observations that are kept, for differences and for what refs meant."""

_TRIES: Final = 5
_PATIENCE: Final = 10.0
"""Seconds in which a page must answer."""
_FOR_EACH: Final = 0.003
"""Seconds more for each element that the page has: several times of what one takes in a snapshot (0.1 ms)."""
_LONGEST: Final = 300.0
"""Seconds that a page gets at most."""
_LEAST_PIECE: Final = 250
_EACH: Final = 20
"""Elements of a piece: at least so many, or one for so many characters of those that are asked for."""
_LEAST_GROWTH: Final = 4
_MOST_GROWTH: Final = 64
"""By which a piece grows that was too short."""
_MAX_OWNERS: Final = 4096
"""Documents of which is remembered which iframe holds them."""
_ENTER_FRAME: Final = " >> internal:control=enter-frame >> "

_PLACE: Final = """(() => {
  const root = document.scrollingElement ?? document.documentElement;
  return [document.title, scrollX, scrollY, innerWidth, innerHeight, root?.scrollWidth ?? 0, root?.scrollHeight ?? 0,
    document.body !== null, document.getElementsByTagName('*').length];
})()"""


class _Seen(msgspec.Struct, frozen=True):
    """What a look at a page, or at the scope in it, gave.

    Attributes:
        known: What the page tells of its elements, by ref.
        place: The title of the page, and the fields of its `Scroll`.
        piece: Where the lines are in the outline, if they are a piece of it.
    """

    lines: list[Line]
    known: dict[str, Known]
    place: list[Any]
    piece: Place | None = None


class _View(msgspec.Struct, frozen=True):
    """What is shown of what is seen.

    Attributes:
        inside: The ref of the element of which all is shown; None for all that is seen.
    """

    inside: str | None
    depth: int | None
    interactive_only: bool

    def of(self, seen: _Seen) -> Sequence[Line]:
        lines: Sequence[Line] = seen.lines
        if self.inside is not None:
            lines = views.subtree(lines, self.inside) or []
        if self.depth is not None:
            lines = views.shallow(lines, self.depth)
        return views.interactive(lines, seen.known) if self.interactive_only else lines

    def former(self, before: _Seen, now: _Seen) -> tuple[Sequence[Line], Sequence[Line]] | None:
        """Return the same of both; None if what was seen is a piece in which the element is not."""
        if before.piece is not None:
            if self.inside is not None and views.subtree(before.lines, self.inside) is None:
                return None
            now = msgspec.structs.replace(now, lines=pieces.same_part(now.lines, before.lines, before.piece))
        return self.of(before), self.of(now)


class _Shown(msgspec.Struct, frozen=True):
    tab: str
    scope: str | None
    seen: _Seen
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
        self._owners: dict[str, str | None] = {}  # none for the main frame's

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
            BrowserError: If `scope` is a selector that finds nothing, `depth` no level, `max_chars` no number of
                characters, `since` no observation, or `start` not in the outline.
        """
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
        wanted = None
        if max_chars is not None and since is None:
            wanted = Piece(start, max(_LEAST_PIECE, max_chars // _EACH))
        while True:
            tab = await self._tabs.active()
            await tab.ready
            before = self._shown.get(since) if since is not None else None
            if before is not None and before.tab != tab.id:
                before = None
            # What was observed of more than the scope is compared with what is taken out of the same.
            inside = scope if scope is not None and REF.fullmatch(scope) and before and before.scope != scope else None
            view = _View(inside, depth, interactive_only)
            try:
                seen = await tab.run(self._look(tab, scope if inside is None else None, wanted))
            except TabGone:
                if not tab.closed:
                    raise
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
            else:
                if inside is not None and not views.subtree(seen.lines, inside):
                    raise await self.stale(tab, inside, seen.lines)
                if before is not None and (former := view.former(before.seen, seen)) is not None:
                    shown, text, least = former[1], views.difference(*former), 1
                else:
                    since = None
                    shown, least = await self._shown_from(tab, start, view.of(seen), seen.lines, scope, max_chars)
                    text = views.text_of(shown)
                # First: of a secret that is cut off what is left would not be recognized.
                text = self._mask(text)
                tree, omitted, following = views.at_most(text, max_chars, least)
                if wanted is None or seen.piece is None or seen.piece.until is None or following is not None:
                    break
                growth = 2 * (max_chars or 0) // max(1, len(text))
                growth = min(max(_LEAST_GROWTH, growth), _MOST_GROWTH)
                wanted = msgspec.structs.replace(wanted, elements=growth * wanted.elements)
        tab.title = seen.place[0]
        name = self._next_id()
        elements = outline.elements(seen.lines, seen.known)
        self._remember(name, _Shown(tab.id, scope if inside is None else None, seen, elements))
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

    async def _shown_from(
        self,
        tab: OpenTab,
        start: str | None,
        shown: Sequence[Line],
        lines: Sequence[Line],
        scope: str | None,
        max_chars: int | None,
    ) -> tuple[Sequence[Line], int]:
        """Return what an outline shows from an element on, with what that is in, and how many lines it must have.

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
        """Return what an element is in, and what an outline shows from it on.

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
        """Take a snapshot for our own use; afterwards every ref of the page that is still there can be used."""
        return (await self._look(tab, None)).lines

    async def stale(self, tab: OpenTab, ref: str, lines: Sequence[Line]) -> StaleElement:
        """Return the error for a ref whose element is gone or has changed.

        Args:
            tab: The tab in which it is looked for.
            ref: The ref.
            lines: What the tab shows now.
        """
        shown = self._showing(ref)
        if shown is None:
            return StaleElement(
                f"There is no element {ref!r}; observe() shows those that there are", ref=ref, nearest=None
            )
        meant = shown.elements[ref]
        now = await self._changed(tab, ref)
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

    async def _changed(self, tab: OpenTab, ref: str) -> str | None:
        """Return the ref that an element has after its role or name changed; None if it is gone."""
        document = _document(ref)
        where = self._tabs.locate(document)
        if where is None or where[0] is not tab:
            return None
        try:
            own = await changed_ref(tab.frame_of(where[1]), number_of(ref), _PATIENCE)
        except PlaywrightError:  # its frame is gone
            return None
        return None if own is None else ref_in(document, number_of(own))

    def _known_with(self, shown: _Shown) -> set[str]:
        """Return the refs of an observation and of those before it."""
        refs: set[str] = set()
        for one in self._shown.values():
            refs.update(line.ref for line in one.seen.lines if line.ref is not None)
            if one is shown:
                break
        return refs

    def recall(self, ref: str) -> str:
        """Return what a ref was observed as, in words."""
        meant = self._meaning(ref)
        return ref if meant is None else _words(meant)

    async def remember(self, tab: OpenTab, ref: str) -> Noted | None:
        """Return what an element is, and a selector that finds it now, and so on a later visit of the page.

        What stands in an observation was right when that was taken; the page may have changed since.
        """
        meant = self._meaning(ref)
        if meant is None:
            return None
        value = meant.name if meant.role == "generic" else ""
        known = await self._find_again(tab, Line(0, "", meant.role, meant.name, value, ref, pointer=bool(value)))
        return Noted(known.selector, meant.role, value or known.name, known.place)

    async def _find_again(self, tab: OpenTab, line: Line) -> Known:
        """Ask what there is to know of one element, with a selector that gets into its frame."""
        document = _document(line.ref or "")
        where = self._tabs.locate(document)
        if where is None or line.ref is None:
            return Known()
        entry, told = await asyncio.gather(
            self._entry(tab, document), _ask(tab.frame_of(where[1]), where[1], [line], 0, whole=False)
        )
        return _entered(told.known[line.ref], entry)

    async def _entry(self, tab: OpenTab, document: str) -> str | None:
        """Return with what a selector gets into the frame that shows a document; None if nothing does."""
        owner = self._owners.get(document)
        if owner is None:
            return "" if document in self._owners else None
        found = await self._find_again(tab, Line(0, "", "iframe", ref=owner))
        return None if found.selector is None else found.selector + _ENTER_FRAME

    def _showing(self, ref: str) -> _Shown | None:
        return next((shown for shown in reversed(self._shown.values()) if ref in shown.elements), None)

    def _meaning(self, ref: str) -> Element | None:
        shown = self._showing(ref)
        return None if shown is None else shown.elements[ref]

    async def _look(self, tab: OpenTab, scope: str | None, wanted: Piece | None = None) -> _Seen:
        """Take a snapshot that belongs to one document from its first line to its last.

        Args:
            tab: The tab.
            scope: What is to be observed; None for the whole page.
            wanted: What suffices of a large page; None for all of it.

        Raises:
            StaleElement: If the scope is a ref whose element is gone.
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
                # The page may have gone before the news of that came.
                if (tab.generation != before or attempt == 0) and not tab.closed:
                    continue
                said = bad_selector(exc, scope) or f"The page cannot be observed: {exc.message}"
                raise BrowserError(said, tab=tab.id) from exc
            if tab.generation != before:
                continue
            if seen is not None:
                return seen
            # What Playwright's snapshot leaves out is no snapshot's beginning.
            page = await self._look(tab, None)
            lines = views.subtree(page.lines, scope or "")
            if lines is None:
                raise await self.stale(tab, scope or "", page.lines)
            return msgspec.structs.replace(page, lines=lines)
        raise BrowserError("The page does not stop navigating; wait for it, then observe again", tab=tab.id)

    async def _take(self, tab: OpenTab, scope: str | None, wanted: Piece | None) -> _Seen | None:
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
            main = number("") if scope is None else None  # also where nothing has a ref
            if scope is not None and REF.fullmatch(scope) and (not lines or lines[0].ref != scope):
                return None
            piece = None if taken is None else taken.place
            key = None if taken is None or piece is None else taken.key
            known, unseen, added = await self._survey(tab, lines, prefixes, size, main, key)
        lines = outline.masked(lines, known, unseen)
        lines = completed(lines, known, added, whole=main is not None)
        return _Seen(lines if piece is None else pieces.lines_of(lines, piece), known, place, piece)

    async def _take_piece(
        self,
        tab: OpenTab,
        part: Page | Locator,
        wanted: Piece,
        take: Callable[[Page | Locator], Awaitable[list[Line]]],
        number: Callable[[str], str],
    ) -> Taken | None:
        """Take a piece of a large page; None if only the whole outline tells how it stands there."""
        match = REF.fullmatch(wanted.start or "")
        where = None if match is None else self._tabs.locate(match[1])
        if wanted.start is not None and (match is None or where is None or where[0] is not tab):
            return None
        start = None if match is None or where is None else where[1] + match[2]
        return await pieces.take(part, wanted, start, take, number)

    async def _part(self, tab: OpenTab, scope: str) -> Locator | None:
        """Return what is to be observed; None if it is a ref whose element is gone."""
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
        """Return the snapshot; that of a page of which `asking` says that it is large gets more time.

        What is asked afterwards, of all of the page, gets as much.
        """
        loop = asyncio.get_running_loop()
        taking = asyncio.ensure_future(part.aria_snapshot(mode="ai", timeout=_LONGEST * 1000))
        try:
            *_, has_body, size = await asking
            if not has_body and part is tab.page:
                # For a body Playwright waits: a picture's document has none.
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

    async def _survey(
        self,
        tab: OpenTab,
        lines: Sequence[Line],
        prefixes: dict[str, str],
        size: int,
        main: str | None,
        piece: str | None,
    ) -> tuple[dict[str, Known], set[str], list[Added]]:
        """Ask each frame about its elements.

        Args:
            tab: The tab.
            lines: Its outline.
            prefixes: Those of the frames, by their documents.
            size: Elements of the page.
            main: The document of the main frame where the outline is one of the whole page.
            piece: The key of the piece that it is; None if it is none.

        Returns:
            What is known, values of password fields without a ref, and what the outline leaves out.
        """
        asked = []
        for part in outline.parts(lines):
            document = next(
                (_document(line.ref) for line in part.lines if line.ref is not None),
                main if part.owner is None else None,
            )
            if document is not None:
                asked.append((part, document, prefixes[document]))
        told = await asyncio.gather(
            *(
                _ask(
                    tab.frame_of(prefix),
                    prefix,
                    part.lines,
                    size,
                    whole=main is not None and piece is None,
                    document=document,
                    owner=part.owner,
                    piece=piece if part.owner is None else None,
                )
                for part, document, prefix in asked
            )
        )
        known: dict[str, Known] = {}
        for (part, document, prefix), answer in zip(asked, told, strict=True):
            if part.owner is not None:
                self._owners[document] = part.owner
                owner = known[part.owner].selector
                entry = None if owner is None else owner + _ENTER_FRAME
            elif tab.frame_of(prefix) == tab.page.main_frame:
                self._owners[document] = None
                entry = ""
            else:
                entry = await self._entry(tab, document)
            known.update((ref, _entered(one, entry)) for ref, one in answer.known.items())
        while len(self._owners) > _MAX_OWNERS:
            del self._owners[next(iter(self._owners))]
        unseen = {value for answer in told for value in answer.unseen}
        return known, unseen, [one for answer in told for one in answer.added]

    def _has_given(self, name: str) -> bool:
        number = name.removeprefix("o")
        return name.startswith("o") and number.isdecimal() and 1 <= int(number) <= self._count

    def _next_id(self) -> str:
        self._count += 1
        return f"o{self._count}"

    def _remember(self, name: str, shown: _Shown) -> None:
        self._shown[name] = shown
        self._kept += len(shown.seen.lines)
        while self._kept > _KEPT_LINES and len(self._shown) > 1:
            self._kept -= len(self._shown.popitem(last=False)[1].seen.lines)


def _document(ref: str) -> str:
    return ref[: ref.index("e")]


def _entered(known: Known, entry: str | None) -> Known:
    """Let the selector of an element begin where those of the page do."""
    if not entry and entry is not None:
        return known
    selector = None if known.selector is None or entry is None else entry + known.selector
    return msgspec.structs.replace(known, selector=selector)


async def _ask(
    frame: Frame,
    prefix: str,
    lines: Sequence[Line],
    size: int,
    *,
    whole: bool,
    document: str | None = None,
    owner: str | None = None,
    piece: str | None = None,
) -> Survey:
    """Ask a frame; of one that does not answer nothing is known, so that any field may be one for passwords."""
    try:
        return await survey(
            frame,
            prefix,
            lines,
            within=_LONGEST,
            size=size,
            whole=whole,
            document=document,
            owner=owner,
            piece=piece,
        )
    except PlaywrightError as exc:
        if not frame.is_detached():
            logger.warning("a frame at %s does not tell of its elements: %s", frame.url, exc.message)
        known = {line.ref: Known(password=line.role == "textbox") for line in lines if line.ref is not None}
        return Survey(known, frozenset(line.plain_value for line in lines if line.role in {"textbox", "text"}))


async def _find_place(tab: OpenTab) -> list[Any]:
    """Return a page's title, the fields of its `Scroll`, whether it has a body, and how many elements."""
    if tab.cdp is None:
        raise BrowserError(f"The tab {tab.id} cannot be used; close it", tab=tab.id)
    answer = await tab.cdp.send("Runtime.evaluate", {"expression": _PLACE, "returnByValue": True})
    place: list[Any] = answer["result"].get("value") or ["", 0, 0, 0, 0, 0, 0, True, 0]
    return place


def _words(line: Line | Element) -> str:
    return f'{line.role} "{line.name}"' if line.name else line.role
