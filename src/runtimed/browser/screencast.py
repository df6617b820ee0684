"""Live pictures of the active tab (CDP's screencast, JPEG), sent by Chromium when something changes.

They are taken only during a watch.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

if TYPE_CHECKING:
    from runtimed.browser.open_tab import OpenTab

__all__ = ["Frame", "Screencast"]

_PAUSE: Final = 0.05
"""Shortest time between two frames, in seconds."""

_BETWEEN_PAGES: Final = 0.05
"""Seconds after which a tab that was between two pages is asked again."""


class Frame(msgspec.Struct, frozen=True, eq=False):
    """A picture of a tab.

    Attributes:
        image: JPEG.
        width: Of the view, in CSS pixels.
        height: Of the view, in CSS pixels.
    """

    tab: str
    image: bytes
    width: int
    height: int


class Screencast:
    """Shows one tab at a time.

    Attributes:
        latest: The newest picture of the shown tab; None if there is none yet.
    """

    def __init__(self) -> None:
        self.latest: Frame | None = None
        self._active: OpenTab | None = None
        self._tab: OpenTab | None = None
        self._hearers: list[Callable[[Frame], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard: set[str] = set()
        self._held: asyncio.TimerHandle | None = None
        self._unanswered: int | None = None
        self._switches = 0
        self._telling = asyncio.Lock()

    def listen(self, hearer: Callable[[Frame], None]) -> Callable[[], None]:
        """Call a function with each picture; return a function that ends that."""
        self._hearers.append(hearer)
        self._direct()

        def end() -> None:
            self._hearers.remove(hearer)
            self._direct()

        return end

    def show(self, tab: OpenTab | None) -> None:
        """Show another tab from now on."""
        self._active = tab
        self._direct()

    def _direct(self) -> None:
        tab = self._active if self._hearers else None
        if tab is self._tab:
            return
        before, self._tab = self._tab, tab
        self.latest = None
        self._unanswered = None
        if self._held is not None:
            self._held.cancel()
        self._switches += 1
        self._spawn(self._switch(before, tab, self._switches))

    async def close(self) -> None:
        """Stop."""
        if self._held is not None:
            self._held.cancel()
        self._active = self._tab = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _switch(self, before: OpenTab | None, tab: OpenTab | None, number: int) -> None:
        if before is not None:
            await self._tell(before, "Page.stopScreencast", {}, lambda: True)
        if tab is None:
            return
        await tab.ready
        if tab.cdp is not None and tab.id not in self._heard:
            self._heard.add(tab.id)
            tab.cdp.on("Page.screencastFrame", lambda event: self._on_frame(tab, event))
        picture = {"format": "jpeg", "quality": 60, "maxWidth": 1280, "maxHeight": 1080}
        await self._tell(tab, "Page.startScreencast", picture, lambda: number == self._switches)

    async def _tell(self, tab: OpenTab, method: str, params: dict[str, Any], wanted: Callable[[], bool]) -> None:
        """Ask Chromium until it agrees, or until nobody watches any more."""
        async with self._telling:
            while tab.cdp is not None and not (tab.closed or tab.crashed) and wanted():
                with contextlib.suppress(PlaywrightError):
                    await tab.cdp.send(method, params)
                    break
                # It was just closed, or Chromium replaces its page and refuses meanwhile.
                await asyncio.sleep(_BETWEEN_PAGES)

    def _on_frame(self, tab: OpenTab, event: dict[str, Any]) -> None:
        if tab is not self._tab:
            return
        with contextlib.suppress(binascii.Error):
            metadata = event["metadata"]
            self.latest = Frame(
                tab.id,
                base64.b64decode(event["data"]),
                round(metadata["deviceWidth"]),
                round(metadata["deviceHeight"]),
            )
            for hearer in list(self._hearers):
                hearer(self.latest)
        # Chromium sends the next one once this one is acknowledged.
        self._unanswered = event["sessionId"]
        self._held = asyncio.get_running_loop().call_later(_PAUSE, self._answer)

    def _answer(self) -> None:
        tab, number, self._unanswered = self._tab, self._unanswered, None
        if self._held is not None:
            self._held.cancel()
        if tab is not None and tab.cdp is not None and number is not None:
            self._spawn(self._send_answer(tab, number))

    @staticmethod
    async def _send_answer(tab: OpenTab, number: int) -> None:
        if tab.cdp is not None:
            with contextlib.suppress(PlaywrightError):  # closed meanwhile
                await tab.cdp.send("Page.screencastFrameAck", {"sessionId": number})

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
