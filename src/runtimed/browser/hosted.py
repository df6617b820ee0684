"""The browser of a host through its life: its start, its end, and what is said of each.

What a daemon asks of it in between is told apart by `BrowserServer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec

from runtimed.browser.bootstrap import BrowserBootstrap
from runtimed.browser.engine import Browser
from runtimed.errors import BrowserError, RuntimedError, StorageError
from runtimed.host.guard import Guard
from runtimed.host.outbox import Outbox
from runtimed.pages import BrowserConfig, LogEntry
from runtimed.protocol.events import Blob, BrowserLogged, BrowserState, BrowserUsed

__all__ = ["HostedBrowser"]

logger = logging.getLogger(__name__)

CLOSE_DEADLINE: Final = 8.0
"""Seconds that a browser gets to end by itself, and its cookies and its log to be written; then it is killed."""

TOGETHER: Final = 0.05
"""Seconds for which what pages do by themselves waits for more of it, or for the end of an action: a page that loads
asks for a hundred things, and each would cost a write here and a commit in the daemon."""

USED_EVERY: Final = 0.2
"""Seconds between two words to the daemon that the browser is used by way of the relay."""


class HostedBrowser:
    """The one browser of this host; it is started once.

    Args:
        bootstrap: What to start.
        outbox: Takes the events.
        store: Takes the pictures of the action log; may raise StorageError.
        guard: Takes Chromium along when the host dies.

    Attributes:
        is_spare: See `Owned`.
        owned: See `Owned`.
        dead: Set when it is dead for good, and has been said to be.
        used_at: Unix time at which it was last used by way of the relay; 0 for never.
    """

    def __init__(
        self, bootstrap: BrowserBootstrap, outbox: Outbox, store: Callable[[bytes], str], guard: Guard
    ) -> None:
        self._bootstrap = bootstrap
        self._outbox = outbox
        self._store = store
        self._guard = guard
        self._browser: Browser | None = None
        self._unwanted = asyncio.Event()
        self._stop_reason: str | None = None
        self._stop_expected = True
        self._end: str | None = None
        self._works: set[asyncio.Task[Any]] = set()
        self._logs_soon = False
        self.is_spare = False
        self.owned = asyncio.Event()
        self.dead = asyncio.Event()
        self.used_at = 0.0
        self.status = "starting"
        self.pid: int | None = None

    @property
    def label(self) -> str:
        """See `Owned`."""
        return self._bootstrap.notebook_label

    # --- its life ---

    async def run(self) -> None:
        """Start it; return when it is dead for good."""
        self._state("starting")
        opening = asyncio.create_task(self._open())
        unwanted = asyncio.create_task(self._unwanted.wait())
        try:
            await asyncio.wait({opening, unwanted}, return_when=asyncio.FIRST_COMPLETED)
            browser = await self._opened(opening)
            if browser is not None:
                await self._see_through(browser, unwanted)
        finally:
            unwanted.cancel()
        self._guard.watch(None, None)
        self.dead.set()

    async def _open(self) -> Browser:
        config = msgspec.convert(self._bootstrap.config, BrowserConfig)
        return await Browser.open(config, Path(self._bootstrap.session_dir), self)

    async def _opened(self, opening: asyncio.Task[Browser]) -> Browser | None:
        """Return the browser once it can be used; None if it did not start, which is said."""
        if not opening.done():
            opening.cancel()
        try:
            return await opening
        except asyncio.CancelledError:
            self._die(self._stop_reason, expected=self._stop_expected)
        except RuntimedError as exc:
            self._die(exc.message, expected=False)
        except Exception as exc:
            logger.exception("the browser did not start")
            self._die(f"The browser did not start: {type(exc).__name__}: {exc}", expected=False)
        return None

    async def _see_through(self, browser: Browser, unwanted: asyncio.Task[Any]) -> None:
        """Say that it can be used, and see it through to its end."""
        self._browser = browser
        self._state("ready")
        await asyncio.wait({browser.ended, unwanted}, return_when=asyncio.FIRST_COMPLETED)
        died = not self._unwanted.is_set()
        if died:
            # First: whoever waits for it should hear of its end at once.
            self._die(browser.ended.result(), expected=False)
        else:
            self._end_works(self._stop_reason)
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                await browser.close()
        except Exception:
            logger.exception("the browser did not end as it should within %.0f seconds; it is killed", CLOSE_DEADLINE)
            if not browser.ended.done():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(browser.pid, signal.SIGKILL)
        if not died:
            self._die(self._stop_reason, expected=self._stop_expected)

    def _die(self, reason: str | None, *, expected: bool) -> None:
        """Say that it has ended."""
        self._end_works(reason)
        self.pid = None
        self._state("dead", expected=expected, reason=reason)

    def _end_works(self, reason: str | None) -> None:
        """From now on nothing can be asked of it, and what was asked ends."""
        self._browser = None
        self._end = reason or "it was stopped"
        for work in self._works:
            work.cancel()

    def _state(self, status: Any, **fields: Any) -> None:
        self.status = status
        self._outbox.add(BrowserState(at=time.time(), status=status, pid=self.pid, **fields))
        self._outbox.flush()

    def stop(self, reason: str | None = None, *, expected: bool = True) -> Awaitable[object]:
        """See `Owned`."""
        if not self._unwanted.is_set():
            self._stop_reason, self._stop_expected = reason, expected
            self._unwanted.set()
        return self.dead.wait()

    def kill(self) -> None:
        """See `Owned`."""
        self.stop("The host's folder is gone", expected=False)

    def storage_changed(self) -> None:
        """See `Owned`: what it logs is let go of meanwhile."""

    # --- what is asked of it ---

    @property
    def browser(self) -> Browser:
        """The browser, while it can be used.

        Raises:
            BrowserError: If it cannot.
        """
        if self._browser is None:
            raise self._ended() if self._end is not None else BrowserError("The browser is still starting")
        return self._browser

    def work(self, coroutine: Coroutine[Any, Any, dict[str, Any]]) -> asyncio.Task[dict[str, Any]]:
        """Begin what somebody asks of it; it ends with the browser."""
        task = asyncio.create_task(self._translated(coroutine))
        self._works.add(task)
        task.add_done_callback(self._worked)
        return task

    async def _translated(self, coroutine: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._end is not None:
                raise self._ended() from None
            raise

    def _ended(self) -> BrowserError:
        return BrowserError(f"The browser has ended: {self._end}")

    def _worked(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._works.discard(task)
        if not task.cancelled():
            task.exception()  # it is raised to those who wait, who may be gone

    # --- what it tells ---

    def started(self, pid: int) -> None:
        """See `BrowserListener`."""
        self.pid = pid
        self._guard.watch(pid, None)

    def used(self) -> None:
        """See `BrowserListener`."""
        now = time.time()
        if abs(now - self.used_at) >= USED_EVERY:
            self.used_at = now
            self._outbox.tell(BrowserUsed(at=now))

    def logged(self, entry: LogEntry) -> None:
        """See `BrowserListener`."""
        if self._outbox.stuck or (self._outbox.crowded and entry.kind != "action"):
            return
        image = None
        if entry.image is not None:
            try:
                image = Blob(self._store(entry.image), len(entry.image), text=False)
            except StorageError as exc:
                logger.warning("a picture of the action log is left out: %s", exc)
        plain = msgspec.to_builtins(msgspec.structs.replace(entry, image=None))
        self._outbox.add(BrowserLogged(at=entry.at.timestamp(), entry=plain, image=image))
        if entry.kind == "action":
            self._outbox.flush()
        elif not self._logs_soon:
            self._logs_soon = True
            asyncio.get_running_loop().call_later(TOGETHER, self._log_now)

    def _log_now(self) -> None:
        self._logs_soon = False
        self._outbox.flush()
