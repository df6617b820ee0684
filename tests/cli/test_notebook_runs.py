"""`runtimed run FILE.ipynb`, and the options of `run`: `--detach`, `--env`, `--timeout`; and what a signal leaves."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pexpect
import pytest

from runtimed import Client, Session
from tests.cli.conftest import RUNTIMED, Command, interrupt, read_until

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def daemon(shared_daemon: Path) -> None:
    """One daemon for all of them."""


def notebook(folder: Path, *cells: dict[str, Any], **fields: Any) -> str:
    path = folder / "note.ipynb"
    content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells, **fields}
    path.write_text(json.dumps(content))
    return str(path)


def code(cell_id: str, source: str, *tags: str) -> dict[str, Any]:
    lines = source.splitlines(keepends=True)
    return {
        "id": cell_id, "cell_type": "code", "source": lines, "metadata": {"tags": tags},
        "outputs": [], "execution_count": None,
    }  # fmt: skip


def text(cell_id: str, source: str) -> dict[str, Any]:
    return {"id": cell_id, "cell_type": "markdown", "source": source, "metadata": {}}


def runtimed(*arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdin": subprocess.DEVNULL, **options} if "input" not in options else options
    return subprocess.run(
        [*RUNTIMED, *arguments], stdout=-1, stderr=-1, encoding="utf-8", timeout=100, check=False, **options
    )


def begin(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([*RUNTIMED, *arguments], stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, encoding="utf-8")


def test_a_notebook_runs_cell_by_cell_up_to_the_first_that_fails_and_again_when_it_is_mended(tmp_path: Path):
    first = (text("title", "# Title"), code("one", "x = 2\nx + 1"), code("empty", "\n"))
    last = code("three", "print('never')")
    path = notebook(tmp_path, *first, code("two", "import os\nprint(os.getcwd())\nx / 0"), last)
    done = runtimed("run", "--session", "note", path, cwd="/")
    assert (done.returncode, done.stdout) == (1, f"3\n{tmp_path}\n")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    with Session("note") as session:
        assert [(cell.id, cell.cell_type, cell.source, cell.execution_count) for cell in session.get_cells()] == [
            ("title", "markdown", "# Title", None),
            ("one", "code", "x = 2\nx + 1", 1),
            ("empty", "code", "\n", None),
            ("two", "code", "import os\nprint(os.getcwd())\nx / 0", 2),
            ("three", "code", "print('never')", None),
        ]
        notebook(tmp_path, *first, code("two", "x / 2"), last)
        done = runtimed("run", "--session", "note", path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "3\n1.0\nnever\n", "")
        assert [(cell.id, cell.source) for cell in session.get_cells()][3:] == [
            ("two", "x / 2"),
            ("three", "print('never')"),
        ]


def test_tags_say_which_cells_may_fail_and_which_are_left_out(tmp_path: Path):
    path = notebook(
        tmp_path,
        code("one", "1 / 0", "raises-exception"),
        code("two", "print('left out')", "skip-execution"),
        code("three", "print(input())"),
    )
    done = runtimed("run", "--session", "kept", path, input="a line\n")
    assert (done.returncode, done.stdout) == (0, "a line\n")
    assert "ZeroDivisionError" in done.stderr
    done = runtimed("run", "--session", "kept", "--json", path, input="a line\n")
    results = json.loads(done.stdout)
    assert [(one["cell_id"], one["exit_code"], one["stdout"]) for one in results] == [
        ("one", 1, ""),
        ("three", 0, "a line\n"),
    ]


def test_a_notebook_ends_with_its_kernel_whatever_may_fail(tmp_path: Path):
    cells = [code("one", "import os; os._exit(3)", "raises-exception"), code("two", "print('in a fresh kernel')")]
    done = runtimed("run", notebook(tmp_path, *cells))
    assert done.returncode != 0
    assert "fresh" not in done.stdout


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "it is no notebook: "),
        ("[]", "it is no notebook"),
        ('{"nbformat": 4}', "it is a damaged notebook: "),
        (
            '{"nbformat": 4, "metadata": {}, "cells": [{"id": "a", "cell_type": "raw", "metadata": {}, "source": ""}, '
            '{"id": "a", "cell_type": "raw", "metadata": {}, "source": ""}]}',
            "two of its cells have the id 'a'",
        ),
    ],
)
def test_what_is_no_notebook_is_refused_with_a_sentence(content: str, why: str, tmp_path: Path, in_process: Command):
    path = tmp_path / "note.ipynb"
    path.write_text(content)
    done = in_process("run", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{path} cannot be read: {why}")


def test_a_notebook_takes_no_arguments(tmp_path: Path, in_process: Command):
    done = in_process("run", notebook(tmp_path), "--fast")
    assert (done.returncode, done.stderr) == (
        2,
        f"A notebook takes no arguments; {tmp_path}/note.ipynb was given --fast\n",
    )


def test_an_argument_that_is_no_text_is_refused():
    done = runtimed("run", "-", b"\xff", input="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("The arguments, the file's name and the folder must be UTF-8")


def test_a_detached_program_runs_on_under_the_ids_that_are_printed(tmp_path: Path):
    file = tmp_path / "file.py"
    file.write_text(
        "import sys\nprint(sys.argv[1:])\ntry:\n    input()\nexcept EOFError:\n    print('nobody answers')\n"
    )
    done = runtimed("run", "--detach", str(file), "x")
    assert (done.returncode, done.stderr) == (0, "")
    (first, session_id), (second, execution_id) = (line.split() for line in done.stdout.splitlines())
    assert (first, second) == ("session", "execution")
    with Client().Session(session_id) as session:
        assert session.wait(execution_id).stdout == "['x']\nnobody answers\n"
        session.stop()
    done = runtimed(
        "run", "--detach", "--json", "--session", "kept", notebook(tmp_path, code("a", "1"), code("b", "2"))
    )
    queued = json.loads(done.stdout)
    assert (queued["session_id"], [one["cell_id"] for one in queued["executions"]]) == ("kept", ["a", "b"])
    with Session("kept") as session:
        assert [session.wait(one["execution_id"]).success for one in queued["executions"]] == [True, True]


def test_after_the_timeout_the_code_runs_on(tmp_path: Path):
    file = tmp_path / "file.py"
    go_on = tmp_path / "go on"
    file.write_text(
        f"import pathlib, time\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(.01)\nprint('end')"
    )
    done = runtimed("run", "--timeout", "0.2", "--session", "kept", str(file))
    assert (done.returncode, done.stdout) == (124, "")
    assert done.stderr.startswith("It still runs after 0.2 s; `runtimed attach kept execution-")
    execution_id = done.stderr.split("`")[1].split()[-1]
    go_on.touch()
    with Session("kept") as session:
        assert session.wait(execution_id).stdout == "end\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_end_of_the_command_leaves_the_code_running(number: int, tmp_path: Path):
    go_on = tmp_path / "go on"
    file = tmp_path / "file.py"
    file.write_text(
        "import pathlib, time\nprint('begun')\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(.01)\nprint('end')"
    )
    with begin("run", "--session", "kept", str(file)) as process:
        read_until(process, "begun")
        process.send_signal(number)
        assert process.wait(60) == -number
    go_on.touch()
    with Session("kept") as session:
        cell = session.get_cells()[-1]
        assert cell.execution_id is not None
        assert session.wait(cell.execution_id).stdout == "begun\nend\n"


def test_a_person_answers_a_program_and_interrupts_its_question(tmp_path: Path):
    file = tmp_path / "file.py"
    file.write_text("import getpass\nprint('got', input('name? '), len(getpass.getpass('word: ')))\ninput('again? ')\n")
    command, *arguments = [*RUNTIMED, "run", "--session", "kept", str(file)]
    child = pexpect.spawn(command, arguments, timeout=60, encoding="utf-8")
    child.expect_exact("name? ")
    child.sendline("Ann")
    child.expect_exact("word: ")
    child.sendline("secret")
    child.expect_exact("got Ann 6")
    child.expect_exact("again? ")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    lines = child.before.replace("^C", "").split("\r\n")
    assert lines[:3] == [
        "Traceback (most recent call last):",
        f'  File "{file}", line 3, in <module>',
        "    input('again? ')",
    ]
    assert lines[-2:] == ["KeyboardInterrupt", ""]
    assert not any("ipykernel" in line for line in lines)


def test_ctrl_c_just_before_a_question_leaves_nobody_waiting_at_it(tmp_path: Path):
    file = tmp_path / "file.py"
    # The client has not read the question yet when the prompt is there.
    file.write_text("print('again? ', flush=True)\ninput()\n")
    child = pexpect.spawn(
        RUNTIMED[0], [*RUNTIMED[1:], "run", "--session", "kept", str(file)], timeout=60, encoding="utf-8"
    )
    child.expect_exact("again? ")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert child.before.endswith("KeyboardInterrupt\r\n")


def test_ctrl_c_interrupts_a_notebook_and_leaves_out_its_other_cells(tmp_path: Path):
    loop = "import time\nprint('begun')\nwhile True: time.sleep(.01)"
    path = notebook(tmp_path, code("interrupted", loop), code("left-out", "2"))
    with begin("run", "--session", "kept", path) as process:
        read_until(process, "begun")
        interrupt(process)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "KeyboardInterrupt" in err
    with Session("kept") as session:
        interrupted, left_out = (session.get_cell(cell_id) for cell_id in ("interrupted", "left-out"))
    assert interrupted.execution_count
    assert left_out.execution_count is None


def test_an_environment_that_the_session_does_not_have_is_refused(tmp_path: Path):
    with Session("kept") as session:
        session.start_kernel(env_source="current")
    done = runtimed("run", "--session", "kept", "--env", "kernelspec:python3", "-", input="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The session 'kept' has a kernel in 'current', not in 'kernelspec:python3': ")
    assert runtimed("run", "--session", "kept", "--env", "current", "-", input="print(1)").stdout == "1\n"
