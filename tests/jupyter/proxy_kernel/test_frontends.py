"""Jupyter's programs on the proxy kernel, unmodified: nbclient, papermill, the console, and one that starts it raw."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import papermill
import pexpect
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from runtimed import Client, Session
from runtimed.models import Cell
from tests.conftest import wait_until
from tests.jupyter.proxy_kernel import conftest
from tests.jupyter.proxy_kernel.conftest import SPECS, TIMEOUT, Start

pytestmark = pytest.mark.slow

SOURCES = ["name = 'kept'", "print(name)", "1 / 0"]


@pytest.fixture
def environment(start: Start, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let frontends that this test starts join a session named after it; return its id."""
    session_id = str(request.node.name)
    monkeypatch.setenv("RUNTIMED_NOTEBOOK_ID", session_id)
    monkeypatch.setenv("JUPYTER_PATH", str(SPECS))
    return session_id


def cells_of(session_id: str) -> list[Cell]:
    with Session(session_id) as session:
        return session.get_cells()


def test_nbclient_runs_a_notebook_in_a_session(environment: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in SOURCES])
    nbclient.NotebookClient(notebook, kernel_name="runtimed", allow_errors=True).execute()
    assert notebook.cells[1].outputs[0].text == "kept\n"
    assert notebook.cells[2].outputs[0].ename == "ZeroDivisionError"
    found = cells_of(environment)
    assert [cell.source for cell in found] == SOURCES
    assert [cell.execution_count for cell in found] == [cell.execution_count for cell in notebook.cells]
    assert Client().sessions.get(environment).kernel_status == "idle"


def texts(path: Path) -> dict[str, str]:
    """Id of each cell of a file, and the text of its outputs."""
    cells = nbformat.read(path, as_version=4).cells
    return {cell.id: "".join(output.text for output in cell.get("outputs", ())) for cell in cells}


def test_a_kept_notebook_that_nbclient_runs_again_has_its_cells_and_new_outputs(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "again.ipynb"
    count = "n = globals().get('n', 0) + 1\nprint(n)"
    cells = [nbformat.v4.new_code_cell(source, id=cell_id) for cell_id, source in (("a", count), ("b", "print(n)"))]
    cells += [nbformat.v4.new_markdown_cell(count, id="m"), nbformat.v4.new_code_cell(count, id="c")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    monkeypatch.setenv("RUNTIMED_NOTEBOOK_ID", str(path))
    monkeypatch.setenv("JUPYTER_PATH", str(SPECS))
    with Session(str(path)) as session:
        session.open_notebook(path)
        for number in (1, 3, 5):
            notebook = nbformat.read(path, as_version=4)
            nbclient.NotebookClient(notebook, kernel_name="runtimed").execute()
            written = {"a": f"{number}\n", "b": f"{number}\n", "m": "", "c": f"{number + 1}\n"}
            session.save()
            assert texts(path) == written
            nbformat.write(notebook, path)  # as `jupyter execute --inplace`
            session.open_notebook(path)
            session.save()
            assert texts(path) == written
        session.stop()


def test_papermill_runs_a_notebook_with_parameters_in_a_session(environment: str, tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]})
    source, target = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell("print(n + 1)")]), source)
    papermill.execute_notebook(
        str(source), str(target), parameters={"n": 41}, kernel_name="runtimed", language="python", progress_bar=False
    )
    assert nbformat.read(target, as_version=4).cells[-1].outputs[0].text == "42\n"
    assert [found.source for found in cells_of(environment)][-1] == "print(n + 1)"


def test_a_console_runs_its_lines_in_a_session(environment: str) -> None:
    command = ["-m", "jupyter_console", "--kernel", "runtimed", "--simple-prompt"]
    console = pexpect.spawn(
        sys.executable, command, encoding="utf-8", timeout=TIMEOUT, env={**os.environ, "TERM": "dumb"}
    )
    try:
        console.expect(r"In \[\d*\]:")
        console.sendline("print('from ' + 'console')")
        console.expect("from console")
        console.expect(r"In \[\d*\]:")
        assert "print('from ' + 'console')" in [cell.source for cell in cells_of(environment)]
        console.sendline("exit(keep_kernel=True)")
        console.expect(pexpect.EOF)
    finally:
        console.close(force=True)


