"""Downloads: all of a browser's go into one folder, under names that are their own. Nothing here starts one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

from runtimed.browser.rates import Allowance

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

__all__ = ["Download", "Downloads"]

_LONGEST_NAME: Final = 150
_BURST: Final = 100
"""So many downloads that no action waits for may begin at once."""
_MAX_BYTES: Final = 8 * 2**30
"""When the downloads of a session that no action waits for are larger altogether, no more of them begins."""


class Download(msgspec.Struct):
    """One download.

    Attributes:
        is_asked_for: Whether an action waits for it.
        done: Resolves with the path of the file, or with None if it was cancelled or failed.
    """

    url: str
    suggested: str
    done: asyncio.Future[Path | None]
    size: int = 0
    is_asked_for: bool = False


class Downloads:
    """The downloads of a browser.

    Args:
        folder: Where they go.
        partial: Where they are while they are not whole; on the same file system.
        finished: Called with each that has ended, and its file; None if there is none.
        refused: Called for each that no action waits for and that is one too many.
        mask: Takes secrets and passwords out of addresses and names.
    """

    def __init__(
        self,
        folder: Path,
        partial: Path,
        finished: Callable[[Download, Path | None], None],
        refused: Callable[[], None],
        mask: Callable[[str], str],
    ) -> None:
        self.folder = folder
        self._partial = partial
        self._finished = finished
        self._refused = refused
        self._numbers = Allowance(burst=_BURST, rate=1, total=10_000)
        self._bytes = 0
        self._cancelled: set[str] = set()
        self._cancelling: set[asyncio.Task[None]] = set()
        self._mask = mask
        self._running: dict[str, Download] = {}
        self._next: list[asyncio.Future[Download]] = []

    async def watch(self, cdp: CDPSession) -> None:
        """Make Chromium put its downloads here and tell of them.

        Args:
            cdp: Talks to the browser itself, not to a tab.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        cdp.on("Browser.downloadWillBegin", lambda event: self._on_begin(cdp, event))
        cdp.on("Browser.downloadProgress", self._on_progress)
        await cdp.send(
            "Browser.setDownloadBehavior",
            {"behavior": "allowAndName", "downloadPath": str(self._partial), "eventsEnabled": True},
        )

    def expect(self) -> asyncio.Future[Download]:
        """Return a future for the next download that begins."""
        future: asyncio.Future[Download] = asyncio.get_running_loop().create_future()
        self._next.append(future)
        return future

    def _on_begin(self, cdp: CDPSession, event: dict[str, Any]) -> None:
        url, name = self._mask(event["url"]), self._mask(event["suggestedFilename"])
        download = Download(url, name, asyncio.get_running_loop().create_future())
        waiting, self._next = [future for future in self._next if not future.done()], []
        if not (waiting or (self._bytes < _MAX_BYTES and self._numbers.take(1, time.monotonic()))):
            self._refused()
            self._cancelled.add(event["guid"])
            task = asyncio.create_task(_cancel(cdp, event["guid"]))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)
            return
        download.is_asked_for = bool(waiting)
        self._running[event["guid"]] = download
        for future in waiting:
            future.set_result(download)

    def _on_progress(self, event: dict[str, Any]) -> None:
        if event["state"] == "inProgress":
            return
        if event["guid"] in self._cancelled:
            self._cancelled.remove(event["guid"])
            (self._partial / event["guid"]).unlink(missing_ok=True)  # a small one is whole before it is cancelled
            return
        if event["guid"] not in self._running:
            return
        download = self._running.pop(event["guid"])
        download.size = round(event["receivedBytes"])
        if not download.is_asked_for:
            self._bytes += download.size
        path = None
        if event["state"] == "completed":
            path = self._place(self._partial / event["guid"], download.suggested)
        download.done.set_result(path)
        self._finished(download, path)

    def _place(self, whole: Path, suggested: str) -> Path | None:
        """Give a file its name: what the page suggests, harmless, and different from what is there."""
        name = re.sub(r"[\x00-\x1f\x7f/\\]+", "_", suggested).lstrip(".").strip() or "download"
        stem, dot, ending = name.rpartition(".")
        stem, ending = (stem, dot + ending) if stem and len(ending) < 16 else (name, "")
        stem = stem[:_LONGEST_NAME]
        number = 0
        while True:
            path = self.folder / (f"{stem}{ending}" if not number else f"{stem} ({number}){ending}")
            try:
                path.hardlink_to(whole)  # unlike a rename it takes no place that is taken
            except FileExistsError:
                number += 1
                continue
            except FileNotFoundError:
                return None
            whole.unlink()
            return path


async def _cancel(cdp: CDPSession, guid: str) -> None:
    with contextlib.suppress(PlaywrightError):  # it is whole already, or Chromium is gone
        await cdp.send("Browser.cancelDownload", {"guid": guid})
