"""What the exit codes of `runtimed` mean. Nothing here imports more than the standard library."""

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
    INTERRUPTED = 130
