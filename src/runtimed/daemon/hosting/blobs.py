"""Fetches the large values of a host that keeps them, before the events that refer to them are stored."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable
from typing import Any, Protocol

from runtimed.daemon.hosting.launcher import Place
from runtimed.errors import ConnectionLost, RuntimedError
from runtimed.execution.outputs import blobs_in
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Blob
from runtimed.protocol.host_operations import HostDropBlob, HostReadBlob
from runtimed.protocol.operation import Operation, ReplyT
from runtimed.storage.blobs import BlobStore

__all__ = ["BlobHost", "fetch_blobs"]

logger = logging.getLogger(__name__)


class BlobHost(Protocol):
    """A host that answers requests.

    Attributes:
        name: The host in log lines, with its session.
        place: Where it is.
    """

    name: str
    place: Place

    def ask(self, operation: Operation[ReplyT]) -> Awaitable[ReplyT]:
        """Send a request; the awaitable returns the reply, or raises the error that the host reported."""

    def tell(self, operation: Operation[Any]) -> None:
        """Send a request; a failure is logged."""


async def fetch_blobs(host: BlobHost, store: BlobStore, events: list[tuple[int, bytes]]) -> None:
    """Fetch all blobs to which these events of a host refer. One that the host has lost is logged, and stays missing.

    Raises:
        ConnectionLost: If the connection breaks.
        StorageError: If a blob cannot be stored here.
    """
    for _n, body in events:
        # The key of the field. Decoding the text of every stream would take long.
        if b"sha256" in body:
            for blob in blobs_in(decode_event(body)):
                data = None if await asyncio.to_thread(store.renew, blob.sha256) else await _read(host, blob)
                if data is not None:
                    await asyncio.to_thread(store.put, data)
                host.tell(HostDropBlob(sha256=blob.sha256))


async def _read(host: BlobHost, blob: Blob) -> bytes | None:
    """Return a blob of the host; None if the host does not have it whole."""
    data = bytearray()
    try:
        while len(data) < blob.size:
            piece = (await host.ask(HostReadBlob(sha256=blob.sha256, offset=len(data)))).data
            if not piece:
                break
            data += piece
    except ConnectionLost:
        raise
    except RuntimedError as exc:
        logger.warning("%s in %s has lost blob %s: %s", host.name, host.place, blob.sha256, exc)
        return None
    if hashlib.sha256(data).hexdigest() != blob.sha256:
        logger.warning("%s in %s has a damaged blob %s", host.name, host.place, blob.sha256)
        return None
    return bytes(data)
