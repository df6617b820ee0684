"""Searches all frames of a page for the matches of a selector, since people see them as one page."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error as PlaywrightError

if TYPE_CHECKING:
    from playwright.async_api import Frame, Locator, Page

__all__ = ["Locate", "await_gone", "await_match", "await_visible"]

Locate = Callable[["Frame"], "Locator"]
"""Returns the locator in one frame."""

_PAUSES: Final = (0.02, 0.05, 0.1, 0.1, 0.2)
"""Seconds between two searches; the last value repeats."""
_PATIENCE: Final = 1.0
"""Seconds within which a frame must answer: one that hangs must not hide the others' matches."""

_LEFT: Final = re.compile(
    r"context was destroyed|detached|has been closed|Cannot find context|context with specified id|adopt|navigat"
)
"""Playwright's messages for a frame that was removed or navigates. Source: playwright-core, server/frames.ts."""


async def await_match(
    page: Page, locate: Locate, within: float, closer: Locate | None = None, *, nearest: bool = False
) -> list[Locator]:
    """Wait until a frame, which may itself appear later, has a match; return the matches of each frame that has some.

    Hidden matches count only if no frame shows one.

    Args:
        page: The page.
        locate: Returns the locator in a frame.
        within: Seconds; afterwards nothing is returned.
        closer: A narrower locator, which decides between several matches.
        nearest: Whether other frames are skipped if the main frame shows matches.

    Raises:
        PlaywrightError: If the selector is invalid.
    """
    if nearest or len(page.frames) == 1:
        main = locate(page.main_frame).filter(visible=True)
        if count := await _count(page.main_frame, main):
            return await _closest([(page.main_frame, main, count)], closer)
    end, turn = time.monotonic() + within, 0
    while True:
        frames = page.frames
        for visible in (True, False):
            looks = [locate(frame).filter(visible=True) if visible else locate(frame) for frame in frames]
            counts = await _counts(frames, looks)
            found = [(frame, look, count) for frame, look, count in zip(frames, looks, counts, strict=True) if count]
            if found:
                return await _closest(found, closer)
        if not await _pause(turn, end):
            return []
        turn += 1


async def _closest(found: list[tuple[Frame, Locator, int]], closer: Locate | None) -> list[Locator]:
    looks = [look for _, look, _ in found]
    if closer is None or sum(count for _, _, count in found) == 1:
        return looks
    frames = [frame for frame, _, _ in found]
    close = [closer(frame).filter(visible=True) for frame in frames]
    counts = await _counts(frames, close)
    return [look for look, count in zip(close, counts, strict=True) if count] or looks


async def await_visible(page: Page, locate: Locate, within: float) -> Locator | None:
    """Wait until a frame, which may itself appear later, shows a match; return the visible matches of that frame.

    Args:
        page: The page.
        locate: Returns the locator in a frame.
        within: Seconds; afterwards None is returned.

    Raises:
        PlaywrightError: If the selector is invalid.
    """
    end, turn = time.monotonic() + within, 0
    while True:
        frames = page.frames
        looks = [locate(frame).filter(visible=True) for frame in frames]
        for look, count in zip(looks, await _counts(frames, looks), strict=True):
            if count:
                return look
        if not await _pause(turn, end):
            return None
        turn += 1


async def await_gone(page: Page, locate: Locate, within: float) -> bool | None:
    """Wait until no frame shows a match; return whether that came in time, None if a frame does not answer.

    Args:
        page: The page.
        locate: Returns the locator in a frame.
        within: Seconds.

    Raises:
        PlaywrightError: If the selector is invalid.
    """
    end, turn = time.monotonic() + within, 0
    while True:
        frames = page.frames
        looks = [locate(frame).filter(visible=True) for frame in frames]
        # A frame that does not answer still shows what it showed.
        counts = await _counts(frames, looks)
        if not any(count is None or count for count in counts):
            return True
        if not await _pause(turn, end):
            return False if any(counts) else None
        turn += 1


async def _pause(turn: int, end: float) -> bool:
    left = end - time.monotonic()
    if left <= 0:
        return False
    await asyncio.sleep(min(_PAUSES[min(turn, len(_PAUSES) - 1)], left))
    return True


async def _counts(frames: list[Frame], looks: list[Locator]) -> list[int | None]:
    return await asyncio.gather(*(_count(frame, look) for frame, look in zip(frames, looks, strict=True)))


async def _count(frame: Frame, look: Locator) -> int | None:
    """Return the number of matches; 0 in a frame that is gone, None in one that does not answer."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await look.count()
    except TimeoutError:
        return None
    except PlaywrightError as exc:
        if frame.is_detached() or _LEFT.search(exc.message):
            return 0
        raise
