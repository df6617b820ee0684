"""The folders of browser sessions, with their profiles and downloads: created, found again, and deleted when old.

A session's folder has the session's stored name. For a session that began with a spare browser, that name is a link:
Chromium keeps the absolute path of its profile, so the spare's folder stays where it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Final

from runtimed.daemon.hosting.launcher import Launcher, Place
from runtimed.daemon.registry import Registry
from runtimed.ids import SessionId
from runtimed.transport.sockets import make_private_folder

__all__ = [
    "clear_up_spare",
    "clear_up_spares",
    "folders_of",
    "has_folder",
    "make_folder",
    "make_spare_folder",
    "remove_old_folders",
    "set_folder_aside",
]

logger = logging.getLogger(__name__)

_ASIDE: Final = ".removed"
_SPARE: Final = "spare-"
"""Prefix of the folders of spares; the last part of the host's place follows."""


def has_folder(folder: Path) -> bool:
    """Whether a session has left a folder."""
    return os.path.lexists(folder)


def make_folder(folder: Path) -> Path:
    """Create a session's folder unless it exists; return its real path.

    Raises:
        DaemonUnavailable: See `make_private_folder`.
    """
    make_private_folder(folder.parent)
    if folder.is_symlink():
        folder = folder.resolve()
    make_private_folder(folder)
    return folder


# --- of spares --------------------------------------------------------------------------------------------------------


def make_spare_folder(browsers_dir: Path, place: Place) -> Path:
    """Create the folder of a spare. A link in a session's name makes it the session's.

    Raises:
        DaemonUnavailable: See `make_private_folder`.
        OSError: If it exists, or cannot be created.
    """
    make_private_folder(browsers_dir)
    folder = browsers_dir / _spare_name(place)
    folder.mkdir(mode=0o700)
    return folder


def clear_up_spare(browsers_dir: Path, place: Place) -> None:
    """Remove the folder of a spare whose host is dead, unless it is a session's by now."""
    folder = browsers_dir / _spare_name(place)
    _clear_up(folder)


def _spare_name(place: Place) -> str:
    return f"{_SPARE}{PurePath(place).name}"


def _clear_up(folder: Path) -> None:
    if folder.exists() and not any(
        path.is_symlink() and path.readlink().name == folder.name for path in folder.parent.iterdir()
    ):
        try:
            # A process that is about to die cannot create files in it under this name.
            aside = folder.rename(folder.with_name(f"{folder.name}{_ASIDE}"))
            shutil.rmtree(aside, ignore_errors=True)
        except OSError as exc:
            logger.warning("%s cannot be removed: %s", folder, exc)


def clear_up_spares(browsers_dir: Path, launcher: Launcher) -> None:
    """Remove what spares have left that died with their daemon."""
    for folder in sorted(browsers_dir.glob(f"{_SPARE}*")):
        hosts = [place for place in launcher.places() if _spare_name(place) == folder.name]
        # In this order: the spare's host makes the link, so a dead host makes none any more.
        if not folder.name.endswith(_ASIDE) and not any(map(launcher.is_alive, hosts)):
            _clear_up(folder)


# --- of sessions that ended -------------------------------------------------------------------------------------------


async def remove_old_folders(
    browsers_dir: Path, names: Mapping[str, SessionId], registry: Registry, before: float
) -> None:
    """Delete the folders that no session has used lately.

    Args:
        browsers_dir: Where the folders are.
        names: Name of a folder → its session.
        registry: Knows when each was last used.
        before: Unix time; folders used later stay.
    """
    for folder in await asyncio.to_thread(_folders, browsers_dir):
        session_id = names.get(folder.name.removesuffix(_ASIDE))
        row = None if folder.name not in names else registry.find(names[folder.name])
        try:
            if row is None:
                # Half removed by an earlier daemon, or unknown to the registry.
                last_used = folder.lstat().st_mtime
            elif row.status == "active":
                continue
            else:
                last_used = max(row.last_accessed_at, row.closed_at or 0.0)
            if last_used < before or folder.name.endswith(_ASIDE):
                # At once, so that a session that starts meanwhile gets a new folder.
                aside = set_folder_aside(folder)
                await asyncio.to_thread(_remove, aside)
                logger.info("removed %s of session %r: nobody used it for long", folder, session_id)
        except OSError as exc:
            logger.warning("%s of session %r cannot be removed: %s", folder, session_id, exc)


def folders_of(browsers_dir: Path, name: str) -> list[Path]:
    """Return the folders of the session with this stored name: its own, and any half removed."""
    return [folder for folder in (browsers_dir / name, browsers_dir / f"{name}{_ASIDE}") if has_folder(folder)]


def set_folder_aside(folder: Path) -> Path:
    """Rename a session's folder so that it is removed, now or later; return the new path.

    Raises:
        OSError: If it cannot be renamed.
    """
    aside = folder.with_name(f"{folder.name.removesuffix(_ASIDE)}{_ASIDE}")
    folder.rename(aside)
    return aside


def _remove(folder: Path) -> None:
    shutil.rmtree(folder.resolve(), ignore_errors=True)
    if folder.is_symlink():
        folder.unlink()


def _folders(browsers_dir: Path) -> list[Path]:
    """Return the folders that have the name of a session, or are half removed."""
    try:
        entries = sorted(path for path in browsers_dir.iterdir() if path.is_dir() or path.is_symlink())
    except FileNotFoundError:
        return []
    return [path for path in entries if path.name.endswith(_ASIDE) or not path.name.startswith(_SPARE)]
