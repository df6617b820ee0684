"""One call on a connection of its own, for asyncio."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from runtimed.client.aio import AsyncConnection
from runtimed.client.flows import Flow
from runtimed.client.identity import Identity
from runtimed.transport.blocking import WaitTimeout

__all__ = ["apart"]

T = TypeVar("T")


async def apart(identity: Identity, flow: Flow[T], *, start_daemon: bool = True, patience: float | None = None) -> T:
    """Perform a flow on a new connection.

    Args:
        identity: The client.
        flow: The call.
        start_daemon: Whether to start a daemon if none answers.
        patience: Seconds to wait for the daemon and all of its answers; None for the usual deadlines.

    Raises:
        DaemonUnavailable: If no daemon answers, and none can or should be started.
        ExecutionTimeout: If it takes longer.
    """
    connection = AsyncConnection(identity, start_daemon=start_daemon)
    waiting = asyncio.timeout(patience)
    try:
        async with waiting:
            await connection.open()
            return await connection.perform(flow)
    except TimeoutError as exc:
        if not waiting.expired():
            raise
        raise WaitTimeout(f"The daemon did not answer within {patience:g} s") from exc
    finally:
        connection.close()
