"""The messages between frontend and proxy kernel, as values. Nothing here waits or opens a socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["AskInput", "Outgoing", "Publish", "Reply", "Request"]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A message of a frontend.

    Attributes:
        channel: Where it came from, and its reply goes.
        identities: The way back to the frontend, for a ROUTER socket.
        header: Its header, the parent of whatever it causes.
    """

    channel: Literal["shell", "control", "stdin"]
    identities: Sequence[bytes]
    header: Mapping[str, Any]
    metadata: Mapping[str, Any]
    content: Mapping[str, Any]
    buffers: Sequence[bytes] = ()

    @property
    def msg_id(self) -> str:
        """Its id."""
        return str(self.header["msg_id"])

    @property
    def msg_type(self) -> str:
        """Its type."""
        return str(self.header["msg_type"])


@dataclass(frozen=True, slots=True)
class Publish:
    """A message for all frontends, on IOPub. Its parent is a header, empty for none."""

    msg_type: str
    content: Mapping[str, Any]
    parent: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    buffers: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request, on its channel."""

    request: Request
    content: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AskInput:
    """A request for a line of input, to the frontend whose request shows the execution."""

    request: Request
    execution_id: str
    prompt: str
    password: bool


Outgoing = Publish | Reply | AskInput
"""What a proxy kernel sends."""
