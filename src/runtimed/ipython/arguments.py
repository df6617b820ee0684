"""What may follow a magic's name, and what it means. Nothing here talks to anybody."""

from __future__ import annotations

import argparse
import keyword
import shlex
import textwrap
from dataclasses import dataclass, field
from typing import Any, Final, Never

from IPython.core.error import UsageError
from IPython.core.magic_arguments import MagicArgumentParser

from runtimed.durations import read_duration

__all__ = [
    "COMMANDS",
    "OPTIONS",
    "OPTIONS_HELP",
    "VALUED_OPTIONS",
    "Command",
    "RunOptions",
    "parse_cell",
    "parse_command",
    "parse_run",
]

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


class _Parser(MagicArgumentParser):
    """Answers nonsense with one sentence that names the magic."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog=prog)  # type: ignore[no-untyped-call]  # IPython annotates nothing of it
        self.allow_abbrev = False

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
    return _read_run(_run_parser(), line)


def _run_parser() -> _Parser:
    parser = _Parser("%%runtimed")
    parser.add_argument("notebook_id", nargs="?", type=_id, metavar="NOTEBOOK_ID")
    parser.add_argument(
        "--cell",
        dest="cell_id",
        type=_id,
        metavar="CELL_ID",
        help="run in this cell of the document: its source becomes this code",
    )
    _add_run_options(parser)
    return parser


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
    _add_run_options(parser)
    return _read_run(parser, line)


def _add_run_options(parser: _Parser) -> None:
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="stop waiting after so long (never, by default); the execution goes on",
    )
    parser.add_argument(
        "--no-wait",
        dest="wait",
        action="store_false",
        help="queue the code, print its execution id and cell id, and return at once",
    )
    parser.add_argument("--out", type=_name, metavar="NAME", help="put the ExecutionResult into the variable NAME")
    parser.add_argument("--silent", action="store_true", help="display nothing; a failure still stops the notebook")
    parser.add_argument(
        "--again", action="store_true", help="queue the cell once more, though it runs or waits already"
    )
    _add_kernel_options(parser)


def _read_run(parser: _Parser, line: str) -> RunOptions:
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
    parser.add_argument(
        "--kernel-type",
        type=_id,
        metavar="TYPE",
        help="the language, if a kernel has to be started: python (default) or deno; it is refused while a kernel of "
        "another language runs",
    )
    parser.add_argument(
        "--env",
        type=_id,
        metavar="ENV",
        help="the environment, if a kernel has to be started: auto (default: what the notebook or its nearest project "
        "declares, else current), current (this kernel's interpreter), uv:prewarmed, conda:prewarmed, python:/path, "
        "kernelspec:NAME",
    )


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


_OPTIONS: Final = [action for action in _run_parser()._actions if action.option_strings]  # argparse has no public list

OPTIONS: Final = {action.option_strings[0]: action.help or "" for action in _OPTIONS}
"""The options of `%%runtimed`, and what they do."""

VALUED_OPTIONS: Final = frozenset(action.option_strings[0] for action in _OPTIONS if action.metavar is not None)
"""Those that a value follows."""

_WIDTH: Final = 112

OPTIONS_HELP: Final = "\n".join(
    textwrap.fill(
        f"{action.option_strings[0]} {action.metavar or ''}".ljust(20) + (action.help or ""),
        _WIDTH,
        subsequent_indent=" " * 20,
        break_on_hyphens=False,
    )
    for action in _OPTIONS
)
"""The options as text, a line or more each."""
