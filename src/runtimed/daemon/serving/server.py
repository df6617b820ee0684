"""Serves a daemon's clients, as the only owner of its data folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from runtimed.daemon.serving.daemon import Daemon
from runtimed.daemon.serving.dispatch import dispatch
from runtimed.daemon.serving.peer import Peer
from runtimed.errors import DaemonUnavailable
from runtimed.settings import Settings
from runtimed.storage.disk import is_no_room, no_room
from runtimed.transport.sockets import make_private_folder

__all__ = ["own_data_folder", "serve"]

ENDING_DEADLINE: Final = 20.0
"""Seconds that a new daemon waits for its predecessor to release the data folder."""


async def serve(daemon: Daemon, on_ready: Callable[[], None]) -> None:
    """Answer the clients of a daemon until it ends.

    Args:
        daemon: The owner of its data folder.
        on_ready: Called once the daemon answers clients.
    """
    answer = partial(dispatch, daemon)
    await daemon.run(lambda channel, credentials: Peer(daemon, channel, credentials, answer), on_ready)


@contextlib.contextmanager
def own_data_folder(settings: Settings) -> Iterator[None]:
    """Hold the lock of a data folder while the block runs.

    Raises:
        DaemonUnavailable: If another daemon holds it.
        StorageError: If the disk is full.
    """
    make_private_folder(settings.data_dir)
    path = settings.data_dir / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if is_no_room(exc):
            raise no_room(path, exc) from exc
        raise DaemonUnavailable(f"{path} cannot be opened: {exc.strerror}; move it away", path=str(path)) from exc
    try:
        deadline = time.monotonic() + ENDING_DEADLINE
        while not _locked(fd):
            owner = os.fsdecode(os.pread(fd, 4096, 0)).strip() or "an unknown socket"
            # A daemon with the same socket is about to end: no client starts another while one answers.
            if owner != str(settings.socket_path) or time.monotonic() > deadline:
                raise DaemonUnavailable(
                    f"The data folder {settings.data_dir} belongs to a daemon that listens on {owner}; use that "
                    "socket, or another folder with RUNTIMED_DATA_DIR",
                    data_dir=str(settings.data_dir),
                    socket_path=owner,
                )
            time.sleep(0.01)
        _name_socket(fd, settings)
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _name_socket(fd: int, settings: Settings) -> None:
    """Write the owner's socket into the lock file."""
    name = os.fsencode(settings.socket_path)
    try:
        # In this order, writing the same name again needs no free space.
        os.pwrite(fd, name, 0)
        os.ftruncate(fd, len(name))
    except OSError as exc:
        raise no_room(settings.data_dir, exc) from exc
