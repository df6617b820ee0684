"""Finds the elements that actions name: by ref, by selector, by role and name, in all frames."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.browser.doing import TIMEOUT, Doing, Noted, Refused
from runtimed.browser.frames import await_match
from runtimed.browser.observing import Observer
from runtimed.browser.open_tab import OpenTab
from runtimed.browser.outline import OWN, REF, number_of
from runtimed.browser.places import difference, is_by_order
from runtimed.browser.roles import role_of
from runtimed.browser.survey import by_ref, by_role, describe, placed, with_text
from runtimed.browser.tabs import Tabs

if TYPE_CHECKING:
    from playwright.async_api import Locator

__all__ = ["GUESSED", "Elements"]

GUESSED: Final = actions.Click | actions.Fill | actions.Type | actions.Clear
"""Actions that check by themselves whether a guessed element was right, before they do anything."""

_LOOKS: Final = 0.1
"""Seconds between two checks whether an element is in its place."""
_TELLING: Final = 0.3
"""Seconds for an element to say what it was once all is done: the question was sent before."""


class Elements:
    """Finds elements.

    Args:
        tabs: The tabs.
        observer: Knows what refs mean.
    """

    def __init__(self, tabs: Tabs, observer: Observer) -> None:
        self._tabs = tabs
        self._observer = observer

    def locate(self, ref: str) -> tuple[OpenTab, str] | None:
        """Return the tab that may contain a ref, and Playwright's own ref; None if its document is gone."""
        match = REF.fullmatch(ref)
        where = None if match is None else self._tabs.locate(match[1])
        return None if where is None or match is None else (where[0], where[1] + match[2])

    async def find(
        self,
        target: Any,
        tab: OpenTab,
        doing: Doing,
        *,
        within: float | None = None,
        of: Any = None,
        guess: bool = False,
    ) -> tuple[Locator | None, str]:
        """Return the element that an action names, and what to call it; None where it names none.

        Args:
            target: An action or a `Target`.
            tab: Where to look.
            doing: Gets what finds the element on a later visit of the page.
            within: Seconds, 0 for what is there now; None for those of the action.
            of: The action, where `target` is a `Target`.
            guess: Whether it may be what a page of one frame shows, if it shows it, or what a ref named: that waits for
                no answer of the page.

        Raises:
            StaleElement: If it names a ref whose element is gone.
            Refused: If no frame shows in time what a selector names, several do, that is not what its role and name
                say, or there is no such role.
        """
        if isinstance(target, actions.EvaluateJs):
            return None, "the page"
        exact: str | None = None
        if target.ref is not None:
            return await self._find_ref(target.ref, tab, doing, guess=guess)
        if target.selector is not None:
            selector = what = target.selector
        elif target.role is not None:
            role = role_of(target.role)
            exact = by_role(role, target.name)
            selector = exact if target.name is None or target.exact else by_role(role, target.name, part=True)
            what = target.role if target.name is None else f'{target.role} "{target.name}"'
        elif getattr(target, "x", None) is not None:
            doing.note(Noted(None))
            return None, f"the point {target.x:g}, {target.y:g}"
        else:
            return None, "the page"
        sure = target.selector is not None and target.role is not None
        doing.note(Noted(selector, target.role, target.name, target.place) if sure else Noted(selector))
        if guess and len(tab.page.frames) == 1 and not sure:
            if exact is not None and target.name is not None:
                doing.exact = tab.page.locator(exact).filter(visible=True)
            return tab.page.locator(selector).filter(visible=True), what
        limit = getattr(of or target, "timeout", None) or TIMEOUT
        sought = selector
        found = await await_match(
            tab.page,
            lambda frame: frame.locator(sought),
            limit if within is None else within,
            None if exact is None else lambda frame: frame.locator(exact),
            nearest=sure,  # an observation's selectors begin in the main frame
        )
        if not found:
            waited = "" if within == 0 else f" within {limit:g} s; raise timeout="
            raise Refused(f"Nothing on the page is {selector}{waited}", error="Timeout" if waited else "Refused")
        if len(found) > 1:
            raise Refused(
                f"{selector!r} finds elements in {len(found)} frames of the page; name one by its ref (observe() "
                "shows them)",
                error="Refused",
            )
        if sure:
            return found[0], await _confirm(found[0], target, limit)
        return found[0], what

    async def look_at(self, target: Any, found: Locator | None, doing: Doing, place: int = 0) -> None:
        """Ask what an element is, in parallel to the action: afterwards it may be gone.

        Args:
            target: What names it; refs are resolved.
            found: The element.
            doing: Gets the answer, once `describe` is called.
            place: Index of the element among those of the action.
        """
        if found is None or target.ref is not None:
            return
        timeout = getattr(target, "timeout", None) or TIMEOUT
        describe_it = functools.partial(_describe, found, target, doing.selectors[place], timeout)
        self._ask(doing, place, describe_it() if doing.exact is None else _name(doing.exact, target, describe_it))
        if isinstance(target, GUESSED):
            return  # the page is asked more before anything is pressed: that leaves time enough
        await _sent()

    async def find_surely(self, action: Any, tab: OpenTab, doing: Doing) -> Locator:
        """Find what an action names once a guess was wrong; see `find`."""
        again = Doing()
        found, _ = await self.find(action, tab, again, within=doing.left(action))
        if found is None:
            raise AssertionError("what was found once is looked for again")
        doing.selectors[:], doing.elements[:], doing.exact = again.selectors, again.elements, None
        if (former := doing.describing.pop(0, None)) is not None:
            former.cancel()
        await self.look_at(action, found, doing)
        return found

    @staticmethod
    def _ask(doing: Doing, place: int, asking: Coroutine[Any, Any, Noted | None]) -> None:
        doing.describing[place] = asyncio.create_task(asking)

    @staticmethod
    async def described(doing: Doing) -> None:
        """Note what the elements of an action were, as far as the page has said."""
        if not doing.describing:
            return
        _, silent = await asyncio.wait(doing.describing.values(), timeout=_TELLING)
        for place, asking in doing.describing.items():
            if asking in silent:
                asking.cancel()
            elif (told := asking.result()) is not None:
                doing.selectors[place] = told.selector
                if told.role is not None:
                    doing.elements[place] = told.element

    async def _recover(self, found: Locator, ref: str, tab: OpenTab) -> int:
        """Let Playwright find by its ref what its latest snapshot lacked; return the number of matches.

        Raises:
            PlaywrightError: If the element is gone.
        """
        match = REF.fullmatch(ref)
        where = None if match is None else self._tabs.locate(match[1])
        if where is None or match is None:
            return 0
        part = by_ref(tab.frame_of(where[1]), where[1] + match[2])
        await part.aria_snapshot(mode="ai", timeout=TIMEOUT * 1000)
        return await found.count()

    async def _remember(self, tab: OpenTab, ref: str) -> Noted | None:
        try:
            return await self._observer.remember(tab, ref)
        except PlaywrightError:  # it is gone, or its frame
            return None

    async def _find_ref(self, ref: str, tab: OpenTab, doing: Doing, *, guess: bool) -> tuple[Locator, str]:
        where = self.locate(ref)
        found = meant = None
        if where is not None and where[0] is tab:
            found = _by_ref(tab, where[1])
            if guess:
                doing.note(Noted(None))
                self._ask(doing, 0, self._remember(tab, ref))
                await _sent()
                return found, self._observer.recall(ref)
            # A locator waits for its element. What a ref names exists or is gone for good, so this is asked first.
            try:
                there, meant = await asyncio.gather(found.count(), self._observer.remember(tab, ref))
                there = there or await self._recover(found, ref, tab)
            except PlaywrightError:  # it is gone, or its frame
                there = 0
            if not there:
                found = None
        if found is None:
            lines = await self._observer.present(tab)
            where = self.locate(ref)
            if where is None or where[0] is not tab or not any(line.ref == ref for line in lines):
                raise await self._observer.stale(tab, ref, lines)
            found = _by_ref(tab, where[1], listed=False)
            meant = await self._observer.remember(tab, ref)
        doing.note(meant or Noted(None))
        return found, self._observer.recall(ref)


