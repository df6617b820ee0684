"""Downloads: all of a browser's go into one folder, under names of their own. Nothing here starts one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cachetools import FIFOCache
from playwright.async_api import Error as PlaywrightError

from runtimed.browser.attached_client import Delivery
from runtimed.browser.filing import copy_into, move_into
from runtimed.browser.rates import Allowance
from runtimed.errors import BrowserError

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

__all__ = ["Download", "Downloads"]

logger = logging.getLogger(__name__)

_BURST: Final = 100
"""Number of downloads that may begin without an action that awaits them."""
_MAX_BYTES: Final = 8 * 2**30
"""Total bytes of a session's downloads without an action, above which no more of them begins."""
_HEARD: Final = 10.0
"""Seconds within which a download that another client has heard of is known here, too."""
_MAX_REMEMBERED: Final = 1000
"""Number of downloads whose paths are remembered; other clients get copies of these."""


class Download(msgspec.Struct):
    """One download.

    Attributes:
        is_asked_for: Whether an action awaits it.
        is_refused: Whether it is one too many, or downloads are off.
        is_told: Whether it is in the list of downloads. Those of too many are not.
        done: Resolves with the path of the file, or with None if it was cancelled or failed.
        error: Why there is no file, if known.
        assigning: The task that finds out whether an action awaits it.
    """

    url: str
    suggested: str
    done: asyncio.Future[Path | None]
    size: int = 0
    is_asked_for: bool = False
    is_refused: bool = False
    is_told: bool = True
    error: str | None = None
    assigning: asyncio.Task[None] | None = None


class Downloads:
    """The downloads of a browser.

    Args:
        folder: Where they go.
        told: The same folder, as clients see it.
        partial: Folder of incomplete ones.
        finished: Called with each that has ended, and its file; None if there is none.
        refused: Called for each that no action awaits and that is one too many.
        mask: Removes secrets and passwords from addresses and names.
        accepts: Whether downloads are on.
    """

    def __init__(
        self,
        folder: Path,
        told: Path,
        partial: Path,
        finished: Callable[[Download, Path | None], None],
        refused: Callable[[], None],
        mask: Callable[[str], str],
        *,
        accepts: bool,
    ) -> None:
        self._folder = folder
        self._told = told
        self._partial = partial
        self._finished = finished
        self._refused = refused
        self._numbers = Allowance(burst=_BURST, rate=1, total=10_000)
        self._bytes = 0
        self._mask = mask
        self._accepts = accepts
        self._known: FIFOCache[str, asyncio.Future[Download]] = FIFOCache(_MAX_REMEMBERED)
        self._next: dict[asyncio.Future[Download], tuple[Callable[[str], Awaitable[bool]], Callable[[str], bool]]] = {}
        self._works: set[asyncio.Task[None]] = set()

    async def watch(self, cdp: CDPSession) -> None:
        """Make Chromium put its downloads here and report them.

        Args:
            cdp: A DevTools session with the browser itself.

        Raises:
            BrowserError: If the folder cannot be created.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise BrowserError(f"Downloads cannot be put into {self._folder}: {exc.strerror}") from exc
        cdp.on("Browser.downloadWillBegin", lambda event: self._on_begin(cdp, event))
        cdp.on("Browser.downloadProgress", self._on_progress)
        await cdp.send(
            "Browser.setDownloadBehavior",
            {"behavior": "allowAndName", "downloadPath": str(self._partial), "eventsEnabled": True},
        )

    def expect(
        self, is_elsewhere: Callable[[str], Awaitable[bool]], is_meant: Callable[[str], bool] = lambda _: True
    ) -> asyncio.Future[Download]:
        """Return a future for the next download that begins.

        Args:
            is_elsewhere: Whether a frame, by Chromium's id, is another action's.
            is_meant: Whether an address is the one.
        """
        future: asyncio.Future[Download] = asyncio.get_running_loop().create_future()
        self._next[future] = is_elsewhere, is_meant
        future.add_done_callback(lambda done: self._next.pop(done, None))
        return future

    async def deliver(self, delivery: Delivery) -> None:
        """Copy a download to where another client expects it, once it has ended."""
        try:
            async with asyncio.timeout(_HEARD):
                download = await asyncio.shield(self._at(delivery.guid))
        except TimeoutError:
            return
        path = await asyncio.shield(download.done)
        if path is None:
            return  # the client finds no file either
        name = download.suggested if delivery.named else delivery.guid
        try:
            await asyncio.to_thread(copy_into, Path(delivery.folder), path, name)
        except OSError as exc:
            logger.warning("another client gets no copy of a download: %s", exc)

    async def close(self) -> None:
        """Wait until the complete files have their names. Idempotent."""
        await asyncio.gather(*self._works)

    def _at(self, guid: str) -> asyncio.Future[Download]:
        """Return a future for a download that another client may hear of first."""
        future = self._known.get(guid)
        if future is None:
            future = self._known[guid] = asyncio.get_running_loop().create_future()
        return future

    def _on_begin(self, cdp: CDPSession, event: dict[str, Any]) -> None:
        url, name = self._mask(event["url"]), self._mask(event["suggestedFilename"])
        download = Download(url, name, asyncio.get_running_loop().create_future())
        known = self._at(event["guid"])
        if known.done():
            return
        known.set_result(download)
        download.assigning = self._start(self._assign(download, cdp, event))

    async def _assign(self, download: Download, cdp: CDPSession, event: dict[str, Any]) -> None:
        """Give a download to the actions that await it, or refuse it."""
        expecting = [(one, where) for one, (where, is_meant) in self._next.items() if is_meant(event["url"])]
        elsewhere = await asyncio.gather(*(is_elsewhere(event["frameId"]) for _, is_elsewhere in expecting))
        waiting = [one for (one, _), not_its in zip(expecting, elsewhere, strict=True) if not (not_its or one.done())]
        download.is_asked_for = bool(waiting)
        if not self._accepts:
            download.error = "this session accepts none (accept_downloads)"
        few = bool(waiting) or (self._bytes < _MAX_BYTES and self._numbers.take(1, time.monotonic()))
        download.is_refused = not (few and self._accepts)
        download.is_told = few
        for future in waiting:
            future.set_result(download)
        if not few:
            self._refused()
        if download.is_refused:
            with contextlib.suppress(PlaywrightError):  # it is complete already, or Chromium is gone
                await cdp.send("Browser.cancelDownload", {"guid": event["guid"]})

    def _on_progress(self, event: dict[str, Any]) -> None:
        known = self._known.get(event["guid"])
        if event["state"] != "inProgress" and known is not None and known.done() and not known.result().done.done():
            self._start(self._end(known.result(), event))

    async def _end(self, download: Download, event: dict[str, Any]) -> None:
        """Move a finished download to its place, or note that it failed."""
        if download.assigning is not None:
            await download.assigning
        if download.done.done():
            return
        download.size = round(event["receivedBytes"])
        file = self._partial / event["guid"]
        if download.is_refused:
            file.unlink(missing_ok=True)  # a small one is complete before it is cancelled
            if download.is_told:
                self._finish(download, None)
            else:
                download.done.set_result(None)
            return
        if not download.is_asked_for:
            self._bytes += download.size
        if event["state"] != "completed":
            self._finish(download, None)
        elif Path(event.get("filePath", file)).parent != self._partial:
            download.done.set_result(None)  # of a browser context that another client made
        else:
            await self._file(download, file)

    async def _file(self, download: Download, file: Path) -> None:
        path = None
        try:
            path = await asyncio.to_thread(move_into, self._folder, file, download.suggested)
        except OSError as exc:
            download.error = f"it cannot be stored in {self._told}: {exc.strerror}"
        self._finish(download, None if path is None else self._told / path.name)

    def _finish(self, download: Download, path: Path | None) -> None:
        download.done.set_result(path)
        self._finished(download, path)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        return task
