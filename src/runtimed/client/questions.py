"""Input requests of running code: whether one is still open after an interrupt."""

from __future__ import annotations

import time
from typing import Final

from runtimed.client.session import Session

__all__ = ["still_asks"]

PATIENCE: Final = 2.0
"""Seconds within which an interrupt ends an open input request."""

_PAUSE: Final = 0.05
"""Seconds between two checks."""


def still_asks(session: Session, execution_id: str) -> bool:
    """Return whether an execution that was just interrupted asks for input again; blocks for up to PATIENCE.

    A question that is read after the interrupt may be older than it: nobody would take the answer, and a client that
    waits for one would wait without end. Code that handles the interrupt may also ask anew.

    Args:
        session: A joined session.
        execution_id: The execution.
    """
    deadline = time.monotonic() + PATIENCE
    while any(entry.execution_id == execution_id and entry.is_asking for entry in session.get_queue()):
        if time.monotonic() > deadline:
            return True
        time.sleep(_PAUSE)
    return False
