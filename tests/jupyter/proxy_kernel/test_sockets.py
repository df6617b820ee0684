"""The proxy kernel's sockets and a frontend's, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
import zmq
from jupyter_client.session import Session

from runtimed.jupyter.proxy_kernel import iopub
from runtimed.jupyter.proxy_kernel.messages import Publish, Reply, Request
from runtimed.jupyter.proxy_kernel.sockets import Sockets
from tests.jupyter.proxy_kernel.conftest import TIMEOUT

KEY: Final = b"secret"


class Opened:
    """Sockets, and what they have heard."""

    def __init__(self) -> None:
        self.heard: list[Request] = []
        self.sockets = Sockets({"ip": "127.0.0.1", "key": KEY.decode()}, self.heard.append)
        self.session = Session(key=KEY)
        self._context = zmq.Context()

    def connect(self, kind: int, name: str, **options: int) -> Any:
        """Connect a frontend's socket to a port."""
        socket = self._context.socket(kind)
        for option, value in options.items():
            setattr(socket, option, value)
        socket.connect(f"tcp://127.0.0.1:{self.sockets.ports[name]}")
        return socket

    def close(self) -> None:
        self.sockets.close()
        self._context.destroy(linger=0)


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Opened]:
    sockets = Opened()
    try:
        yield sockets
    finally:
        sockets.close()


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until something is so."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.002)


def test_a_request_that_arrives_while_a_reply_is_sent_is_heard() -> None:
    async def main() -> None:
        async with opened() as kernel:
            shell = kernel.connect(zmq.DEALER, "shell_port")
            kernel.session.send(shell, "kernel_info_request", {})
            await until(lambda: kernel.heard)
            kernel.session.send(shell, "connect_request", {})
            # No turn of the loop may come between: the request has arrived, and ZMQ, which looks rarely, will look.
            shell_socket = kernel.sockets._channels["shell"]  # noqa: SLF001  # its descriptor is what tells of it
            select.select([shell_socket.fileno()], [], [], TIMEOUT)
            time.sleep(0.01)  # noqa: ASYNC251
            kernel.sockets.send(Reply(kernel.heard[0], {}))  # and with it the descriptor is quiet again
            await until(lambda: len(kernel.heard) == 2)
            assert kernel.heard[1].msg_type == "connect_request"

    asyncio.run(main())


async def published(kernel: Opened, count: int, size: int) -> None:
    """Publish numbered texts as the session's stream comes: the next one once there is room."""
    for number in range(count):
        kernel.sockets.send(Publish("stream", {"name": "stdout", "text": f"{number} ".ljust(size, ".")}))
        await kernel.sockets.published()


async def subscribed(kernel: Opened, **options: int) -> Any:
    """Return a frontend's subscription that has begun."""
    socket = kernel.connect(zmq.SUB, "iopub_port", **options)
    socket.subscribe(b"")
    await until(lambda: socket.poll(0))
    assert socket.recv_multipart()[0] == b"<IDS|MSG>"  # the welcome
    return socket


async def number_in(socket: Any) -> int:
    """Read the next text's number."""
    while True:
        await until(lambda: socket.poll(0))
        content = json.loads(socket.recv_multipart()[-1])
        if "text" in content:  # each welcome comes to all
            return int(content["text"].split()[0])


async def numbers_in(socket: Any, last: int) -> list[int]:
    """Read what was published, up to a number."""
    found: list[int] = []
    while not found or found[-1] != last:
        found.append(await number_in(socket))
    return found


def test_a_frontend_that_reads_late_gets_all() -> None:
    async def main() -> None:
        async with opened() as kernel:
            quick, late = await subscribed(kernel, rcvhwm=0), await subscribed(kernel, rcvhwm=1)
            publishing = asyncio.ensure_future(published(kernel, 150, 10**6))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await asyncio.shield(publishing)
            assert await numbers_in(late, 149) == list(range(150))
            await publishing
            assert await numbers_in(quick, 149) == list(range(150))

    asyncio.run(main())


def test_one_that_never_reads_holds_up_the_others_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(iopub, "PATIENCE", 0.2)

    async def main() -> None:
        async with opened() as kernel:
            quick, dead = await subscribed(kernel), await subscribed(kernel, rcvhwm=1)
            publishing = asyncio.ensure_future(published(kernel, 200, 10**5))
            assert await numbers_in(quick, 199) == list(range(200))
            await publishing
            assert [record.message for record in caplog.records] == [
                "a frontend has read nothing for 0.2 seconds, and misses what comes until it does"
            ]
            # It reads again: first what it had not missed, and soon all that comes.
            monkeypatch.setattr(iopub, "PATIENCE", TIMEOUT)
            assert await number_in(dead) == 0
            number, marker = 0, 1000
            while number < 1000:
                kernel.sockets.send(Publish("stream", {"text": f"{marker} "}))
                marker += 1
                number = await number_in(dead)
            publishing = asyncio.ensure_future(published(kernel, 200, 10**5))
            for reader in (dead, quick):
                found = [number for number in await numbers_in(reader, 199) if number < 1000]
                assert found == list(range(200))
            await publishing
            assert len(caplog.records) == 1

    asyncio.run(main())
