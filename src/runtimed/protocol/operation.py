"""What all operations have in common: what their classes say of them, and which reply each of them gets.

Nobody keeps lists of operations of one kind, and nobody takes a reply apart by hand.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import msgspec

from runtimed.errors import ProtocolError

__all__ = [
    "Edit",
    "InRoom",
    "OnSession",
    "Operation",
    "ReplyBody",
    "ReplyT",
    "ReplyT_co",
    "Streamed",
    "read_reply",
    "reply_type",
]


class ReplyBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reply says. Each kind of operation names its own."""


ReplyT_co = TypeVar("ReplyT_co", bound=ReplyBody, covariant=True)
ReplyT = TypeVar("ReplyT", bound=ReplyBody)


class Operation(msgspec.Struct, Generic[ReplyT_co], frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """Something that one side of a connection asks of the other. The parameter is what the reply says.

    Attributes:
        is_free_form: Whether a field has any shape; whoever decodes the operation counts its values first.
        is_quick: Whether it takes no time, or ends what does: a host that has too much to do still takes it.
        needs_process: Whether a kernel may start for it: the client describes its process first (`DescribeProcess`).
    """

    is_free_form: ClassVar[bool] = False
    is_quick: ClassVar[bool] = False
    needs_process: ClassVar[bool] = False


class OnSession(Operation[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """Asked of the daemon about one session. By itself no use of it: its idle time goes on."""

    notebook_id: str


class InRoom(OnSession[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """Done in the session's room, which is opened for it.

    Attributes:
        kind: Kind of the sessions of which it can be asked; None for both.
        is_use: Whether it counts as use of the session.
    """

    kind: ClassVar[Literal["kernel", "browser"] | None] = "kernel"
    is_use: ClassVar[bool] = True


class Streamed(InRoom[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """Answered by events, and then by a reply. Its field `after` says behind which event they begin."""


class Edit(InRoom[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """Changes the document, once for each request, however often that is sent."""


@functools.cache
def reply_type(kind: type[Operation[ReplyT]]) -> type[ReplyT]:
    """Return what the reply to operations of a kind says."""
    for base in kind.__mro__:
        for shape in base.__dict__.get("__orig_bases__", ()):
            for argument in get_args(shape):
                if not isinstance(argument, TypeVar):
                    found: type[ReplyT] = argument
                    return found
    raise TypeError(f"{kind.__name__} does not say what its reply is")


def read_reply(operation: Operation[ReplyT], result: Mapping[str, Any]) -> ReplyT:
    """Return what a reply says.

    Args:
        operation: What was asked.
        result: The map that came.

    Raises:
        ProtocolError: If that is no reply to it.
    """
    try:
        reply: ReplyT = msgspec.convert(result, reply_type(type(operation)))
    except msgspec.ValidationError as exc:
        raise ProtocolError(f"not a reply to {type(operation).__name__}: {exc}") from exc
    return reply
