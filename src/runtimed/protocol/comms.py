"""The wire form of a comm message, in either direction. Nothing here interprets one."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from runtimed.models import CommType
from runtimed.protocol.bounds import MAX_ITEMS

__all__ = ["MAX_COMM", "MAX_REQUEST_ID", "CommBody"]

MAX_COMM: Final = 15 * 2**20
"""Largest message of a comm, buffers included, in bytes: it has to fit into a frame."""


MAX_REQUEST_ID: Final = 1000
"""Longest id of a frontend's message, in characters."""


class CommBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One comm message.

    Attributes:
        content: JSON text of an object with a `comm_id`.
        metadata: JSON text of an object.
        buffers: Binary buffers.
        request_id: The id of a frontend's message: to the kernel this one's own, if it has one; from the kernel that of
            the message that caused this one, by which a frontend knows its echo.

    Source: Jupyter messaging 5.4, "Custom Messages".
    """

    msg_type: CommType
    content: str
    metadata: str = "{}"
    buffers: Annotated[tuple[bytes, ...], Meta(max_length=MAX_ITEMS)] = ()
    request_id: Annotated[str, Meta(max_length=MAX_REQUEST_ID)] | None = None
