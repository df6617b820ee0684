"""Describes this process: what a kernel takes over that is started for it. Nothing here changes it."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any, Final

from runtimed.environments.uv_program import find_uv
from runtimed.protocol.execution_operations import Enqueue
from runtimed.protocol.inherited import Inherited
from runtimed.protocol.kernel_operations import DescribeProcess
from runtimed.protocol.operation import Operation

__all__ = ["Described", "inherited_here"]

_LIMITS: Final = {name: getattr(resource, name) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")}


class Described:
    """What the daemon knows of this process by way of one connection."""

    def __init__(self) -> None:
        self._told: DescribeProcess | None = None
        self._variables: dict[bytes, bytes] = {}

    def news_for(self, operation: Operation[Any]) -> DescribeProcess | None:
        """Return what must be sent before an operation for which a kernel may start; None if the daemon knows it."""
        if not operation.needs_process:
            return None
        # Each execution comes here: decoding the variables takes as long as all the rest, finding uv longer.
        told, variables = self._told, dict(os.environb)
        same = told if variables == self._variables else None
        now = DescribeProcess(
            environment=dict(os.environ) if same is None else same.environment,
            cwd=_working_folder(),
            interpreter=sys.executable,
            uv=find_uv() if same is None or not isinstance(operation, Enqueue) else same.uv,
            inherited=inherited_here(),
        )
        if now == told:
            return None
        self._told, self._variables = now, variables
        return now


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  # each execution comes here
    except FileNotFoundError:
        return None


def inherited_here() -> Inherited:
    """Return what a child of this process would inherit beside variables and folder."""
    return Inherited(
        umask=_umask(),
        limits={name: _limit(which) for name, which in _LIMITS.items()},
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        cpus=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None,
    )


def _limit(which: int) -> tuple[int, int]:
    soft, hard = resource.getrlimit(which)
    # As large as all that can be sent: beyond that there is no difference.
    return (soft, hard) if soft < 2**63 and hard < 2**63 else (min(soft, 2**63 - 1), min(hard, 2**63 - 1))


def _umask() -> int:
    # Linux says it. Else it can only be set: for that moment, other threads make files for their owner alone.
    try:
        status = os.open("/proc/self/status", os.O_RDONLY)
    except OSError:
        said = b""
    else:
        said = os.read(status, 4096).partition(b"\nUmask:")[2]
        os.close(status)
    if said:
        return int(said.split(None, 1)[0], 8)
    present = os.umask(0o077)
    os.umask(present)
    return present
