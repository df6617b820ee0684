"""Moves files into a folder under free names that its file system accepts. Everything here blocks."""

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
"""Largest file name in bytes, if the file system does not say."""
_MAX_ENDING: Final = 32
"""Largest extension in bytes that is kept when a name is cut."""
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Error numbers of file systems without hard links."""


def move_into(folder: Path, file: Path, suggested: str) -> Path:
    """Move a file into a folder, which is created if it does not exist; also from another file system.

    Args:
        folder: The target folder.
        file: The file.
        suggested: A name from elsewhere: it is sanitized, cut to fit, and numbered if it is taken.

    Returns:
        Its new path.

    Raises:
        OSError: If that fails. Nothing of the file is left then.
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
    """Give a file of the same file system a second name, in the folder."""
    for path in _names(folder, suggested):
        try:
            path.hardlink_to(file)  # unlike a rename it replaces nothing
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
    """Yield possible names of the file, the best one first."""
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
