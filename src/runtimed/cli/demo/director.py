"""`runtimed demo`: runs the three scripts, kills the first one in the middle of its cell, and checks what is left.

Everything happens in a scratch data folder with a daemon of its own; both are gone at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Final

import psutil
from rich.console import Console
from rich.text import Text

from runtimed.cli.daemon import end_daemon
from runtimed.cli.exits import Exit
from runtimed.cli.printing import complain, open_console
from runtimed.cli.processes import wait_for_end
from runtimed.client import Client
from runtimed.errors import RuntimedError
from runtimed.models import SessionStatus
from runtimed.settings import read_settings
from runtimed.texts import printable

__all__ = ["Facts", "data_file", "demo", "expected_lines", "verify"]

NOTEBOOK_ID: Final = "mauna-loa"

DEADLINE: Final = 60.0
"""Seconds after which the demo gives up; it takes about twelve on an idle machine."""

END_DEADLINE: Final = 10.0
"""Seconds that the host gets to end when its session has."""

BEFORE_AGENT: Final = 6
"""Lines of the report after which the agent comes in."""

BEFORE_KILL: Final = 14
"""Lines of the report after which the notebook is killed."""

ALONE: Final = 1.5
"""Seconds in which nobody is connected."""

_REPORT_LINE: Final = re.compile(r"\s*(\d+) of \d+: ")

_COLOURS: Final = {"A": "cyan", "B": "magenta", "C": "green"}


def data_file() -> Path:
    """Return the data set: of the checkout if this is one, else the copy in the installed package."""
    here = Path(__file__).resolve()
    places = [
        here.parents[4] / "notebooks" / "data" / "mauna_loa_co2.csv",
        here.with_name("mauna_loa_co2.csv"),
    ]
    return next(place for place in reversed(places) if place.is_file())


def demo(arguments: argparse.Namespace) -> int:
    """Show the story, then its checks; fail if one does."""
    del arguments
    began = time.monotonic()
    data = data_file()
    console = open_console()
    with _scratch_daemon(), _Stage(console) as stage:
        try:
            facts = _play(stage, data)
        except _Halt as exc:
            complain(f"The demo cannot go on: {exc}")
            return Exit.FAILED
    console.print()
    findings = verify(facts, expected_lines(data))
    for holds, claim in findings:
        console.print(Text("✓ " if holds else "✗ ", style="green" if holds else "bold red") + Text(claim))
    console.print(Text(f"{time.monotonic() - began:.0f} s; the scratch folder and its daemon are gone", style="dim"))
    return Exit.OK if all(holds for holds, _claim in findings) else Exit.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen.

    Attributes:
        notebook_saw: Lines of the report that A printed before it was killed.
        notebook_exit: Its exit status; minus the number of the signal.
        agent_exit: B's.
        visitor_exit: C's.
        visitor_saw: All lines that C found, by the number of their cell, from 1.
        kernel_pids: The kernel's process, at the beginning and at the end.
    """

    notebook_saw: list[str]
    notebook_exit: int
    agent_exit: int
    visitor_exit: int
    visitor_saw: dict[int, list[str]]
    kernel_pids: tuple[int | None, int | None]


def expected_lines(data: Path) -> tuple[int, list[str]]:
    """Compute from the data, without any kernel, how many lines the report has and what the agent's cell prints."""
    weeks: dict[str, list[float]] = {}
    with data.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["co2_ppm"]:
                weeks.setdefault(row["date"][:4], []).append(float(row["co2_ppm"]))
    decades: dict[str, list[float]] = {}
    for year, values in weeks.items():
        decades.setdefault(f"{year[:3]}0s", []).append(sum(values) / len(values))
    rises = [
        f"{decade}: {(means[-1] - means[0]) / (len(means) - 1):+.2f} ppm a year" for decade, means in decades.items()
    ]
    return len(weeks), rises


def verify(facts: Facts, expected: tuple[int, list[str]]) -> list[tuple[bool, str]]:
    """Hold what was seen against what must be.

    Returns:
        Each claim, and whether it holds.
    """
    total, rises = expected
    report = facts.visitor_saw.get(2, [])
    numbers = [int(match[1]) if (match := _REPORT_LINE.match(line)) else None for line in report]
    seen = len(facts.notebook_saw)
    killed = signal.Signals.SIGKILL.name
    before, after = facts.kernel_pids
    return [
        (
            facts.notebook_exit == -signal.SIGKILL and 0 < seen < total,
            f"A was killed by {killed} in the middle of its cell, after line {seen} of {total}",
        ),
        (
            numbers == list(range(1, total + 1)),
            f"its report is complete: {len(report)} lines, 1 to {total} each once and in order",
        ),
        (report[:seen] == facts.notebook_saw, f"the {seen} lines that A saw are the first of them, word for word"),
        (
            facts.agent_exit == 0 and facts.visitor_saw.get(3) == rises,
            "B's cell ran after B had left, and its figures are right",
        ),
        (
            facts.visitor_exit == 0 and len(facts.visitor_saw.get(4, [])) == 1,
            "C's cell used the variables of both",
        ),
        (before is not None and before == after, f"one kernel all along: process {after}"),
    ]


