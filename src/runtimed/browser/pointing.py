"""Moves the pointer to elements and points, clicks and drags. No button stays pressed, however a drag ends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final, Literal

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed.browser.doing import Doing, Refused
from runtimed.browser.isolated import ask, frame_of
from runtimed.browser.watching import free_input, is_pressed
from runtimed.browser.words import performed

if TYPE_CHECKING:
    from playwright.async_api import Frame, Locator

    from runtimed.browser.open_tab import OpenTab

__all__ = ["FUNCTIONS", "click", "drag", "hover", "let_go", "point_of", "reach", "view_of", "was_clicked"]

_STEPS: Final = 8
"""Number of moves in a drag: its targets want to see it come."""
_FIRST_MOVE: Final = 6
"""CSS pixels after which every browser takes a pressed pointer for a drag."""
_PATIENCE: Final = 1.0
"""Seconds for a page to report what it saw of a drag."""

# The page as a whole is compared: drop targets undo their highlight once the pointer leaves.
_WATCH: Final = """(element, key, kept) => {
  const view = element.ownerDocument.defaultView, root = element.ownerDocument.documentElement;
  const types = ['dragstart', 'drop', 'input', 'change'], events = [];
  const notice = event => events.push(event);
  for (const type of types) view.addEventListener(type, notice, { capture: true, passive: true });
  const before = root.innerHTML;
  kept.set(key, () => {
    for (const type of types) view.removeEventListener(type, notice, { capture: true });
    const seen = (...sought) => events.some(event => sought.includes(event.type) && !(
      event.type === 'dragstart' && event.defaultPrevented));
    return [seen('dragstart'), seen('drop'), seen('input', 'change') || root.innerHTML !== before];
  });
}"""

_END: Final = """(root, key, kept) => {
  const end = kept.get(key);
  kept.delete(key);
  return end?.() ?? null;
}"""

_SHOW: Final = "element => element.scrollIntoView({ block: 'nearest', inline: 'nearest', behavior: 'instant' })"

FUNCTIONS: Final = {"watchDrag": _WATCH, "endDrag": _END, "show": _SHOW, "view": "() => [innerWidth, innerHeight]"}
"""JavaScript functions for pages; see `isolated`."""


def point_of(target: Any) -> tuple[float, float] | None:
    """Return the point that an action or a target names, if any."""
    return None if getattr(target, "x", None) is None else (target.x, target.y)


async def click(action: Any, tab: OpenTab, found: Locator | None, doing: Doing, limit: float) -> None:
    """Click an element, a point of it, or a point of the view.

    Raises:
        PlaywrightTimeout: If it was not clicked in time; it will not be.
    """
    point = point_of(action)
    if found is not None:
        try:
            await found.click(
                button=action.button,
                click_count=action.count,
                modifiers=list(action.modifiers),
                position=None if point is None else {"x": point[0], "y": point[1]},
                timeout=limit,
            )
        except PlaywrightTimeout as exc:
            if not await was_clicked(exc, tab, doing, action.button):
                raise
        return
    x, y = await _in_view(tab, point)
    keyboard = tab.page.keyboard
    async with contextlib.AsyncExitStack() as held:
        for modifier in action.modifiers:
            await keyboard.down(modifier)
            held.push_async_callback(keyboard.up, modifier)
        await tab.page.mouse.click(x, y, button=action.button, click_count=action.count)


async def was_clicked(
    exc: PlaywrightTimeout, tab: OpenTab, doing: Doing, button: Literal["left", "middle", "right"] = "left"
) -> bool:
    """Whether the page got a click that timed out, as if it is busy with it; the click is complete then."""
    if not performed(exc):
        return False
    await tab.page.mouse.up(button=button)  # it may have stopped half-way
    return doing.watching is None or await is_pressed(tab, doing.watching)


async def hover(action: Any, tab: OpenTab, found: Locator | None, limit: float) -> None:
    """Move the pointer over an element, a point of it, or a point of the view."""
    point = point_of(action)
    if found is not None:
        await found.hover(position=None if point is None else {"x": point[0], "y": point[1]}, timeout=limit)
        return
    await tab.page.mouse.move(*await _in_view(tab, point))


async def _in_view(tab: OpenTab, point: tuple[float, float] | None) -> tuple[float, float]:
    """Return a point of the view.

    Raises:
        Refused: If it is outside.
    """
    if point is None:
        raise AssertionError("an action on no element has a point")
    width, height = await view_of(tab)
    if not (0 <= point[0] < width and 0 <= point[1] < height):
        raise Refused(
            f"The point {point[0]:g}, {point[1]:g} is outside of the view, which is {width} by {height}; scroll before",
            error="Refused",
        )
    return point


async def view_of(tab: OpenTab) -> tuple[float, float]:
    """Return width and height of a page's view, in CSS pixels."""
    width, height = await ask(tab.page.locator(":root"), "view")
    return width, height


