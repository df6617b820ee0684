"""The browser of a host through its life: start and end, and the events about both.

`BrowserServer` handles a daemon's requests in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from runtimed.browser.bootstrap import BrowserBootstrap
from runtimed.browser.engine import Browser
from runtimed.browser.lifespan import Lifespan
from runtimed.browser.profiles import kept_profile
from runtimed.browser.recorded import record
from runtimed.errors import BrowserError, RuntimedError, StorageError, wire_name
from runtimed.host.guard import Guard
from runtimed.host.outbox import Outbox
from runtimed.lifecycle import Limits
from runtimed.pages import BrowserConfig, LogEntry
from runtimed.protocol.events import Blob, BrowserLogged, BrowserState, BrowserUsed
from runtimed.protocol.host_operations import HostBecomeBrowser

__all__ = ["HostedBrowser"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

CLOSE_DEADLINE: Final = 8.0
"""Seconds for a browser to end by itself, and its cookies and its log to be written; then it is killed."""

TOGETHER: Final = 0.05
"""Seconds for which events of pages are collected, or until the end of an action: a page that loads sends a hundred
requests, and each would cost a write here and a commit in the daemon.
"""

USED_EVERY: Final = 0.2
"""Least seconds between two reports to the daemon that the browser is used through the relay."""


class HostedBrowser:
    """The one browser of this host; it is started once.

    Args:
        bootstrap: The configuration.
        outbox: Takes the events.
        store: Stores the pictures of the action log; may raise StorageError.
        guard: Kills Chromium when the host dies.

    Attributes:
        is_spare: See `Owned`.
        owned: See `Owned`.
        dead: Set once it is dead for good, and its end was reported.
        used_at: Unix time of its last use through the relay; 0 for never.
        lifespan: See `BrowserListener`.
    """

    def __init__(
        self, bootstrap: BrowserBootstrap, outbox: Outbox, store: Callable[[bytes], str], guard: Guard
    ) -> None:
        self._bootstrap = bootstrap
        self._outbox = outbox
        self._store = store
        self._guard = guard
        self._browser: Browser | None = None
        self._spare: asyncio.Future[Browser] = asyncio.get_running_loop().create_future()
        self._unwanted = asyncio.Event()
        self._stop_reason: str | None = None
        self._stop_expected = True
        self._end: str | None = None
        self._works: set[asyncio.Task[Any]] = set()
        self._logs_soon = False
        self.is_spare = bootstrap.spare
        self.owned = asyncio.Event()
        self.dead = asyncio.Event()
        self.used_at = 0.0
        self.lifespan = _lifespan(bootstrap)
        self.status: Literal["starting", "ready", "dead"] = "starting"
        self.pid: int | None = None

    @property
    def label(self) -> str:
        """See `Owned`."""
        return self._bootstrap.notebook_label

    @property
    def kept_profile(self) -> str | None:
        """See `profiles.kept_profile`."""
        return kept_profile(self._bootstrap.config)

    # --- its life ---

    async def run(self) -> None:
        """Start it; return when it is dead for good."""
        unwanted = asyncio.create_task(self._unwanted.wait())
        try:
            browser = await (self._spared(unwanted) if self.is_spare else self._opened(unwanted))
            if browser is not None:
                await self._see_through(browser, unwanted)
        finally:
            unwanted.cancel()
        self._guard.watch(None, None)
        self.dead.set()

    async def _begin(self, how: Callable[[BrowserConfig, Path, HostedBrowser], Awaitable[Browser]]) -> Browser:
        config = msgspec.convert(self._bootstrap.config, BrowserConfig)
        return await how(config, Path(self._bootstrap.session_dir), self)

    async def _opened(self, unwanted: asyncio.Task[Any]) -> Browser | None:
        """Return the browser once it can be used; None if it did not start, which is reported."""
        try:
            self._say_starting()
            return await _unless(unwanted, self._begin(Browser.open))
        except asyncio.CancelledError:
            self._die(self._stop_reason, expected=self._stop_expected)
        except RuntimedError as exc:
            self._die(exc.message, expected=False, error=wire_name(exc), data=exc.data)
        except Exception as exc:
            logger.exception("the browser did not start")
            self._die(f"The browser did not start: {type(exc).__name__}: {exc}", expected=False)
        return None

    async def _spared(self, unwanted: asyncio.Task[Any]) -> Browser | None:
        """Return a spare browser once it is a session's; None if it ends, which is not reported."""
        try:
            browser = await _unless(unwanted, self._begin(Browser.warm))
        except asyncio.CancelledError:
            logger.info("the spare ends before it is warm")
        except Exception:
            logger.exception("no spare can be made")
        else:
            self._spare.set_result(browser)
            owned = asyncio.create_task(self.owned.wait())
            ends: set[asyncio.Future[Any]] = {owned, browser.ended, unwanted}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            owned.cancel()
            if self.owned.is_set():
                self._say_starting()
                return browser
            logger.info("the spare ends %s", browser.ended.result() if browser.ended.done() else "")
            # First: a hand-over in progress would wait without end for what is ended here.
            self._end_works("it is a spare that ends")
            await self._close(browser, browser.discard)
        self._unwanted.set()
        self._spare.cancel()
        await asyncio.to_thread(shutil.rmtree, self._bootstrap.session_dir, ignore_errors=True)
        return None

    async def warm(self) -> None:
        """Return when this spare can be driven.

        Raises:
            BrowserError: If it is no spare, or has ended.
        """
        await asyncio.wait({self._spare})
        self._check_spare()

    async def become(self, owner: HostBecomeBrowser) -> None:
        """Become a session's browser.

        Raises:
            BrowserError: If this is no spare, or one that has ended, or the session's config is invalid. It must be
                ended then.
        """
        browser = self._check_spare()
        config = msgspec.convert(owner.config, BrowserConfig)
        named = msgspec.structs.replace(
            self._bootstrap,
            spare=False,
            config=owner.config,
            notebook_label=owner.notebook_label,
            timeout_minutes=owner.timeout_minutes,
            max_duration_minutes=owner.max_duration_minutes,
        )
        self.lifespan = _lifespan(named)
        await browser.become(config, Path(owner.session_dir))
        self._check_spare()
        self._give_folder(Path(owner.session_dir))
        os.environ.clear()
        os.environ.update(owner.environment)
        self._bootstrap = named
        self.is_spare = False
        self.owned.set()
        logger.info("this spare is the browser of the session %r now", owner.notebook_label)

    def _give_folder(self, session_dir: Path) -> None:
        """Make the spare's folder the session's, which must have none. The step is atomic.

        Chromium keeps absolute paths, so the folder cannot be renamed.
        """
        try:
            session_dir.symlink_to(Path(self._bootstrap.session_dir).name)
        except OSError as exc:
            raise BrowserError(f"This spare browser cannot be used: {exc}") from exc

    def _check_spare(self) -> Browser:
        if not self.is_spare or self._unwanted.is_set() or self._spare.cancelled() or not self._spare.done():
            raise BrowserError("This is no spare browser, or it has ended")
        browser = self._spare.result()
        if browser.ended.done():
            raise BrowserError(f"This spare browser has ended: {browser.ended.result()}")
        return browser

    async def _see_through(self, browser: Browser, unwanted: asyncio.Task[Any]) -> None:
        """Report that it can be used, and follow it to its end."""
        self._browser = browser
        self._state("ready")
        await asyncio.wait({browser.ended, unwanted}, return_when=asyncio.FIRST_COMPLETED)
        died = not self._unwanted.is_set()
        if died:
            self.lifespan.died = browser.ended.result()
            # First: a client that waits for it should learn of its end at once.
            self._die(browser.ended.result(), expected=False)
        else:
            self._end_works(self._stop_reason)
        await self._close(browser, browser.close)
        if not died:
            self._die(self._stop_reason, expected=self._stop_expected)

    async def _close(self, browser: Browser, how: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                await how()
        except Exception:
            logger.exception("the browser did not end as it should within %.0f seconds; it is killed", CLOSE_DEADLINE)
            if not browser.ended.done():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(browser.pid, signal.SIGKILL)

    def _die(self, reason: str | None, *, expected: bool, **fields: Any) -> None:
        """Report its end."""
        self._end_works(reason)
        self.pid = None
        self._state("dead", expected=expected, reason=reason, **fields)

    def _end_works(self, reason: str | None) -> None:
        """Refuse requests from now on, and end those in progress."""
        self._browser = None
        self._end = reason or "it was stopped"
        for work in self._works:
            work.cancel()

    def _say_starting(self) -> None:
        self._state("starting", config=record(msgspec.convert(self._bootstrap.config, BrowserConfig)))

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
        """See `Owned`: log entries are dropped meanwhile."""

    # --- what is asked of it ---

    @property
    def browser(self) -> Browser:
        """The browser, while it can be used.

        Raises:
            BrowserError: If it cannot be used.
        """
        if self._browser is None:
            raise self._ended() if self._end is not None else BrowserError("The browser is still starting")
        return self._browser

    def work(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a client's request; it ends with the browser."""
        lifespan = self.lifespan  # a spare's becomes a session's
        lifespan.begin()
        task = asyncio.create_task(self._translated(coroutine))
        self._works.add(task)
        task.add_done_callback(self._worked)
        task.add_done_callback(lambda _task: lifespan.end(time.time()))
        return task

    async def _translated(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._end is not None:
                raise self._ended() from None
            raise

    def _ended(self) -> BrowserError:
        return BrowserError(f"The browser has ended: {self._end}")

    def _worked(self, task: asyncio.Task[Any]) -> None:
        self._works.discard(task)
        if not task.cancelled():
            task.exception()  # it is raised to the waiters, who may be gone

    # --- what it tells ---

    def started(self, pid: int) -> None:
        """See `BrowserListener`."""
        self.pid = pid
        self._guard.watch(pid, None)

    def used(self) -> None:
        """See `BrowserListener`."""
        now = time.time()
        self.lifespan.use(now)
        if abs(now - self.used_at) >= USED_EVERY:
            self.used_at = now
            self._outbox.tell(BrowserUsed(at=now))

    def logged(self, entry: LogEntry) -> None:
        """See `BrowserListener`."""
        if self.is_spare or self._outbox.stuck or (self._outbox.crowded and entry.kind != "action"):
            return  # nobody would take those of a spare that ends at its hand-over, and the host would wait for that
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


def _lifespan(bootstrap: BrowserBootstrap) -> Lifespan:
    limits = Limits(timeout_minutes=bootstrap.timeout_minutes, max_duration_minutes=bootstrap.max_duration_minutes)
    return Lifespan(bootstrap.notebook_label, limits, time.time())


async def _unless(unwanted: asyncio.Task[Any], work: Coroutine[Any, Any, Browser]) -> Browser:
    """Await something until it is done, or not wanted any more: then it is cancelled."""
    task = asyncio.create_task(work)
    await asyncio.wait({task, unwanted}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
    return await task
