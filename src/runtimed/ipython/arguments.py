"""What may follow a magic's name, and what it means. Nothing here talks to anybody."""

from __future__ import annotations

import argparse
import keyword
import shlex
from dataclasses import dataclass, field
from typing import Any, Final, Never

from IPython.core.error import UsageError

from runtimed.durations import read_duration

__all__ = ["COMMANDS", "OPTIONS", "VALUED_OPTIONS", "Command", "RunOptions", "parse_cell", "parse_command", "parse_run"]

OPTIONS: Final = {
    "--cell": "run in this cell of the document",
    "--timeout": "stop waiting after so many seconds",
    "--no-wait": "queue the code and return at once",
    "--out": "put the ExecutionResult into this variable",
    "--silent": "display nothing",
    "--again": "queue the cell once more though it runs or waits already",
    "--kernel-type": "the language, if a kernel is started",
    "--env": "the environment, if a kernel is started",
}
"""The options of `%%runtimed`, and what they do."""

VALUED_OPTIONS: Final = frozenset(OPTIONS) - {"--again", "--no-wait", "--silent"}
"""Those that a value follows."""

COMMANDS: Final = {
    "connect": "join a session, which the other magics then use",
    "on": "send every following cell to the session",
    "off": "run cells here again",
    "sessions": "list the daemon's sessions",
    "cells": "list the cells of the session",
    "replay": "show the outputs of a cell, else of what runs or ran last, and follow it while it runs",
    "interrupt": "interrupt what runs in the session",
    "restart": "replace the session's kernel by a fresh one",
    "stop": "end the session for everybody",
    "browser": "drive a browser session: goto, observe, click, fill, scrape, screenshot, stop",
    "env": "show which environment a kernel would get, and which one runs; `env trust` consents to it",
}
"""What `%runtimed` can do, beside showing the state of things."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How code or a cell is to be executed; None where the defaults of the magics decide.

    Attributes:
        timeout: In seconds; None for what the setting says, infinite for no limit.
        out: The name of a variable.
        header: The first line of a cell that says all this.
    """

    notebook_id: str | None = None
    cell_id: str | None = None
    timeout: float | None = None
    wait: bool = True
    out: str | None = None
    silent: bool = False
    again: bool = False
    kernel_type: str | None = None
    env: str | None = None
    header: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What `%runtimed` is asked to do.

    Attributes:
        rest: What follows `browser`, which `browsing` reads.
    """

    name: str
    rest: str = ""
    notebook_id: str | None = None
    cell_id: str | None = None
    kernel_type: str | None = None
    env: str | None = None


class _Parser(argparse.ArgumentParser):
    """Answers nonsense with one sentence, where argparse would end the process."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog=prog, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> Never:
        raise UsageError(f"{self.prog}: {message} (`{self.prog.split()[0]}?` explains)")

    def read(self, line: str) -> dict[str, Any]:
        """Return the arguments of a line by name."""
        try:
            words = shlex.split(line)
        except ValueError as exc:
            self.error(str(exc).lower())
        return vars(self.parse_args(words))


def parse_run(line: str) -> RunOptions:
    """Read what follows `%%runtimed`.

    Raises:
        UsageError: If it makes no sense; one sentence says why.
    """
    parser = _Parser("%%runtimed")
    parser.add_argument("notebook_id", nargs="?", type=_id, metavar="NOTEBOOK_ID")
    parser.add_argument("--cell", dest="cell_id", type=_id, metavar="CELL_ID")
    return _run_options(parser, line)


def parse_cell(line: str, magic: str) -> RunOptions:
    """Read what follows `%runtimed_cell` or `%%runtimed_cell`.

    Args:
        line: The rest of the line.
        magic: The name that errors should use.

    Raises:
        UsageError: If it makes no sense; one sentence says why.
    """
    parser = _Parser(magic)
    parser.add_argument("cell_id", type=_id, metavar="CELL_ID")
    parser.add_argument("notebook_id", nargs="?", type=_id, metavar="NOTEBOOK_ID")
    return _run_options(parser, line)


def _run_options(parser: _Parser, line: str) -> RunOptions:
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS")
    parser.add_argument("--no-wait", dest="wait", action="store_false")
    parser.add_argument("--out", type=_name, metavar="NAME")
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--again", action="store_true")
    _add_kernel_options(parser)
    options = RunOptions(**parser.read(line), header=f"%%{parser.prog.lstrip('%')} {line}".rstrip())
    if not options.wait:
        for name, value in (("--out", options.out), ("--timeout", options.timeout)):
            if value is not None:
                parser.error(f"{name} needs the end of the execution, which --no-wait does not wait for")
    return options


def parse_command(line: str) -> Command | None:
    """Read what follows `%runtimed`; None if nothing does.

    Raises:
        UsageError: If it makes no sense; one sentence says why.
    """
    name, _, rest = line.strip().partition(" ")
    if not name:
        return None
    if name not in COMMANDS:
        raise UsageError(
            f"%runtimed: there is no {name!r}, only {', '.join(COMMANDS)}; code goes into a cell that begins with "
            "%%runtimed"
        )
    if name == "browser":
        return Command(name=name, rest=rest)
    if name == "env" and rest.split()[:1] == ["trust"]:
        name, rest = "env trust", rest.strip().removeprefix("trust")
    parser = _Parser(f"%runtimed {name}")
    match name:
        case "connect":
            parser.add_argument("notebook_id", type=_id, metavar="ID")
            _add_kernel_options(parser)
        case "replay":
            parser.add_argument("cell_id", nargs="?", type=_id, metavar="CELL_ID")
    if name not in ("connect", "sessions", "off"):
        parser.add_argument("notebook_id", nargs="?", type=_id, metavar="NOTEBOOK_ID")
    return Command(name=name, **parser.read(rest))


def _add_kernel_options(parser: _Parser) -> None:
    parser.add_argument("--kernel-type", type=_id, metavar="TYPE")
    parser.add_argument("--env", type=_id, metavar="ENV")


def _id(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _seconds(text: str) -> float:
    try:
        return read_duration(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _name(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"must be the name of a variable, not {text!r}")
    return text
