"""What dies around the proxy kernel: the session, its kernel, the frontend, its server. No output is lost."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq

from runtimed import Client, Session
from runtimed.jupyter.proxy_kernel.sockets import PORTS
from tests.conftest import lives, wait_until
from tests.jupyter.proxy_kernel.conftest import TIMEOUT, Frontend, Start

pytestmark = pytest.mark.slow


def begin(frontend: Frontend, gate: Path) -> str:
    """Start a cell that prints, and ends when the file exists."""
    code = f"import os, time\nprint('first')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('last')"
    parent = frontend.execute(code)
    while frontend.next(parent)["msg_type"] != "stream":
        pass
    return parent


def test_a_session_that_is_stopped_ends_the_cell_and_the_next_one_starts_it_again(start: Start, tmp_path: Path) -> None:
    frontend = start("stopped")
    parent = begin(frontend, tmp_path / "never")
    Client().sessions.stop("stopped")
    assert frontend.reply(parent)["status"] == "error"
    assert frontend.until_idle(parent)[-1] == ("status", {"execution_state": "idle"})
    assert frontend.text("print('on')") == "on\n"


def test_a_kernel_that_dies_ends_the_cell_and_the_next_one_starts_another(start: Start) -> None:
    frontend = start("died")
    reply, messages = frontend.run("import os; os._exit(3)")
    assert (reply["ename"], messages[-1][0]) == ("KernelDied", "error")
    assert frontend.text("print('on')") == "on\n"


def test_a_frontend_that_is_killed_in_the_middle_of_a_cell_loses_nothing(start: Start, tmp_path: Path) -> None:
    frontend, gate = start("left"), tmp_path / "gate"
    begin(frontend, gate)
    frontend.manager.signal_kernel(signal.SIGKILL)
    wait_until(lambda: not frontend.manager.is_alive(), "it lives")
    gate.touch()
    with Session("left") as session:
        (cell,) = session.get_cells()
        assert session.wait(str(cell.execution_id)).stdout == "first\nlast\n"
    assert start("left").text("print(time.time() > 0)") == "True\n"


def test_a_frontend_that_sleeps_through_100_mb_reads_all_of_it(start: Start) -> None:
    frontend = start("flooded")
    expected = "".join(f"{str(n % 10) * 999_999}\n" for n in range(100))
    assert frontend.manager.provisioner is not None
    proxy = psutil.Process(getattr(frontend.manager.provisioner, "pid", None))
    with zmq.Context() as context, context.socket(zmq.SUB) as sleeper, Session("flooded") as session:
        sleeper.rcvhwm, sleeper.linger = 1, 0
        sleeper.connect(f"tcp://127.0.0.1:{frontend.manager.get_connection_info()['iopub_port']}")
        sleeper.subscribe(b"")
        assert sleeper.poll(int(TIMEOUT * 1000))  # the welcome
        before = proxy.memory_info().rss
        parent = frontend.execute("for n in range(100): print(str(n % 10) * 999_999)")
        assert frontend.next(parent)["content"] == {"execution_state": "busy"}
        session.wait(parent)
        assert "".join(_texts(sleeper)) == expected
        assert "".join(content.get("text", "") for _, content in frontend.until_idle(parent)) == expected
    assert frontend.reply(parent)["status"] == "ok"
    peak = int(Path(f"/proc/{proxy.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    assert peak - before < 40 * 10**6


def _texts(iopub: zmq.Socket[bytes]) -> Iterator[str]:
    """Read a subscription up to the end of an execution: what was printed."""
    is_busy = False
    while True:
        assert iopub.poll(int(TIMEOUT * 1000))
        content = json.loads(iopub.recv_multipart()[-1])
        if is_busy and content.get("execution_state") == "idle":
            return
        is_busy = is_busy or "code" in content
        yield content.get("text", "")


def test_what_belongs_to_no_cell_gets_none_from_the_next_daemon(start: Start, tmp_path: Path) -> None:
    frontend, gate = start("no cell"), tmp_path / "gate"
    parent = frontend.execute(f"import os\nprint(1)\nwhile not os.path.exists({str(gate)!r}): pass", silent=True)
    while frontend.next(parent)["msg_type"] != "stream":
        pass
    status = Client().status()
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    gate.touch()
    assert frontend.reply(parent)["status"] == "ok"
    with Session("no cell") as session:
        assert session.get_cells() == []


def test_restarts_leave_one_kernel_and_the_cells(start: Start) -> None:
    frontend = start("restarted often")
    for number in range(4):
        assert frontend.text(f"print({number}, 'before' in dir()); before = 1") == f"{number} False\n"
        frontend.manager.restart_kernel()
        frontend.client.wait_for_ready(timeout=TIMEOUT)
    assert frontend.text("print('before' in dir())") == "False\n"
    with Session("restarted often") as session:
        assert len(session.get_cells()) == 5


def test_a_restart_may_leave_the_sessions_kernel_alone(start: Start) -> None:
    frontend = start("spared", RUNTIMED_RESTART="proxy")
    frontend.run("name = 'kept'")
    frontend.manager.restart_kernel()
    frontend.client.wait_for_ready(timeout=TIMEOUT)
    assert frontend.text("print(name)") == "kept\n"


@contextlib.contextmanager
def bound(path: Path, session_id: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A server, and its kernel that has just bound its ports; it serves once somebody reads them from the pipe."""
    os.mkfifo(path)
    server = (
        "import os, subprocess, sys, time\n"
        "os.environ['JPY_PARENT_PID'] = str(os.getpid())\n"
        "command = [sys.executable, '-m', 'runtimed.jupyter.proxy_kernel', "
        f"'-f', {str(path)!r}, '--session', {session_id!r}]\n"
        "kernel = subprocess.Popen(command)\n"
        "print(kernel.pid, flush=True)\n"
        "sys.exit(kernel.wait())"
    )
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        kernel = psutil.Process(int(process.stdout.readline()))
        try:
            path.write_text('{"ip": "127.0.0.1", "key": "secret"}')
            wait_until(lambda: len(kernel.net_connections("tcp")) == len(PORTS), "the ports are not bound")
            yield process, kernel
        finally:
            for one in (process, kernel):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


