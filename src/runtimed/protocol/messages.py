"""The messages on a connection, as frozen tagged values: the same between client and daemon, and daemon and host.

A connection opens with `Hello`, answered by `Welcome` or `Refusal`. Then the asking side sends `Request`s, any number
of them in flight. Each is answered by any number of `EventFrame`s, then exactly one `Reply` or `Failure` of its id.
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
"""Version of the protocol, incremented with every change that an older side would misread."""


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="t"):
    """The asking side's first message.

    Attributes:
        protocol: Its PROTOCOL_VERSION.
        version: Its version of runtimed, for the message that names the side to upgrade.
        client_id: Made by the client, the same after it reconnects: its edits and executions belong to it.
        label: The client's name for people; None if it has none.
        pid: Its process id, as it reports itself. The audit log has the one from the operating system.
    """

    protocol: Number
    version: str
    client_id: str
    label: str | None
    pid: Number


class Welcome(msgspec.Struct, frozen=True, tag="welcome", tag_field="t"):
    """The greeting was accepted."""

    version: str
    pid: Number


class Refusal(msgspec.Struct, frozen=True, tag="refusal", tag_field="t"):
    """The last message: the greeting was refused, or the connection ends for this reason.

    `error` is the name of the class of `runtimed.errors` to raise.
    """

    message: str
    error: str = "ProtocolError"


OperationT_co = TypeVar("OperationT_co", bound=Operation[Any], covariant=True)


class Request(msgspec.Struct, Generic[OperationT_co], frozen=True, tag="request", tag_field="t"):
    """Requests an operation.

    Attributes:
        id: Chosen by the client, unique within its client_id, so that a resent request is deduplicated.
    """

    id: Number
    operation: OperationT_co


class Cancel(msgspec.Struct, frozen=True, tag="cancel", tag_field="t"):
    """Cancels a request, which gets no more events and no reply. Its execution goes on."""

    id: Number


class Reply(msgspec.Struct, frozen=True, tag="reply", tag_field="t"):
    """A request succeeded.

    Attributes:
        result: The operation's `ReplyBody`; a map on the receiving side, see `read_reply`.
    """

    id: Number
    result: Any


class Failure(msgspec.Struct, frozen=True, tag="failure", tag_field="t"):
    """A request failed. `error` is the name of a class of `runtimed.errors`, `data` has its attributes."""

    id: Number
    error: str
    message: str
    data: dict[str, Any]


class EventFrame(msgspec.Struct, frozen=True, tag="event", tag_field="t"):
    """An event in answer to a request. Sent as a fixed prefix and the shared bytes of the event (`encode_event_frame`).

    Attributes:
        id: The request that it answers; 0 for the stream of a host.
        seq: The event's number in the session, or in the host's stream.
        event: The encoded event; see `codec.decode_event`.
    """

    id: Number
    seq: Number
    event: bytes


class Ack(msgspec.Struct, frozen=True, tag="ack", tag_field="t"):
    """Tells a host that all events up to and including this number are stored."""

    seq: Number


AskedOfDaemon = Hello | Request[ClientOperation] | Cancel | Ack | Refusal
"""Messages from a client to a daemon."""

AskedOfHost = Hello | Request[HostOperation] | Cancel | Ack | Refusal
"""Messages from a daemon to a host."""

Asked = Hello | Request[Operation[Any]] | Cancel | Ack | Refusal
"""Messages from the asking side to the serving side."""

Answer = Welcome | Refusal | Reply | Failure | EventFrame
"""Messages from the serving side to the asking side."""

Message = Asked | Answer
