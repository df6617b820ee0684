"""The process group that a host owns, recorded in its folder: whoever removes a dead host kills the rest of the group.

Host and guard may be killed together; then no other process knows the kernel's children. The system may reuse the
number of a group once all its processes are gone, so the record has the leader's start time and the boot, too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import Final

import psutil

__all__ = ["end_group", "forget_group", "note_group"]

logger = logging.getLogger(__name__)

_RECORD: Final = "group"


def note_group(folder: Path, group: int) -> None:
    """Record the process group of the host in this folder. On a full disk only the guard knows it."""
    record = folder / _RECORD
    try:
        record.touch(mode=0o600)
        record.write_text(f"{group} {_boot()} {_started(group)}")
    except OSError as exc:
        logger.warning("the kernel's process group cannot be recorded: %s", exc)


def forget_group(folder: Path) -> None:
    """Remove the record of a group that has ended. Idempotent."""
    with contextlib.suppress(OSError):
        (folder / _RECORD).unlink(missing_ok=True)


def end_group(folder: Path) -> None:
    """Kill what is left of a dead host's process group. Idempotent.

    Processes with a group of their own live on, as under the guard.
    """
    try:
        number, boot, started = (folder / _RECORD).read_text().split()
    except (OSError, ValueError):  # there is no record, or only a part of one
        return
    group = int(number)
    if boot != _boot() or not _is_left(group, int(started)):
        return
    logger.info("killing what is left of the process group %d of the host in %s", group, folder)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _is_left(group: int, started: int) -> bool:
    """Whether processes of this group live: its first one, or those that it started."""
    leader = _started(group)
    if leader:
        return leader == started
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            # The host's child leads a session, too. An unrelated process with its number is older or another user's.
            if (
                os.getpgid(process.pid) == os.getsid(process.pid) == group
                and process.uids().real == os.getuid()
                and _started(process.pid) >= started
            ):
                return True
    return False


def _started(pid: int) -> int:
    """Return when a process began, in clock ticks since boot; 0 if it does not exist."""
    try:
        # Source: proc_pid_stat(5). The name in parentheses may contain anything. Field 22 follows no clock.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        pass
    try:
        return 0 if Path("/proc/self/stat").exists() else int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return 0


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
