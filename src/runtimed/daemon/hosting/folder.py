"""The folders of hosts: each names the session it belongs to, so that its host is found whatever else is lost.

Nothing here talks to a host.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from runtimed.errors import StorageError
from runtimed.storage.database import name_aside
from runtimed.storage.spool import Spool
from runtimed.storage.spool_files import segments_of
from runtimed.structs import prepare
from runtimed.transport.sockets import make_private_folder

__all__ = [
    "PIECE",
    "Owner",
    "find_owner",
    "in_pieces",
    "is_spare",
    "leftovers",
    "living_epochs",
    "name_owner",
    "new_host_folder",
    "new_session_folder",
    "read_owner",
    "set_spool_aside",
]

_OWNER: Final = "owner.json"
_NOBODY: Final = b"null"

PIECE: Final = 2**18
"""Bytes of a dead host's events that are stored at a time."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """What a host works for.

    Attributes:
        notebook_id: The session.
        epoch: The host's id; its events are numbered within it.
        kind: What it owns.
        kernel_type: What was asked for.
        env_source: Where the kernel's environment comes from.
    """

    notebook_id: str
    epoch: str
    kind: Literal["kernel", "browser"] = "kernel"
    kernel_type: str
    env_source: str


prepare(Owner)


def new_host_folder(hosts_dir: Path, owner: Owner | None) -> Path:
    """Create a private folder with a short name for a host.

    Args:
        hosts_dir: Where they are.
        owner: What the host works for; None for a spare, which is nobody's yet.

    Raises:
        OSError: If that is not possible; nothing is left behind.
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
    """Say for what a host works that was a spare; at each instant its folder names that, or nobody.

    Raises:
        OSError: If that is not possible.
    """
    path = folder / f"{_OWNER}.new"
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(owner))
    path.replace(folder / _OWNER)


def new_session_folder(hosts_dir: Path, owner: Owner, tell: Callable[[Path], None]) -> Path:
    """Create the folder of a session's new host, and have it written down before there is a host.

    So a daemon that starts after this one died finds it.

    Args:
        hosts_dir: Where they are.
        owner: What the host works for.
        tell: Writes down where the folder is.

    Raises:
        OSError: If that is not possible.
        StorageError: If it cannot be written down; nothing is left behind.
    """
    folder = new_host_folder(hosts_dir, owner)
    try:
        tell(folder)
    except StorageError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def is_spare(folder: Path) -> bool:
    """Whether a folder is that of a host which is nobody's."""
    try:
        return (folder / _OWNER).read_bytes() == _NOBODY
    except OSError:
        return False


def read_owner(folder: Path) -> Owner | None:
    """Return what a host works for, None if its folder does not say so, or cannot be read."""
    try:
        return find_owner(folder)
    except StorageError:
        return None


def find_owner(folder: Path) -> Owner | None:
    """Return what a host works for, None if its folder does not say so.

    Raises:
        StorageError: If that cannot be read.
    """
    path = folder / _OWNER
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    except OSError as exc:
        raise StorageError(f"{path} cannot be read: {exc}", path=str(path)) from exc


def living_epochs(hosts_dir: Path) -> set[str] | None:
    """Return the epochs of the hosts whose folders are there; None if one of them does not name its own."""
    try:
        folders = [folder for folder in hosts_dir.iterdir() if folder.is_dir() and not is_spare(folder)]
    except OSError:
        return None
    owners = [read_owner(folder) for folder in folders]
    return None if None in owners else {owner.epoch for owner in owners if owner is not None}


def leftovers(folder: Path, after: int, data_dir: Path, problem: Callable[[str], None]) -> Iterator[tuple[int, bytes]]:
    """Give the events that a dead host has left; where some are damaged, those before and behind.

    Args:
        folder: The host's.
        after: Number of the last event that is stored.
        data_dir: Where damaged events are kept.
        problem: Called with a sentence for each damage, and for where it is kept.

    Raises:
        StorageError: If they cannot be read, or the damaged ones not be kept; nothing was moved, and it may be tried
            again.
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
            problem(f"{lost} lost of those that the kernel's host had kept when it died: {exc.message}")
        else:
            position = None
    if damaged:
        problem(f"the damaged events are kept in {set_spool_aside(folder, data_dir)}")


def in_pieces(events: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """Give events in lists of at most PIECE bytes and 64 events, one event at least.

    Raises:
        StorageError: As what gives the events, behind all that it gave.
    """
    piece: list[tuple[int, bytes]] = []
    size = 0
    trouble = None
    try:
        for n, body in events:
            if piece and (size + len(body) > PIECE or len(piece) == 64):
                yield piece
                piece, size = [], 0
            piece.append((n, body))
            size += len(body)
    except StorageError as exc:
        trouble = exc
    if piece:
        yield piece
    if trouble is not None:
        raise trouble


def set_spool_aside(folder: Path, data_dir: Path) -> Path:
    """Move the events in a host's folder to where nobody removes them, and return that place.

    Raises:
        StorageError: If they cannot be moved; attribute `errno` says why.
    """
    # The folders of hosts may lie on another file system, which is emptied when the machine starts.
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
