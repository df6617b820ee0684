"""Kills a process that makes an environment, with everything that it has started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

__all__ = ["kill_group"]


async def kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill a group leader and its group; return once it has ended, however often this is cancelled.

    Nothing writes to its folder afterwards. The wait is short, since it was killed.
    """
    # A group lives as long as one of its members.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    cancelled = None
    while process.returncode is None:
        try:
            await process.wait()
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled
