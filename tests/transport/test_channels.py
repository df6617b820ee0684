"""Channels over real sockets: everybody has a turn, and who does not want to read is not read to."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtimed.protocol.codec import decode_asked_of_daemon, encode_message
from runtimed.protocol.messages import Ack, Message, Refusal
from runtimed.transport.aio import TURN, Channel, ChannelHandler, connect, serve
from runtimed.transport.reception import Reception

MANY = 2000


class Collector(ChannelHandler):
    """Keeps what arrives, and may be slow, or refuse to go on."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.messages: list[Message] = []
        self.batches: list[int] = []
        self.on_batch: Callable[[list[Message]], None] = lambda _messages: None
        self.is_closed = asyncio.Event()

    def received(self, messages: list[Message]) -> None:
        self.batches.append(len(messages))
        self.messages += messages
        self.on_batch(messages)

    def writable(self) -> None:
        pass

    def closed(self, error: Exception | None) -> None:
        self.is_closed.set()


class Server:
    def __init__(self) -> None:
        self.handlers: list[Collector] = []

    def accept(self, channel: Channel) -> Collector:
        channel.trust(decode_asked_of_daemon)
        self.handlers.append(Collector(channel))
        return self.handlers[-1]


@asynccontextmanager
async def connected(folder: Path, count: int) -> AsyncIterator[tuple[list[Channel], list[Collector]]]:
    """That many connections: the clients' ends, and the handlers of the server's ends."""
    server = Server()
    listener = await serve(folder / "s", server.accept, Reception(10))
    clients = []
    for number in range(count):
        clients.append(await connect(folder / "s", Collector))
        await until(lambda expected=number + 1: len(server.handlers) == expected)  # type: ignore[misc]  # a default
    try:
        yield clients, server.handlers
    finally:
        for channel in [*clients, *(handler.channel for handler in server.handlers)]:
            channel.close()
        for handler in server.handlers:
            await handler.is_closed.wait()
        listener.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # what the other side does makes no event here
            await asyncio.sleep(0.001)


def acks(count: int) -> list[Message]:
    return [Ack(n) for n in range(count)]


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
        flooded.on_batch = lambda _messages: spin(TURN / 2)
        handled_before: list[int] = []
        quiet.on_batch = lambda _messages: handled_before.append(len(flooded.messages))
        flooding.send_parts(*map(encode_message, acks(MANY)))
        await until(lambda: flooded.messages)
        for n in range(10):
            other.send(Ack(n))
            await until(lambda expected=n + 1: len(quiet.messages) == expected)  # type: ignore[misc]  # a default
        await until(lambda: len(flooded.messages) == MANY)

    assert flooded.messages == acks(MANY)
    # Ten questions and answers, a few turns of the flood each: not behind all of it.
    assert handled_before[-1] < MANY / 2


@in_loop
async def test_messages_come_in_batches_of_bounded_size(folder):
    async with connected(folder, 1) as ((client,), (handler,)):
        handler.batch = 3
        client.send_parts(*map(encode_message, acks(100)))
        await until(lambda: len(handler.messages) == 100)

    assert handler.messages == acks(100)
    assert max(handler.batches) == 3


@in_loop
async def test_who_stops_reading_gets_nothing_more_until_it_goes_on_and_then_all_in_order(folder):
    async with connected(folder, 1) as ((client,), (handler,)):
        handler.batch = 1
        handler.on_batch = lambda _messages: handler.channel.pause_reading()
        client.send_parts(*map(encode_message, acks(20)))
        for count in range(1, 21):
            await until(lambda expected=count: len(handler.messages) == expected)  # type: ignore[misc]  # a default
            for _ in range(5):
                await asyncio.sleep(0)
            assert handler.messages == acks(count)
            handler.channel.resume_reading()

    assert handler.messages == acks(20)


@in_loop
async def test_a_connection_closed_while_nobody_reads_is_closed(folder):
    async with connected(folder, 1) as ((client,), (handler,)):
        handler.on_batch = lambda _messages: handler.channel.pause_reading()
        client.send(Ack(1))
        await until(lambda: handler.messages)
        handler.channel.close()
        handler.channel.resume_reading()
        await handler.is_closed.wait()

    assert handler.messages == [Ack(1)]


@in_loop
async def test_what_came_before_something_unreadable_counts(folder):
    async with connected(folder, 1) as ((client,), (handler,)):
        handler.batch = 2
        client.send_parts(*map(encode_message, acks(5)), b"\x00\x00\x00\x01\xc1", encode_message(Ack(9)))
        await handler.is_closed.wait()

    assert handler.messages == acks(5)


@in_loop
async def test_a_handler_that_fails_ends_its_own_connection(folder):
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    async with connected(folder, 2) as ((failing, other), (broken, healthy)):
        broken.batch = 1

        def fail(messages: list[Message]) -> None:
            spin(TURN)
            if messages == [Ack(50)]:
                raise ValueError("no")

        broken.on_batch = fail
        failing.send_parts(*map(encode_message, acks(100)))
        await broken.is_closed.wait()
        other.send(Refusal("here"))
        await until(lambda: healthy.messages)

    assert broken.messages == acks(51)
    assert healthy.messages == [Refusal("here")]
    assert [str(failure["exception"]) for failure in failures] == ["no"]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_long_message_arrives_whole_between_short_ones(short_folder, size):
    async def main() -> None:
        async with connected(short_folder, 1) as ((client,), (handler,)):
            expected: list[Message] = [Ack(1), Refusal("x" * size), Ack(2)]
            client.send_parts(*map(encode_message, expected))
            await until(lambda: len(handler.messages) == 3)
            assert handler.messages == expected

    asyncio.run(main())
