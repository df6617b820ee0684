"""Channels over real sockets: everybody has a turn, and who does not want to read is not read to."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.codec import decode_asked_of_daemon, encode_message
from runtimed.protocol.connection import Abandoned, Acknowledged, Asked, Greeting, ServingEvent, ServingSide
from runtimed.protocol.document_operations import GetCell
from runtimed.protocol.handshake import check_client
from runtimed.protocol.messages import PROTOCOL_VERSION, Ack, Hello, Message, Request
from runtimed.transport.channel import TURN, Channel, ChannelHandler
from runtimed.transport.reception import Reception
from runtimed.transport.sockets import PeerCredentials
from runtimed.transport.unix import serve

MANY = 2000

Event = ServingEvent[ClientOperation, None]
TestedChannel = Channel[ServingSide[ClientOperation, None]]


class Collector(ChannelHandler[Event]):
    """Keeps what arrives, and may be slow, or refuse to go on."""

    def __init__(self, channel: TestedChannel) -> None:
        self.channel = channel
        self.events: list[Event] = []
        self.batches: list[int] = []
        self.on_batch: Callable[[list[Event]], None] = lambda _events: None
        self.is_greeted = False
        self.is_closed = asyncio.Event()

    def received(self, events: list[Event]) -> None:
        if not self.is_greeted:
            assert [type(event) for event in events] == [Greeting]
            self.is_greeted = True
            self.channel.side.welcome()
            self.channel.flush()
            return
        self.batches.append(len(events))
        self.events += events
        self.on_batch(events)

    def writable(self) -> None:
        pass

    def closed(self, error: Exception | None) -> None:
        self.is_closed.set()


class Client:
    """The other end, byte by byte."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    def send(self, *messages: Message, garbage: bytes = b"") -> None:
        self.writer.write(b"".join(map(encode_message, messages)) + garbage)


class Server:
    def __init__(self) -> None:
        self.handlers: list[Collector] = []

    def side(self) -> ServingSide[ClientOperation, None]:
        return ServingSide(decode_asked_of_daemon, check_client, "0", 1, has_stream=True)

    def accept(self, channel: TestedChannel, _peer: PeerCredentials) -> Collector:
        self.handlers.append(Collector(channel))
        return self.handlers[-1]


@asynccontextmanager
async def connected(folder: Path, count: int) -> AsyncIterator[tuple[list[Client], list[Collector]]]:
    """That many connections: the clients' ends, and the handlers of the server's ends."""
    server = Server()
    listener = await serve(folder / "s", server.side, server.accept, Reception(10))
    clients = []
    for number in range(count):
        _reader, writer = await asyncio.open_unix_connection(folder / "s")
        clients.append(Client(writer))
        clients[-1].send(Hello(PROTOCOL_VERSION, "0", "client", None, 1))
        await until(lambda at=number: len(server.handlers) > at and server.handlers[at].is_greeted)  # type: ignore[misc]  # a default
    try:
        yield clients, server.handlers
    finally:
        for client in clients:
            client.writer.close()
        for handler in server.handlers:
            handler.channel.close()
            await handler.is_closed.wait()
        listener.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # what the other side does makes no event here
            await asyncio.sleep(0.001)


def acks(count: int) -> list[Message]:
    return [Ack(n) for n in range(count)]


def acknowledged(count: int) -> list[Any]:
    return [Acknowledged(n) for n in range(count)]


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def in_loop(test):
    def run(short_folder):
        asyncio.run(test(short_folder))

    run.__name__ = test.__name__
    return run


@in_loop
async def test_a_flood_on_one_connection_leaves_turns_to_the_others(folder):
    async with connected(folder, 2) as ((flooding, other), (flooded, quiet)):
        flooded.batch = 1
        flooded.on_batch = lambda _events: spin(TURN / 2)
        handled_before: list[int] = []
        quiet.on_batch = lambda _events: handled_before.append(len(flooded.events))
        flooding.send(*acks(MANY))
        await until(lambda: flooded.events)
        for n in range(10):
            other.send(Ack(n))
            await until(lambda expected=n + 1: len(quiet.events) == expected)  # type: ignore[misc]  # a default
        await until(lambda: len(flooded.events) == MANY)

    assert flooded.events == acknowledged(MANY)
    # Ten questions and answers, a few turns of the flood each: not behind all of it.
    assert handled_before[-1] < MANY / 2


