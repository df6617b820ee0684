"""Distinguishes a person's interrupt from the one that begins the end of a notebook's kernel.

Who ends or restarts a kernel (`KernelManager.shutdown_kernel`: jupyter-server, nbclient) first sends it a SIGINT, as
the stop button does, and the shutdown request, or a SIGKILL, right behind.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

import psutil

__all__ = ["is_hung_up", "is_terminal", "kernel_is_ending"]

QUIET: Final = 0.2
"""Seconds without a shutdown request after which an interrupt counts as a person's."""

LONGEST: Final = 5.0
"""Most seconds that a person's interrupt waits, however busy the process is that sent it.

A person pays them only where that process works without a pause of QUIET, as a server does that is overloaded: the stop
button takes so much longer. With less, a restart there would interrupt the session's code, which loses work.
"""

STEP: Final = 0.01
"""Seconds between two checks."""

_AT_WORK: Final = (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP, psutil.STATUS_STOPPED)


def kernel_is_ending(shell: Any) -> bool:
    """Whether an interrupt that has just come belongs to the end of this shell's kernel.

    Waits until that is known: QUIET seconds for a person's interrupt. They count while the process that started the
    kernel, and sends such signals, is idle: on a loaded machine it may pause long between its signal and its request.

    Args:
        shell: IPython's shell. One without a kernel, in a terminal, is interrupted only by persons.
    """
    if getattr(shell, "kernel", None) is None:
        return False
    parent = os.getppid()
    starter = _process(int(os.environ.get("JPY_PARENT_PID") or parent))
    begun = quiet_since = time.monotonic()
    while (now := time.monotonic()) < min(quiet_since + QUIET, begun + LONGEST):
        # The control channel has a thread of its own, which notes the request during this wait.
        if shell.exit_now or os.getppid() != parent:
            return True
        if _works(starter):
            quiet_since = now
        time.sleep(STEP)
    return bool(shell.exit_now)


def is_terminal() -> bool:
    """Whether standard input is a terminal."""
    try:
        return os.isatty(sys.__stdin__.fileno()) if sys.__stdin__ is not None else False
    except (OSError, ValueError):
        return False


def is_hung_up(*, was_terminal: bool) -> bool:
    """Whether this process's terminal is gone. Its end of input is nobody's answer then."""
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
