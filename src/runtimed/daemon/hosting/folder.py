"""The folders of hosts on this machine. Each names its session, so that its host is found whatever else is lost.

Nothing here talks to a host.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import msgspec

from runtimed.daemon.hosting.launcher import Owner
from runtimed.errors import StorageError
from runtimed.storage.database import name_aside
from runtimed.storage.spool import Spool
from runtimed.storage.spool_files import segments_of
from runtimed.transport.sockets import make_private_folder

__all__ = [
    "find_owner",
    "is_spare",
    "leftovers",
    "name_owner",
    "new_host_folder",
    "set_spool_aside",
]

_OWNER: Final = "owner.json"
_NOBODY: Final = b"null"


def new_host_folder(hosts_dir: Path, owner: Owner | None) -> Path:
    """Create a private folder with a short name for a host.

    Args:
        hosts_dir: Where the folders of hosts are.
        owner: The session; None for a spare, which has none yet.

    Raises:
        OSError: If it cannot be created; nothing is left behind.
    """
    make_private_folder(hosts_dir)
    folder = hosts_dir / secrets.token_hex(4)
    folder.mkdir(mode=0o700)
    path = folder / _OWNER
    try:
        path.touch(mode=0o600)
        path.write_bytes(_NOBODY if owner is None else msgspec.json.encode(owner))
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def name_owner(folder: Path, owner: Owner) -> None:
    """Write the owner of a host that was a spare, atomically: its folder names this owner or none.

    Raises:
        OSError: If it cannot be written.
    """
    path = folder / f"{_OWNER}.new"
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(owner))
    path.replace(folder / _OWNER)


def is_spare(folder: Path) -> bool:
    """Whether a folder belongs to a spare."""
    try:
        return (folder / _OWNER).read_bytes() == _NOBODY
    except OSError:
        return False


def find_owner(folder: Path) -> Owner | None:
    """Return the owner of a host; None if its folder names none.

    Raises:
        StorageError: If the name cannot be read.
    """
    path = folder / _OWNER
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    except OSError as exc:
        raise StorageError(f"{path} cannot be read: {exc}", path=str(path)) from exc


def leftovers(folder: Path, after: int, data_dir: Path, problem: Callable[[str], None]) -> Generator[tuple[int, bytes]]:
    """Yield the events that a dead host has left. Damaged ones are skipped.

    Args:
        folder: The host's folder.
        after: Number of the last stored event.
        data_dir: Where damaged events are kept.
        problem: Called with a sentence for each damage, and with one for where the damaged events are kept.

    Raises:
        StorageError: If the events cannot be read, or damaged ones cannot be kept. Nothing was moved; trying again is
            safe.
    """
    damaged = False
    position: int | None = after
    while position is not None:
        try:
            yield from Spool.read_dead(folder, position)
        except StorageError as exc:
            if "errno" in exc.data:
                raise
            damaged, position = True, exc.data.get("n")
            lost = "all events from there on are" if position is None else "one event is"
            problem(f"the spool of the dead host is damaged, {lost} lost: {exc.message}")
        else:
            position = None
    if damaged:
        problem(f"the damaged events are kept in {set_spool_aside(folder, data_dir)}")


def set_spool_aside(folder: Path, data_dir: Path) -> Path:
    """Move the events of a host's folder to a place that nothing cleans up, and return that.

    Raises:
        StorageError: If they cannot be moved; attribute `errno` says why.
    """
    # The folders of hosts may be on a file system that is emptied at boot.
    target = name_aside(data_dir / f"spool-{folder.name}")
    try:
        target.mkdir(mode=0o700)
        for _first, path in segments_of(folder):
            shutil.move(path, target / path.name)
    except OSError as exc:
        raise StorageError(
            f"the damaged events in {folder} cannot be set aside: {exc}", path=str(folder), errno=exc.errno
        ) from exc
    return target