@in_loop
async def test_messages_come_in_batches_of_bounded_size(folder):
    async with connected(folder, 1) as ((client,), (handler,)):
        handler.batch = 3
        client.send(*acks(100))
        await until(lambda: len(handler.events) == 100)

    assert handler.events == acknowledged(100)
    assert max(handler.batches) == 3


@in_loop
async def test_who_stops_reading_gets_nothing_more_until_it_goes_on_and_then_all_in_order(folder):
    async with connected(folder, 1) as ((client,), (handler,)):
        handler.batch = 1
        handler.on_batch = lambda _events: handler.channel.pause_reading()
        client.send(*acks(20))
        for count in range(1, 21):
            await until(lambda expected=count: len(handler.events) == expected)  # type: ignore[misc]  # a default
            for _ in range(5):
                await asyncio.sleep(0)
            assert handler.events == acknowledged(count)
            handler.channel.resume_reading()

    assert handler.events == acknowledged(20)


@in_loop
async def test_a_connection_closed_while_nobody_reads_is_closed(folder):
    async with connected(folder, 1) as ((client,), (handler,)):
        handler.on_batch = lambda _events: handler.channel.pause_reading()
        client.send(Ack(1))
        await until(lambda: handler.events)
        handler.channel.close()
        handler.channel.resume_reading()
        await handler.is_closed.wait()

    assert handler.events == [Acknowledged(1)]


@in_loop
async def test_what_came_before_something_unreadable_counts(folder):
    async with connected(folder, 1) as ((client,), (handler,)):
        handler.batch = 2
        client.send(*acks(5), garbage=b"\x00\x00\x00\x01\xc1" + encode_message(Ack(9)))
        await handler.is_closed.wait()

    assert handler.events == acknowledged(5)


@in_loop
async def test_a_handler_that_fails_ends_its_own_connection(folder):
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    async with connected(folder, 2) as ((failing, other), (broken, healthy)):
        broken.batch = 1

        def fail(events: list[Event]) -> None:
            spin(TURN)
            if events == [Acknowledged(50)]:
                raise ValueError("no")

        broken.on_batch = fail
        failing.send(*acks(100))
        await broken.is_closed.wait()
        other.send(Ack(7))
        await until(lambda: healthy.events)

    assert broken.events == acknowledged(51)
    assert healthy.events == [Acknowledged(7)]
    assert [str(failure["exception"]) for failure in failures] == ["no"]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_long_message_arrives_whole_between_short_ones(short_folder, size):
    async def main() -> None:
        async with connected(short_folder, 1) as ((client,), (handler,)):
            operation = GetCell(notebook_id="n", cell_id="x" * size)
            client.send(Ack(1), Request(1, operation), Ack(2))
            await until(lambda: len(handler.events) == 3)
            first, asked, last = handler.events
            assert isinstance(asked, Asked)
            assert (first, asked.operation, last) == (Acknowledged(1), operation, Acknowledged(2))

    asyncio.run(main())


@in_loop
async def test_what_is_under_way_is_abandoned_before_the_connection_is_closed(folder):
    async with connected(folder, 1) as ((client,), (handler,)):
        was_closed: list[bool] = []
        handler.on_batch = lambda _events: was_closed.append(handler.is_closed.is_set())
        client.send(Request(1, GetCell(notebook_id="n", cell_id="c")))
        await until(lambda: handler.events)
        client.writer.close()
        await handler.is_closed.wait()

    asked, abandoned = handler.events
    assert isinstance(abandoned, Abandoned)
    assert abandoned.asked is asked
    assert was_closed == [False, False]


@in_loop
async def test_a_connection_is_closed_though_its_handler_fails_at_its_end(folder):
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    async with connected(folder, 1) as ((client,), (handler,)):

        def fail(events: list[Event]) -> None:
            if len(handler.events) > 1:
                raise ValueError("no")

        handler.on_batch = fail
        client.send(Request(1, GetCell(notebook_id="n", cell_id="c")))
        await until(lambda: handler.events)
        client.writer.close()
        await handler.is_closed.wait()
        await until(lambda: failures)

    assert [str(failure["exception"]) for failure in failures] == ["no"]
