"""Detects whether a page changes and receives its input during an action, invisibly to the page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

if TYPE_CHECKING:
    from playwright.async_api import CDPSession, Frame, JSHandle

    from runtimed.browser.open_tab import OpenTab
    from runtimed.browser.page_connection import PageConnection

__all__ = ["FrameWatches", "Watched", "end_watch", "free_input", "hears_keys", "is_pressed", "put_away", "start_watch"]

_SILENT: Final = 1.0
"""Seconds within which a frame must say whether it has changed: one that hangs must not hold up the others."""

# What listens stays in the document: whoever begins to listen to its scrolling has Chromium draw it anew, in the middle
# of the action (a click took 1.3 times as long).
_WATCH: Final = r"""() => {
  const question = `runtimed-${Math.random()}`;
  let events = 0, inputs = 0, presses = 0, answers = 0;
  const listen = () => {
    for (const type of ['input', 'change', 'scroll'])
      document.addEventListener(type, () => { events += 1; }, { capture: true, passive: true });
    for (const type of ['pointermove', 'pointerdown', 'keydown'])
      window.addEventListener(type, () => { inputs += 1; }, { capture: true, passive: true });
    window.addEventListener('pointerdown', () => { presses += 1; }, { capture: true, passive: true });
    window.addEventListener(question, () => { answers += 1; });
  };
  const listens = () => {
    const before = answers;
    window.dispatchEvent(new Event(question));
    return answers > before;
  };
  // An observer of the document does not see into shadow trees.
  const shadows = (tree, found = []) => {
    const walker = document.createTreeWalker(tree, NodeFilter.SHOW_ELEMENT);
    while (walker.nextNode()) {
      const inner = walker.currentNode.shadowRoot;
      if (inner) shadows(inner, found).push(inner);
    }
    return found;
  };
  const frames = 'iframe, frame, object, embed', hovered = frames.replaceAll(/\w+/g, '$&:hover');
  const watch = () => {
    if (!listens()) listen();  // `document.open()` takes all listeners away
    const [before, heard, pressed, x, y] = [events, inputs, presses, scrollX, scrollY];
    const elsewhere = () => document.activeElement?.matches(frames) || document.querySelector(hovered) !== null;
    let changes = 0;
    const observer = new MutationObserver(records => { changes += records.length; });
    const known = new Set(shadows(document));
    for (const tree of [document, ...known])
      observer.observe(tree, { subtree: true, childList: true, attributes: true, characterData: true });
    return { again: watch, stop: () => {
      changes += observer.takeRecords().length + events - before;
      changes += shadows(document).filter(tree => !known.has(tree)).length;
      if (x !== scrollX || y !== scrollY) changes += 1;  // the event comes with the next frame
      observer.disconnect();
      return [changes > 0, inputs > heard || elsewhere() || !listens()];
    },
    is_pressed: () => presses > pressed || elsewhere() || !listens(),
    is_under: (x, y) => [...document.querySelectorAll(':hover')].pop() === document.elementFromPoint(x, y) };
  };
  return watch();
}"""

_PRESSED: Final = {"functionDeclaration": "function () { return this.is_pressed(); }", "returnByValue": True}
_OVER: Final = {"functionDeclaration": "function () { return this.is_under(1, 1); }", "returnByValue": True}
_ALL_OPERATIONS: Final = 0xFFFF

_AGAIN: Final = {"functionDeclaration": "function () { return this.again(); }"}
_STOP: Final = {"functionDeclaration": "function () { return this.stop(); }", "returnByValue": True}

_KEYS: Final = "runtimed-keys"
_KEY_EVENTS: Final = frozenset({"keydown", "keypress", "keyup"})
_HEARERS: Final = ("window", "document", "document.documentElement", "document.body")
"""Listener for keys that are pressed while nothing has the focus."""


class Watched(msgspec.Struct, frozen=True):
    """The result of a watch.

    Attributes:
        changed: Whether the page changed.
        heard: Whether it got input, as far as known: input to a frame is not seen.
    """

    changed: bool
    heard: bool


async def start_watch(tab: OpenTab) -> str | None:
    """Begin to watch a page; None if it cannot be watched just now: it navigates, which is detected otherwise.

    Chromium is asked directly: Playwright's driver would answer nothing else meanwhile.
    """
    if tab.connection is None:
        return None
    if tab.first_watch is not None:
        with contextlib.suppress(PlaywrightError):  # its document is gone
            return _watch_in(
                await tab.connection.send("Runtime.callFunctionOn", {**_AGAIN, "objectId": tab.first_watch})
            )
    document = tab.document_key("")
    try:
        watch = _watch_in(await tab.connection.send("Runtime.evaluate", {"expression": f"({_WATCH})()"}))
    except PlaywrightError:
        return None
    if tab.document_key("") == document:  # it may have been left while the answer came
        tab.first_watch = watch
    return watch


def _watch_in(answer: dict[str, Any]) -> str | None:
    return None if "exceptionDetails" in answer else answer["result"]["objectId"]


async def end_watch(tab: OpenTab, watch: str) -> Watched:
    """Stop watching; return what was seen."""
    try:
        answer = await _connection(tab).send("Runtime.callFunctionOn", {**_STOP, "objectId": watch})
    except PlaywrightError:  # its document is gone
        return Watched(changed=True, heard=True)
    changed, heard = answer["result"].get("value") or (True, True)
    return Watched(changed=changed, heard=heard)


class FrameWatches:
    """Watches of a page's frames: the page itself does not notice what happens in those of other sites.

    Args:
        frames: The frames.
        first: The first watch of the document in each, with which later ones begin; gets those that it lacks.
    """

    def __init__(self, frames: Sequence[Frame], first: MutableMapping[Frame, JSHandle]) -> None:
        self._first = first
        self._watching = [(frame, asyncio.create_task(self._start(frame))) for frame in frames]
        self._ending: set[asyncio.Task[bool]] = set()

    async def end(self) -> bool:
        """Stop watching; return whether a frame has changed, as far as they say so. Idempotent."""
        self._ending |= {asyncio.create_task(self._end(frame, starting)) for frame, starting in self._watching}
        self._watching.clear()
        if not self._ending:
            return False
        told, _ = await asyncio.wait(self._ending, timeout=_SILENT)
        return any(one.result() for one in told)

    async def _start(self, frame: Frame) -> JSHandle | None:
        first = self._first.get(frame)
        if first is not None:
            with contextlib.suppress(PlaywrightError):  # its document is gone
                return await first.evaluate_handle("watch => watch.again()")
        try:
            watch = await frame.evaluate_handle(_WATCH)
        except PlaywrightError:  # it navigates, which is detected otherwise
            return None
        self._first[frame] = watch
        return watch

    async def _end(self, frame: Frame, starting: asyncio.Task[JSHandle | None]) -> bool:
        watch = await starting
        if watch is None:
            return False
        try:
            changed, _ = await watch.evaluate("watch => watch.stop()")
            if watch != self._first.get(frame):
                await watch.dispose()
        except PlaywrightError:  # its document is gone
            return True
        return bool(changed)


async def is_pressed(tab: OpenTab, watching: asyncio.Future[str | None]) -> bool:
    """Whether a page has been clicked since a watch began, as far as known."""
    watch = await watching
    if watch is None:
        return True
    try:
        answer = await _connection(tab).send("Runtime.callFunctionOn", {**_PRESSED, "objectId": watch})
    except PlaywrightError:  # the click has led to another page
        return True
    return bool(answer["result"].get("value", True))


async def free_input(tab: OpenTab) -> bool:
    """End a drag that keeps a page from getting any input; return whether there was one.

    An attached client may have left one behind: Chromium confirms everybody's clicks and keys then, and the page gets
    none of them.
    """
    watch = await start_watch(tab)
    if watch is None:
        return False
    for x in (2, 1):
        await _of_page(tab).send("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": 1})
    # A page can hide events from us, but not what the pointer is over.
    over = await _connection(tab).send("Runtime.callFunctionOn", {**_OVER, "objectId": watch})
    heard = (await end_watch(tab, watch)).heard or bool(over["result"].get("value", True))
    if not heard:
        data = {"items": [], "dragOperationsMask": _ALL_OPERATIONS}
        await _of_page(tab).send("Input.dispatchDragEvent", {"type": "dragCancel", "x": 0, "y": 0, "data": data})
    return not heard


async def hears_keys(tab: OpenTab) -> bool:
    """Whether a page listens for keys, wherever the focus is; our own listeners are passive."""
    if tab.cdp is None:
        return True
    cdp = tab.cdp

    async def listens(name: str) -> bool:
        answer = await cdp.send("Runtime.evaluate", {"expression": name, "objectGroup": _KEYS})
        if (found := answer["result"].get("objectId")) is None:
            return False
        told = await cdp.send("DOMDebugger.getEventListeners", {"objectId": found})
        return any(one["type"] in _KEY_EVENTS and not one["passive"] for one in told["listeners"])

    try:
        return any(await asyncio.gather(*map(listens, _HEARERS)))
    except PlaywrightError:  # the page is another one now
        return True
    finally:
        with contextlib.suppress(PlaywrightError):
            await cdp.send("Runtime.releaseObjectGroup", {"objectGroup": _KEYS})


async def put_away(tab: OpenTab, watching: asyncio.Future[str | None], frames: FrameWatches, *, stopped: bool) -> None:
    """Leave nothing of a watch in the page but what the next one begins with."""
    await frames.end()
    watch = await watching
    if watch is not None:
        if not stopped:
            await end_watch(tab, watch)
        if watch != tab.first_watch:
            await _connection(tab).send("Runtime.releaseObject", {"objectId": watch})


def _of_page(tab: OpenTab) -> CDPSession:
    if tab.cdp is None:
        raise AssertionError("a tab that was watched has its session")
    return tab.cdp


def _connection(tab: OpenTab) -> PageConnection:
    if tab.connection is None:
        raise AssertionError("a tab that was watched has its connection")
    return tab.connection