def _play(stage: _Stage, data: Path) -> Facts:
    stage.say(f"Weekly CO2 at Mauna Loa, {data.name}; three processes share the session {NOTEBOOK_ID!r}.")
    notebook = stage.enter("A", "notebook", NOTEBOOK_ID, str(data))
    stage.until(notebook, lambda: len(notebook.report) >= BEFORE_AGENT)
    first = Client().sessions.get(NOTEBOOK_ID)
    stage.host_pid = first.host_pid

    agent = stage.enter("B", "agent", NOTEBOOK_ID)
    stage.until(agent)
    stage.until(notebook, lambda: len(notebook.report) >= BEFORE_KILL)

    os.kill(notebook.process.pid, signal.SIGKILL)
    stage.until(notebook)
    notebook_exit = notebook.process.wait()
    stage.say(f"os.kill({notebook.process.pid}, SIGKILL): A is gone, its exit status is {notebook_exit}.")

    alone = stage.wait_for(lambda status: status.peers == 0)
    stage.say(f"Clients connected: {alone.peers}. The kernel, process {alone.kernel_pid}, is {alone.kernel_status}.")
    time.sleep(ALONE)

    visitor = stage.enter("C", "visitor", NOTEBOOK_ID, hide=len(notebook.report))
    stage.until(visitor)
    last = Client().sessions.get(NOTEBOOK_ID)
    return Facts(
        notebook_saw=notebook.report,
        notebook_exit=notebook_exit,
        agent_exit=agent.process.wait(),
        visitor_exit=visitor.process.wait(),
        visitor_saw=visitor.cells,
        kernel_pids=(first.kernel_pid, last.kernel_pid),
    )


class _Halt(Exception):
    """The story cannot go on."""


class _Actor:
    """One of the three processes, and what it has printed."""

    def __init__(self, letter: str, name: str, process: subprocess.Popen[str], hide: int) -> None:
        self.letter = letter
        self.name = name
        self.process = process
        self.hide = hide
        self.ended = False
        self.report: list[str] = []
        self.cells: dict[int, list[str]] = {}

    def take(self, line: str) -> bool:
        """Note a line; return whether it is worth showing."""
        if _REPORT_LINE.match(line):
            self.report.append(line)
        if match := re.match(r"cell (\d+) \| (.*)", line):
            lines = self.cells.setdefault(int(match[1]), [])
            lines.append(match[2])
            return int(match[1]) > 2 or (int(match[1]) == 2 and len(lines) > self.hide)
        return True


class _Stage:
    """Runs actors and shows what they print, as it comes."""

    def __init__(self, console: Console) -> None:
        self.host_pid: int | None = None
        self._console = console
        self._actors: list[_Actor] = []
        self._lines: queue.Queue[tuple[_Actor, str | None]] = queue.Queue()
        self._deadline = time.monotonic() + DEADLINE

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for actor in self._actors:
            actor.process.kill()
            actor.process.wait()
        if self.host_pid is not None:
            # The session first, so that the host can be waited for.
            with contextlib.suppress(RuntimedError, psutil.Error):
                Client().sessions.stop(NOTEBOOK_ID)
                wait_for_end(psutil.Process(self.host_pid), END_DEADLINE)

    def say(self, text: str) -> None:
        """Print a sentence of the narrator."""
        self._console.print(Text(text, style="bold"), soft_wrap=True)

    def enter(self, letter: str, script: str, *arguments: str, hide: int = 0) -> _Actor:
        """Start a script as a process of its own.

        Args:
            letter: The actor's letter.
            script: Its file here, without `.py`.
            arguments: What it gets on its command line.
            hide: How many lines of the report have been shown already.
        """
        process = subprocess.Popen(
            [sys.executable, "-P", "-X", "utf8", str(Path(__file__).with_name(f"{script}.py")), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        actor = _Actor(letter, script, process, hide)
        self._actors.append(actor)
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        threading.Thread(target=self._read, args=(actor, process.stdout), daemon=True).start()
        return actor

    def until(self, actor: _Actor, condition: Callable[[], bool] | None = None) -> None:
        """Show what is printed until a condition holds; without one until the actor has ended.

        Raises:
            _Halt: If the actor ends before that, or it takes too long.
        """
        while not (actor.ended if condition is None else condition()):
            if actor.ended:
                raise _Halt(f"{actor.letter} ended too early, with exit status {actor.process.wait()}")
            try:
                speaker, line = self._lines.get(timeout=max(0.0, self._deadline - time.monotonic()))
            except queue.Empty:
                raise _Halt(f"nothing more came from {actor.letter} in {DEADLINE:g} s") from None
            if line is None:
                speaker.ended = True
            elif speaker.take(line):
                self._show(speaker, line)

    def wait_for(self, condition: Callable[[SessionStatus], bool]) -> SessionStatus:
        """Wait until the session is in a certain state, looking at it without joining it."""
        while not condition(status := Client().sessions.get(NOTEBOOK_ID)):
            if time.monotonic() > self._deadline:
                raise _Halt(f"the session is {status}")
            time.sleep(0.02)
        return status

    def _show(self, actor: _Actor, line: str) -> None:
        head = f"{actor.letter} {actor.name:<8} {actor.process.pid:>7} │ "
        self._console.print(Text(head, style=_COLOURS[actor.letter]) + Text(printable(line), style=""), soft_wrap=True)

    def _read(self, actor: _Actor, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines.put((actor, line.rstrip("\n")))
        self._lines.put((actor, None))


@contextlib.contextmanager
def _scratch_daemon() -> Iterator[None]:
    """Let this process and its children use a daemon of their own, and leave nothing of it."""
    scratch = tempfile.mkdtemp(prefix="runtimed-demo-")
    variables: dict[str, str | None] = {
        "RUNTIMED_DATA_DIR": scratch,
        "RUNTIMED_SOCKET_PATH": None,
        "RUNTIMED_IDLE_EXIT": "30",
    }
    before = {name: os.environ.get(name) for name in variables}
    _set_environment(variables)
    settings = read_settings()
    handler = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        end_daemon(settings, keep_kernels=False)
        _set_environment(before)
        for folder in (settings.data_dir, settings.hosts_dir):
            shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, handler)


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)
