"""How an operation is written once for both faces: a generator that says what to ask, and gets the answers.

A flow yields `Ask` and `Follow` steps. Whoever drives it (a blocking or an asyncio connection) performs each step,
sends the reply into the generator or throws the error that came instead, and returns what the generator returns.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from runtimed.protocol.client_operations import Enqueue, StartKernel, Subscribe, Watch
from runtimed.protocol.events import Event
from runtimed.protocol.operation import Operation

__all__ = ["Ask", "Flow", "Follow", "OnEvent", "Step"]

T = TypeVar("T")

OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request; the reply's map comes back."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Follow:
    """Send a request that is answered by events and then a reply; the reply's map comes back.

    Attributes:
        on_event: Called for each event, in order; each event once, though the connection may break and be made again.
        timeout: Seconds after which a `WaitTimeout` comes instead of the reply; None waits for ever.
    """

    operation: Enqueue | Watch | Subscribe | StartKernel
    on_event: OnEvent
    timeout: float | None = None


Step = Ask | Follow
Flow = Generator[Step, dict[str, Any], T]
