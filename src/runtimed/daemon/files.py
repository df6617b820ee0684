"""The daemon's limit of open files, and its other limits fitted under that one: it never runs out of descriptors."""

from __future__ import annotations

import dataclasses
import logging
import resource
from typing import Final

from runtimed.settings import DaemonLimits

__all__ = ["MAX_STRANGERS", "SPARE_CONNECTIONS", "files_needed", "fit_limits", "max_rooms", "provide_files"]

logger = logging.getLogger(__name__)

MAX_STRANGERS: Final = 256
"""Largest number of connections without a greeting. One more evicts the oldest of them."""

SPARE_CONNECTIONS: Final = 16
"""Connections beyond the limit, for short calls that join no session: `status`, `interrupt`, `stop`."""

_ALWAYS: Final = 64 + MAX_STRANGERS + SPARE_CONNECTIONS
_PER_CONNECTION: Final = 3  # itself, and database and WAL of a room that it alone may be in
_PER_SESSION: Final = 8  # database, WAL, connection to the host; and during its start, the host's pipes


def max_rooms(limits: DaemonLimits) -> int:
    """Return how many rooms may be open: one per active session, and one per session that is read."""
    return limits.max_sessions + limits.max_connections


def files_needed(limits: DaemonLimits) -> int:
    """Return the largest number of open files when all limits are reached."""
    return _ALWAYS + _PER_CONNECTION * limits.max_connections + _PER_SESSION * limits.max_sessions


def fit_limits(limits: DaemonLimits, files: int) -> DaemonLimits:
    """Return the limits, lowered until this number of open files suffices; at least one session and connection."""
    needed = files_needed(limits)
    if needed <= files:
        return limits
    smallest = dataclasses.replace(limits, max_sessions=1, max_connections=1)
    least = files_needed(smallest)
    part = max(0, files - least) / max(1, needed - least)
    return dataclasses.replace(
        limits,
        max_sessions=1 + int(part * (limits.max_sessions - 1)),
        max_connections=1 + int(part * (limits.max_connections - 1)),
    )


def provide_files(limits: DaemonLimits) -> DaemonLimits:
    """Raise this process's limit of open files to what its limits need; return the limits that it can keep.

    Child processes may open as many: a kernel has room for some thousand files, as with Jupyter Server.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed(limits)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as exc:
        logger.warning("cannot raise the limit of open files from %d to %d: %s", soft, wanted, exc)
        wanted = soft
    fitting = fit_limits(limits, wanted)
    if fitting != limits:
        logger.warning(
            "this process may open %d files, its limits need %d: it takes %d sessions and %d connections; "
            "`ulimit -n` shows and raises the number of files",
            wanted,
            needed,
            fitting.max_sessions,
            fitting.max_connections,
        )
    return fitting
