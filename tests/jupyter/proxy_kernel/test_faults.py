"""What dies around the proxy kernel: the session, its kernel, the frontend, its server. No output is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from jupyter_client.connect import write_connection_file

from runtimed import Client, Session
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


def test_ten_restarts_leave_one_kernel_and_the_cells(start: Start) -> None:
    frontend = start("restarted often")
    for number in range(10):
        assert frontend.text(f"print({number}, 'before' in dir()); before = 1") == f"{number} False\n"
        frontend.manager.restart_kernel()
        frontend.client.wait_for_ready(timeout=TIMEOUT)
    assert frontend.text("print('before' in dir())") == "False\n"
    with Session("restarted often") as session:
        assert len(session.get_cells()) == 11


def test_a_restart_may_leave_the_sessions_kernel_alone(start: Start) -> None:
    frontend = start("spared", RUNTIMED_RESTART="proxy")
    frontend.run("name = 'kept'")
    frontend.manager.restart_kernel()
    frontend.client.wait_for_ready(timeout=TIMEOUT)
    assert frontend.text("print(name)") == "kept\n"


def test_a_kernel_leaves_when_its_server_is_killed(start: Start, tmp_path: Path) -> None:
    start("of a server")
    path, _ = write_connection_file(str(tmp_path / "connection.json"), key=b"secret")
    server = (
        "import os, subprocess, sys, time\n"
        "os.environ['JPY_PARENT_PID'] = str(os.getpid())\n"
        "command = [sys.executable, '-m', 'runtimed.jupyter.proxy_kernel', "
        f"'-f', {path!r}, '--session', 'of a server']\n"
        "print(subprocess.Popen(command).pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        kernel = psutil.Process(int(process.stdout.readline()))
        with Session("of a server") as session:
            wait_until(lambda: session.status().peers == 3, "the kernel has not joined")
            process.kill()
            wait_until(lambda: not lives(kernel), "the kernel lives on")
            assert session.run("1").success


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
