"""`runtimed run`: what the code writes, how it ends, and Ctrl-C."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtimed import Client, Session
from tests.cli.conftest import Begin, Command, interrupt, read_until
from tests.environments.conftest import base, cached, has_plain, variables, wheels

__all__ = ["base", "cached", "has_plain", "variables", "wheels"]


KEPT = ("run", "--session", "kept")
"""Runs in the session of those tests that need no kernel of their own."""


@pytest.fixture
def data_dir(shared_daemon: Path) -> Path:
    """One daemon for all of them."""
    return shared_daemon


def script(folder: Path, source: str | bytes) -> str:
    path = folder / "script.py"
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    return str(path)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_output_comes_while_the_code_still_runs(begin: Begin, short_folder: Path):
    go_on = short_folder / "go on"
    process = begin(
        *KEPT,
        script(
            short_folder,
            "import pathlib, sys, time\nprint('before')\n"
            f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(.01)\n"
            "print('after')\nprint('trouble', file=sys.stderr)\n6 * 7",  # which nobody prints, as in Python
        ),
    )
    assert read_until(process, "before") == "before\n"
    assert process.poll() is None
    go_on.touch()
    assert finish(process) == (0, "after\n", "trouble\n")


def test_code_that_raises_is_a_failure(runtimed: Command, short_folder: Path):
    done = runtimed(*KEPT, script(short_folder, "print('first')\n1 / 0\nprint('never')"))
    assert (done.returncode, done.stdout) == (1, "first\n")
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_file_in_another_encoding_is_read_as_python_reads_it(runtimed: Command, short_folder: Path):
    done = runtimed(*KEPT, script(short_folder, b"# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "'\\xe9'\n", "")


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"# coding: no-such-coding\n"], ids=["none", "bytes", "coding"])
def test_a_file_that_cannot_be_read_starts_nothing(
    content: bytes | None, runtimed: Command, short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    name = str(tmp_path / "missing.py") if content is None else script(tmp_path, content)
    done = runtimed("run", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Cannot read {name}: ")
    assert not Client().is_running()


def test_a_session_of_its_own_ends_with_the_code(runtimed: Command):
    assert runtimed("run", "-", input="print(1)").stdout == "1\n"
    status = Client().sessions.list()[0]
    assert (status.status, status.close_reason, status.label) == ("closed", "stopped", "runtimed run")
    assert status.session_id.startswith("agent-session-")


def test_a_named_session_stays_and_is_shared(runtimed: Command):
    assert runtimed(*KEPT, "-", input="shared = 6").returncode == 0
    done = runtimed(*KEPT, "-", input="print(shared * 7)")
    assert (done.returncode, done.stdout) == (0, "42\n")
    with Session("kept") as session:
        assert [cell.source for cell in session.get_cells()][-2:] == ["shared = 6", "print(shared * 7)"]
        assert session.run("shared").display_data[0].data == {"text/plain": "6"}


def test_the_code_works_in_the_callers_folder_and_environment(
    runtimed: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OWN_VARIABLE", "its value")
    done = runtimed("run", "-", input="import os; print(os.getcwd(), os.environ['OWN_VARIABLE'])", cwd=tmp_path)
    assert done.stdout == f"{tmp_path} its value\n"


def test_programs_get_the_result_as_json(runtimed: Command):
    done = runtimed(*KEPT, "--json", "-", input="print('out')\ndisplay({'a': 1})")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    with Session("kept") as session:
        cell = session.get_cells()[-1]
    assert cell.execution_count
    assert {
        key: result[key] for key in ("session_id", "cell_id", "success", "execution_count", "stdout", "stderr")
    } == {
        "session_id": "kept",
        "cell_id": cell.id,
        "success": True,
        "execution_count": cell.execution_count,
        "stdout": "out\n",
        "stderr": "",
    }
    assert [output["output_type"] for output in result["outputs"]] == ["stream", "display_data"]
    assert result["outputs"][1]["data"] == {"text/plain": "{'a': 1}"}
    assert (result["error"], result["exit_code"]) == (None, 0)
    assert result["started_at"] <= result["ended_at"]


def test_a_failure_is_json_too(runtimed: Command):
    done = runtimed(*KEPT, "--json", "-", input="1 / 0")
    assert (done.returncode, done.stderr) == (1, "")
    result = json.loads(done.stdout)
    assert (result["success"], result["error"]["ename"], result["exit_code"]) == (False, "ZeroDivisionError", 1)
    assert result["outputs"] == [result["error"]]


def test_a_signal_that_kills_the_kernel_is_named(begin: Begin, short_folder: Path):
    go_on = short_folder / "go on"
    process = begin(
        "run",
        script(
            short_folder,
            "import os, pathlib, time\nprint('last words')\n"
            f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(.01)\n"
            "os.kill(os.getpid(), 9)",
        ),
    )
    read_until(process, "last words")
    go_on.touch()
    code, out, err = finish(process)
    perhaps = "perhaps because memory ran out"
    assert (code, out, err) == (137, "", f"KernelDied: The kernel died (killed by SIGKILL, {perhaps})\n")


def test_ctrl_c_interrupts_the_code_and_leaves_the_session_in_order(begin: Begin, short_folder: Path):
    code = "import time\nbefore = 1\nprint('begun')\nwhile True: time.sleep(.01)"
    process = begin(*KEPT, script(short_folder, code))
    read_until(process, "begun")
    interrupt(process)
    code_, _out, err = finish(process)
    assert code_ == 130
    assert "KeyboardInterrupt" in err
    assert "runtimed/cli" not in err
    with Session("kept") as session:
        assert session.run("print(before)").stdout == "1\n"


@pytest.mark.parametrize(
    ("handled", "command"),
    [
        ("sys.exit(5)", KEPT),
        ("print('handled')", KEPT),
        ("raise ValueError", KEPT),
        ("raise", KEPT),
        ("raise", ["run"]),
    ],
)
def test_ctrl_c_ends_a_program_as_it_ends_python(
    begin: Begin, short_folder: Path, handled: str, command: Sequence[str]
):
    code = f"""
