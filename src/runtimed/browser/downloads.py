"""Downloads: all of a browser's go into one folder, under names that are their own. Nothing here starts one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

__all__ = ["Download", "Downloads"]

_LONGEST_NAME: Final = 150


class Download(msgspec.Struct):
    """One download.

    Attributes:
        done: Resolves with the path of the file, or with None if it was cancelled or failed.
    """

    url: str
    suggested: str
    done: asyncio.Future[Path | None]
    size: int = 0


class Downloads:
    """The downloads of a browser.

    Args:
        folder: Where they go.
        partial: Where they are while they are not whole; on the same file system.
        finished: Called with each that has ended, and its file; None if there is none.
    """

    def __init__(self, folder: Path, partial: Path, finished: Callable[[Download, Path | None], None]) -> None:
        self.folder = folder
        self._partial = partial
        self._finished = finished
        self._running: dict[str, Download] = {}
        self._next: list[asyncio.Future[Download]] = []

    async def watch(self, cdp: CDPSession) -> None:
        """Make Chromium put its downloads here and tell of them.

        Args:
            cdp: Talks to the browser itself, not to a tab.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        cdp.on("Browser.downloadWillBegin", self._on_begin)
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

    def _on_begin(self, event: dict[str, Any]) -> None:
        download = Download(event["url"], event["suggestedFilename"], asyncio.get_running_loop().create_future())
        self._running[event["guid"]] = download
        waiting, self._next = self._next, []
        for future in waiting:
            if not future.done():
                future.set_result(download)

    def _on_progress(self, event: dict[str, Any]) -> None:
        if event["state"] == "inProgress" or event["guid"] not in self._running:
            return
        download = self._running.pop(event["guid"])
        download.size = round(event["receivedBytes"])
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