async def _sent() -> None:
    """Let started work send its questions, so that they are answered before later ones."""
    for _ in range(2):
        await asyncio.sleep(0)


async def _name(
    exact: Locator, target: Any, describe_it: Callable[[], Coroutine[Any, Any, Noted | None]]
) -> Noted | None:
    """Note the role and name that an action gives, if one element has that whole name; else ask for its name."""
    try:
        count = await exact.count()
    except PlaywrightError:  # the page navigates
        count = 0
    if count != 1:
        return await describe_it()
    role = role_of(target.role)
    return Noted(by_role(role, target.name), role, target.name)


async def _describe(found: Locator, target: Any, selector: str | None, within: float) -> Noted | None:
    counts = target.selector is not None and is_by_order(target.selector)
    told = await describe(found, within, place=counts)
    if told is None or selector is None:
        return None
    place = None if told.place is None else told.place.noted()
    if told.role is not None:
        again = selector if target.selector is not None else by_role(told.role, told.name)
        return Noted(again, told.role, told.name or "", place)
    if target.selector is None:
        return None
    again = with_text(selector, told.text) if told.text else selector
    return Noted(again, None if place is None else "generic", None, place)


def _by_ref(tab: OpenTab, own: str, *, listed: bool = True) -> Locator:
    """Return what a ref names.

    Args:
        tab: The tab.
        own: Playwright's ref.
        listed: Whether Playwright's latest snapshot counts, which finds it without a walk through the page.
    """
    if listed and number_of(own) < OWN:
        return tab.page.locator(f"aria-ref={own}")
    return by_ref(tab.frame_of(own[: own.index("e")]), own)


