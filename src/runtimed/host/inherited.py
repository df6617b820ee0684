"""Gives a kernel the resource limits and the priority of its client. Nothing here starts the kernel."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from runtimed.protocol.inherited import Inherited

__all__ = ["give"]

logger = logging.getLogger(__name__)


def give(pid: int, inherited: Inherited, *, fenced: bool) -> None:
    """Give a process the limits, niceness and processors of a client, as far as permitted; not the umask.

    They are set from outside, which works for a running process and needs no code between fork and exec. On macOS no
    process can set another one's limits; there the kernel has those of its host.

    Args:
        pid: The kernel's process, just started or still waiting for its owner.
        inherited: The client's limits.
        fenced: Whether RLIMIT_DATA limits its memory; then it is left alone.
    """
    for name, wanted in inherited.limits.items():
        if name != "RLIMIT_DATA" or not fenced:
            _limit(pid, name, wanted)
    for thread in _threads(pid):
        with contextlib.suppress(OSError):
            # Without privileges niceness can only rise.
            os.setpriority(os.PRIO_PROCESS, thread, inherited.niceness)
        if inherited.cpus and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError, ValueError, OverflowError):
                os.sched_setaffinity(thread, inherited.cpus)


def _limit(pid: int, name: str, wanted: tuple[int, int]) -> None:
    which = getattr(resource, name, None)
    if which is None or not hasattr(resource, "prlimit"):
        return
    try:
        present = resource.prlimit(pid, which)
        if present == wanted:
            return
        try:
            resource.prlimit(pid, which, wanted)
        except (PermissionError, ValueError):
            # Only root can raise a hard limit.
            hard = min(wanted[1], present[1], key=_size)
            resource.prlimit(pid, which, (min(wanted[0], hard, key=_size), hard))
    except (OSError, ValueError, OverflowError) as exc:
        logger.warning("the kernel cannot have its client's limit %s, %s: %s", name, wanted, exc)


def _size(limit: int) -> float:
    return math.inf if limit == resource.RLIM_INFINITY else limit


def _threads(pid: int) -> Iterator[int]:
    """Yield the threads of a process: on Linux, each thread has its own niceness and processors."""
    try:
        yield from (int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        yield pid
