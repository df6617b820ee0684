"""The proxy kernel's sockets and a frontend's, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import zmq
from jupyter_client.session import Session

from runtimed.jupyter.proxy_kernel.messages import Reply, Request
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
            await asyncio.sleep(0.005)


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