def ports_in(path: Path) -> set[str]:
    """Read what a kernel writes into a pipe, if it lives."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as pipe:
        wait_until(lambda: select.select([pipe], [], [], 0)[0], "nothing is written")
        os.set_blocking(pipe.fileno(), True)
        return set(json.loads(pipe.read())) & set(PORTS)


@pytest.mark.parametrize("joins", [False, True])
def test_a_kernel_leaves_when_its_server_is_killed(shared_daemon: Path, tmp_path: Path, joins: bool) -> None:
    path = tmp_path / "connection.json"
    with bound(path, "of a server") as (server, kernel), Session("of a server") as session:
        if joins:
            assert ports_in(path) == set(PORTS)
            wait_until(lambda: session.status().peers == 2, "the kernel has not joined")
        server.kill()
        server.wait()
        if not joins:
            assert ports_in(path) == set(PORTS)
        wait_until(lambda: not lives(kernel), "the kernel lives on")
        assert session.run("1").success


@pytest.mark.parametrize("way", ["before it runs", "through a wrapper"])
def test_a_kernel_leaves_when_its_server_dies(shared_daemon: Path, tmp_path: Path, way: str) -> None:
    connection, gate = tmp_path / "connection.json", tmp_path / "gate"
    connection.write_text('{"ip": "127.0.0.1", "key": "secret"}')
    kernel = shlex.join(
        [sys.executable, "-m", "runtimed.jupyter.proxy_kernel", "-f", str(connection), "--session", "of it"]
    )
    command = {
        "before it runs": f"while [ ! -e {shlex.quote(str(gate))} ]; do sleep 0.05; done; exec {kernel}",
        "through a wrapper": f"{kernel}; true",
    }
    server = (
        "import os, subprocess\n"
        "os.environ['JPY_PARENT_PID'] = str(os.getpid())\n"
        f"kernel = subprocess.Popen(['sh', '-c', {command[way]!r}])\n"
        "print(kernel.pid, flush=True)\n"
        "kernel.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        started = psutil.Process(int(process.stdout.readline()))
        try:
            with Session("of it") as session:
                session.start_kernel()
                if way == "through a wrapper":
                    wait_until(lambda: session.status().peers == 2, "the kernel has not joined")
                process.kill()
                process.wait()
                gate.touch()
                wait_until(lambda: not lives(started), "the kernel lives on")
        finally:
            process.kill()
            for one in [*started.children(), started] if lives(started) else []:
                one.kill()


def test_a_kernel_that_has_just_bound_its_ports_leaves_when_it_is_told_to(shared_daemon: Path, tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    with bound(path, "left early") as (server, kernel):
        kernel.terminate()
        assert ports_in(path) == set(PORTS)
        assert server.wait(TIMEOUT) == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "names no ip"),
        ('{"ip": "127.0.0.1", "shell_port": 1}', "cannot be bound"),
    ],
)
def test_a_connection_file_that_leads_nowhere_is_an_error(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "connection.json"
    path.write_text(content)
    if os.geteuid() == 0 and "shell_port" in content:  # root may bind any port of this machine
        path.write_text(content.replace("127.0.0.1", "192.0.2.1"))
    command = [sys.executable, "-m", "runtimed.jupyter.proxy_kernel", "-f", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_ports_that_are_left_open_are_chosen_and_written(start: Start, tmp_path: Path) -> None:
    start("of free ports")
    path = tmp_path / "connection.json"
    path.write_text('{"ip": "127.0.0.1", "key": "secret"}')
    command = [sys.executable, "-m", "runtimed.jupyter.proxy_kernel", "-f", str(path), "--session", "of free ports"]
    with subprocess.Popen(command) as process:
        wait_until(lambda: "hb_port" in path.read_text(), "no ports")
        process.terminate()
        assert process.wait(TIMEOUT) == 0
