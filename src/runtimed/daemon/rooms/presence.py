"""The clients in a room, and the process of an earlier daemon's client that may come back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable

import psutil

from runtimed.ids import ClientId
from runtimed.protocol.session_operations import Join

__all__ = ["Presence"]


class Presence:
    """Who is in a room.

    Attributes:
        left_at: Unix time at which the last connection left; before that, when the room was opened.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._peers: dict[Hashable, tuple[ClientId, Join]] = {}
        self._awaited: psutil.Process | None = None
        self.left_at = clock()

    @property
    def peers(self) -> int:
        """Number of clients here. A client with several connections counts once."""
        return len({client_id for client_id, _join in self._peers.values()})

    def join(self, connection: Hashable, client_id: ClientId, request: Join) -> None:
        """Register a client for as long as this connection lasts."""
        self._peers[connection] = client_id, request
        if request.ephemeral:
            self._awaited = None

    def leave(self, connection: Hashable) -> None:
        """Forget a connection that has ended. Harmless if it never joined."""
        if self._peers.pop(connection, None) is not None:
            self.left_at = self._clock()

    def is_here(self, client_id: str) -> bool:
        """Whether a client has a connection here."""
        return any(here == client_id for here, _join in self._peers.values())

    def join_of(self, client_id: str) -> Join | None:
        """Return the request with which a client joined; None if it is not here."""
        return next((join for here, join in self._peers.values() if here == client_id), None)

    def is_written(self, path: str) -> bool:
        """Whether an editor that is here writes this notebook file itself."""
        return any(join.writes_file == path for _client_id, join in self._peers.values())

    def await_process(self, pid: int, started_at: float) -> None:
        """Count the process of an earlier daemon's client as a peer while it lives, or until an ephemeral client joins.

        Args:
            pid: Its process id.
            started_at: Unix time at which the client started the session. A later process with this pid is another.
        """
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.create_time() < started_at:
                self._awaited = process

    def may_come_back(self) -> bool:
        """Whether a client of an earlier daemon is alive: its next call connects to this daemon."""
        if self._awaited is not None and not _lives(self._awaited):
            self._awaited = None
            self.left_at = self._clock()
        return self._awaited is not None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