async def _confirm(found: Locator, target: Any, limit: float) -> str:
    """Return what to call an element that a selector finds, once it has the role and the name that it must have.

    Raises:
        Refused: If it has another, or there are several.
    """
    what = f'{target.role} "{target.name}"' if target.name else str(target.role)
    doubt = "nothing was done; observe() shows what the page holds now"
    count = await found.count()
    if count != 1:
        raise Refused(f"{target.selector} finds {count} elements instead of one {what}; {doubt}", error="Doubtful")
    end = time.monotonic() + limit
    if target.role != "generic" and (target.name or not await _is_passed_over(found, target.role)):
        try:
            await _only(found, by_role(target.role, target.name)).wait_for(state="attached", timeout=limit * 1000)
        except PlaywrightTimeout:
            raise Refused(f"{target.selector} finds something else than {what}; {doubt}", error="Doubtful") from None
    while target.place is not None and (other := await _misplaced(found, target.place, what, end)):
        if time.monotonic() >= end:
            raise Refused(f"{target.selector} finds {other}; {doubt}", error="Doubtful")
        await asyncio.sleep(_LOOKS)  # what a page loads comes little by little
    return what


async def _misplaced(found: Locator, place: actions.Place, what: str, end: float) -> str | None:
    """Return a sentence that says where an element is instead of its place; None if it is there."""
    now = await placed(found, max(end - time.monotonic(), _LOOKS))
    return None if now is None else difference(place, now, what)


async def _is_passed_over(found: Locator, role: str) -> bool:
    """Whether a screen reader skips an element of that role, which therefore has no name."""
    if await _only(found, by_role(role, None)).count():
        return False
    return await _only(found, f"{by_role(role, None)}[include-hidden=true]").count() == 1


def _only(found: Locator, selector: str) -> Locator:
    """Return what was found if a selector finds it, too."""
    return found.locator(f"internal:and={json.dumps(selector, ensure_ascii=False)}")
