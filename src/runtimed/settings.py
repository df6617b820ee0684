"""Settings from the environment, read when they are asked for, never at import."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from runtimed.errors import RuntimedError

__all__ = ["MAX_SOCKET_PATH", "Settings", "format_size", "parse_size", "read_settings"]

MAX_SOCKET_PATH: Final = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket that the operating system takes, in bytes."""

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) *(?:([KMGT])i?)?B?", re.ASCII | re.IGNORECASE)
_UNITS: Final = {None: 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where a daemon lives, and how long it waits.

    Attributes:
        data_dir: Its databases, blobs and log. On a local disk: SQLite's write-ahead log fails on network file systems.
        socket_path: Where it listens. The folder is private (mode 0700) and is not removed by a logout.
        hosts_dir: Holds a folder per host, with its sockets and its spool.
        idle_exit: Seconds after which a daemon with no client and no active session ends.
        max_kernel_memory: The most memory that a kernel and what it starts may use, in bytes; None for no limit.
    """

    data_dir: Path
    socket_path: Path
    hosts_dir: Path
    idle_exit: float = 600.0
    max_kernel_memory: int | None = None

    @property
    def log_path(self) -> Path:
        """The daemon's log file."""
        return self.data_dir / "daemon.log"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment variables.

    `RUNTIMED_DATA_DIR` names the data folder (else the system's usual place for a user's data), `RUNTIMED_SOCKET_PATH`
    the socket, `RUNTIMED_IDLE_EXIT` the seconds after which an unused daemon ends, `RUNTIMED_MAX_KERNEL_MEMORY` the
    memory that each kernel may use.

    Raises:
        RuntimedError: If a variable has a value that it cannot have (attributes `variable`, `value`).
    """
    env = os.environ if environment is None else environment
    data_dir = Path(env.get("RUNTIMED_DATA_DIR") or platformdirs.user_data_dir("runtimed")).expanduser().absolute()
    run_dir = data_dir / "run"
    # Sockets have short names, kept under the limit with room for the longest one: <run>/<8 digits>/z-1.
    if len(os.fsencode(run_dir)) + 24 > MAX_SOCKET_PATH:
        digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:8]
        run_dir = Path(tempfile.gettempdir()) / f"runtimed-{os.getuid()}-{digest}"
    socket_path = env.get("RUNTIMED_SOCKET_PATH")
    return Settings(
        data_dir=data_dir,
        socket_path=Path(socket_path).expanduser().absolute() if socket_path else run_dir / "daemon.sock",
        hosts_dir=run_dir,
        idle_exit=float(env.get("RUNTIMED_IDLE_EXIT") or 600.0),
        max_kernel_memory=_read_size(env, "RUNTIMED_MAX_KERNEL_MEMORY"),
    )


def _read_size(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "").strip()
    try:
        return parse_size(text) if text else None
    except ValueError as exc:
        raise RuntimedError(f"{name} is {text!r}; it must be {exc}", variable=name, value=text) from None


def parse_size(text: str) -> int:
    """Return the bytes that a size means: `1048576`, `512M`, `1.5 GiB`; every unit is a power of 1024.

    Raises:
        ValueError: If it is no size, or less than a byte; with what it must be.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2] and match[2].upper()]) if match else 0
    if size < 1:
        raise ValueError("a number of bytes such as 536870912, 512M or 1.5G")
    return size


def format_size(size: int) -> str:
    """Return a size in words that people read, such as `2.0 GiB`."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
