"""One session has very much to say: it costs the daemon no memory, and the others no patience."""

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from runtimed import Client, Session, default_socket_path
from runtimed.protocol.document_operations import GetCell, GetCells
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello, Reply, Request, Welcome
from runtimed.settings import read_settings
from runtimed.transport.autostart import connect_socket, ensure_daemon
from runtimed.transport.sockets import peer_credentials
from tests.conftest import wait_until
from tests.wire import Wire

MIB = 2**20
LINES = 80
PRINT = f"for n in range({LINES}): print(f'{{n:06}}' + 'y' * 999_993)"
PATIENCE = 2.0
"""Seconds that a call may take on a machine that is busy with other tests; holding it up would take far longer."""


def daemon() -> psutil.Process:
    status = Client().status()
    assert status is not None
    return psutil.Process(status.pid)


@contextlib.contextmanager
def no_daemon_starts() -> Iterator[None]:
    """Hold what whoever starts a daemon needs: a host that has lost its daemon would start one at once."""
    with default_socket_path().with_suffix(".start").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def numbers(printed: str) -> list[int | str]:
    """What is left of printed lines, each whole one being told by its number: a failure is to be readable."""
    return [int(line[:6]) if line[6:] == "y" * 999_993 else line[:100] for line in printed.splitlines()]


def spooled(data_dir: Path) -> int:
    size = 0
    for path in data_dir.glob("run/*/*.events"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def ends_with(data_dir: Path, text: bytes) -> bool:
    """Whether the latest that a host has spooled holds a text."""
    for path in data_dir.glob("run/*/*.events"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(max(path.stat().st_size - 4096, 0))
            if text in file.read():
                return True
    return False


def connected() -> Wire:
    """Connect as soon as a daemon listens, though it may not have looked at all hosts yet."""
    found: list[socket.socket] = []

    def try_to_connect() -> bool:
        sock = connect_socket(default_socket_path())
        found.extend([] if sock is None else [sock])
        return bool(found)

    wait_until(try_to_connect, "no daemon listens")
    channel = Wire(found[0])
    channel.send(Hello(PROTOCOL_VERSION, "0.0.9", "tester", None, os.getpid()))
    assert isinstance(channel.receive(time.monotonic() + PATIENCE), Welcome)
    return channel


def assert_others_are_served(data_dir: Path, cell_id: str) -> None:
    """Start a daemon, and ask it for other things until it has stored what hosts have kept."""
    calls, deadline = 0, time.monotonic() + 90
    start = threading.Thread(target=ensure_daemon, args=(read_settings(),))
    start.start()
    channel = connected()
    process = psutil.Process(peer_credentials(channel.sock).pid)
    while spooled(data_dir) > 8 * MIB:
        calls += 1
        began = time.monotonic()
        assert began < deadline, "what the host has kept is not stored"
        channel.send(Request(calls, GetCell(notebook_id="other", cell_id=cell_id)))
        assert isinstance(channel.receive(began + PATIENCE), Reply)
        assert process.memory_info().rss < 128 * MIB
        time.sleep(0.005)  # without it most of the processor's time were this loop's
    assert calls > 20
    channel.close()
    start.join()


def test_others_are_served_while_a_host_hands_over_what_it_kept_for_a_dead_daemon(data_dir):
    with Session("flood") as session, Session("other") as other:
        cell_id = other.create_cell("x")
        session.start_kernel()
        with no_daemon_starts():
            execution_id = session.queue_cell(session.create_cell(PRINT))
            daemon().kill()
            wait_until(lambda: spooled(data_dir) > LINES * 10**6, "the kernel waits for a daemon")

        assert_others_are_served(data_dir, cell_id)

        assert numbers(session.wait(execution_id).stdout) == [*range(LINES)]


def test_others_are_served_while_what_a_dead_host_has_kept_is_stored(data_dir):
    with Session("flood") as session, Session("other") as other:
        cell_id = other.create_cell("x")
        session.start_kernel()
        host = psutil.Process(session.status().host_pid)
        with no_daemon_starts():
            code = f"{PRINT}\nimport time; print('that was', 'all', flush=True); time.sleep(600)"
            execution_id = session.queue_cell(session.create_cell(code))
            daemon().kill()
            wait_until(lambda: ends_with(data_dir, b"that was all"), "the kernel waits for a daemon")
            host.kill()

        assert_others_are_served(data_dir, cell_id)

        result = session.wait(execution_id)
        assert numbers(result.stdout) == [*range(LINES), "that was all"]
        assert result.error
        assert result.error.ename == "KernelDied"


def test_a_client_that_asks_for_much_and_takes_no_reply_costs_no_memory(data_dir):
    count = 200
    with Session("large") as session:
        session.run("print('y' * 999_999)")
        process = daemon()
        channel = connected()
        for number in range(count):
            channel.send(Request(number, GetCells(notebook_id="large")))
        for _ in range(20):
            assert len(session.get_cells()) == 1
            assert process.memory_info().rss < 128 * MIB

        replies = [channel.receive(time.monotonic() + 20) for _ in range(count)]
        channel.close()

    assert [reply.id for reply in replies if isinstance(reply, Reply)] == list(range(count))
