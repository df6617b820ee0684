"""Reads a page as Markdown, with all its frames and without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error as PlaywrightError

from runtimed.browser.data import locate_all
from runtimed.browser.isolated import ask, ask_all, frame_of, selector
from runtimed.browser.markdown import Node, write_markdown
from runtimed.errors import BrowserError

if TYPE_CHECKING:
    from playwright.async_api import Frame, Page

__all__ = ["FUNCTIONS", "scrape_markdown"]

_READING: Final = Path(__file__).with_name("reading.js").read_text(encoding="utf-8")

FUNCTIONS: Final = {"read": _READING, "number": "(frame, number) => { frame.runtimedNumber = number; return []; }"}
"""JavaScript functions for pages; see `isolated`."""

_PATIENCE: Final = 5.0
"""Seconds within which a frame must say what it shows, so that one that hangs does not hold up the page."""
_DEEPEST: Final = 20
"""Deepest nesting of frames that is read."""


async def scrape_markdown(
    page: Page, *, selector: str | None, only_main_content: bool, links: bool, images: bool
) -> str:
    """Return what a page and its frames show as Markdown.

    Args:
        page: The page.
        selector: The parts to read: all visible matches; None for the whole page.
        only_main_content: Whether menus, headers, footers, advertisements and the like are left out. A page without
            other content stays whole.
        links: Whether links keep their addresses, or are plain text.
        images: Whether images are included.

    Raises:
        BrowserError: If the selector finds nothing.
    """
    if selector is None:
        tree = await _read_frame(page.main_frame, main=only_main_content, depth=0)
    else:
        places = await locate_all(page.locator("html"), selector)
        if not places:
            raise BrowserError(f"scrape: {selector!r} finds nothing on the page", selector=selector)
        parts = []
        for place in places:
            inner = (await frame_of(place.first)).child_frames
            await _number(inner)
            part = await ask_all(place, "read", {"frames": len(inner), "main": False}, limit=0)
            parts.append(await _with_frames(part, inner, main=False, depth=0))
        tree = ["block", 0, parts]
    return await asyncio.to_thread(write_markdown, tree, links=links, images=images)


async def _read_frame(frame: Frame, *, main: bool, depth: int) -> Node:
    inner = frame.child_frames if depth < _DEEPEST else []
    await _number(inner)
    tree = await ask(frame, "read", {"frames": len(inner), "main": main}, limit=0)
    return await _with_frames(tree, inner, main=main, depth=depth)


async def _number(frames: Sequence[Frame]) -> None:
    """Number the frames of a document by their order among these."""
    for number, frame in enumerate(frames):
        element = await frame.frame_element()
        await element.query_selector(selector("find", "number", number))
        await element.dispose()


async def _with_frames(tree: Node, frames: list[Frame], *, main: bool, depth: int) -> Node:
    """Insert the content of frames in their places."""
    places: list[Any] = []

    def look(node: Node) -> None:
        if not isinstance(node, str):
            if node[0] == "frame":
                places.append(node)
            for child in node[2]:
                look(child)

    look(tree)
    read = await asyncio.gather(*(_try_frame(frames[node[1]["number"]], main=main, depth=depth + 1) for node in places))
    for node, inside in zip(places, read, strict=True):
        node[:] = ["block", 0, [inside]]
    return tree


async def _try_frame(frame: Frame, *, main: bool, depth: int) -> Node:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await _read_frame(frame, main=main, depth=depth)
    except TimeoutError:
        return ["comment", {"text": f"the frame {frame.url} did not answer"}, []]
    except PlaywrightError:
        if frame.is_detached():
            return ""
        return ["comment", {"text": f"the frame {frame.url} could not be read"}, []]
