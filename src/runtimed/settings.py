"""The settings of a daemon, from environment variables. They are read on demand, never at import."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import platformdirs

from runtimed.errors import RuntimedError

__all__ = [
    "COMPACT_AFTER",
    "COMPACT_AFTER_MEMORY",
    "MAX_SOCKET_PATH",
    "MIN_KEEP_DAYS",
    "DaemonLimits",
    "Settings",
    "default_socket_path",
    "read_settings",
]

T = TypeVar("T")

MAX_SOCKET_PATH: Final = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket that the operating system accepts, in bytes."""

COMPACT_AFTER: Final = 10_000
"""Number of stored changes at which a document is compacted."""

COMPACT_AFTER_MEMORY: Final[int | None] = 128 * 2**20
"""Approximate memory of a document's history, in bytes, at which it is compacted."""

MIN_KEEP_DAYS: Final = 0.05
"""Smallest setting of `keep_days`: far longer than a client takes to reconnect."""


_ENV_KEEP_DAYS: Final[float | None] = 30.0
_ENV_MAX_BYTES: Final[int | None] = 20 * 2**30
_POOL_MIN_MEMORY: Final[int | None] = 2**30
_MAX_POOL_SIZE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonLimits:
    """The limits of a daemon. Each has a variable: `max_sessions` is RUNTIMED_MAX_SESSIONS.

    Attributes:
        max_sessions: Largest number of active sessions.
        max_connections: Largest number of client connections.
        max_request_rate: Rate limit of one connection, in requests per second; faster ones wait. None for no limit.
        max_output_bytes: Largest size of an execution's outputs in a result or a cell, in bytes; further outputs are
            stored, and read in pages. None for no limit.
        max_kernel_memory: Memory limit of a kernel and its child processes, in bytes; None for no limit.
        keep_days: Retention of executions that no cell shows, in days; None for ever.
    """

    max_sessions: int = 200
    max_connections: int = 1000
    max_request_rate: float | None = 5000.0
    max_output_bytes: int | None = 512 * 2**20
    max_kernel_memory: int | None = None
    keep_days: float | None = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a daemon: its folders, deadlines and limits.

    Attributes:
        data_dir: Folder of its databases, blobs and log. It must be on a local disk, since SQLite's write-ahead log
            fails on network file systems.
        socket_path: Path of its socket. The folder is private (mode 0700) and survives a logout.
        hosts_dir: Folder with a subfolder per host, for its sockets and its spool.
        idle_exit: Seconds after which a daemon without clients and active sessions ends.
        compact_after: Number of stored changes at which a document is compacted: rewritten without its history.
        compact_after_memory: Approximate memory of the history, in bytes, at which it is compacted, too; None for no
            limit.
        env_keep_days: Retention of an environment after its last use, in days; None for ever.
        env_max_count: Largest number of environments; the least recently used are evicted.
        env_max_bytes: Largest size of all environments together, in bytes; None for no limit.
        autosave: Whether sessions are saved into their notebook files by themselves, and merge outside edits of them.
        log_level: Level of its log.
        pool_size: Number of spare kernels of each recently started kind; above 0 a spare browser is kept, too.
        pool_min_memory: Available memory of the machine or the container, in bytes, below which no spare is kept; None
            to keep spares always.
        limits: Its limits.
    """

    data_dir: Path
    socket_path: Path
    hosts_dir: Path
    idle_exit: float
    compact_after: int
    compact_after_memory: int | None
    env_keep_days: float | None
    env_max_count: int
    env_max_bytes: int | None
    autosave: bool
    log_level: str
    pool_size: int
    pool_min_memory: int | None
    limits: DaemonLimits

    @property
    def log_path(self) -> Path:
        """The daemon's log file."""
        return self.data_dir / "daemon.log"

    @property
    def files_dir(self) -> Path:
        """Folder of the locks under which notebook files are read and written."""
        return self.data_dir / "files"

    @property
    def environments_dir(self) -> Path:
        """Folder of the environments of kernels."""
        return self.data_dir / "environments"

    @property
    def browsers_dir(self) -> Path:
        """Folder with a subfolder per browser session, for its profile and downloads."""
        return self.data_dir / "browsers"

    @property
    def profiles_dir(self) -> Path:
        """Folder of the named browser profiles."""
        return self.data_dir / "profiles"


