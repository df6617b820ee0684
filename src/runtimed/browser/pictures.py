"""Pictures for the action log: how the page looked before an action and after it.

A picture never delays an action: it is taken once the browser has been idle for a moment, so actions in quick
succession share one. Chromium's screencast would slow each repaint (measured: a `fill` took 1.7 times as long), so it
runs only during a watch.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Final

from playwright.async_api import Error as PlaywrightError

from runtimed.browser.action_log import ActionLog
from runtimed.browser.open_tab import OpenTab
from runtimed.browser.tabs import Tabs
from runtimed.errors import BrowserError

__all__ = ["Pictures"]

logger = logging.getLogger(__name__)

_QUIET: Final = 0.2
"""Idle seconds after which a picture is taken."""
_LONGEST: Final = 5.0
"""Seconds after which one is taken though the browser is busy."""
_LAST: Final = 1.0
"""Time limit of the last one, in seconds."""

# Without a clip: a scaled one would scale the whole view, also for watchers.
_REQUEST: Final = {"format": "jpeg", "quality": 50, "optimizeForSpeed": True}


class Pictures:
    """Takes pictures of the active tab for the log.

    Args:
        tabs: The tabs.
        log: Gets the pictures.
    """

    def __init__(self, tabs: Tabs, log: ActionLog) -> None:
        self._tabs = tabs
        self._log = log
        self._action = 0
        self._spare: tuple[OpenTab, bytes] | None = None  # taken since the last action, and not in the log yet
        self._last: bytes | None = None
        self._wanted_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._taking: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Take none while a page is read, which would wait for it, unless that takes long."""
        self._wait(_LONGEST)
        try:
            yield
        finally:
            self.touch()

    def touch(self) -> None:
        """Note a request to the browser, after which it may look different."""
        self._wait(_QUIET)

    def _wait(self, longest: float) -> None:
        now = time.monotonic()
        if self._wanted_since is None:
            self._wanted_since = now
        if self._timer is not None:
            self._timer.cancel()
        wait = min(longest, max(0.0, self._wanted_since + _LONGEST - now))
        self._timer = asyncio.get_running_loop().call_later(wait, self._begin)

    def performed(self, action: int) -> None:
        """Note the end of an action, which has this number in the log."""
        spare, self._spare = self._spare, None
        if spare is not None:
            self._log.add("picture", spare[0].id, "", action=action, moment="before", image=spare[1])
        self._action = action
        self.touch()

    async def close(self) -> None:
        """Take the last picture if one is due; none afterwards."""
        if self._timer is not None:
            self._timer.cancel()
            if self._taking is None:
                self._begin()
        if self._taking is not None:
            taking = self._taking
            await asyncio.wait([taking], timeout=_LAST)
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    def _begin(self) -> None:
        self._timer = None
        if self._taking is None:
            self._wanted_since = None
            self._taking = asyncio.create_task(self._take())
            self._taking.add_done_callback(self._taken)
        else:
            self.touch()

    def _taken(self, _task: asyncio.Task[None]) -> None:
        self._taking = None

    async def _take(self) -> None:
        tab, action = self._tabs.latest, self._action
        if tab is None or tab.cdp is None or tab.dialog is not None:
            return
        try:
            async with asyncio.timeout(_LONGEST):
                answer = await tab.run(tab.cdp.send("Page.captureScreenshot", _REQUEST))
        except (PlaywrightError, BrowserError, TimeoutError) as exc:
            logger.debug("no picture of %s: %s", tab.id, exc)
            return
        image = base64.b64decode(answer["data"])
        if image == self._last:
            return
        self._last = image
        if action:
            self._log.add("picture", tab.id, "", action=action, moment="after", image=image)
            if self._action == action:
                self._action = 0
        else:
            self._spare = (tab, image)
