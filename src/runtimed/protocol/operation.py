"""The base classes of operations and replies: an operation's class states its properties and the type of its reply."""

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
    "named",
    "read_reply",
    "reply_type",
]


class ReplyBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of a reply; each operation has its own class."""


ReplyT_co = TypeVar("ReplyT_co", bound=ReplyBody, covariant=True)
ReplyT = TypeVar("ReplyT", bound=ReplyBody)


class Operation(msgspec.Struct, Generic[ReplyT_co], frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """What a request asks for. The type parameter is the content of the reply.

    Attributes:
        raw_texts: Fields whose texts may contain lone surrogates, as paths do, or are checked elsewhere.
        is_free_form: Whether a field may have any shape, so that the decoder bounds the number of values first.
        is_quick: Whether it is fast, or ends something slow, so that an overloaded host still accepts it.
        outlives_client: Whether it is performed to its end if its client's connection ends; a cancelled one is not.
        needs_process: Whether it may start a kernel, so that the client describes its process first
            (`DescribeProcess`).
    """

    raw_texts: ClassVar[frozenset[str]] = frozenset()
    is_free_form: ClassVar[bool] = False
    is_quick: ClassVar[bool] = False
    outlives_client: ClassVar[bool] = False
    needs_process: ClassVar[bool] = False


class OnSession(Operation[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """An operation on one session. It does not count as use of the session, unless a subclass says so."""

    raw_texts = frozenset({"notebook_id"})  # `check_session_id` checks it

    notebook_id: str


class InRoom(OnSession[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """An operation that is performed in the session's room, which is opened for it.

    Attributes:
        kind: The kind of session that supports it; None for both.
        is_use: Whether it counts as use of the session, which resets its idle time.
    """

    kind: ClassVar[Literal["kernel", "browser"] | None] = "kernel"
    is_use: ClassVar[bool] = True


class Streamed(InRoom[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """An operation that is answered by events, those numbered above its field `after`, and then a reply."""


class Edit(InRoom[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """An operation that edits the notebook. A resent request is deduplicated."""


def named(operation: Operation[Any]) -> str:
    """Return an operation's name for a log line, with the session and the execution that it is about."""
    about = [
        f"{word} {value!r}"
        for word, field in (("session", "notebook_id"), ("execution", "execution_id"))
        if (value := getattr(operation, field, None))
    ]
    return f"{type(operation).__name__} ({', '.join(about)})" if about else type(operation).__name__


@functools.cache
def reply_type(kind: type[Operation[ReplyT]]) -> type[ReplyT]:
    """Return the type of an operation's reply."""
    for base in kind.__mro__:
        for shape in base.__dict__.get("__orig_bases__", ()):
            for argument in get_args(shape):
                if not isinstance(argument, TypeVar):
                    found: type[ReplyT] = argument
                    return found
    raise TypeError(f"{kind.__name__} has no type of its reply")


def read_reply(operation: Operation[ReplyT], result: Mapping[str, Any]) -> ReplyT:
    """Decode a reply's content.

    Args:
        operation: The operation.
        result: The received map.

    Raises:
        ProtocolError: If it is not a reply to the operation.
    """
    try:
        reply: ReplyT = msgspec.convert(result, reply_type(type(operation)))
    except msgspec.ValidationError as exc:
        raise ProtocolError(f"not a reply to {type(operation).__name__}: {exc}") from exc
    return reply
