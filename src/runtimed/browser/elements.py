"""Finds the elements that actions name: by ref, by selector, by role and name, in whichever frame they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

from runtimed import actions
from runtimed.browser.doing import TIMEOUT, Refused
from runtimed.browser.frames import await_match
from runtimed.browser.outline import REF
from runtimed.browser.snapshot import Observer
from runtimed.browser.tabs import OpenTab, Tabs

if TYPE_CHECKING:
    from playwright.async_api import Locator

__all__ = ["Elements"]

_PATIENCE: Final = 5000.0
"""Milliseconds in which an element that is there tells its path."""

_CSS_PATH: Final = """element => {
  const steps = [];
  for (let node = element; node instanceof Element; node = node.parentElement) {
    if (node.id) { steps.unshift('#' + CSS.escape(node.id)); break; }
    const place = [...(node.parentNode?.children ?? [])].filter(other => other.tagName === node.tagName).indexOf(node);
    steps.unshift(node.tagName.toLowerCase() + ':nth-of-type(' + (place + 1) + ')');
  }
  return steps.join(' > ');
}"""


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
        """Return the tab in which a ref may be, and Playwright's own ref; None if its document is gone."""
        match = REF.fullmatch(ref)
        where = None if match is None else self._tabs.locate(match[1])
        return None if where is None or match is None else (where[0], where[1] + match[2])

    async def find(self, target: Any, tab: OpenTab, selectors: list[str | None]) -> tuple[Locator | None, str]:
        """Return the element that an action names, and what to call it; None where it names none.

        Args:
            target: An action or a `Target`.
            tab: Where to look.
            selectors: Gets a selector that finds the element on a later visit of the page.

        Raises:
            StaleElement: If it names a ref whose element is gone.
            Refused: If no frame shows in time what a selector names.
        """
        if isinstance(target, actions.EvaluateJs):
            return None, "the page"
        exact: str | None = None
        if target.ref is not None:
            found, what, selector = await self._find_ref(target.ref, tab)
            selectors.append(selector)
            return found, what
        if target.selector is not None:
            selector = what = target.selector
        elif target.role is not None:
            role = target.role.strip().lower()
            named = "" if target.name is None else f"={msgspec.json.encode(target.name).decode()}"
            exact = f"role={role}[name{named}]" if named else f"role={role}"
            selector = f"role={role}[name*{named} i]" if named and not target.exact else exact
            what = target.role if target.name is None else f'{target.role} "{target.name}"'
        elif getattr(target, "x", None) is not None:
            selectors.append(None)
            return None, f"the point {target.x:g}, {target.y:g}"
        else:
            return None, "the page"
        selectors.append(selector)
        limit = getattr(target, "timeout", None) or TIMEOUT
        sought = selector
        match = await await_match(
            tab.page,
            lambda frame: frame.locator(sought),
            limit,
            None if exact is None else lambda frame: frame.locator(exact),
        )
        if match is None:
            raise Refused(f"Nothing on the page is {selector} within {limit:g} s; raise timeout=", error="Timeout")
        return match, what

    async def _find_ref(self, ref: str, tab: OpenTab) -> tuple[Locator, str, str | None]:
        where = self.locate(ref)
        found = None
        if where is not None and where[0] is tab:
            found = tab.page.locator(f"aria-ref={where[1]}")
            # A locator waits for what it names. What a ref names is there or gone for good, so this is asked first.
            try:
                there = await found.count()
            except PlaywrightError:  # its frame is gone
                there = 0
            if not there:
                found = None
        if found is None:
            lines = await self._observer.present(tab)
            where = self.locate(ref)
            if where is None or where[0] is not tab or not any(line.ref == ref for line in lines):
                raise self._observer.stale(ref, lines)
            found = tab.page.locator(f"aria-ref={where[1]}")
        what, selector = self._observer.recall(ref)
        if selector is None:
            selector = await found.evaluate(_CSS_PATH, timeout=_PATIENCE)
        return found, what, selector
