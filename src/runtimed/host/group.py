"""The process group that a host owns, noted in its folder: who buries the host kills what is left of the group.

Host and guard may be killed together; then no other process knows the kernel's children. The number of a group is its
own as long as one process of it lives, so the start time of its first process and the boot are compared.
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
    """Note the process group of the host in this folder. On a full disk only the guard knows it."""
    record = folder / _RECORD
    try:
        record.touch(mode=0o600)
        record.write_text(f"{group} {_boot()} {_started(group)}")
    except OSError as exc:
        logger.warning("the kernel's process group cannot be noted: %s", exc)


def forget_group(folder: Path) -> None:
    """Note that the group has ended. Idempotent."""
    with contextlib.suppress(OSError):
        (folder / _RECORD).unlink(missing_ok=True)


def end_group(folder: Path) -> None:
    """Kill what is left of a dead host's process group. Idempotent.

    Processes with a group of their own live on, as under the guard.
    """
    try:
        number, boot, started = (folder / _RECORD).read_text().split()
    except (OSError, ValueError):  # not noted, or only in part
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
            # The host's child leads a session, too. A process with its number by chance is older or another user's.
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
