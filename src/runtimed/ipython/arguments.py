"""The arguments of the magics. Nothing here does I/O."""

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
from runtimed.suggestions import did_you_mean

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
    "replay": "show the outputs of a cell, else of the running or latest execution, and follow it",
    "pull": "copy variables of the session's kernel into this one",
    "push": "copy variables of this kernel into the session's",
    "interrupt": "interrupt the running cell of the session",
    "restart": "replace the session's kernel by a new one",
    "stop": "end the session for everybody",
    "browser": "drive a browser session: goto, observe, click, fill, scrape, screenshot, stop",
    "env": "show which environment a kernel would get, and which one runs; `env trust` consents to it",
}
"""The commands of `%runtimed` and what they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How code or a cell is executed; None where the magics' settings decide.

    Attributes:
        timeout: Seconds; None for the setting, infinite for no limit.
        out: Name of the variable for the result.
        header: The cell's first line, which has these options.
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
    """A command of `%runtimed`.

    Attributes:
        rest: The text behind `browser`, which `browsing` parses.
        variables: What `pull` and `push` copy.
        new_name: The name of the only copy; None for its own.
    """

    name: str
    variables: tuple[str, ...] = ()
    new_name: str | None = None
    rest: str = ""
    notebook_id: str | None = None
    cell_id: str | None = None
    kernel_type: str | None = None
    env: str | None = None


class _Parser(MagicArgumentParser):
    """Reports invalid arguments with one sentence that names the magic."""

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
        found, unknown = self.parse_known_args(words)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            meant = did_you_mean(unknown[0].partition("=")[0], known) if unknown[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant and f'.{meant}'}")
        return vars(found)


def parse_run(line: str) -> RunOptions:
    """Parse the arguments of `%%runtimed`.

    Raises:
        UsageError: If they are invalid; one sentence says why.
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
    """Parse the arguments of `%runtimed_cell` or `%%runtimed_cell`.

    Args:
        line: The rest of the line.
        magic: The name that errors should use.

    Raises:
        UsageError: If they are invalid; one sentence says why.
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
        help="stop waiting after this time (default: never); the execution goes on",
    )
    parser.add_argument(
        "--no-wait",
        dest="wait",
        action="store_false",
        help="queue the code, print its execution id and cell id, and return at once",
    )
    parser.add_argument("--out", type=_name, metavar="NAME", help="put the ExecutionResult into the variable NAME")
    parser.add_argument("--silent", action="store_true", help="display nothing; a failure still stops the notebook")
    parser.add_argument("--again", action="store_true", help="queue the cell again, even if it runs or waits")
    _add_kernel_options(parser)


def _read_run(parser: _Parser, line: str) -> RunOptions:
    options = RunOptions(**parser.read(line), header=f"%%{parser.prog.lstrip('%')} {line}".rstrip())
    if not options.wait:
        for name, value in (("--out", options.out), ("--timeout", options.timeout)):
            if value is not None:
                parser.error(f"{name} needs the end of the execution, which --no-wait does not wait for")
    return options


def parse_command(line: str) -> Command | None:
    """Parse the arguments of `%runtimed`; None without any.

    Raises:
        UsageError: If they are invalid; one sentence says why.
    """
    name, _, rest = line.strip().partition(" ")
    if not name:
        return None
    if name not in COMMANDS:
        if meant := did_you_mean(name, COMMANDS):
            raise UsageError(f"%runtimed: there is no {name!r}.{meant}")
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
        case "pull" | "push":
            return _read_copy(parser, rest)
    if name not in ("connect", "sessions", "off"):
        parser.add_argument("notebook_id", nargs="?", type=_id, metavar="NOTEBOOK_ID")
    return Command(name=name, **parser.read(rest))


def _read_copy(parser: _Parser, line: str) -> Command:
    parser.add_argument("variables", nargs="+", type=_name, metavar="NAME")
    parser.add_argument("--as", dest="new_name", type=_name, metavar="NEW")
    found = parser.read(line)
    if found["new_name"] is not None and len(found["variables"]) > 1:
        parser.error("--as goes with one NAME")
    return Command(name=parser.prog.split()[1], variables=tuple(found["variables"]), new_name=found["new_name"])


def _add_kernel_options(parser: _Parser) -> None:
    parser.add_argument(
        "--kernel-type",
        type=_id,
        metavar="TYPE",
        help="language of a kernel that is started: python (default) or deno; refused while a kernel of another "
        "language runs",
    )
    parser.add_argument(
        "--env",
        type=_id,
        metavar="ENV",
        help="environment of a kernel that is started: auto (default: what the notebook or its nearest project "
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
"""Option of `%%runtimed` → what it does."""

VALUED_OPTIONS: Final = frozenset(action.option_strings[0] for action in _OPTIONS if action.metavar is not None)
"""Options that take a value."""

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
