"""Questions that a shell asks while somebody types: they start nothing, and give up soon."""

from __future__ import annotations

from typing import Final, TypeVar

from runtimed.client.blocking import Connection
from runtimed.client.flows import Flow
from runtimed.client.identity import Identity

__all__ = ["DAEMON_PATIENCE", "KERNEL_PATIENCE", "ask"]

T = TypeVar("T")

DAEMON_PATIENCE: Final = 1.0
"""Seconds that Tab waits for each answer of the daemon."""

KERNEL_PATIENCE: Final = 3.0
"""Seconds that Tab and Shift-Tab wait for the session's kernel, whose first completion imports much."""


def ask(flow: Flow[T], patience: float = DAEMON_PATIENCE) -> T:
    """Ask the daemon if one runs. This starts none, and waits for none that is busy or stuck.

    Args:
        flow: What to ask.
        patience: Seconds to wait for each answer.

    Raises:
        RuntimedError: If no daemon runs, or no answer comes in time, or the answer is an error.
    """
    connection = Connection(Identity(), start_daemon=False, patience=patience)
    connection.open()
    try:
        return connection.perform(flow)
    finally:
        connection.close()
