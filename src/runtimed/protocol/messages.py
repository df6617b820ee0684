"""The messages on a connection, as frozen tagged values: clients ask daemons, and daemons ask hosts, in the same words.

A connection opens with `Hello`, answered by `Welcome` or `Refusal`. Then the asking side sends `Request`s, any number
of them in flight; each gets any number of `EventFrame`s and then exactly one `Reply` or `Failure` of the same id.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

from runtimed.protocol.bounds import Number
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.host_operations import HostOperation
from runtimed.protocol.operation import Operation

__all__ = [
    "PROTOCOL_VERSION",
    "Ack",
    "Answer",
    "Asked",
    "AskedOfDaemon",
    "AskedOfHost",
    "Cancel",
    "EventFrame",
    "Failure",
    "Hello",
    "Message",
    "Refusal",
    "Reply",
    "Request",
    "Welcome",
]

PROTOCOL_VERSION: Final = 2
"""Raised by one with every change that an older side would misread."""


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="t"):
    """The asking side's first message.

    Attributes:
        protocol: Its PROTOCOL_VERSION.
        version: Its version of runtimed, for the sentence that says which side to upgrade.
        client_id: Made by the client, the same after it reconnects: it owns its edits and its queue.
        label: What people call the client; None if nobody named it.
        pid: Its process id, as it says. What is written down of a client comes from the operating system.
    """

    protocol: Number
    version: str
    client_id: str
    label: str | None
    pid: Number


class Welcome(msgspec.Struct, frozen=True, tag="welcome", tag_field="t"):
    """The handshake succeeded."""

    version: str
    pid: Number


class Refusal(msgspec.Struct, frozen=True, tag="refusal", tag_field="t"):
    """The handshake failed, or the connection ends for this reason. The last message.

    `error` names the class of `runtimed.errors` that says so to the user.
    """

    message: str
    error: str = "ProtocolError"


OperationT_co = TypeVar("OperationT_co", bound=Operation[Any], covariant=True)


class Request(msgspec.Struct, Generic[OperationT_co], frozen=True, tag="request", tag_field="t"):
    """Something to do.

    Attributes:
        id: Chosen by the client, unique within its client_id, so that a resent request is recognised.
    """

    id: Number
    operation: OperationT_co


class Cancel(msgspec.Struct, frozen=True, tag="cancel", tag_field="t"):
    """The client has lost interest in a request; it gets no more events and no reply. Executions go on."""

    id: Number


class Reply(msgspec.Struct, frozen=True, tag="reply", tag_field="t"):
    """A request succeeded.

    Attributes:
        result: The `ReplyBody` that the operation names; its map on the side that gets it, for `read_reply`.
    """

    id: Number
    result: Any


class Failure(msgspec.Struct, frozen=True, tag="failure", tag_field="t"):
    """A request failed. `error` names a class of `runtimed.errors`, `data` holds its attributes."""

    id: Number
    error: str
    message: str
    data: dict[str, Any]


class EventFrame(msgspec.Struct, frozen=True, tag="event", tag_field="t"):
    """An event for one request. Sent as a fixed prefix and the shared bytes of the event (`encode_event_frame`).

    Attributes:
        id: The request whose answer it is part of; 0 on the connection from a host, which has one stream.
        seq: The event's number: in the session's log, or the host's own.
        event: The event's own bytes; `codec.decode_event` reads them.
    """

    id: Number
    seq: Number
    event: bytes


class Ack(msgspec.Struct, frozen=True, tag="ack", tag_field="t"):
    """To a host: all events up to and including this number are stored."""

    seq: Number


AskedOfDaemon = Hello | Request[ClientOperation] | Cancel | Ack | Refusal
"""What a daemon may get from a client."""

AskedOfHost = Hello | Request[HostOperation] | Cancel | Ack | Refusal
"""What a host may get from a daemon."""

Asked = Hello | Request[Operation[Any]] | Cancel | Ack | Refusal
"""What the side that listens may get."""

Answer = Welcome | Refusal | Reply | Failure | EventFrame
"""What the side that connected may get."""

Message = Asked | Answer
