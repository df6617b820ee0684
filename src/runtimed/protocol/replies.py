"""Replies that several operations share; those of one operation stand beside it."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from runtimed.protocol.operation import ReplyBody

__all__ = ["Done", "EventPage", "GetBlobReply", "GetResultValueReply", "GetVariableReply", "InPieces", "KernelAnswer"]

T = TypeVar("T")


class Done(ReplyBody, frozen=True):
    """It was done, and there is nothing to say."""


class EventPage(ReplyBody, frozen=True):
    """A page of stored events.

    Attributes:
        events: The number of each, and its own bytes.
        last: After which reading goes on.
        more: Whether there is something to read on for.
    """

    events: list[tuple[int, bytes]]
    last: int
    more: bool


class InPieces(ReplyBody, Generic[T], frozen=True):
    """The beginning of a value that may be large and concerns the client alone; `ReadReply` gives the rest of it.

    Attributes:
        piece: The first of the value's MessagePack, at most 1 MiB.
        size: Bytes of all of it.
        reply_id: By which the rest is asked for; None if there is none.
    """

    piece: bytes
    size: int
    reply_id: int | None = None


class KernelAnswer(ReplyBody, frozen=True):
    """The content of the kernel's reply, as the Jupyter messaging protocol has it, cut to what fits into a frame."""

    content: dict[str, Any]


class GetBlobReply(ReplyBody, frozen=True):
    """At most 1 MiB of a blob; empty behind its end."""

    data: bytes


class GetVariableReply(ReplyBody, frozen=True):
    """A pickled value."""

    value: bytes


class GetResultValueReply(ReplyBody, frozen=True):
    """A pickled value of plain data; None where its text has to do."""

    value: bytes | None = None