async def reach(target: Locator, point: tuple[float, float] | None, limit: float) -> None:
    """Check that the pointer can reach an element, or a point of it, without moving it."""
    await target.hover(position=None if point is None else {"x": point[0], "y": point[1]}, trial=True, timeout=limit)


async def drag(
    action: Any, tab: OpenTab, source: Locator | None, target: Locator | None, where: str, limit: float
) -> str:
    """Drag an element or a point to another one; return a remark on the outcome.

    Args:
        action: Says which points of them are meant.
        tab: Its page.
        source: The dragged element; None for what is at the point.
        target: The target element; None for the point.
        where: The target's name in messages.
        limit: Milliseconds.

    Raises:
        Refused: If nothing takes what was dragged.
    """
    mouse, end = tab.page.mouse, point_of(action.to)
    await hover(action, tab, source, limit)
    watches = [
        await _watch(place, limit) for place in (source or tab.page.locator(":root"), target) if place is not None
    ]
    tab.pressed = True
    await mouse.down()
    x, y = await _aim(tab, source, point_of(action), limit)
    await mouse.move(x + _FIRST_MOVE, y + _FIRST_MOVE)  # it begins before the page is scrolled to its end
    x, y = await _aim(tab, target, end, limit)
    await mouse.move(x, y, steps=_STEPS)
    await mouse.move(x, y)  # what came under the pointer last must notice it twice
    await mouse.up()
    tab.pressed = False
    return await _outcome(watches, where)


async def _watch(place: Locator, limit: float) -> tuple[Frame, str]:
    """Begin to watch what a drag does to an element's document; return its frame, and the key for `endDrag`."""
    key = secrets.token_hex(8)
    frame = await frame_of(place, limit)
    await ask(place, "watchDrag", key, limit=limit)
    return frame, key


async def _aim(
    tab: OpenTab, target: Locator | None, point: tuple[float, float] | None, limit: float
) -> tuple[float, float]:
    """Return the position of a target, or of a point of it, in the view."""
    if target is None:
        return await _in_view(tab, point)
    await ask(target, "show", limit=limit)
    box = await target.bounding_box(timeout=limit)
    if box is None:
        raise Refused("What something was to be dragged to is not shown any more", error="Refused")
    if point is not None:
        return box["x"] + point[0], box["y"] + point[1]
    size = tab.page.viewport_size or {"width": box["x"] + box["width"], "height": box["y"] + box["height"]}
    left, right = max(box["x"], 0), min(box["x"] + box["width"], size["width"])
    top, bottom = max(box["y"], 0), min(box["y"] + box["height"], size["height"])
    return (left + right) / 2, (top + bottom) / 2


async def _outcome(watches: list[tuple[Frame, str]], where: str) -> str:
    started = dropped = changed = False
    for frame, key in watches:
        seen = None
        with contextlib.suppress(PlaywrightError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                seen = await ask(frame.locator(":root"), "endDrag", key)
        if seen is None:  # the drag has led to another page, or keeps this one busy
            changed = True
        else:
            started, dropped, changed = started or seen[0], dropped or seen[1], changed or seen[2]
    if started and not dropped and not changed:
        raise Refused(f"{where} takes nothing that is dragged there; nothing has changed", error="Refused")
    return "" if dropped or changed else "; nothing on the page has changed"


async def let_go(tab: OpenTab) -> None:
    """End a failed drag: no button stays pressed, and nothing is dropped at the pointer's position."""
    async with tab.releasing:
        if not tab.pressed:
            return
        with contextlib.suppress(PlaywrightError):  # the page has navigated
            await tab.page.keyboard.press("Escape")
        with contextlib.suppress(PlaywrightError):
            await tab.page.mouse.up()
            await free_input(tab)  # of a page that was held up when its drag began, it begins after all that
        tab.pressed = False