@pytest.fixture
def raw(environment: str, tmp_path: Path) -> Any:
    """A client that starts the kernel as VS Code does: its own argv and connection file, and no manager."""
    path, _ = write_connection_file(str(tmp_path / "connection.json"), key=b"secret")
    argv = json.loads((SPECS / "kernels" / "runtimed" / "kernel.json").read_text("utf-8"))["argv"]
    command = [sys.executable, *(part.replace("{connection_file}", path) for part in argv[1:])]
    log = tmp_path / "log"
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        ports = json.loads(Path(path).read_text("utf-8"))
        # A client without a manager takes a kernel that has not bound its sockets yet for a dead one.
        wait_until(lambda: is_bound(ports["hb_port"]), "the kernel does not listen")
        client = BlockingKernelClient(connection_file=path)
        client.load_connection_file()
        frontend = conftest.Client(client)
        yield process, frontend, log
        client.stop_channels()
    finally:
        process.kill()
        process.wait()


def is_bound(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_client_without_a_manager_interrupts_in_both_ways_and_ends_it(raw: Any) -> None:
    process, frontend, _log = raw
    client = frontend.client
    for way in ("message", "signal"):
        parent = frontend.execute("import time\nprint('begun')\ntime.sleep(600)")
        while frontend.next(parent)["msg_type"] != "stream":
            pass
        if way == "message":
            client.control_channel.send(client.session.msg("interrupt_request", {}))
        else:
            process.send_signal(signal.SIGINT)
        assert frontend.reply(parent)["ename"] == "KeyboardInterrupt"
        frontend.until_idle(parent)
    client.shutdown()
    process.wait(timeout=TIMEOUT)
    assert process.returncode == 0


def test_the_cell_of_a_frontend_is_the_cell_of_the_document(raw: Any, environment: str) -> None:
    _process, frontend, _log = raw
    client = frontend.client
    for source, cell_id in (("first = 1", "b7"), ("second = 2", "a3"), ("first = 3", "b7")):
        message = client.session.msg("execute_request", {"code": source})
        message["metadata"] = {"cellId": cell_id}
        client.shell_channel.send(message)
        assert frontend.reply(message["header"]["msg_id"])["status"] == "ok"
    assert [(cell.id, cell.source) for cell in cells_of(environment)] == [("b7", "first = 3"), ("a3", "second = 2")]


def test_a_program_runs_the_cells_of_a_kept_notebook_in_order_and_a_person_adds_cells(
    raw: Any, environment: str, tmp_path: Path
) -> None:
    _process, frontend, _log = raw

    def run(*sources: str, **options: Any) -> list[str]:
        """Send cells in one go; return the names of the session's cells by what they were when it was saved."""
        for parent in [frontend.execute(source, **options) for source in sources]:
            assert frontend.reply(parent)["status"] == "ok"
        with Session(environment) as session:
            return [f"{cell.id if len(cell.id) == 1 else '+'} {cell.execution_count}" for cell in session.get_cells()]

    with Session(environment) as session:
        for cell_id, source in (("a", "x = 1"), ("b", "x"), ("c", "x = 1"), ("d", "x")):
            session.create_cell(source, cell_id=cell_id)
        before = ["a None", "b None", "c None", "d None"]
        assert run("x = 1", allow_stdin=False) == [*before, "+ 1"], "no file: not a notebook"
        session.save(tmp_path / "kept.ipynb")
    assert run("x = 1") == [*before, "+ 1", "+ 2"], "whoever can answer is a person"
    assert run("x = 1", "inserted = 1", "x", allow_stdin=False) == ["a 3", "b 5", *before[2:], "+ 1", "+ 2", "+ 4"]
    assert run("x", "x", "inserted = 1", "x = 1", allow_stdin=False)[1:] == [
        *("b 5", "c None", "d 6", "+ 1", "+ 9", "+ 4", "+ 7", "+ 8")
    ], "only what is behind d: the person's cell, not c"


def test_a_message_with_a_wrong_signature_is_dropped(raw: Any) -> None:
    _process, frontend, log = raw
    session = frontend.client.session
    key, session.key = session.key, b"wrong"
    frontend.execute("1 / 0")
    session.key = key
    assert frontend.run("'right'")[0]["status"] == "ok"
    assert "dropped a message on shell: Invalid Signature" in log.read_text("utf-8")


def test_a_notebook_names_the_session_and_so_does_a_link_to_it(start: Start, tmp_path: Path) -> None:
    path, link = tmp_path / "book.ipynb", tmp_path / "link.ipynb"
    path.touch()
    link.symlink_to(path)
    start(JPY_SESSION_NAME=str(link)).run("name = 'of the book'")
    with Session(str(path.resolve())) as session:
        assert session.run("print(name)").stdout == "of the book\n"
        assert session.run("import os; os.getcwd()").value == str(tmp_path.resolve())


def test_a_session_that_nobody_named_is_said_once_and_lasts_through_restarts(start: Start) -> None:
    frontend = start()
    _, messages = frontend.run("name = 'kept'")
    ((_, said),) = [message for message in messages if message[0] == "stream"]
    session_id = said["text"].split("'")[1]
    assert said["text"] == (
        f"This runs in the new session {session_id!r}, which goes on until `runtimed stop {session_id}`.\n"
    )
    assert frontend.text("print(name)") == "kept\n"
    frontend.manager.restart_kernel()
    frontend.client.wait_for_ready(timeout=TIMEOUT)
    with Session(session_id) as session:
        session.run("name = 'of the same'")
        assert frontend.text("print(name)").endswith("of the same\n")


def test_two_frontends_share_a_session_and_see_each_other(start: Start) -> None:
    first, second = start("of two"), start("of two")
    parent = first.execute("print('from the first')")
    assert ("stream", {"name": "stdout", "text": "from the first\n"}) in second.until_idle(parent)
    assert first.reply(parent)["status"] == "ok"
    assert second.text("print('from the second')") == "from the second\n"


def test_comms_go_both_ways_with_their_buffers(start: Start) -> None:
    frontend = start("comms")
    frontend.run(
        "def opened(comm, message):\n"
        "    def told(message):\n"
        "        buffers = [bytes(buffer)[::-1] for buffer in message['buffers']]\n"
        "        comm.send(message['content']['data'], buffers=buffers)\n"
        "    comm.on_msg(told)\n"
        "get_ipython().kernel.comm_manager.register_target('mirror', opened)"
    )

    def send(msg_type: str, content: dict[str, Any], buffers: list[bytes] | None = None) -> str:
        message = frontend.client.session.msg(msg_type, content)
        frontend.client.session.send(frontend.client.shell_channel.socket, message, buffers=buffers)
        return str(message["header"]["msg_id"])

    opened = send("comm_open", {"comm_id": "m", "target_name": "mirror", "data": {}})
    assert frontend.until_idle(opened)[-1] == ("status", {"execution_state": "idle"})
    told = send("comm_msg", {"comm_id": "m", "data": {"a": 1}}, [b"abc"])
    message = frontend.next()
    while message["msg_type"] != "comm_msg":
        message = frontend.next()
    assert (message["content"], [bytes(buffer) for buffer in message["buffers"]]) == (
        {"comm_id": "m", "data": {"a": 1}},
        [b"cba"],
    )
    assert message["parent_header"]["msg_id"] == told, "by which a frontend knows its echo"
    assert "m" in frontend.reply(frontend.client.comm_info())["comms"]


def test_a_cell_goes_on_when_the_daemon_is_killed(start: Start, tmp_path: Path) -> None:
    frontend, gate = start("killed"), tmp_path / "gate"
    code = f"import os, time\nprint('first')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('last')"
    parent = frontend.execute(code)
    while frontend.next(parent)["msg_type"] != "stream":
        pass
    status = Client().status()
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    gate.touch()
    assert ("stream", {"name": "stdout", "text": "last\n"}) in frontend.until_idle(parent)
    assert frontend.reply(parent)["status"] == "ok"
    assert frontend.text("print('on')") == "on\n"


def test_a_kernel_that_cannot_start_says_why_in_the_cell(start: Start, tmp_path: Path) -> None:
    frontend = start("hopeless", RUNTIMED_ENV="python:/nonexistent")
    reply, messages = frontend.run("1")
    assert (reply["status"], reply["ename"]) == ("error", "KernelStartFailed")
    assert messages[-1][1]["evalue"] == reply["evalue"]
