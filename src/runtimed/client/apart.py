"""One call on a connection of its own."""

from __future__ import annotations

from typing import TypeVar

from runtimed.client.blocking import Connection
from runtimed.client.flows import Flow
from runtimed.client.identity import Identity

__all__ = ["apart"]

T = TypeVar("T")


def apart(identity: Identity, flow: Flow[T], *, start_daemon: bool = True, patience: float | None = None) -> T:
    """Perform a flow on a new connection.

    Args:
        identity: The client.
        flow: The call.
        start_daemon: Whether to start a daemon if none answers.
        patience: Seconds to wait for the daemon, and for each of its answers; None for the usual deadlines.

    Raises:
        DaemonUnavailable: If no daemon answers, and none can or should be started.
        ExecutionTimeout: If an answer takes longer.
    """
    connection = Connection(identity, start_daemon=start_daemon, patience=patience)
    connection.open()
    try:
        return connection.perform(flow)
    finally:
        connection.close()
