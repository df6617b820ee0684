"""Connections over Unix sockets with asyncio. The operating system names the peer.

Only processes of this user get a channel, and only listeners of this user are connected to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from runtimed.protocol.connection import Side
from runtimed.transport.channel import Channel, ChannelHandler
from runtimed.transport.reception import Reception
from runtimed.transport.sockets import BACKLOG, PeerCredentials, check_listener, listen, peer_credentials

__all__ = ["connect", "serve"]

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Side[Any])


class _Arrival(asyncio.Protocol, Generic[S]):
    """A connection whose peer is not yet known."""

    def __init__(
        self, side: S, handler: Callable[[Channel[S], PeerCredentials], ChannelHandler[Any]], reception: Reception
    ) -> None:
        self._side = side
        self._handler = handler
        self._reception = reception

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        transport = cast("asyncio.Transport", transport)
        peer = peer_credentials(cast("socket.socket", transport.get_extra_info("socket")))
        if peer.uid == os.getuid():
            channel = Channel(self._side, lambda channel: self._handler(channel, peer), self._reception)
            transport.set_protocol(channel)
            channel.connection_made(transport)
            return
        logger.warning("refused a connection by user %s", peer.uid)
        self._side.refuse(f"This socket belongs to user {os.getuid()}; you are user {peer.uid}")
        transport.writelines(self._side.data_to_send())
        transport.close()


async def serve(
    path: Path,
    side: Callable[[], S],
    handler: Callable[[Channel[S], PeerCredentials], ChannelHandler[Any]],
    reception: Reception,
) -> asyncio.Server:
    """Listen on a path. Each accepted connection gets a channel and an owner.

    Args:
        path: Path of the socket.
        side: Makes this end's side of a connection.
        handler: Makes a channel's owner, given the channel and the process at its other end.
        reception: The limits that all connections share.

    Raises:
        DaemonUnavailable: If the path cannot be bound (see `sockets.listen`).
    """
    sock = listen(path)
    sock.setblocking(False)
    # asyncio calls `listen` again, with its own backlog unless it is told.
    return await asyncio.get_running_loop().create_unix_server(
        lambda: _Arrival(side(), handler, reception), sock=sock, backlog=BACKLOG
    )


async def connect(path: Path, side: S, handler: Callable[[Channel[S]], ChannelHandler[Any]]) -> Channel[S]:
    """Connect to a path.

    Args:
        path: Path of the socket.
        side: This end's side of the connection.
        handler: Makes the channel's owner.

    Raises:
        OSError: If no process listens there, or another user's does.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, str(path))
        check_listener(sock)
        _transport, channel = await loop.create_unix_connection(lambda: Channel(side, handler), sock=sock)
    except BaseException:
        sock.close()
        raise
    return channel
