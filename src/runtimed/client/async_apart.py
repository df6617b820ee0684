"""One call on a connection of its own, for asyncio."""

from __future__ import annotations

from typing import TypeVar

from runtimed.client.aio import AsyncConnection
from runtimed.client.flows import Flow
from runtimed.client.identity import Identity

__all__ = ["apart"]

T = TypeVar("T")


async def apart(identity: Identity, flow: Flow[T], *, start_daemon: bool = True) -> T:
    """Perform a flow on a connection that is made for it.

    Args:
        identity: Who asks.
        flow: What to ask.
        start_daemon: Whether to start a daemon where none answers.

    Raises:
        DaemonUnavailable: If no daemon answers and none can be started, or should not be.
    """
    connection = AsyncConnection(identity, start_daemon=start_daemon)
    await connection.open()
    try:
        return await connection.perform(flow)
    finally:
        connection.close()
