"""Tells the interrupt of a person from the one with which the end of a notebook's kernel begins.

Whoever ends or restarts a kernel (`KernelManager.shutdown_kernel`: jupyter-server, nbclient) sends it a SIGINT first,
exactly as the stop button does, and the request to shut down, or a SIGKILL, right behind.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

import psutil

__all__ = ["is_hung_up", "is_terminal", "kernel_is_ending"]

QUIET: Final = 0.2
"""Seconds without a request to shut down after which an interrupt counts as a person's."""

LONGEST: Final = 1.0
"""Most seconds that a person's interrupt waits, however busy the process is that sent it."""

STEP: Final = 0.01
"""Seconds between two looks."""

_AT_WORK: Final = (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP, psutil.STATUS_STOPPED)


def kernel_is_ending(shell: Any) -> bool:
    """Whether an interrupt, which has just come, belongs to the end of the kernel that this shell is in.

    Waits as long as the answer is open: QUIET seconds for a person's interrupt. The time counts from the moment in
    which the process that started the kernel, and sends such signals, rests: on a loaded machine that may pause long
    between its signal and its request.

    Args:
        shell: IPython's shell; one without a kernel, in a terminal, is interrupted by persons only.
    """
    if getattr(shell, "kernel", None) is None:
        return False
    parent = os.getppid()
    starter = _process(int(os.environ.get("JPY_PARENT_PID") or parent))
    begun = quiet_since = time.monotonic()
    while (now := time.monotonic()) < min(quiet_since + QUIET, begun + LONGEST):
        # The control channel has a thread of its own, which notes the request here while this one waits.
        if shell.exit_now or os.getppid() != parent:
            return True
        if _works(starter):
            quiet_since = now
        time.sleep(STEP)
    return bool(shell.exit_now)


def is_terminal() -> bool:
    """Whether a person may sit at the standard input of this process."""
    try:
        return os.isatty(sys.__stdin__.fileno()) if sys.__stdin__ is not None else False
    except (OSError, ValueError):
        return False


def is_hung_up(*, was_terminal: bool) -> bool:
    """Whether the terminal of this process has gone, whose end of input then is nobody's answer."""
    return was_terminal and not is_terminal()


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _works(process: psutil.Process | None) -> bool:
    try:
        return process is not None and process.status() in _AT_WORK
    except psutil.Error:
        return False
