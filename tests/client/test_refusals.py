"""A daemon that ends the conversation: both faces raise what it says, and do not ask again what it refused."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runtimed.client.aio import AsyncConnection
from runtimed.client.blocking import Connection
from runtimed.client.flows import Ask, Flow
from runtimed.client.identity import Identity
from runtimed.errors import ProtocolError
from runtimed.protocol.codec import FrameReader, encode_message
from runtimed.protocol.messages import Refusal, Reply, Welcome
from runtimed.protocol.session_operations import GetStatus
from runtimed.settings import default_socket_path

WELCOME = encode_message(Welcome("0", 1))


@contextmanager
def daemon(*answers: bytes) -> Iterator[list[int]]:
    """A daemon that greets each connection and gives its first request the next of these answers, then hangs up."""
    path = default_socket_path()
    path.parent.mkdir(mode=0o700)
    asked: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for number, answer in enumerate(answers):
                connection, _ = listener.accept()
                frames = 0
                reader = FrameReader()
                with connection:
                    connection.sendall(WELCOME)
                    while frames < 2 and (data := connection.recv(65536)):
                        frames += len(list(reader.receive_data(data)))
                    asked.append(number)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(20)


def status() -> Flow[dict[str, object]]:
    return (yield Ask(GetStatus()))


def ask_blocking() -> dict[str, object]:
    connection = Connection(Identity(), start_daemon=False)
    connection.open()
    try:
        return connection.perform(status())
    finally:
        connection.close()


def ask_async() -> dict[str, object]:
    async def main() -> dict[str, object]:
        connection = AsyncConnection(Identity(), start_daemon=False)
        await connection.open()
        try:
            return await connection.perform(status())
        finally:
            connection.close()

    return asyncio.run(main())


FACES = pytest.mark.parametrize("ask", [ask_blocking, ask_async])


@pytest.fixture(autouse=True)
def home(short_folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))


@FACES
@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (encode_message(Refusal("a message is made of more than 9 values")), "more than 9 values"),
        (b"\x00\x00\x00\x01\xc1", "unreadable"),
        (WELCOME, "the daemon sent a Welcome where none was expected"),
    ],
    ids=["refused", "garbage", "out of place"],
)
def test_what_the_daemon_refuses_or_garbles_is_raised_and_not_asked_again(ask, answer, sentence):
    with daemon(answer) as asked, pytest.raises(ProtocolError, match=sentence):
        ask()

    assert asked == [0]


@FACES
@pytest.mark.parametrize("last_words", [b"", encode_message(Refusal("too busy", "ConnectionLost")), WELCOME[:3]])
def test_what_was_asked_of_a_daemon_that_hangs_up_is_asked_again(ask, last_words):
    # The number is the client's own: the first connection had it, too.
    with daemon(last_words, encode_message(Reply(1, {"up": True}))) as asked:
        assert ask() == {"up": True}

    assert asked == [0, 1]
