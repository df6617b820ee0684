"""Finds the daemon, or starts it. Of several clients that try at once, one starts it and the others wait."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runtimed.errors import DaemonUnavailable
from runtimed.settings import Settings
from runtimed.transport.sockets import check_listener, check_private_folder, check_socket_path, make_private_folder

__all__ = ["READY", "connect_socket", "daemon_answers", "ensure_daemon", "open_or_start"]

READY: Final = b"ready\n"
"""Line that a daemon writes to standard output once it listens. Any other text says why it does not."""


ATTEMPTS: Final = 3
"""How often a daemon is started that says nothing: it was killed while it started."""


def connect_socket(path: Path, *, wait: bool = True) -> socket.socket | None:
    """Connect to a daemon's socket; None if nobody listens there.

    Args:
        path: Path of the socket.
        wait: Whether to wait while the listener's backlog is full.

    Raises:
        DaemonUnavailable: If the path is too long for a socket, is no socket, or belongs to another user.
    """
    check_socket_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(wait)
        sock.connect(str(path))
        check_listener(sock)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        if path.exists() and not path.is_socket():
            raise DaemonUnavailable(f"{path} exists and is not a socket; move it away", path=str(path)) from None
        return None
    except OSError as exc:
        sock.close()
        if exc.errno in (errno.EACCES, errno.ENOTDIR):
            # The folder is the cause; its own check has the better sentence.
            check_private_folder(path.parent)
        raise DaemonUnavailable(f"Cannot connect to {path}: {exc.strerror}", path=str(path)) from exc
    except BaseException:
        sock.close()
        raise
    return sock


def open_or_start(settings: Settings) -> socket.socket:
    """Connect to the daemon; start it first if none answers.

    Raises:
        DaemonUnavailable: If no daemon can be reached or started; the sentence says why.
    """
    sock = connect_socket(settings.socket_path)
    if sock is None:
        ensure_daemon(settings)
        sock = connect_socket(settings.socket_path)
    if sock is None:
        raise DaemonUnavailable(
            f"The daemon started and ended at once; its log is {settings.log_path}", path=str(settings.socket_path)
        )
    return sock


def daemon_answers(settings: Settings) -> bool:
    """Whether a process listens on the daemon's socket."""
    sock = connect_socket(settings.socket_path)
    if sock is None:
        return False
    sock.close()
    return True


def ensure_daemon(settings: Settings) -> None:
    """Start a daemon unless one answers, and return once it listens. Idempotent.

    A file lock is held until the daemon listens: a process that waited for the lock finds that daemon running.

    Raises:
        DaemonUnavailable: If the daemon cannot start; the sentence says why.
    """
    make_private_folder(settings.data_dir)
    make_private_folder(settings.socket_path.parent)
    with _start_lock(settings.socket_path.with_suffix(".start")):
        if not daemon_answers(settings):
            _start(settings)


@contextlib.contextmanager
def _start_lock(path: Path) -> Iterator[None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise DaemonUnavailable(f"{path} cannot be opened: {exc.strerror}; move it away", path=str(path)) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _start(settings: Settings) -> None:
    environment = {
        **os.environ,
        "RUNTIMED_DATA_DIR": str(settings.data_dir),
        "RUNTIMED_SOCKET_PATH": str(settings.socket_path),
        "RUNTIMED_IDLE_EXIT": str(settings.idle_exit),
    }
    for _ in range(ATTEMPTS):
        # The process forks and the first one ends at once: a daemon is never a client's child.
        process = subprocess.run(
            # -P: modules in the client's working directory must not shadow the daemon's.
            [sys.executable, "-P", "-m", "runtimed.daemon"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
            check=False,
        )
        if process.stdout == READY:
            return
        if process.stdout:
            raise DaemonUnavailable(process.stdout.decode(errors="replace").strip())
        # It said nothing, so it was killed.
    raise DaemonUnavailable(f"The daemon ended while it started; its log is {settings.log_path}")
