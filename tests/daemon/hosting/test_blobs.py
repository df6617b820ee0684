"""What a host keeps is fetched before it is stored; what the host has lost keeps nothing else from being taken."""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from runtimed.daemon.hosting.blobs import fetch_blobs
from runtimed.daemon.hosting.launcher import Place
from runtimed.errors import ConnectionLost, StorageError
from runtimed.protocol.codec import encode_event
from runtimed.protocol.events import Display, Stream
from runtimed.protocol.host_operations import HostDropBlob, HostReadBlob
from runtimed.protocol.operation import Operation
from runtimed.protocol.replies import GetBlobReply
from runtimed.storage.blobs import BlobStore

DATA = os.urandom(1000)
NAME = hashlib.sha256(DATA).hexdigest()


def shows(sha256: str, size: int) -> bytes:
    blob = {"t": "blob", "sha256": sha256, "size": size, "text": False}
    return encode_event(Display(at=1, execution_id="e", kind="display_data", data={"image/png": blob}))


class Host:
    """A host that has one value, of which it gives 400 bytes at a time."""

    name = "the host of session 's'"
    place = Place("there")

    def __init__(self, data: bytes | Exception) -> None:
        self.data = data
        self.asked: list[int] = []
        self.dropped: list[str] = []

    async def ask(self, operation: Operation[Any]) -> Any:
        assert isinstance(operation, HostReadBlob)
        self.asked.append(operation.offset)
        if isinstance(self.data, Exception):
            raise self.data
        return GetBlobReply(data=self.data[operation.offset :][:400])

    def tell(self, operation: Operation[Any]) -> None:
        assert isinstance(operation, HostDropBlob)
        self.dropped.append(operation.sha256)


EVENTS = [(1, encode_event(Stream(at=1, name="stdout", text="sha256"))), (2, shows(NAME, len(DATA)))]


def test_a_value_is_fetched_in_pieces_once_and_dropped_by_the_host(tmp_path: Path) -> None:
    host, store = Host(DATA), BlobStore(tmp_path)
    asyncio.run(fetch_blobs(host, store, EVENTS))
    assert (store.read(NAME, 0, 2000), host.asked, host.dropped) == (DATA, [0, 400, 800], [NAME])
    os.utime(tmp_path / NAME[:2] / NAME[2:4] / NAME, (1, 1))
    asyncio.run(fetch_blobs(host, store, EVENTS))
    assert (host.asked, host.dropped, list(store.older_than(2.0))) == ([0, 400, 800], [NAME, NAME], [])


@pytest.mark.parametrize("data", [DATA[:-1], DATA[:-1] + b"?", StorageError("it is gone")])
def test_a_value_that_the_host_has_lost_stays_missing(
    tmp_path: Path, data: bytes | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    host, store = Host(data), BlobStore(tmp_path)
    asyncio.run(fetch_blobs(host, store, EVENTS))
    assert list(store.older_than(float("inf"))) == []
    (line,) = caplog.messages
    assert line.startswith("the host of session 's' in there has ")
    assert NAME in line


def test_a_connection_that_breaks_is_no_loss(tmp_path: Path) -> None:
    with pytest.raises(ConnectionLost):
        asyncio.run(fetch_blobs(Host(ConnectionLost("broken")), BlobStore(tmp_path), EVENTS))
