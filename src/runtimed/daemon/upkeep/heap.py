"""Returns freed memory to the operating system where the C library keeps it.

A document consists of millions of small allocations. glibc keeps pages whose neighbours are in use: after a document of
300 MiB it keeps 150 MiB (measured, glibc 2.36).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["Heap"]

REST: Final = 10.0
"""Seconds between two trims. One takes about 0.6 s per GiB."""


class Heap:
    """The heap of this process. C libraries other than glibc return memory themselves, or cannot be told to."""

    def __init__(self) -> None:
        self._trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._has_freed = False
        self._given_back_at = -REST
        self._thread: threading.Thread | None = None

    @property
    def can_give_back(self) -> bool:
        """Whether this C library can be told to give memory back."""
        return self._trim is not None

    def freed(self) -> None:
        """Note that something large may have been freed."""
        self._has_freed = True

    def tick(self, now: float) -> None:
        """Trim the heap in a thread if a trim is due; `now` is monotonic."""
        if self._trim is None or not self._has_freed or now - self._given_back_at < REST:
            return
        if self._thread is None or not self._thread.is_alive():
            self._has_freed = False
            self._given_back_at = now
            # Threads that allocate nothing go on meanwhile.
            self._thread = threading.Thread(target=self._trim, args=(0,), name="give-back-memory", daemon=True)
            self._thread.start()
