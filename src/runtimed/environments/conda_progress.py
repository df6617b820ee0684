"""Counts the downloads and installations of py-rattler, in bytes and packages. Nothing here needs py-rattler."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Reporter"]

_PROGRESS: Final = 0.2
"""Seconds between two lines about the same step."""


class Reporter:
    """The counter. Called from py-rattler's threads, with the GIL held."""

    def __init__(self, report: Callable[..., None], records: list[Any]) -> None:
        self._report = report
        self._sizes = {record.name.normalized: record.size or 0 for record in records}
        self._missing = sum(self._sizes.values())
        self._count = len(records)
        self._linked = 0
        self._names: dict[int, str] = {}
        self._fetched: dict[int, int] = {}
        self._open: set[int] = set()
        self._downloads: set[int] = set()
        self._heard = time.monotonic()
        self._said = 0.0
        self.latest = ""

    def silence(self) -> float:
        """Seconds since the last byte of a download; zero while there is none."""
        return time.monotonic() - self._heard if self._open else 0.0

    def on_transaction_start(self, total_operations: int) -> None:
        """The transaction starts."""
        self._report("install", f"Installing {total_operations} packages")

    def on_populate_cache_start(self, operation: int, package_name: str) -> int:
        """A package is looked up in the cache; the returned number names it in the calls below."""
        self._names[operation] = package_name
        return operation

    def on_populate_cache_complete(self, cache_entry: int) -> None:
        """A package is in the cache."""
        if cache_entry not in self._downloads:
            self._missing -= self._sizes.get(self._names.get(cache_entry, ""), 0)

    def on_download_start(self, cache_entry: int) -> int:
        """A package is missing in the cache; its download starts."""
        self._downloads.add(cache_entry)
        self._open.add(cache_entry)
        self._heard = time.monotonic()
        return cache_entry

    def on_download_progress(self, download_idx: int, progress: int, total: int | None) -> None:  # noqa: ARG002
        """This many bytes have arrived."""
        self._heard = time.monotonic()
        self._fetched[download_idx] = progress
        self.latest = self._names.get(download_idx, self.latest)
        if self._heard - self._said > _PROGRESS:
            self._said = self._heard
            done = sum(self._fetched.values())
            self._report("download", f"Downloading {self.latest}", done, max(done, self._missing))

    def on_download_completed(self, download_idx: int) -> None:
        """The download is complete."""
        self._open.discard(download_idx)

    def on_link_complete(self, index: int) -> None:  # noqa: ARG002
        """A package is in the environment."""
        self._linked += 1
        now = time.monotonic()
        if now - self._said > _PROGRESS:
            self._said = now
            self._report("install", f"Installing: {self._linked} of {self._count} packages")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_: 0
