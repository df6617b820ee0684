"""A frame costs nothing before it is trusted: hostile and unfinished ones delay nobody and take no memory."""

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator

import msgpack
import psutil
import pytest

from runtimed import Client, Session, default_socket_path
from runtimed.protocol import codec
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello, Refusal, Welcome
from runtimed.transport import reception
from tests.daemon.serving.test_peers import answers

pytestmark = pytest.mark.slow

PATIENCE = 2.0
"""Longest time that another client waits for an answer on a busy machine, in seconds; it was 8 to 46."""

GROWTH = 200 * 2**20
"""Bytes by which the daemon may grow at its peak; they were 1 to 4 GB."""

HELLO = codec.encode_message(Hello(PROTOCOL_VERSION, "0", "hostile", None, 1))
LISTS = b"\x90" * codec.MAX_FRAME
LARGE = codec.MAX_FRAME.to_bytes(4, "big")


class Watched:
    """Another client that asks all along, and the daemon's memory."""

    def __init__(self) -> None:
        status = Client().status()
        assert status is not None
        self.daemon = psutil.Process(status.pid)
        self.before = self.daemon.memory_info().rss
        self.peak = self.before
        self.slowest = 0.0

    def watch(self, done: threading.Event) -> None:
        with Session("bystander") as session:
            cell_id = session.create_cell("x")
            for turn in itertools.count():
                if done.wait(0.01):
                    return
                self.peak = max(self.peak, self.daemon.memory_info().rss)
                if turn % 5:
                    continue
                began = time.monotonic()
                assert session.get_cell_source(cell_id) == "x"
                assert Client().status() is not None
                self.slowest = max(self.slowest, time.monotonic() - began)

    @property
    def growth(self) -> int:
        return self.peak - self.before


@contextlib.contextmanager
def watched() -> Iterator[Watched]:
    found, done = Watched(), threading.Event()
    bystander = threading.Thread(target=found.watch, args=(done,), daemon=True)
    bystander.start()
    try:
        yield found
    finally:
        done.set()
        bystander.join()
    print(f"slowest {found.slowest:.3f} s, {found.growth >> 20} MiB")


@pytest.fixture(scope="module", autouse=True)
def session(shared_daemon):
    with Session("s") as session:
        session.create_cell("x")
        yield session


def connection(data: bytes = b"") -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(60)
    sock.connect(str(default_socket_path()))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(data)
    return sock


def greeted(data: bytes = b"") -> socket.socket:
    sock = connection(HELLO)
    # Welcome comes alone: nothing else was asked for.
    body = sock.recv(4096)
    assert isinstance(codec.decode_answer(body[4:]), Welcome)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(data)
    return sock


def refusal(sock: socket.socket) -> str:
    *_, last = answers(sock)
    assert isinstance(last, Refusal)
    return last.message


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def test_a_large_frame_before_the_greeting_is_refused_by_its_length(session):
    with watched() as bystander:
        for _ in range(10):
            assert refusal(connection(frame(LISTS[: 2**17]))) == (
                f"a frame of {2**17} bytes is larger than allowed ({codec.MAX_GREETING} bytes)"
            )

    assert bystander.slowest < PATIENCE
    assert bystander.growth < GROWTH / 4


def test_a_frame_of_millions_of_lists_is_refused_while_others_are_served(session):
    hostile = [
        LISTS,
        b"\x91" * codec.MAX_FRAME,
        b"\xdd\x00\xff\x00\x00" + LISTS[:0xFF0000],
        msgpack.packb({"t": "request", "id": 1, "operation": {"op": "act", "notebook_id": "s", "action": {}}})[:-1]
        + b"\x81\xa1x\xdd\x00\xf0\x00\x00"
        + LISTS[:0xF00000],
    ]
    with watched() as bystander:
        for body in hostile * 3:
            assert refusal(greeted(frame(body))).startswith(("not a message: ", "unreadable message: "))

    assert bystander.slowest < PATIENCE
    assert bystander.growth < GROWTH


def test_thirty_unfinished_frames_keep_little_and_delay_nobody(session):
    with watched() as bystander:
        crowd = []
        for _ in range(30):
            sock = greeted()
            sock.setblocking(False)
            rest = memoryview(LARGE + LISTS[:-1])
            # As much as the daemon takes: it leaves the rest to whoever sends it.
            end = time.monotonic() + 0.1
            while rest and time.monotonic() < end:
                try:
                    rest = rest[sock.send(rest) :]
                    end = time.monotonic() + 0.1
                except BlockingIOError:
                    time.sleep(0.005)
                except (BrokenPipeError, ConnectionResetError):
                    break
            crowd.append(sock)
        assert bystander.growth < GROWTH

        # And the frames of others come through, small or large.
        text = f"# {'x' * 5 * 2**20}"
        with Session("t") as other:
            cell_id = other.create_cell(text)
            assert other.get_cell_source(cell_id) == text
        for sock in crowd:
            sock.close()

    assert bystander.slowest < PATIENCE
    assert bystander.growth < GROWTH


def test_many_who_send_much_at_once_all_get_through(session):
    text = "y" * 5 * 2**20
    done: list[str] = []

    def send(number: int) -> None:
        with Session(f"large {number}") as large:
            done.append(large.create_cell(text))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(done) == 20


def test_a_slow_link_that_goes_on_is_waited_for(session, monkeypatch):
    body = codec.encode_message(Hello(PROTOCOL_VERSION, "0", "slow", None, os.getpid()))
    sock = connection()
    for byte in body:
        sock.sendall(bytes([byte]))
        time.sleep(0.002)
    assert isinstance(codec.decode_answer(sock.recv(4096)[4:]), Welcome)
    sock.close()
    assert reception.SILENCE >= 30
