"""Settings from the environment, read when they are asked for, never at import."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

__all__ = ["MAX_SOCKET_PATH", "Settings", "read_settings"]

MAX_SOCKET_PATH: Final = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket that the operating system takes, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where a daemon lives, and how long it waits.

    Attributes:
        data_dir: Its databases, blobs and log. On a local disk: SQLite's write-ahead log fails on network file systems.
        socket_path: Where it listens. The folder is private (mode 0700) and is not removed by a logout.
        hosts_dir: Holds a folder per host, with its sockets and its spool.
        idle_exit: Seconds after which a daemon with no client and no active session ends.
        env_keep_days: Days after its last use in which an environment is kept.
        env_max_count: So many environments are kept.
        env_max_bytes: They may take so many bytes together.
    """

    data_dir: Path
    socket_path: Path
    hosts_dir: Path
    idle_exit: float = 600.0
    env_keep_days: float = 30.0
    env_max_count: int = 100
    env_max_bytes: int = 20 * 2**30

    @property
    def log_path(self) -> Path:
        """The daemon's log file."""
        return self.data_dir / "daemon.log"

    @property
    def environments_dir(self) -> Path:
        """Holds the environments that are made for kernels."""
        return self.data_dir / "environments"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment variables.

    `RUNTIMED_DATA_DIR` names the data folder (else the system's usual place for a user's data), `RUNTIMED_SOCKET_PATH`
    the socket, `RUNTIMED_IDLE_EXIT` the seconds after which an unused daemon ends. `RUNTIMED_ENV_KEEP_DAYS`,
    `RUNTIMED_ENV_MAX_COUNT` and `RUNTIMED_ENV_MAX_BYTES` say which environments are kept that no session uses.
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
        env_keep_days=float(env.get("RUNTIMED_ENV_KEEP_DAYS") or 30.0),
        env_max_count=int(env.get("RUNTIMED_ENV_MAX_COUNT") or 100),
        env_max_bytes=int(float(env.get("RUNTIMED_ENV_MAX_BYTES") or 20 * 2**30)),
    )
