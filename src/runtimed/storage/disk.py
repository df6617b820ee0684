"""Checks for free disk space, and the error for a full disk. Nothing here writes anything."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from runtimed.display import readable_size
from runtimed.errors import StorageError

__all__ = ["RESERVE", "check_room", "has_room", "is_no_room", "no_room"]

RESERVE: Final = 4 * 2**20
"""Free bytes below which nothing new is started and no output is stored, so that what runs can finish cleanly.

A host and the daemon may check at the same moment, and each then write a piece of output, the daemon twice.
"""

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def check_room(folder: Path) -> None:
    """Check that there is enough free space for new data.

    Raises:
        StorageError: If less than RESERVE is free there; see `no_room`.
    """
    if not has_room(folder):
        raise no_room(folder)


def has_room(path: Path) -> bool:
    """Whether RESERVE is free on the file system of a path; True if that is unknown."""
    free, total = _free_and_total(path)
    return not total or free >= RESERVE


def is_no_room(exc: BaseException) -> bool:
    """Whether an exception reports a full disk, an exceeded quota or the largest file size."""
    return isinstance(exc, OSError) and exc.errno in _NO_ROOM


def no_room(path: Path, reason: object = None) -> StorageError:
    """Return the error for a full disk: it names the path, the free space, and what to do.

    Args:
        path: The file to be written, or its folder.
        reason: The system's error.

    Returns:
        An error with the attributes `path` and `free` (bytes; None if unknown).
    """
    free, total = _free_and_total(path)
    figures = f"{readable_size(free)} of {readable_size(total)} are free there" if total else "the system says so"
    said = "" if reason is None else f" ({reason})"
    return StorageError(
        f"{path}: the disk is full; free some space and try again, {figures}{said}. What was stored is kept, and what "
        "waits goes on by itself",
        path=str(path),
        free=free if total else None,
    )


def _free_and_total(path: Path) -> tuple[int, int]:
    """Return the free and the total bytes of a path's file system, two zeros if unknown.

    For a path that does not exist yet its nearest existing folder counts.
    """
    try:
        found = os.statvfs(path)
    except (FileNotFoundError, NotADirectoryError):
        return _free_and_total(path.parent) if path != path.parent else (0, 0)
    except OSError:
        return 0, 0
    free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    return free * found.f_frsize, found.f_blocks * found.f_frsize
