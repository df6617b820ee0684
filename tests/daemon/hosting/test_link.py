"""The link to a host that keeps its large values: whatever arrives while some are fetched is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.hosting.link import HostLink
from runtimed.errors import NoKernel, StorageError
from runtimed.ids import HostEpoch
from runtimed.protocol.codec import encode_event
from runtimed.protocol.connection import Failed, Greeted, Numbered
from runtimed.protocol.events import KernelState
from runtimed.protocol.host_operations import Execute
from runtimed.storage.blobs import BlobStore
from tests.daemon.conftest import until

EVENT = encode_event(KernelState(at=0.0, status="idle"))


class Owner:
    """Stores what comes; `meanwhile` is called behind each event, in the loop's next turn."""

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.meanwhile: Callable[[int], None] = lambda _n: None
        self.fails: Exception | None = None

    def check_room(self) -> None:
        pass

    def host_events(self, events: list[tuple[int, bytes]]) -> None:
        if self.fails is not None:
            raise self.fails
        for n, _body in events:
            self.stored.append(n)
            asyncio.get_running_loop().call_soon(self.meanwhile, n)


class Channel:
    """A connection that is open until it is closed, to a host that greets; it notes what is acknowledged and asked."""

    def __init__(self, side: Any, handler: Any) -> None:
        self.side = side
        self.side.acknowledge = self.acknowledge
        self.side.ask = self.ask
        self.acknowledged: list[int] = []
        self.asked: list[Any] = []
        self.is_open = True
        handler.received([Greeted(version="0", pid=1)])

    def acknowledge(self, seq: int) -> None:
        self.acknowledged.append(seq)

    def ask(self, _operation: Any, waiter: Any) -> int:
        self.asked.append(waiter)
        return len(self.asked)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.is_open = False


class Launcher:
    """Of hosts elsewhere."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs
        self.channels: list[Channel] = []

    async def connect(self, place: object, side: Any, handler_of: Callable[[Any], Any]) -> Channel:
        self.channels.append(Channel(side, handler_of(None)))
        return self.channels[-1]


async def linked(folder: Path) -> tuple[Any, Owner, Channel]:
    owner = Owner()
    launcher: Any = Launcher(BlobStore(folder))
    place: Any = "elsewhere"
    of_tests: Any = owner
    link = HostLink(launcher, "the host of session 's'", place, HostEpoch("e"), Flow(Demand(), "s"), of_tests, None)
    await link.greet()
    return link, owner, launcher.channels[0]


def test_what_arrives_just_as_the_last_is_stored_is_stored_too(tmp_path: Path):
    async def scene() -> tuple[list[int], list[int]]:
        link, owner, channel = await linked(tmp_path)
        owner.meanwhile = lambda n: link.received([Numbered(n + 1, EVENT)]) if n < 5 else None
        link.received([Numbered(1, EVENT)])
        await until(lambda: len(channel.acknowledged) == 5, "an event is lost")
        return owner.stored, channel.acknowledged

    assert asyncio.run(scene()) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])


@pytest.mark.parametrize("error", [StorageError("The disk is full"), ValueError("odd")])
def test_what_cannot_be_stored_is_not_acknowledged_and_what_follows_is_left_to_the_host(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
):
    async def scene() -> tuple[list[int], list[int], bool]:
        link, owner, channel = await linked(tmp_path)
        owner.fails = error
        link.received([Numbered(1, EVENT)])
        await until(lambda: caplog.records, "nobody is told")
        owner.fails = None
        link.received([Numbered(2, EVENT)])
        await asyncio.sleep(0.05)
        return owner.stored, channel.acknowledged, channel.is_open

    assert asyncio.run(scene()) == ([], [], isinstance(error, StorageError))
    assert ("cannot be stored" in caplog.text) == isinstance(error, StorageError)
    assert all("the host of session 's' in elsewhere" in record.getMessage() for record in caplog.records)


def test_a_refused_request_is_logged_with_its_session_and_execution(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async def scene() -> None:
        link, _owner, channel = await linked(tmp_path)
        link.tell(Execute(execution_id="e", cell_id="c", code="1"))
        (waiter,) = channel.asked
        link.received([Failed(1, waiter, NoKernel("It has ended"))])
        await until(lambda: caplog.records, "nobody is told")

    asyncio.run(scene())
    assert caplog.messages == ["the host of session 's' in elsewhere refused Execute (execution 'e'): It has ended"]
