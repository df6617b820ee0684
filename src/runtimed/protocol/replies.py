"""Replies that several operations share. A reply of one operation is defined beside it."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from runtimed.protocol.operation import ReplyBody

__all__ = ["Done", "EventPage", "GetBlobReply", "GetResultValueReply", "GetVariableReply", "InPieces", "KernelAnswer"]

T = TypeVar("T")


class Done(ReplyBody, frozen=True):
    """The operation succeeded, with no further content."""


class EventPage(ReplyBody, frozen=True):
    """A page of stored events.

    Attributes:
        events: Pairs of number and encoded event.
        last: The number after which the next page starts.
        more: Whether there is a next page.
    """

    events: list[tuple[int, bytes]]
    last: int
    more: bool


class InPieces(ReplyBody, Generic[T], frozen=True):
    """The first piece of a value that may be large; `ReadReply` reads the others.

    Attributes:
        piece: At most 1 MiB of the value's MessagePack.
        size: Size of all of it, in bytes.
        reply_id: Id for `ReadReply`; None if this is the only piece.
    """

    piece: bytes
    size: int
    reply_id: int | None = None


class KernelAnswer(ReplyBody, frozen=True):
    """The content of the kernel's reply, as in the Jupyter messaging protocol, truncated to fit into a frame."""

    content: dict[str, Any]


class GetBlobReply(ReplyBody, frozen=True):
    """A piece of a blob, at most 1 MiB; empty behind its end."""

    data: bytes


class GetVariableReply(ReplyBody, frozen=True):
    """A pickled value."""

    value: bytes


class GetResultValueReply(ReplyBody, frozen=True):
    """A pickled value of plain data; None if only its text is available."""

    value: bytes | None = None
