"""The socket on which a daemon listens, and its open connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtimed.daemon.rooms.events import PeerChannel
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.codec import decode_asked_of_daemon
from runtimed.protocol.connection import ServingSide
from runtimed.protocol.handshake import check_client
from runtimed.transport.channel import ChannelHandler
from runtimed.transport.reception import Reception
from runtimed.transport.sockets import PeerCredentials
from runtimed.transport.unix import serve
from runtimed.version import __version__

__all__ = ["Connected", "Listener"]

Connected = Callable[[PeerChannel, PeerCredentials], ChannelHandler[Any]]
"""Makes the handler of a new connection, given the channel and the process at its other end."""


class Listener:
    """Listens on one socket, once."""

    def __init__(self, path: Path, reception: Reception) -> None:
        self._path = path
        self._reception = reception
        self._channels: set[PeerChannel] = set()
        self._server: asyncio.Server | None = None
        self._inode: int | None = None

    async def open(self, connected: Connected) -> None:
        """Listen and give each connection a handler.

        Args:
            connected: Makes the handler.

        Raises:
            DaemonUnavailable: If the socket's path cannot be bound.
        """

        def accept(channel: PeerChannel, credentials: PeerCredentials) -> ChannelHandler[Any]:
            self._channels.add(channel)
            return connected(channel, credentials)

        self._server = await serve(self._path, _new_side, accept, self._reception)
        self._inode = _inode(self._path)

    @property
    def is_in_place(self) -> bool:
        """Whether a client that connects to the socket's path reaches this daemon."""
        return _inode(self._path) == self._inode

    def close(self) -> None:
        """Remove the socket, so that the next client starts the next daemon; open connections stay. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
            # Once: a socket that appears there later is the next daemon's.
            if self.is_in_place:
                self._path.unlink(missing_ok=True)

    def disconnect(self) -> None:
        """Close all connections."""
        for channel in list(self._channels):
            channel.close()

    def forget(self, channel: PeerChannel) -> None:
        """Forget a connection that has ended."""
        self._channels.discard(channel)


def _new_side() -> ServingSide[ClientOperation, Any]:
    return ServingSide(decode_asked_of_daemon, check_client, __version__, os.getpid())


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
