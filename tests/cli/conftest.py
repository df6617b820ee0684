"""How the tests run `runtimed`: as a process, on a data folder of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtimed.cli.main import main

Command = Callable[..., subprocess.CompletedProcess[str]]
Begin = Callable[..., "subprocess.Popen[str]"]

RUNTIMED = (sys.executable, "-P", "-m", "runtimed")


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let output that nobody flushes stay unseen, whatever this machine's environment says."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture
def runtimed(data_dir: Path) -> Command:
    """Run a command to its end."""

    def run(*arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"stdin": subprocess.DEVNULL, **options} if "input" not in options else options
        return subprocess.run(
            [*RUNTIMED, *arguments], stdout=-1, stderr=-1, encoding="utf-8", timeout=90, check=False, **options
        )

    return run


@pytest.fixture
def in_process(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command to its end in this process: a process of its own takes longer to start than most of them to work.

    It uses the daemon that the environment names.
    """
    monkeypatch.setattr(sys, "argv", ["__main__.py"])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        try:
            code: Any = main(arguments)
        except SystemExit as ended:
            code = ended.code
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


@pytest.fixture
def begin(data_dir: Path) -> Iterator[Begin]:
    """Start a command; it is killed at the end of the test if it still runs."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*RUNTIMED, *arguments], stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, encoding="utf-8", **options
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with process:
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C."""
    os.kill(process.pid, signal.SIGINT)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read lines of standard output until one holds a text; return all of them."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    pytest.fail(f"{text!r} did not come; there was {read!r}, and {process.stderr and process.stderr.read()!r}")
