"""Operations written once for both faces: generators that yield requests, and get the answers.

A flow yields `Ask` and `Follow` steps. Its driver (a blocking or an asyncio connection) performs each step, sends the
reply into the generator or throws the error instead, and returns what the generator returns.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from runtimed.protocol.arguments import check_operation
from runtimed.protocol.events import Event
from runtimed.protocol.execution_operations import Subscribe
from runtimed.protocol.operation import Operation, ReplyT, Streamed, read_reply

__all__ = ["Ask", "Flow", "Follow", "OnEvent", "Step", "ask", "follow_events", "resumed"]

T = TypeVar("T")
OperationT = TypeVar("OperationT", bound=Operation[Any])

OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request; the reply's map comes back.

    Raises:
        InvalidArgument: If the operation is none; so does `Follow`.
    """

    operation: Operation[Any]

    def __post_init__(self) -> None:
        check_operation(self.operation)


@dataclass(frozen=True, slots=True)
class Follow:
    """Send a request that is answered by events and then a reply; the reply's map comes back.

    Attributes:
        on_event: Called for each event, in order and once, even if the connection breaks and is made again.
        timeout: Seconds after which a `WaitTimeout` comes instead of the reply; None for no limit.
    """

    operation: Streamed[Any]
    on_event: OnEvent
    timeout: float | None = None

    def __post_init__(self) -> None:
        check_operation(self.operation)


Step = Ask | Follow
Flow = Generator[Step, dict[str, Any], T]


def resumed(operation: OperationT) -> OperationT:
    """Return what asks for the rest of an operation's events, after the connection broke."""
    if isinstance(operation, Subscribe):
        return msgspec.structs.replace(operation, resumed=True)
    return operation


def ask(operation: Operation[ReplyT]) -> Flow[ReplyT]:
    """Send a request and return its reply."""
    return read_reply(operation, (yield Ask(operation)))


def follow_events(operation: Streamed[ReplyT], on_event: OnEvent, timeout: float | None = None) -> Flow[ReplyT]:
    """Send a request that is answered by events, see `Follow`, and return its reply."""
    return read_reply(operation, (yield Follow(operation, on_event, timeout)))
