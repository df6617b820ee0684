"""Puts files into a folder under free names that its file system accepts. Everything here blocks."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

__all__ = ["copy_into", "move_into"]

_MAX_NAME: Final = 255
"""Bytes that a file's name may have, where the file system does not say."""
_MAX_ENDING: Final = 32
"""Bytes behind a name's last dot that are still an ending, which is kept."""
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems say that have no hard links."""


def move_into(folder: Path, file: Path, suggested: str) -> Path:
    """Move a file into a folder, which is made if it is not there; from another file system, too.

    Args:
        folder: Where to.
        file: The file.
        suggested: What somebody else calls it: made harmless, cut to what fits, and numbered if that name is taken.

    Returns:
        Where it is now.

    Raises:
        OSError: If that cannot be. Nothing of the file is left then.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _give_name(folder, file, suggested)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
        return copy_into(folder, file, suggested)
    finally:
        file.unlink(missing_ok=True)


def copy_into(folder: Path, file: Path, suggested: str) -> Path:
    """Copy a file into a folder; see `move_into`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = folder / f".{uuid4().hex}.part"
    try:
        shutil.copyfile(file, partial)
        return _give_name(folder, partial, suggested)
    finally:
        partial.unlink(missing_ok=True)


def _give_name(folder: Path, file: Path, suggested: str) -> Path:
    """Give a file of the same file system a name in the folder, beside the one that it has."""
    for path in _names(folder, suggested):
        try:
            path.hardlink_to(file)  # unlike a rename it takes no place that is taken
        except FileExistsError:
            continue
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            file.replace(path)
        return path
    raise AssertionError("there is always another number")


def _names(folder: Path, suggested: str) -> Iterator[Path]:
    """The names that a file may have, the best one first."""
    name = re.sub(r"[\x00-\x1f\x7f/\\]+", "_", suggested.encode(errors="replace").decode()).lstrip(".").strip()
    stem, dot, ending = (name or "download").rpartition(".")
    if not stem or len(ending.encode()) > _MAX_ENDING:
        stem, dot, ending = name or "download", "", ""
    try:
        room = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        room = _MAX_NAME
    number = 0
    while True:
        rest = (f" ({number})" if number else "") + dot + ending
        yield folder / (stem.encode()[: room - len(rest.encode())].decode(errors="ignore") + rest)
        number += 1
