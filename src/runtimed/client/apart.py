"""One call on a connection of its own."""

from __future__ import annotations

from typing import TypeVar

from runtimed.client.blocking import Connection
from runtimed.client.flows import Flow
from runtimed.client.identity import Identity

__all__ = ["apart"]

T = TypeVar("T")


def apart(identity: Identity, flow: Flow[T], *, start_daemon: bool = True, patience: float | None = None) -> T:
    """Perform a flow on a connection that is made for it.

    Args:
        identity: Who asks.
        flow: What to ask.
        start_daemon: Whether to start a daemon where none answers.
        patience: Seconds to wait for the daemon, and for each of its answers; None for the usual deadlines.

    Raises:
        DaemonUnavailable: If no daemon answers and none can be started, or should not be.
        ExecutionTimeout: If an answer takes longer than that.
    """
    connection = Connection(identity, start_daemon=start_daemon, patience=patience)
    connection.open()
    try:
        return connection.perform(flow)
    finally:
        connection.close()
