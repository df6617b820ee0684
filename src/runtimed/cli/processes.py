"""Waits for processes that are not this one's children."""

from __future__ import annotations

import contextlib
import time
from typing import Final

import psutil

__all__ = ["wait_for_end"]

LOOK: Final = 0.02
"""Seconds between two checks of a process."""


def wait_for_end(process: psutil.Process, timeout: float) -> bool:
    """Wait until a process has ended.

    A zombie has ended: in containers whose first process does not reap its children it stays one, and
    `psutil.Process.wait` would wait for it.

    Returns:
        False if it lives on after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK)
    return True
