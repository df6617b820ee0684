"""`DaemonClient`: a thin alias of `Client` that returns dicts."""

from __future__ import annotations

from typing import Any

from runtimed.client import calls
from runtimed.client.client import Client

__all__ = ["DaemonClient"]


class DaemonClient:
    """The daemon as plain dicts, as in the first reference document."""

    def __init__(self) -> None:
        self._client = Client()

    def ping(self) -> bool:
        """Whether a daemon of this version answers."""
        return self._client.ping()

    def is_running(self) -> bool:
        """Whether a process listens on the daemon's socket."""
        return self._client.is_running()

    def status(self) -> dict[str, Any] | None:
        """Return the daemon's status; None if none runs.

        `uv_available`, `conda_available` and `current_available` count the waiting spare kernels in such environments,
        `browser_available` the spare browsers; `uv_warming`, `conda_warming`, `current_warming` and `browser_warming`
        count those that are being made.
        """
        status = self._client.status()
        if status is None:
            return None
        pool = {name: status.pool.get(name, 0) for name in _POOL_FIGURES}
        return {
            "pid": status.pid,
            "version": status.version,
            "socket_path": status.socket_path,
            "data_dir": status.data_dir,
            "started_at": status.started_at,
            "sessions": status.sessions,
            "peers": status.peers,
            **pool,
        }

    def list_rooms(self) -> list[dict[str, Any]]:
        """Return the open rooms: `notebook_id, active_peers, has_kernel, kernel_type, kernel_status, env_source`."""
        return self._client._perform(calls.list_rooms()) if self.is_running() else []  # a thin alias

    def flush_pool(self) -> None:
        """End the spares; the next start of a kernel or browser makes new ones. Harmless if no daemon runs."""
        if self.is_running():
            self._client._perform(calls.flush_pool())  # a thin alias

    def shutdown(self) -> None:
        """End the daemon and every session."""
        self._client.shutdown()


_POOL_FIGURES = (
    "uv_available",
    "uv_warming",
    "conda_available",
    "conda_warming",
    "current_available",
    "current_warming",
    "browser_available",
    "browser_warming",
)
