"""Hands files and folders of this machine to pages: to file inputs, or dropped on an element as by a file manager."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.browser.doing import TIMEOUT, Refused, milliseconds
from runtimed.browser.tabs import OpenTab

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, FileChooser, Locator

__all__ = ["drop", "upload"]

_SEEN: Final = 1.0
"""Seconds in which a page sees what is dragged over it."""

_OVER: Final = 0.1
"""Seconds between two of the events that tell a page what is over it."""

_PAUSE: Final = 0.02
"""Seconds between two looks at where an element is."""

_INPUT: Final = """element => {
  const input = element.control ?? element;
  return input.type === 'file' ? { folder: input.webkitdirectory } : null;
}"""

_EMPTY: Final = """element => {
  const input = element.control ?? element;
  input.value = '';
  for (const name of ['input', 'change']) input.dispatchEvent(new Event(name, { bubbles: true }));
}"""

# What the page makes of it shows when the event is over: microtasks would run between two listeners.
_LISTEN: Final = """element => {
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
  return heard;
}"""

_HEARD: Final = """(heard, [name, seconds]) => new Promise(done => {
  const end = performance.now() + seconds * 1000;
  const look = () => heard[name] || performance.now() > end ? done(heard[name]) : setTimeout(look, 10);
  look();
})"""


async def upload(action: actions.UploadFile, tab: OpenTab, found: Locator, what: str) -> str:
    """Give files, or a folder, to a file input, or to what opens a file chooser; return what was done.

    Raises:
        Refused: If a path names nothing, or the input takes no folders, or nothing but a folder.
    """
    limit = milliseconds(action, TIMEOUT)
    files = await _check(action.files)
    takes = await found.evaluate(_INPUT, timeout=limit)
    if takes is not None:
        _check_kind(files, takes, what)
        if files or not takes["folder"]:
            await found.set_input_files(files, timeout=limit)
        else:  # which Playwright refuses
            await found.evaluate(_EMPTY, timeout=limit)
    else:
        chooser = await _open_chooser(tab, found, what, limit)
        _check_kind(files, await _takes(chooser.element), what)
        await chooser.set_files(files, timeout=limit)
    return f"Gave {_names(files)} to {what}" if files else f"Took all files from {what}"


async def _open_chooser(tab: OpenTab, found: Locator, what: str, limit: float) -> FileChooser:
    """Click what opens a file chooser.

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
        Refused: If a path names nothing, or the page takes no files there.
    """
    limit = milliseconds(action, TIMEOUT)
    files = await _check(action.files)
    if not files:
        raise Refused("Nothing can be dropped without a path", error="Refused")
    heard = await found.evaluate_handle(_LISTEN, timeout=limit)
    try:
        where = await _middle(tab, found, what)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}

        async def drag(kind: str) -> None:
            if tab.cdp is not None:
                await tab.cdp.send("Input.dispatchDragEvent", {"type": kind, **where, "data": data})

        await drag("dragEnter")
        accepted, end = False, time.monotonic() + _SEEN
        while not accepted and time.monotonic() < end:  # many a zone is made when something is dragged over the page
            await drag("dragOver")
            accepted = await heard.evaluate(_HEARD, ["over", _OVER])
        if not accepted:  # Chromium would open the file in the place of the page
            await drag("dragCancel")
            raise Refused(f"The page takes no files at {what}: nothing there accepts what is dragged", error="Refused")
        await drag("drop")
        with contextlib.suppress(PlaywrightError):  # the page has gone elsewhere with it
            if not await heard.evaluate(_HEARD, ["dropped", _SEEN]):
                raise Refused(f"What was dropped on {what} did not arrive", error="Refused")
    finally:
        with contextlib.suppress(PlaywrightError):
            await heard.evaluate("heard => heard.end()")
            await heard.dispose()
    return f"Dropped {_names(files)} on {what}"


async def _check(files: Sequence[str]) -> list[Path]:
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_absolute() or not await asyncio.to_thread(path.exists):
            raise Refused(f"{str(path)!r} is not the absolute path of a file or folder", error="Refused")
    return paths


def _check_kind(files: Sequence[Path], takes: Any, what: str) -> None:
    folders = [file for file in files if file.is_dir()]
    if takes["folder"] and files and (len(files) > 1 or not folders):
        raise Refused(f"{what} takes one folder, and no files: give the path of a folder", error="Refused")
    if folders and not takes["folder"]:
        raise Refused(f"{what} takes files, and no folders: {str(folders[0])!r} is one", error="Refused")


async def _takes(element: ElementHandle) -> Any:
    return await element.evaluate(_INPUT)


async def _middle(tab: OpenTab, found: Locator, what: str) -> dict[str, float]:
    """Bring an element into view, and return the middle of what is seen of it, in CSS pixels of the tab."""
    # Playwright's own scrolling waits for frames to be drawn, which a frame out of view never is.
    await found.evaluate("element => element.scrollIntoViewIfNeeded(true)")
    width, height = await tab.page.evaluate("[innerWidth, innerHeight]")
    before = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SEEN):
            while box := await found.bounding_box():
                left, right = max(box["x"], 0), min(box["x"] + box["width"], width)
                top, bottom = max(box["y"], 0), min(box["y"] + box["height"], height)
                if left < right and top < bottom and before == box:  # of a frame, it comes into view a moment later
                    return {"x": (left + right) / 2, "y": (top + bottom) / 2}
                before = box
                await asyncio.sleep(_PAUSE)
    raise Refused(f"{what} is not visible, or does not come into view", error="Refused")


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)