def default_socket_path() -> Path:
    """Return the path of the daemon's socket, from the present environment variables."""
    return read_settings().socket_path


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment variables; docs/settings.md lists them.

    Raises:
        RuntimedError: If a variable has an invalid value (attributes `variable`, `value`).
    """
    env = os.environ if environment is None else environment
    data_dir = _read(env, "RUNTIMED_DATA_DIR", _path, Path(platformdirs.user_data_dir("runtimed")))
    run_dir = data_dir / "run"
    # Leaves room for the longest name of a socket under MAX_SOCKET_PATH: <run>/<8 digits>/z-1.
    if len(os.fsencode(run_dir)) + 24 > MAX_SOCKET_PATH:
        digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:8]
        run_dir = Path(tempfile.gettempdir()) / f"runtimed-{os.getuid()}-{digest}"
    return Settings(
        data_dir=data_dir,
        socket_path=_read(env, "RUNTIMED_SOCKET_PATH", _path, run_dir / "daemon.sock"),
        hosts_dir=run_dir,
        idle_exit=_read(env, "RUNTIMED_IDLE_EXIT", _seconds, 600.0),
        compact_after=_read(env, "RUNTIMED_COMPACT_AFTER", _count, COMPACT_AFTER),
        compact_after_memory=_read(env, "RUNTIMED_COMPACT_AFTER_MEMORY", _size, COMPACT_AFTER_MEMORY),
        env_keep_days=_read(env, "RUNTIMED_ENV_KEEP_DAYS", _days, _ENV_KEEP_DAYS),
        env_max_count=_read(env, "RUNTIMED_ENV_MAX_COUNT", _count, 100),
        env_max_bytes=_read(env, "RUNTIMED_ENV_MAX_BYTES", _size, _ENV_MAX_BYTES),
        autosave=_read(env, "RUNTIMED_AUTOSAVE", _on_or_off, True),
        log_level=_read(env, "RUNTIMED_LOG_LEVEL", _log_level, "INFO"),
        pool_size=_read(env, "RUNTIMED_POOL_SIZE", _pool_size, 1),
        pool_min_memory=_read(env, "RUNTIMED_POOL_MIN_MEMORY", _size_or_zero, _POOL_MIN_MEMORY),
        limits=_read_limits(env),
    )


def _read_limits(env: Mapping[str, str]) -> DaemonLimits:
    default = DaemonLimits()
    return DaemonLimits(
        max_sessions=_read(env, "RUNTIMED_MAX_SESSIONS", _count, default.max_sessions),
        max_connections=_read(env, "RUNTIMED_MAX_CONNECTIONS", _count, default.max_connections),
        max_request_rate=_read(env, "RUNTIMED_MAX_REQUEST_RATE", _rate, default.max_request_rate),
        max_output_bytes=_read(env, "RUNTIMED_MAX_OUTPUT_BYTES", _size, default.max_output_bytes),
        max_kernel_memory=_read(env, "RUNTIMED_MAX_KERNEL_MEMORY", _size, default.max_kernel_memory),
        keep_days=_read(env, "RUNTIMED_KEEP_DAYS", _keep_days, default.keep_days),
    )


def _read(env: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    """Return the value of a variable, the default if it is not set or empty.

    Args:
        env: The environment variables.
        name: Name of the variable.
        parse: Parses the value; raises a ValueError that says what is allowed.
        default: The default.
    """
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as exc:
        raise RuntimedError(f"{name} is {text!r}; it must be {exc}", variable=name, value=text) from None


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("a path; there is no home folder of this name") from None


def _log_level(text: str) -> str:
    if text.upper() not in logging.getLevelNamesMapping():
        raise ValueError("DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return text.upper()


def _on_or_off(text: str) -> bool:
    if text.lower() not in ("on", "off"):
        raise ValueError("`on` or `off`")
    return text.lower() == "on"


def _number(text: str) -> float:
    """Parse a number; NaN if it is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        raise ValueError("a number of seconds, not negative")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise ValueError("a whole number, at least 1")
    return int(text)


def _pool_size(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) > _MAX_POOL_SIZE:
        raise ValueError(f"a whole number from 0 to {_MAX_POOL_SIZE}")
    return int(text)


def _rate(text: str) -> float | None:
    if _is_none(text):
        return None
    value = _number(text)
    if not 1 <= value < math.inf:
        raise ValueError("a number of requests a second, at least 1, or `none` for no limit")
    return value


def _size(text: str) -> int | None:
    if _is_none(text):
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:([KMGT])(?:i?B)?|B)?", text, re.IGNORECASE | re.ASCII)
    size = 0.0 if found is None else float(found[1]) * 1024 ** " KMGT".index((found[2] or " ").upper())
    if not 1 <= size < 2**63:
        raise ValueError("a number of bytes such as 2000000, 512M or 1.5G, or `none` for no limit")
    return int(size)


def _size_or_zero(text: str) -> int | None:
    # Available memory is never below 0, so 0 means no limit here.
    return 0 if text == "0" else _size(text)


def _keep_days(text: str) -> float | None:
    if _is_none(text):
        return None
    value = _number(text)
    if not MIN_KEEP_DAYS <= value < math.inf:
        raise ValueError(f"a number of days, at least {MIN_KEEP_DAYS}, or `none` to keep everything for ever")
    return value


def _days(text: str) -> float | None:
    if _is_none(text):
        return None
    value = _number(text)
    if not 0 < value < math.inf:
        raise ValueError("a number of days, more than 0, or `none` to keep everything for ever")
    return value


def _is_none(text: str) -> bool:
    """Whether a limit is lifted. 0 never lifts one: most people read it as "nothing is allowed"."""
    return text.lower() == "none"
