"""Hands files and folders of this machine to pages: to file inputs, or dropped on an element as by a file manager."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.browser.doing import TIMEOUT, Refused, milliseconds
from runtimed.browser.isolated import ask, ask_of, frame_of
from runtimed.browser.open_tab import OpenTab
from runtimed.browser.pointing import view_of

if TYPE_CHECKING:
    from playwright.async_api import FileChooser, Locator

__all__ = ["FUNCTIONS", "drop", "upload"]

_SEEN: Final = 1.0
"""Seconds for a page to see what is dragged over it."""

_OVER: Final = 0.1
"""Seconds between two drag events to a page."""

_PAUSE: Final = 0.02
"""Seconds between two checks of an element's position."""

_INPUT: Final = """element => {
  const input = element.control ?? element;
  return input.type === 'file' ? { folder: input.webkitdirectory } : null;
}"""

_EMPTY: Final = """element => {
  const input = element.control ?? element;
  input.value = '';
  for (const name of ['input', 'change']) input.dispatchEvent(new Event(name, { bubbles: true }));
}"""

# What the page makes of it shows once the event is over: microtasks would run between two listeners.
_LISTEN: Final = """(element, key, kept) => {
  const view = element.ownerDocument.defaultView, heard = { over: null, dropped: false };
  const over = event => setTimeout(() => {
    heard.over = event.defaultPrevented && event.dataTransfer?.dropEffect !== 'none';
  });
  const dropped = () => { heard.dropped = true; };
  view.addEventListener('dragover', over, true);
  view.addEventListener('drop', dropped, true);
  heard.end = () => {
    view.removeEventListener('dragover', over, true);
    view.removeEventListener('drop', dropped, true);
  };
  kept.set(key, heard);
}"""

FUNCTIONS: Final = {
    "takesFiles": _INPUT,
    "emptyFiles": _EMPTY,
    "listenToDrop": _LISTEN,
    "heardOfDrop": "(root, [key, name], kept) => kept.get(key)[name]",
    "endDrop": "(root, key, kept) => { kept.get(key)?.end(); kept.delete(key); }",
    "scrollIntoView": "element => element.scrollIntoViewIfNeeded(true)",
}
"""JavaScript functions for pages; see `isolated`."""


async def upload(action: actions.UploadFile, tab: OpenTab, found: Locator, what: str) -> str:
    """Give files, or a folder, to a file input or to an element that opens a file chooser; return what was done.

    Raises:
        Refused: If a path does not exist, or the input takes no folders, or only folders.
    """
    limit = milliseconds(action, TIMEOUT)
    files = await _check(action.files)
    takes = await ask(found, "takesFiles", limit=limit)
    if takes is not None:
        _check_kind(files, takes, what)
        if files or not takes["folder"]:
            await found.set_input_files(files, timeout=limit)
        else:  # Playwright refuses it
            await ask(found, "emptyFiles", limit=limit)
    else:
        chooser = await _open_chooser(tab, found, what, limit)
        _check_kind(files, await ask_of(chooser.element, "takesFiles"), what)
        await chooser.set_files(files, timeout=limit)
    return f"Gave {_names(files)} to {what}" if files else f"Took all files from {what}"


async def _open_chooser(tab: OpenTab, found: Locator, what: str, limit: float) -> FileChooser:
    """Click an element that opens a file chooser.

    Raises:
        Refused: If it opens none.
    """
    clicked = False
    try:
        async with tab.page.expect_file_chooser(timeout=limit) as choosing:
            await found.click(timeout=limit)
            clicked = True
        return await choosing.value
    except PlaywrightTimeout as exc:
        if not clicked:
            raise
        raise Refused(
            f"{what} is no file input, and a click on it opens no file chooser; drop_files drops files there",
            error="Refused",
        ) from exc


async def drop(action: actions.DropFiles, tab: OpenTab, found: Locator, what: str) -> str:
    """Drop files and folders on an element; return what was done.

    Raises:
        Refused: If a path does not exist, or the page takes no files there.
    """
    limit = milliseconds(action, TIMEOUT)
    files = await _check(action.files)
    if not files:
        raise Refused("Nothing can be dropped without a path", error="Refused")
    document = (await frame_of(found, limit)).locator(":root")
    key = secrets.token_hex(8)
    await ask(found, "listenToDrop", key, limit=limit)

    async def has_heard(name: str, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not await ask(document, "heardOfDrop", [key, name]):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_PAUSE)
        return True

    try:
        where = await _middle(tab, found, what)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}

        async def drag(kind: str) -> None:
            if tab.cdp is not None:
                await tab.cdp.send("Input.dispatchDragEvent", {"type": kind, **where, "data": data})

        await drag("dragEnter")
        accepted, end = False, time.monotonic() + _SEEN
        while not accepted and time.monotonic() < end:  # many drop zones appear only during a drag
            await drag("dragOver")
            accepted = await has_heard("over", _OVER)
        if not accepted:  # Chromium would open the file in place of the page
            await drag("dragCancel")
            raise Refused(f"The page takes no files at {what}: nothing there accepts what is dragged", error="Refused")
        await drag("drop")
        with contextlib.suppress(PlaywrightError):  # the page has navigated with it
            if not await has_heard("dropped", _SEEN):
                raise Refused(f"What was dropped on {what} did not arrive", error="Refused")
    finally:
        with contextlib.suppress(PlaywrightError):
            await ask(document, "endDrop", key)
    return f"Dropped {_names(files)} on {what}"


async def _check(files: Sequence[str]) -> list[Path]:
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_absolute():
            raise Refused(f"{str(path)!r} is not the absolute path of a file or folder", error="Refused")
        if not await asyncio.to_thread(path.exists):
            raise Refused(f"There is no file or folder {str(path)!r}", error="Refused")
    return paths


def _check_kind(files: Sequence[Path], takes: Any, what: str) -> None:
    folders = [file for file in files if file.is_dir()]
    if takes["folder"] and files and (len(files) > 1 or not folders):
        raise Refused(f"{what} takes one folder, and no files: give the path of a folder", error="Refused")
    if folders and not takes["folder"]:
        raise Refused(f"{what} takes files, and no folders: {str(folders[0])!r} is one", error="Refused")


async def _middle(tab: OpenTab, found: Locator, what: str) -> dict[str, float]:
    """Scroll an element into view, and return the middle of its visible part, in CSS pixels of the tab."""
    # Playwright's own scrolling waits for frames to be drawn, which a frame out of view never is.
    await ask(found, "scrollIntoView")
    width, height = await view_of(tab)
    before = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SEEN):
            while box := await found.bounding_box():
                left, right = max(box["x"], 0), min(box["x"] + box["width"], width)
                top, bottom = max(box["y"], 0), min(box["y"] + box["height"], height)
                if left < right and top < bottom and before == box:  # an element of a frame moves a moment later
                    return {"x": (left + right) / 2, "y": (top + bottom) / 2}
                before = box
                await asyncio.sleep(_PAUSE)
    raise Refused(f"{what} is not visible, or does not come into view", error="Refused")


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)
