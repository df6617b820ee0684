"""10,000 frames that no honest daemon sends: the host and its kernel live on, and lose nothing."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import psutil
import pytest

from runtimed.protocol.host_operations import HostRestart, HostShutdown
from runtimed.protocol.operation import Operation
from tests.fuzzing import batches
from tests.host.standin import Daemon, HostProcess, in_loop

FRAMES = 10_000

GROWTH = 16 * 2**20
"""Bytes by which the host may grow: it remembers the id of every execution that it was given."""


def may_be_sent(operation: Operation[Any]) -> bool:
    return not isinstance(operation, HostRestart | HostShutdown)


def send(host: HostProcess, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(host.folder / "host.sock"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(2**18):
                pass


@pytest.mark.timeout(300)
def test_ten_thousand_mutated_frames_harm_neither_host_nor_kernel(host: HostProcess) -> None:
    @in_loop
    async def begin() -> None:
        daemon = await Daemon(acknowledges=False).attach(host)
        await daemon.run("x = 'kept'; print('before')", execution_id="before")

    begin()
    process = psutil.Process(host.process.pid)
    before = None
    for number, batch in enumerate(batches(2, FRAMES, asked_of="host", may_be_sent=may_be_sent)):
        send(host, batch.data)
        if number == 200:
            before = process.memory_info().rss, process.num_fds()
    assert before is not None

    @in_loop
    async def end() -> None:
        daemon = await Daemon().attach(host)
        execution_id = await daemon.start("print(x)")
        assert (await daemon.finished(execution_id)).status == "ok"
        assert daemon.text(execution_id) == "kept\n"
        # Whoever attaches itself may acknowledge what it has not stored: that is what an acknowledgement is.
        assert daemon.numbers == list(range(daemon.numbers[0], daemon.numbers[-1] + 1))
        assert daemon.attached.epoch == host.bootstrap.epoch

    end()
    after = process.memory_info().rss, process.num_fds()
    print(f"memory {before[0] >> 20} to {after[0] >> 20} MiB, files {before[1]} to {after[1]}")
    assert after[0] - before[0] < GROWTH
    assert after[1] <= before[1] + 1
    assert "Traceback" not in host.log
