"""Removes the folders of browser sessions that ended long ago, with their profiles and downloads."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runtimed.daemon.registry import Registry
from runtimed.ids import NotebookId

__all__ = ["remove_old_folders"]

logger = logging.getLogger(__name__)

_ASIDE: Final = ".removed"


async def remove_old_folders(
    browsers_dir: Path, names: Mapping[str, NotebookId], registry: Registry, before: float
) -> None:
    """Remove what no session has used for so long.

    Args:
        browsers_dir: Where the folders are.
        names: The sessions, by the names of their folders.
        registry: Says when each was last used.
        before: Unix time; what was used after it stays.
    """
    for folder in await asyncio.to_thread(_folders, browsers_dir):
        row = None if folder.name not in names else registry.find(names[folder.name])
        try:
            if row is None:
                # What an earlier daemon has left half removed, or of which the registry knows no more.
                last_used = folder.stat().st_mtime
            elif row.status == "active":
                continue
            else:
                last_used = max(row.last_accessed_at, row.closed_at or 0.0)
            if last_used < before or folder.name.endswith(_ASIDE):
                # At once, so that a session that starts meanwhile begins with a new one.
                aside = folder.with_name(f"{folder.name.removesuffix(_ASIDE)}{_ASIDE}")
                folder.rename(aside)
                await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
                logger.info("removed %s, which no browser session has used for long", folder)
        except OSError as exc:
            logger.warning("%s cannot be removed: %s", folder, exc)


def _folders(browsers_dir: Path) -> list[Path]:
    try:
        return sorted(path for path in browsers_dir.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []
