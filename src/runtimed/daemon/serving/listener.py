"""The socket on which a daemon listens, and the connections that were made to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from runtimed.transport.aio import Channel, ChannelHandler, serve
from runtimed.transport.reception import Reception

__all__ = ["Listener"]


class Listener:
    """Listens on one socket, once."""

    def __init__(self, path: Path, reception: Reception) -> None:
        self._path = path
        self._reception = reception
        self._channels: set[Channel] = set()
        self._server: asyncio.Server | None = None
        self._inode: int | None = None

    async def open(self, connected: Callable[[Channel], ChannelHandler]) -> None:
        """Listen, and let each connection be answered.

        Args:
            connected: Makes what answers it.

        Raises:
            DaemonUnavailable: If that is not possible there.
        """

        def accept(channel: Channel) -> ChannelHandler:
            self._channels.add(channel)
            return connected(channel)

        self._server = await serve(self._path, accept, self._reception)
        self._inode = _inode(self._path)

    @property
    def is_in_place(self) -> bool:
        """Whether whoever connects there reaches this daemon."""
        return _inode(self._path) == self._inode

    def close(self) -> None:
        """Let whoever comes from now on start the next daemon; connections stay. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
            # Once: what is found there later is the next daemon's.
            if self.is_in_place:
                self._path.unlink(missing_ok=True)

    def disconnect(self) -> None:
        """Close all connections."""
        for channel in list(self._channels):
            channel.close()

    def forget(self, channel: Channel) -> None:
        """A connection is closed."""
        self._channels.discard(channel)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
