"""The common part of all operations: what their classes say of them, and the reply of each.

There are no lists of operations of one kind, and no reply is taken apart by hand.
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
    """The content of a reply. Each kind of operation names its own."""


ReplyT_co = TypeVar("ReplyT_co", bound=ReplyBody, covariant=True)
ReplyT = TypeVar("ReplyT", bound=ReplyBody)


class Operation(msgspec.Struct, Generic[ReplyT_co], frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """A request of one side of a connection to the other. The parameter is the reply's content.

    Attributes:
        raw_texts: Fields whose texts may hold lone surrogates, as paths do, or are checked elsewhere.
        is_free_form: Whether a field may have any shape; the decoder counts the operation's values first.
        is_quick: Whether it takes no time, or ends what does: an overloaded host still accepts it.
        needs_process: Whether a kernel may start for it: the client describes its process first (`DescribeProcess`).
    """

    raw_texts: ClassVar[frozenset[str]] = frozenset()
    is_free_form: ClassVar[bool] = False
    is_quick: ClassVar[bool] = False
    needs_process: ClassVar[bool] = False


class OnSession(Operation[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """An operation of the daemon on one session. By itself it does not count as use: idle time goes on."""

    raw_texts = frozenset({"notebook_id"})  # `check_session_id` has a sentence of its own

    notebook_id: str


class InRoom(OnSession[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """Performed in the session's room, which is opened for it.

    Attributes:
        kind: Kind of sessions that have it; None for both.
        is_use: Whether it counts as use of the session.
    """

    kind: ClassVar[Literal["kernel", "browser"] | None] = "kernel"
    is_use: ClassVar[bool] = True


class Streamed(InRoom[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """Answered by events, and then by a reply. Its field `after` names the event behind which they begin."""


class Edit(InRoom[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """Changes the document. A request that is sent again is deduplicated."""


@functools.cache
def reply_type(kind: type[Operation[ReplyT]]) -> type[ReplyT]:
    """Return the reply's type of a kind of operation."""
    for base in kind.__mro__:
        for shape in base.__dict__.get("__orig_bases__", ()):
            for argument in get_args(shape):
                if not isinstance(argument, TypeVar):
                    found: type[ReplyT] = argument
                    return found
    raise TypeError(f"{kind.__name__} does not say what its reply is")


def read_reply(operation: Operation[ReplyT], result: Mapping[str, Any]) -> ReplyT:
    """Decode a reply's content.

    Args:
        operation: The operation.
        result: The map that arrived.

    Raises:
        ProtocolError: If it is no reply to the operation.
    """
    try:
        reply: ReplyT = msgspec.convert(result, reply_type(type(operation)))
    except msgspec.ValidationError as exc:
        raise ProtocolError(f"not a reply to {type(operation).__name__}: {exc}") from exc
    return reply
