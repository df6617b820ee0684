"""Code that needs a kernel where none runs: one is started, and the code runs in its turn, or leaves nothing behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from msgspec import structs

from runtimed import (
    AsyncSession,
    Client,
    ExecutionCancelled,
    ExecutionTimeout,
    KernelStartFailed,
    RuntimedError,
    Session,
    default_socket_path,
)
from runtimed.client.process import Described
from runtimed.ids import new_client_id
from runtimed.protocol.execution_operations import Enqueue
from runtimed.protocol.kernel_operations import DescribeProcess, Interrupt, KernelChoice, StartKernel
from runtimed.protocol.messages import PROTOCOL_VERSION, Failure, Hello, Message, Reply, Request, Welcome
from tests.client.faces import on_one_face
from tests.conftest import wait_until
from tests.daemon.conftest import until
from tests.wire import Wire


class Gated:
    """An interpreter that begins when it is let."""

    def __init__(self, folder: Path, then: str) -> None:
        self._gate = folder / "gate"
        self._program = folder / "python"
        self._program.write_text(f"#!/bin/sh\nuntil [ -e {self._gate} ]; do sleep 0.01; done\n{then}\n")
        self._program.chmod(0o755)
        self.env_source = f"python:{self._program}"

    def let(self) -> None:
        self._gate.touch()


@pytest.fixture
def slow(tmp_path):
    return Gated(tmp_path, f'exec {sys.executable} "$@"')


@pytest.fixture
def broken(tmp_path):
    return Gated(tmp_path, "exit 7")


async def starts(session):
    async def is_starting():
        return (await session.status()).kernel_status == "starting"

    await until(is_starting, "no kernel starts")


def test_a_start_that_fails_is_told_to_all_who_needed_it_and_leaves_nothing_of_their_code(shared_daemon, broken):
    async def scenario():
        async with AsyncSession("fails") as first, AsyncSession("fails") as second:
            await second.connect()
            asked: list[asyncio.Task[object]] = [
                asyncio.create_task(first.submit(code="1", env_source=broken.env_source))
            ]
            await starts(first)
            asked.append(asyncio.create_task(second.run("2")))
            await asyncio.sleep(0.1)
            broken.let()
            for error in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(error, KernelStartFailed)
                assert error.exit_code == 7
            assert await first.get_cell_ids() == []
            assert (await second.run("print('on')")).stdout == "on\n"
            await first.stop()

    asyncio.run(scenario())


def test_code_that_is_given_up_or_whose_time_is_up_before_its_kernel_starts_is_queued_or_forgotten(shared_daemon, slow):
    async def scenario():
        async with AsyncSession("late") as session:
            begun = asyncio.create_task(session.submit(code="trail = []", env_source=slow.env_source))
            await starts(session)
            given_up = asyncio.create_task(session.run("trail.append('given up')"))
            await asyncio.sleep(0.2)
            given_up.cancel()
            await asyncio.sleep(0.1)
            with pytest.raises(ExecutionTimeout) as forgotten:
                await session.run("trail.append('forgotten')", timeout_secs=0.2, on_timeout="interrupt")
            assert str(forgotten.value).endswith("; it never began, as its kernel still starts")
            with pytest.raises(ExecutionTimeout) as queued:
                await session.run("trail.append('late'); print('late')", timeout_secs=0.2, on_timeout="leave")
            slow.let()
            await begun
            assert (await session.wait(queued.value.execution_id)).stdout == "late\n"
            assert (await session.run("trail")).value == ["late"]
            assert len(await session.get_cell_ids()) == 3
            await session.stop()

    asyncio.run(scenario())


def test_the_code_of_a_client_that_dies_during_the_start_runs_and_is_shown(shared_daemon, slow):
    submit = f"session.submit(code='trail = [1]', env_source={slow.env_source!r})"
    client = subprocess.Popen(
        [sys.executable, "-c", f"import runtimed\nwith runtimed.Session('gone') as session: {submit}"]
    )
    wait_until(
        lambda: ("gone", "starting") in [(one.session_id, one.kernel_status) for one in Client().sessions.list()],
        "no kernel starts",
    )
    client.kill()
    client.wait()
    with Session("gone") as session:
        wait_until(lambda: session.status().peers == 1, "it is not gone")
        slow.let()
        assert session.run("trail").value == [1]
        assert [cell.source for cell in session.get_cells()] == ["trail = [1]", "trail"]
        session.stop()


def test_code_that_waits_for_the_start_of_its_kernel_is_cancelled_by_its_id(shared_daemon, slow):
    async def scenario():
        async with AsyncSession("cancels") as session, AsyncSession("cancels") as other:
            await other.connect()
            held = asyncio.create_task(session.submit(code="1", env_source=slow.env_source, execution_id="held"))
            await starts(session)
            await other.cancel("held")
            with pytest.raises(RuntimedError, match="has no execution 'held'"):
                await other.cancel("held")
            slow.let()
            with pytest.raises(ExecutionCancelled, match="before its kernel was ready"):
                await held
            assert await session.get_cell_ids() == []
            assert (await session.run("2")).value == 2
            await session.stop()

    asyncio.run(scenario())


@on_one_face
def test_a_kernel_that_running_code_starts_has_the_variables_and_the_folder_of_that_moment(
    session, monkeypatch, tmp_path
):
    show = "import os; print(os.environ.get('SHOWN'), os.getcwd())"
    monkeypatch.delenv("SHOWN", raising=False)
    assert session.run(show).stdout == f"None {Path.cwd()}\n"
    session.shutdown_kernel()
    monkeypatch.setenv("SHOWN", "later")
    monkeypatch.chdir(tmp_path)
    assert session.run(show).stdout == f"later {tmp_path}\n"


# --- what the daemon is told of a process -----------------------------------------------------------------------------


def test_a_process_is_described_once_and_again_when_it_has_changed(monkeypatch, tmp_path):
    described = Described()
    run = Enqueue(notebook_id="s", execution_id="e", cell_id="c")
    assert described.news_for(Interrupt(notebook_id="s")) is None
    first = described.news_for(run)
    assert isinstance(first, DescribeProcess)
    assert (first.environment, first.cwd, first.interpreter) == (dict(os.environ), str(Path.cwd()), sys.executable)
    assert described.news_for(run) is None
    monkeypatch.setenv("SHOWN", "later")
    assert described.news_for(run) == structs.replace(first, environment=dict(os.environ))
    monkeypatch.chdir(tmp_path)
    now = described.news_for(run)
    assert now is not None
    assert now.cwd == str(tmp_path)
    before = os.umask(0o123)
    try:
        now = described.news_for(run)
    finally:
        os.umask(before)
    assert now is not None
    assert now.inherited is not None
    assert now.inherited.umask == 0o123
    assert described.news_for(run) is not None
    monkeypatch.setattr("runtimed.client.process.find_uv", lambda: "/elsewhere/uv")
    assert described.news_for(run) is None, "each execution would look for it"
    now = described.news_for(StartKernel(notebook_id="s"))
    assert now is not None
    assert now.uv == "/elsewhere/uv"


def connected(client_id: str) -> Wire:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(default_socket_path()))
    wire = Wire(sock)
    wire.send(Hello(PROTOCOL_VERSION, "0.0.9", client_id, None, os.getpid()))
    assert isinstance(receive(wire), Welcome)
    return wire


def receive(wire: Wire) -> Message:
    return wire.receive(time.monotonic() + 20)


def test_who_has_not_described_its_process_starts_no_kernel(shared_daemon):
    wire = connected(new_client_id())
    asked = [
        StartKernel(notebook_id="undescribed"),
        Enqueue(notebook_id="undescribed", execution_id="e", cell_id="c", source="1", kernel=KernelChoice()),
    ]
    for number, operation in enumerate(asked):
        wire.send(Request(number, operation))
        answer = receive(wire)
        assert isinstance(answer, Failure)
        assert (answer.error, "describes its process" in answer.message) == ("ProtocolError", True)
    wire.close()
    with Session("undescribed") as session:
        assert session.get_cell_ids() == []


def test_what_needs_a_kernel_that_starts_runs_in_the_order_in_which_it_came(shared_daemon, slow):
    wire = connected(new_client_id())
    wire.send(Request(0, DescribeProcess(environment=dict(os.environ), cwd=str(Path.cwd()))))
    assert receive(wire) == Reply(0, {})
    for number in range(1, 6):
        operation = Enqueue(
            notebook_id="turns",
            execution_id=f"e{number}",
            cell_id=f"c{number}",
            source=f"trail = [*globals().get('trail', []), {number}]",
            kernel=KernelChoice(env_source=slow.env_source),
            watch=number != 4,
        )
        wire.send(Request(number, operation))
        if number == 1:
            # It is being started: who asks for no more than a place in the queue has it at once.
            wait_until(lambda: Client().sessions.get("turns").kernel_status == "starting", "no kernel starts")
        if number == 4:
            assert receive(wire) == Reply(4, {})
    slow.let()
    waiting = {1, 2, 3, 5}
    while waiting:
        answer = receive(wire)
        assert not isinstance(answer, Failure)
        if isinstance(answer, Reply):
            waiting.remove(answer.id)
    wire.close()
    with Session("turns") as session:
        assert session.run("trail").value == [1, 2, 3, 4, 5]
        session.stop()


def test_code_that_is_sent_again_while_its_kernel_starts_runs_once(shared_daemon, slow, tmp_path):
    client_id, witness = new_client_id(), tmp_path / "witness"
    operation = Enqueue(
        notebook_id="again",
        execution_id="e",
        cell_id="c",
        source=f"open({str(witness)!r}, 'a').write('x')",
        kernel=KernelChoice(env_source=slow.env_source),
    )
    wires = [connected(client_id) for _ in range(3)]
    with Session("again") as session:
        for wire in wires:
            wire.send(Request(1, DescribeProcess(environment=dict(os.environ), cwd=str(tmp_path))))
            assert receive(wire) == Reply(1, {})
            wire.send(Request(2, operation))
        wires.pop(0).close()
        again = connected(client_id)
        again.send(Request(3, structs.replace(operation, watch=False, kernel=None)))
        slow.let()
        for wire in [*wires, again]:
            while not isinstance(answer := receive(wire), Reply):
                assert not isinstance(answer, Failure)
            wire.close()
        assert session.run("1").success
        assert len(session.get_cell_ids()) == 2
        session.stop()
    assert witness.read_text() == "x"


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.1, 0.4, 0.8])
def test_code_whose_daemon_is_killed_while_its_kernel_starts_runs_once(shared_daemon, tmp_path, delay):
    witness = tmp_path / "witness"
    with Session(f"killed after {delay}") as session:
        session.connect()
        status = Client().status()
        assert status is not None
        results = []
        code = f"open({str(witness)!r}, 'a').write('x')"
        running = threading.Thread(target=lambda: results.append(session.run(code)))
        running.start()
        time.sleep(delay)
        os.kill(status.pid, signal.SIGKILL)
        running.join()
        assert [result.success for result in results] == [True]
        assert len(session.get_cell_ids()) == 1
        session.stop()
    assert witness.read_text() == "x"
