"""Finds out what a process that this one started would inherit. Nothing here changes it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from runtimed.protocol.inherited import Inherited

__all__ = ["inherited_here"]


def inherited_here() -> Inherited:
    """Return what a child of this process would inherit."""
    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    return Inherited(
        umask=_umask(),
        limits={name: _limit(getattr(resource, name)) for name in names},
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        cpus=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None,
    )


def _limit(which: int) -> tuple[int, int]:
    # As large as all that can be sent: beyond that there is no difference.
    soft, hard = (min(value, 2**63 - 1) for value in resource.getrlimit(which))
    return soft, hard


def _umask() -> int:
    # Linux says it. Else it can only be set: for that moment, other threads make files for their owner alone.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except OSError:
        pass
    present = os.umask(0o077)
    os.umask(present)
    return present
