"""The exit codes of `runtimed`. Nothing here imports more than the standard library."""

from __future__ import annotations

import enum

__all__ = ["Exit"]


class Exit(enum.IntEnum):
    """Exit codes; `--help` lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_DAEMON = 3
    NO_SESSION = 4
    TIMED_OUT = 124
    KILLED = 128
    """And the number of the signal that killed a program, as shells say it."""
    INTERRUPTED = 130
