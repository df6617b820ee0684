"""Forwards the WebSocket of one client to Chromium and back; `AttachedClient` decides what passes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from tornado.iostream import IOStream, StreamClosedError

from runtimed.browser.attached_client import PASS, PATIENCE, AttachedClient, Delivery
from runtimed.browser.websocket import Frames, client_frame, server_frame

__all__ = ["CHUNK", "Tunnel"]

CHUNK: Final = 2**18
"""Bytes of one read."""

_LEAVING: Final = 1.0
"""Seconds within which Chromium must notice that a client is gone."""


class _Way:
    """One direction: forwarded messages, and our own between two of them."""

    def __init__(self, source: IOStream, sink: IOStream) -> None:
        self._source = source
        self._sink = sink
        self._frames = Frames()
        self._waiting: deque[bytes] = deque()

    async def pump(self, read: Callable[[bytes], bool]) -> None:
        """Forward everything until one end closes, except what `read` returns True for."""
        with contextlib.suppress(StreamClosedError):
            while True:
                written: Awaitable[None] | None = None
                for piece in self._frames.receive_data(await self._source.read_bytes(CHUNK, partial=True)):
                    if piece.text is None or not read(piece.text):
                        written = self._write(piece.raw)
                    self._say_waiting()
                if written is not None:
                    await written

    def _write(self, data: bytes) -> Awaitable[None] | None:
        return None if self._sink.closed() else self._sink.write(data)

    def say(self, frame: bytes) -> None:
        """Send a message of our own as soon as no other is in transit."""
        self._waiting.append(frame)
        self._say_waiting()

    def _say_waiting(self) -> None:
        while self._waiting and self._frames.between:
            self._write(self._waiting.popleft())


class Tunnel:
    """One client's connection after both handshakes.

    Args:
        client: Decides what passes.
        outside: The client's connection.
        inside: Chromium's.
        deliver: Copies a download to where the client expects it.
        used: Called when the client sends something.
    """

    def __init__(
        self,
        client: AttachedClient,
        outside: IOStream,
        inside: IOStream,
        deliver: Callable[[Delivery], Coroutine[Any, Any, None]],
        used: Callable[[], None],
    ) -> None:
        self._client = client
        self._outside, self._inside = outside, inside
        self._inward = _Way(outside, inside)
        self._outward = _Way(inside, outside)
        self._deliver = deliver
        self._used = used
        self._ended = asyncio.Event()
        self._deliveries: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Return when either side has ended, and then both; Chromium has noticed by then that the client left."""
        inward = asyncio.create_task(self._inward.pump(self._hear))
        outward = asyncio.create_task(self._outward.pump(self._tell))
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait([inward, outward, ended], return_when=asyncio.FIRST_COMPLETED)
            self._outside.close()
            if self._client.changed and not self._inside.closed():
                self._inside.socket.shutdown(socket.SHUT_WR)
                await asyncio.wait([outward], timeout=_LEAVING)
        finally:
            tasks = [inward, outward, ended, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for end in (inward, outward):
            if not end.cancelled():
                end.result()

    def _hear(self, text: bytes) -> bool:
        self._used()
        verdict = self._client.command(text)
        if verdict is PASS:
            return False
        for answer in verdict.answers:
            self._outward.say(server_frame(answer))
        for message in verdict.onward or ():
            self._inward.say(client_frame(message))
        if verdict.impatient is not None:
            self._start(self._give_up(verdict.impatient))
        if verdict.ends:
            self._ended.set()
        return verdict.onward is not None

    def _tell(self, text: bytes) -> bool:
        told = self._client.told(text)
        if told.delivery is not None:
            self._start(self._tell_when_delivered(told.delivery, text))
        return not told.passes

    async def _tell_when_delivered(self, delivery: Delivery, text: bytes) -> None:
        work = self._deliveries.get(delivery.guid)
        if work is None:  # several of its sessions may hear of it, but it gets one copy
            work = self._deliveries[delivery.guid] = self._start(self._deliver(delivery))
        await asyncio.wait({work})
        self._outward.say(server_frame(text))

    async def _give_up(self, target: str) -> None:
        await asyncio.sleep(PATIENCE)
        answer = self._client.give_up(target)
        if answer is not None:
            self._inward.say(client_frame(answer))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
