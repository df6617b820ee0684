"""The command line as such: help, arguments, scripts, exit codes."""

import math
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from runtimed import Client, Session, __version__
from runtimed.cli.parser import make_parser
from runtimed.durations import check_duration
from runtimed.ipython.arguments import parse_run
from tests.cli.conftest import RUNTIMED, Command

LENGTHS = {"0": 0, "0.5": 0.5, "3e6": 3e6, "1e308": 1e308, "inf": math.inf, "none": None, "None": None}
"""Lengths of time, as they are typed, and as they are given to a session."""

COMMANDS = [
    "start",
    "stop",
    "restart",
    "status",
    "logs",
    "doctor",
    "sessions",
    "run",
    "cells",
    "log",
    "history",
    "exec",
    "attach",
    "interrupt",
    "delete",
    "prune",
    "view",
    "replay",
    "env",
    "completion",
    "demo",
]


def test_the_help_names_every_command_and_every_exit_code(runtimed: Command):
    done = runtimed("--help")
    assert done.returncode == 0
    assert [name for name in COMMANDS if f"\n    {name} " not in done.stdout] == []
    assert [code for code in (0, 1, 2, 3, 4, 124, 130) if f"\n  {code} " not in done.stdout] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_and_does_nothing(command: str, in_process: Command, data_dir: Path):
    done = in_process(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m runtimed " + command)
    assert list(data_dir.iterdir()) == []


def test_help_waits_for_no_heavy_import():
    code = "import sys, runtimed.cli.main; print(*{'rich', 'psutil', 'IPython', 'zmq', 'automerge'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["run"],
        ["run", "--session", "", "a.py"],
        ["run", "--ses", "x", "a.py"],
        ["cells"],
        ["cells", "x" * 1025],
        ["cells", os.fsdecode(b"\xff")],
        ["delete"],
        ["exec", "x"],
        ["prune", "--older-than", "nan"],
        ["stop", "--keep"],
        ["logs", "-n", "-1"],
        ["logs", "-n", "many"],
        ["sessions", "--status", "happy"],
        ["start", "now"],
    ],
    ids=repr,
)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str], in_process: Command, data_dir: Path):
    done = in_process(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
    assert list(data_dir.iterdir()) == []


def test_a_timeout_is_read_as_sessions_read_it():
    read = {text: make_parser().parse_args(["attach", "x", "--timeout", text]).timeout for text in LENGTHS}
    assert read == {text: check_duration("timeout_secs", value) for text, value in LENGTHS.items()}
    assert {text: parse_run(f"--timeout {text}").timeout for text in LENGTHS} == {
        text: math.inf if seconds is None else seconds for text, seconds in read.items()
    }


@pytest.mark.parametrize("digits", [20, 5000])
def test_a_count_beyond_all_that_there_is_means_all(digits: int, in_process: Command, data_dir: Path):
    (data_dir / "daemon.log").write_text("first\nlast\n")
    done = in_process("logs", "-n", "9" * digits)
    assert (done.returncode, done.stdout, done.stderr) == (0, "first\nlast\n", "")


@pytest.mark.parametrize("text", ["soon", "nan", "1,5"])
def test_a_length_of_time_that_makes_no_sense_is_refused_with_what_to_write(
    text: str, capsys: pytest.CaptureFixture[str]
):
    for arguments in (["attach", "x", "--timeout", text], ["prune", "--older-than", text]):
        with pytest.raises(SystemExit) as ended:
            make_parser().parse_args(arguments)
        assert ended.value.code == 2
        unit = "seconds" if arguments[0] == "attach" else "days"
        wanted = f"must be a number of {unit}, not negative, or `none` for no limit; not {text!r}\n"
        assert capsys.readouterr().err.endswith(f"{arguments[-2]}: {wanted}")


@pytest.mark.parametrize("command", [["runtimed"], ["jupyter-runtimed"], ["jupyter", "runtimed"]], ids=" ".join)
def test_it_is_installed_under_both_names(command: list[str]):
    scripts = sysconfig.get_path("scripts")
    done = subprocess.run(
        [str(Path(scripts) / command[0]), *command[1:], "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"runtimed {__version__}\n")


@pytest.mark.parametrize("command", [["status"], ["logs"]], ids=" ".join)
def test_what_concerns_the_daemon_alone_starts_none(command: list[str], in_process: Command, data_dir: Path):
    done = in_process(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert list(data_dir.iterdir()) == []


def test_what_needs_the_daemon_starts_one(in_process: Command, data_dir: Path):
    with Session("kept") as session:
        session.create_cell("1")
    for command in (
        ["cells", "kept"],
        ["sessions"],
        ["log", "kept"],
        ["history", "kept"],
        ["attach", "kept"],
        ["delete", "--yes", "--stop", "kept"],
    ):
        Client().shutdown(keep_kernels=True)
        done = in_process(*command)
        assert (done.returncode, done.stderr) == (0, "")
    assert Client().sessions.list() == []


@pytest.mark.parametrize("command", [[], ["env"]], ids=["runtimed", "runtimed env"])
def test_a_bare_command_is_its_help(command: list[str], in_process: Command, data_dir: Path):
    done = in_process(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == in_process(*command, "--help").stdout
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["sesions"], "there is no 'sesions'. Did you mean sessions?"),
        (["sessions", "--status", "activ"], "there is no 'activ'. Did you mean active?"),
        (["sessions", "--jsn"], "unrecognized arguments: --jsn. Did you mean --json?"),
        (["run", "--sesion=x", "a.py"], "unrecognized arguments: --sesion=x. Did you mean --session?"),
        (["env", "prun"], "there is no 'prun'. Did you mean prune?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_probably_meant_is_asked(arguments: list[str], question: str, in_process: Command):
    done = in_process(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert question in done.stderr


def test_a_socket_path_that_cannot_be_is_a_sentence(
    in_process: Command, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RUNTIMED_SOCKET_PATH", "/tmp/" + "x" * 120)
    for command in ("status", "start", "stop", "restart", "sessions"):
        done = in_process(command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "name a shorter one with RUNTIMED_SOCKET_PATH" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(data_dir: Path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        done = subprocess.run([*RUNTIMED, "doctor"], stdout=broken, stderr=-1, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_an_output_that_cannot_be_written_is_a_sentence(data_dir: Path):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*RUNTIMED, "env", "explain"], stdout=full, stderr=-1, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "Cannot write the output: No space left on device\n")


def test_who_closed_the_standard_streams_is_asked_and_told_nothing(data_dir: Path):
    with Session("closed streams") as session:
        session.create_cell("1")
    for command, code in ((["sessions"], 0), (["delete", "--stop", "closed streams"], 1), (["cells", "none"], 4)):
        shell = f"exec {shlex.join([*RUNTIMED, *command])} <&- >&- 2>&-"
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert Client().sessions.get("closed streams").status == "active"


def test_what_the_terminal_cannot_encode_is_escaped(runtimed: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = runtimed("run", "--session", "größe", "-", input="print('é')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xe9\n", "")
    assert "gr\\xf6\\xdfe" in runtimed("sessions").stdout
