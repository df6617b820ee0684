"""The process group that a host owns, written down in its folder: whoever buries the host ends what is left of it.

Host and guard may be killed together; then nobody else knows which processes the kernel had started. A number is a
group's as long as one process of it lives, so it is compared with when the group's first process began, and the boot.
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
    """Write down which group the host in this folder owns; on a full disk the guard alone has to know it."""
    record = folder / _RECORD
    try:
        record.touch(mode=0o600)
        record.write_text(f"{group} {_boot()} {_started(group)}")
    except OSError as exc:
        logger.warning("the kernel's process group is not written down: %s", exc)


def forget_group(folder: Path) -> None:
    """The group has ended. Harmless if none was noted."""
    with contextlib.suppress(OSError):
        (folder / _RECORD).unlink(missing_ok=True)


def end_group(folder: Path) -> None:
    """Kill what is left of the group that a dead host owned. Harmless if nothing is.

    Processes that made a group of their own live on, as under the guard.
    """
    try:
        number, boot, started = (folder / _RECORD).read_text().split()
    except (OSError, ValueError):  # none was noted, or no more than its beginning
        return
    group = int(number)
    if boot != _boot() or not _is_left(group, int(started)):
        return
    logger.info("ending what is left of the process group %d of the host in %s", group, folder)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _is_left(group: int, started: int) -> bool:
    """Whether processes of this group live: the one that it began with, or those that it started."""
    leader = _started(group)
    if leader:
        return leader == started
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            # The host's child leads a session, too; what has its number by chance is older or somebody else's.
            if (
                os.getpgid(process.pid) == os.getsid(process.pid) == group
                and process.uids().real == os.getuid()
                and _started(process.pid) >= started
            ):
                return True
    return False


def _started(pid: int) -> int:
    """Return when a process began, in a unit of the system's since its boot; 0 for one that is not there."""
    try:
        # Source: proc_pid_stat(5); the name in parentheses may hold anything. No clock that is set changes field 22.
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
