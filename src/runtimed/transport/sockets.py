"""Unix sockets that only their owner can reach: private folders, safe binding, peer credentials."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtimed.errors import DaemonUnavailable
from runtimed.settings import MAX_SOCKET_PATH

__all__ = [
    "BACKLOG",
    "PeerCredentials",
    "check_listener",
    "check_private_folder",
    "check_socket_path",
    "listen",
    "make_private_folder",
    "peer_credentials",
]

BACKLOG: Final = 1024
"""Listen backlog, in connections. One more that is made without blocking fails at once (unix(7), EAGAIN)."""


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """The process at the other end of a Unix socket, as the operating system names it.

    Attributes:
        uid: Its user id.
        pid: Its process id; None if the system does not know it.
    """

    uid: int
    pid: int | None


def make_private_folder(folder: Path) -> None:
    """Create a folder of mode 0700 with its missing parents, or check an existing one.

    Raises:
        DaemonUnavailable: If it is a link or no folder, belongs to another user, or others may enter it.
    """
    try:
        for missing in reversed([place for place in (folder, *folder.parents) if not os.path.lexists(place)]):
            # Not `parents=True`: it ignores the mode, and under an open umask others could replace this folder.
            missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise DaemonUnavailable(
            f"Cannot create the folder {folder}: {exc.strerror}; name another place with RUNTIMED_DATA_DIR or "
            "RUNTIMED_SOCKET_PATH",
            path=str(folder),
        ) from exc
    check_private_folder(folder)


def check_private_folder(folder: Path) -> None:
    """Refuse a folder that another user owns or can write to.

    Raises:
        DaemonUnavailable: If it is a link or no folder, belongs to another user, or others may enter it.
    """
    try:
        info = folder.lstat()
    except OSError as exc:
        raise DaemonUnavailable(f"Cannot look at the folder {folder}: {exc.strerror}", path=str(folder)) from exc
    if not stat.S_ISDIR(info.st_mode):
        raise DaemonUnavailable(f"{folder} is not a folder (or a link to one); remove it", path=str(folder))
    if info.st_uid != os.getuid():
        raise DaemonUnavailable(
            f"The folder {folder} belongs to user {info.st_uid}, not to you; name another data folder, with a short "
            "path, with RUNTIMED_DATA_DIR, or another place for the socket with RUNTIMED_SOCKET_PATH",
            path=str(folder),
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        # A folder with the sticky bit is meant for everybody, as /tmp is.
        mend = "" if info.st_mode & stat.S_ISVTX else f"run `chmod 700 {folder}`, or "
        raise DaemonUnavailable(
            f"Others may enter the folder {folder}; {mend}name a private folder with RUNTIMED_SOCKET_PATH (or "
            "RUNTIMED_DATA_DIR)",
            path=str(folder),
        )


def check_socket_path(path: Path) -> None:
    """Refuse a path that is too long for a Unix socket.

    Raises:
        DaemonUnavailable: If it has more than MAX_SOCKET_PATH bytes.
    """
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH:
        raise DaemonUnavailable(
            f"The socket path {path} has {size} bytes, the operating system takes {MAX_SOCKET_PATH}; name a shorter "
            "one with RUNTIMED_SOCKET_PATH",
            path=str(path),
        )


def listen(path: Path) -> socket.socket:
    """Bind a listening socket of mode 0600, and replace one that no process serves.

    The caller holds a lock: no second process may bind the same path at the same time.

    Raises:
        DaemonUnavailable: If the path is no socket, or a process listens there.
    """
    check_socket_path(path)
    make_private_folder(path.parent)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise DaemonUnavailable(f"{path} exists and is not a socket; move it away", path=str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise DaemonUnavailable(
                    f"Another process listens on {path}; end it, or name another socket with RUNTIMED_SOCKET_PATH",
                    path=str(path),
                )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The folder is private: no other user can connect before the mode is set.
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise DaemonUnavailable(
            f"Cannot listen on {path}: {exc.strerror}; name another socket with RUNTIMED_SOCKET_PATH", path=str(path)
        ) from exc
    return sock


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Ask the operating system for the process at the other end.

    Source: unix(7) `SO_PEERCRED`; macOS `LOCAL_PEERCRED` (struct xucred) and `LOCAL_PEERPID` of sys/un.h.
    """
    if sys.platform == "darwin":
        xucred = sock.getsockopt(0, 0x001, 8)
        (pid,) = struct.unpack("i", sock.getsockopt(0, 0x002, 4))
        return PeerCredentials(uid=struct.unpack("II", xucred)[1], pid=pid)
    pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return PeerCredentials(uid=uid, pid=pid)


def check_listener(sock: socket.socket) -> None:
    """Refuse a connected socket whose listener belongs to another user.

    Raises:
        PermissionError: If it does.
    """
    uid = peer_credentials(sock).uid
    if uid != os.getuid():
        raise PermissionError(errno.EPERM, f"the process that listens there belongs to user {uid}, not to you")
