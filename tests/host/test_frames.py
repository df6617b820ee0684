"""Hosts read by the rules of the daemon: hostile frames cost nothing, and a number in use names no second request."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import psutil

from runtimed.host.lifetime import MAX_STRANGERS
from runtimed.protocol import codec
from runtimed.protocol.host_operations import Attach
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello, Message, Refusal, Request
from tests.host.standin import HostProcess, completion, in_loop, join

GROWTH = 100 * 2**20
"""Bytes by which a host may grow at its peak; 1.2 GB were needed to read the frame."""


def send(host: HostProcess, data: bytes) -> list[Message]:
    """Send bytes on a connection of their own, and read what comes until the host closes it."""
    reader = codec.FrameReader()
    found: list[Message] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(host.folder / "host.sock"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while said := sock.recv(2**18):
                found += [codec.decode_answer(body) for body in reader.receive_data(said)]
    return found


@in_loop
async def test_a_frame_of_millions_of_lists_neither_delays_nor_grows_a_host(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    await daemon.run("x = 1")
    before = shared_host.memory
    hello = codec.encode_message(Hello(PROTOCOL_VERSION, "0", "daemon", None, 1))
    lists = codec.MAX_FRAME.to_bytes(4, "big") + b"\x91" * codec.MAX_FRAME

    stranger = await asyncio.to_thread(send, shared_host, lists)
    known = await asyncio.to_thread(send, shared_host, hello + lists)

    assert [type(message) for message in stranger] == [Refusal]
    assert isinstance(known[-1], Refusal)
    assert "more than" in known[-1].message
    assert shared_host.memory - before < GROWTH
    assert (await daemon.ask(completion("x"))).content["status"] == "ok"


@in_loop
async def test_strangers_of_a_host_are_few(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    await daemon.run("x = 1")
    with contextlib.ExitStack() as crowd:
        socks = [crowd.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2 * MAX_STRANGERS)]
        for sock in socks:
            sock.settimeout(20)
            sock.connect(str(shared_host.folder / "host.sock"))
        for sock in socks[:MAX_STRANGERS]:
            said = await asyncio.to_thread(sock.recv, 4096)
            assert b"Too many connections wait here without a greeting" in said
        assert psutil.Process(shared_host.process.pid).num_fds() < 100
        assert (await daemon.ask(completion("x"))).content["status"] == "ok"


@in_loop
async def test_a_number_in_use_names_no_second_request_of_a_host(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    await daemon.run("x = 1")
    hello = codec.encode_message(Hello(PROTOCOL_VERSION, "0", "daemon", None, 1))
    attach = codec.encode_message(Request(1, Attach(after=daemon.numbers[-1])))
    # Two in one piece: the first one cannot have been answered in between.
    frame = codec.encode_message(Request(77, completion("x")))
    said = await asyncio.to_thread(send, shared_host, hello + attach + frame + frame)

    assert said[-1] == Refusal("Request 77 is still in flight: give each request a number of its own")
    other = await join(shared_host)
    assert (await other.ask(completion("x"))).content["status"] == "ok"
