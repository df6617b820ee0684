"""The messages of comms as they travel, in either direction. Nothing here knows what one means."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from runtimed.models import CommType
from runtimed.protocol.bounds import MAX_ITEMS

__all__ = ["CommBody"]


class CommBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a comm.

    Attributes:
        content: JSON text of an object with a `comm_id`.
        metadata: JSON text of an object.
        buffers: The binary buffers.

    Source: Jupyter messaging 5.4, "Custom Messages".
    """

    msg_type: CommType
    content: str
    metadata: str = "{}"
    buffers: Annotated[tuple[bytes, ...], Meta(max_length=MAX_ITEMS)] = ()