import sys, time
try:
    print("begun", flush=True)
    while True: time.sleep(.01)
except KeyboardInterrupt:
    {handled}
"""
    file = script(short_folder, code)
    with subprocess.Popen([sys.executable, file], text=True, stdout=-1, stderr=-1, process_group=0) as python:
        read_until(python, "begun")
        interrupt(python)
        code_, out, _err = finish(python)
    process = begin(*command, file)
    read_until(process, "begun")
    interrupt(process)
    # A shell says 130 of a program that SIGINT has killed.
    assert finish(process)[:2] == (130 if code_ == -signal.SIGINT else code_, out)


def test_ctrl_c_takes_queued_code_back_and_leaves_other_peoples_running(begin: Begin, short_folder: Path):
    go_on = short_folder / "go on"
    with Session("kept") as session:
        session.start_kernel()
        cell = session.create_cell(
            f"import pathlib, time\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(.01)\nprint('done')"
        )
        other = session.queue_cell(cell)
        with contextlib.closing(session.subscribe(event_types=["cell_changed"])) as events:
            process = begin(*KEPT, script(short_folder, "print('mine')"))
            for event in events:
                if event.cell_id != cell and event.status == "executed":
                    break
        interrupt(process)
        code, out, err = finish(process)
        assert (code, out) == (130, "")
        assert "Traceback" not in err
        go_on.touch()
        assert session.wait(other).stdout == "done\n"
        assert session.run("1").success


def test_a_second_ctrl_c_ends_the_waiting(begin: Begin, short_folder: Path):
    code = """
import time
while True:
    try:
        print("begun")
        while True: time.sleep(.01)
    except KeyboardInterrupt:
        print("stubborn")
"""
    process = begin("run", "--session", "stubborn", script(short_folder, code))
    read_until(process, "begun")
    interrupt(process)
    read_until(process, "stubborn")
    interrupt(process)
    code_, _out, err = finish(process)
    assert (code_, err) == (130, "")
    assert Client().sessions.get("stubborn").kernel_status == "busy"


def test_a_reader_that_goes_away_ends_the_session_of_its_own(begin: Begin, short_folder: Path):
    code = "import time\nwhile True:\n    print('line')\n    time.sleep(.01)"
    process = begin("run", script(short_folder, code))
    read_until(process, "line")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr is not None
    assert process.stderr.read() == ""
    status = Client().sessions.list()[0]
    assert (status.status, status.close_reason) == ("closed", "error")


def test_a_script_gets_the_packages_that_it_asks_for(
    runtimed: Command, tmp_path: Path, variables: dict[str, str], has_plain: None, monkeypatch: pytest.MonkeyPatch
):
    script = tmp_path / "script.py"
    script.write_text("# /// script\n# dependencies = ['alpha']\n# ///\nimport alpha\nprint(alpha.version)\n")
    monkeypatch.delenv("RUNTIMED_ENV")
    for name, value in {**variables, "UV_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)

    done = runtimed("run", str(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, "2.0\n", "")

    script.write_text(script.read_text().replace("'alpha'", "'alpha==3'"))
    done = runtimed("run", str(script))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Cannot make the environment of alpha==3. No version of 'alpha' fits")
