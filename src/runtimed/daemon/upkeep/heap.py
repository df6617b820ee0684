"""Gives memory that was freed back to the operating system, where the C library keeps it.

A document consists of millions of small pieces. The GNU C library keeps those that lie between others that are still in
use, whole pages of them, for what may be needed later: after one of 300 MiB, 150 MiB stay (measured, glibc 2.36).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["Heap"]

REST: Final = 10.0
"""Seconds between two times that memory is given back: it takes some 0.6 s for 1 GiB."""


class Heap:
    """The heap of this process. Other C libraries than glibc give memory back by themselves, or cannot be told to."""

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
        """Something large was freed, perhaps."""
        self._has_freed = True

    def tick(self, now: float) -> None:
        """Begin to give memory back if it is time; `now` never goes back."""
        if self._trim is None or not self._has_freed or now - self._given_back_at < REST:
            return
        if self._thread is None or not self._thread.is_alive():
            self._has_freed = False
            self._given_back_at = now
            # Whoever needs no memory of the C library works on meanwhile.
            self._thread = threading.Thread(target=self._trim, args=(0,), name="give-back-memory", daemon=True)
            self._thread.start()
