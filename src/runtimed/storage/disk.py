"""The error for a full disk, and the reserve that is kept free on it. Nothing here writes anything."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from runtimed.display import readable_size
from runtimed.errors import StorageError

__all__ = ["RESERVE", "check_room", "has_room", "is_no_room", "no_room"]

RESERVE: Final = 4 * 2**20
"""Free bytes below which nothing new is begun and no output is stored: what goes on may need them to end well.

A host and the daemon look at the same moment, and each may then write a piece of output, the daemon twice.
"""

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def check_room(folder: Path) -> None:
    """Check that there is room for new data.

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
    """Whether an error of the operating system means that the disk is full."""
    return isinstance(exc, OSError) and exc.errno in _NO_ROOM


def no_room(path: Path, reason: object = None) -> StorageError:
    """Return the error for a full disk: it names the path, how much is free, and what to do.

    Args:
        path: What should have been written, or its folder.
        reason: What the system said.

    Returns:
        An error with the attributes `path` and `free` (bytes; None if nobody can tell).
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
    """Return the free and the total bytes of a file system, two zeros if unknown.

    A path that does not exist yet counts for its nearest folder.
    """
    try:
        found = os.statvfs(path)
    except (FileNotFoundError, NotADirectoryError):
        return _free_and_total(path.parent) if path != path.parent else (0, 0)
    except OSError:
        return 0, 0
    free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    return free * found.f_frsize, found.f_blocks * found.f_frsize
