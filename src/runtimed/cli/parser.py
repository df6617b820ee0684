"""What the command line takes: each command's arguments, and its module. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from runtimed.durations import check_duration, read_duration
from runtimed.errors import SessionError
from runtimed.ids import check_notebook_id
from runtimed.version import __version__

__all__ = ["COMPLETED_BY", "did_you_mean", "make_parser"]

COMPLETED_BY: Final = "runtimed_completed_by"
"""The attribute of an argument that says what its value is, for completion: `session`, `execution`, `cell`, `env`."""

ENVIRONMENTS: Final = ("auto", "conda:prewarmed", "current", "kernelspec:", "python:", "uv:prewarmed")

_EPILOG: Final = """\
exit codes:
  0    done
  1    it failed, you said no, or the code that was run raised an error; a program's own status where it has one
  2    the arguments make no sense, or a file cannot be read
  3    no daemon runs (status, logs)
  4    no session, cell or execution has this id, or several begin with it
  124  --timeout is over; the code runs on
  130  interrupted with Ctrl-C; another signal that killed a program: 128 and its number

An ID of something that exists may be shortened as long as only one begins so. Commands that need what the daemon keeps
start one; status, doctor, logs, a bare stop and env explain, list and prune do not.

environment:
  RUNTIMED_DATA_DIR     the folder of the daemon's databases and log; one daemon serves one folder
  RUNTIMED_SOCKET_PATH  the daemon's Unix socket (default: inside the data folder)
  and the limits that `runtimed status` shows: max sessions is RUNTIMED_MAX_SESSIONS
"""


class _Program(argparse.Action):
    """A file and its arguments: taken together, as argparse drops a `--` between two that it takes apart."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002  # argparse passes it
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002  # argparse passes it
    ) -> None:
        first = 1 if values[0] == "--" and len(values) > 1 else 0
        namespace.file, namespace.arguments = values[first], values[first + 1 :]


class _Parser(argparse.ArgumentParser):
    """Says what was probably meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def parse_known_args(  # type: ignore[override]  # argparse's own overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and refuse what is not known here, where the options are that may have been meant."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            meant = did_you_mean(unknown[0].partition("=")[0], known) if unknown[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{meant}" if meant else _unknown(unknown))
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            meant = did_you_mean(str(value), map(str, action.choices))
            if meant:
                raise argparse.ArgumentError(action, f"there is no {value!r}.{meant}")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """Print the sentence below one line of usage; the help is a command away."""
        self.exit(2, f"{self.format_usage()}{self.prog}: error: {message}\n")


def _unknown(arguments: Sequence[str]) -> str:
    return f"unrecognized arguments: {' '.join(arguments)}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with what is close to a word, with a blank before it; nothing if nothing is."""
    close = difflib.get_close_matches(word, list(known), 3, 0.6)
    # Only those that are nearly as close as the closest.
    likeness = [difflib.SequenceMatcher(None, word, one).ratio() for one in close]
    close = [one for one, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - 0.1]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser. What it parses has `command`: the module in `runtimed.cli`, and the function there."""
    program = Path(sys.argv[0]).name
    parser = _Parser(
        prog={"jupyter-runtimed": "jupyter runtimed", "__main__.py": "python -m runtimed"}.get(program, "runtimed"),
        description="Live sessions that notebooks, scripts and agents share, and that outlive them all.",
    )
    parser.add_argument("--version", action="version", version=f"runtimed {__version__}")
    parser.set_defaults(command=None, helped=parser)
    commands = _Commands(parser.add_subparsers(title="commands", metavar="COMMAND [OPTIONS]"))
    _add_daemon(commands)
    _add_running(commands)
    _add_sessions(commands)
    _add_env(commands)
    completion = commands.add(
        "completion", "completion", "print what lets the shell complete with Tab", 'eval "$(runtimed completion bash)"'
    )
    completion.add_argument("shell", choices=("bash", "zsh"), help="the shell")
    commands.add(
        "demo",
        "demo.director",
        "watch a kernel outlive its notebook",
        "Three processes share one kernel on real data, in\na scratch folder that is removed at the end; one of them "
        "is killed in the middle of its work.",
    )
    return parser


class _Commands:
    """Adds commands."""

    def __init__(self, commands: Any) -> None:
        self._commands = commands

    def add(self, name: str, module: str, text: str, more: str = "") -> argparse.ArgumentParser:
        """Add a command.

        Args:
            name: The command, and the function in its module; `exec` is `exec_` there.
            module: The module.
            text: What it does.
            more: Further sentences.
        """
        command: argparse.ArgumentParser = self._commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip()
        )
        command.set_defaults(command=(module, name if name != "exec" else "exec_"))
        return command


def _add_daemon(commands: _Commands) -> None:
    commands.add("start", "daemon", "start the daemon, unless one runs")
    stop = commands.add(
        "stop",
        "ending",
        "end a session for everybody, or without an ID the daemon and every session",
        "Asks first where code\nstill runs. Cells and outputs stay. Without a daemon there is nothing to stop.",
    )
    _add_id(stop, nargs="?", text="the session; without one the daemon")
    stop.add_argument("--keep-kernels", action="store_true", help="leave the kernels running for the next daemon")
    _add_yes(stop)
    commands.add(
        "restart", "daemon", "replace the daemon under its running kernels", "Kernels and their sessions live on."
    )
    _add_json(commands.add("status", "daemon", "say whether a daemon runs, and what it holds"))
    logs = commands.add("logs", "logs", "show the end of the daemon's log")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as the log grows, until Ctrl-C")
    logs.add_argument(
        "-n", "--lines", type=_count, default=100, metavar="N", help="how many lines (default: %(default)s)"
    )
    _add_json(commands.add("doctor", "doctor", "check this installation, and say how to mend what is missing"))


def _add_running(commands: _Commands) -> None:
    run = commands.add(
        "run",
        "run",
        "run a Python file in a session as `python FILE ARG…` would, or a notebook",
        "Output comes as the code\nwrites it, and the exit status is the program's. Of a notebook each code cell runs "
        "in its turn, up to\nthe first that fails. Ctrl-C interrupts the code; a second one stops waiting.",
    )
    session = run.add_argument(
        "--session",
        type=_session_id,
        metavar="ID",
        help="the session, by its whole id, a new one too, which stays; without it a new one that ends with the code",
    )
    setattr(session, COMPLETED_BY, "session")
    env = run.add_argument(
        "--env", default="auto", metavar="E", help="the environment of a kernel that is started (default: auto)"
    )
    setattr(env, COMPLETED_BY, "env")
    run.add_argument("--kernel-type", default="python", metavar="T", help="python or deno (default: %(default)s)")
    _add_timeout(run, "stop waiting then, for each cell of a notebook; the code runs on")
    run.add_argument("--detach", action="store_true", help="print the ids and wait for nothing; see `runtimed attach`")
    _add_json(run, "print the result as JSON at the end, and nothing before")
    run.add_argument(
        "file",
        nargs=argparse.PARSER,
        action=_Program,
        metavar="FILE",
        help="a .py or .ipynb file; - reads standard input; all that follows is the program's, options too",
    )
    exec_ = commands.add(
        "exec",
        "attach",
        "run code as a new cell of a session",
        "As in a notebook: the value of the last expression is shown.",
    )
    _add_id(exec_)
    exec_.add_argument("code", metavar="CODE", help="the code; - reads standard input")
    _add_timeout(exec_, "stop waiting then; the code runs on")
    _add_json(exec_, "print the result as JSON at the end, and nothing before")
    attach = commands.add(
        "attach",
        "attach",
        "show what a session runs from its first output on, until it ends",
        "Without EXECUTION what runs\nnow, else what ran last. Ctrl-C leaves, and interrupts nothing.",
    )
    _add_id(attach)
    execution = attach.add_argument(
        "execution", nargs="?", metavar="EXECUTION", help="an execution, or a cell's latest"
    )
    setattr(execution, COMPLETED_BY, "cell")
    _add_timeout(attach, "leave then")
    interrupt = commands.add("interrupt", "ending", "interrupt what a session runs")
    _add_id(interrupt)


def _add_sessions(commands: _Commands) -> None:
    sessions = _add_json(commands.add("sessions", "sessions", "list the sessions, latest use first"))
    sessions.add_argument(
        "--status",
        choices=("active", "closed", "error", "timed_out"),
        help="only those in this state: `active` leaves out what has ended",
    )
    sessions.add_argument("--kind", choices=("kernel", "browser"), help="only those of this kind")
    cells = _add_json(commands.add("cells", "sessions", "show the cells of a session with their latest outputs"))
    _add_id(cells)
    cell = cells.add_argument("cells", nargs="*", metavar="CELL", help="only these, with all of their outputs")
    setattr(cell, COMPLETED_BY, "cell")
    log = _add_json(
        commands.add("log", "audit", "show who did what in a session, the latest first", "Ended sessions too.")
    )
    _add_id(log)
    log.add_argument(
        "-n", "--entries", type=_count, default=100, metavar="N", help="how many entries (default: %(default)s)"
    )
    delete = commands.add(
        "delete",
        "ending",
        "delete a session with its cells, outputs, log and profile",
        "Asks first. The id is free then.",
    )
    _add_id(delete)
    delete.add_argument("--stop", action="store_true", help="end it first if it is active")
    _add_yes(delete)
    prune = commands.add(
        "prune",
        "ending",
        "delete the sessions that ended and were not used for long, with their data",
        "Asks first. Kernels\nthat nobody has used for a day are named, and left running.",
    )
    prune.add_argument(
        "--older-than",
        type=_days,
        default=30.0,
        metavar="DAYS",
        help="those that were not used for so many days (default: 30)",
    )
    prune.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    _add_yes(prune)
    _add_json(prune)
    restore = commands.add(
        "restore",
        "restore",
        "bring back a session's notebook that was found damaged and set aside",
        "It is\nloaded by a process of its own first. Cells written since stay, behind those that come back.",
    )
    _add_id(restore)
    _add_id(
        commands.add(
            "view",
            "view",
            "watch a browser session live, in your own browser",
            "Where none opens, its\naddress is printed: who has it may watch.",
        )
    )
    replay = _add_json(
        commands.add(
            "replay",
            "replay",
            "do again, in a new browser, what was done in a browser session",
            "Ended sessions too. The\nbrowser starts with the same options. What the page refused is left out; secrets "
            "and passwords are in\nno log, and are asked for.",
        ),
        "with --list: print JSON for programs",
    )
    _add_id(replay)
    replay.add_argument("--session", type=_session_id, metavar="ID", help="the new session (default: a generated id)")
    replay.add_argument("--window", action="store_true", help="show it: in a window, and in the viewer")
    replay.add_argument("--list", action="store_true", help="only list what was done")


def _add_env(commands: _Commands) -> None:
    env = commands.add(
        "env", "env", "say which environment a kernel would get, and why; consent to it; list and remove environments"
    )
    env.set_defaults(command=None, helped=env)
    env_commands = env.add_subparsers(metavar="COMMAND")
    explain = env_commands.add_parser(
        "explain", help='say what env_source="auto" means for a notebook, a script or a folder'
    )
    explain.set_defaults(command=("env", "env_explain"))
    explain.add_argument("path", nargs="?", default=".", metavar="PATH", help="default: this folder")
    _add_json(explain)
    trust = env_commands.add_parser("trust", help="consent to installing what a session's document or project asks for")
    _add_id(trust)
    trust.set_defaults(command=("env", "env_trust"))
    listing = env_commands.add_parser("list", help="list the environments that were made, with their size and use")
    listing.set_defaults(command=("env", "env_list"))
    _add_json(listing)
    prune = env_commands.add_parser(
        "prune",
        help="remove environments that no session uses",
        description="Remove environments that no session uses and none has begun to use within the last minute. "
        "Without an option, those beyond the limits that the daemon keeps: RUNTIMED_ENV_KEEP_DAYS (30), "
        "RUNTIMED_ENV_MAX_COUNT (100), RUNTIMED_ENV_MAX_BYTES (20 GiB).",
    )
    prune.set_defaults(command=("env", "env_prune"))
    which = prune.add_mutually_exclusive_group()
    which.add_argument("--older-than", type=_days, metavar="DAYS", help="those that were not used for so many days")
    which.add_argument("--all", action="store_true", help="all of them")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    _add_json(prune)


def _add_id(parser: argparse.ArgumentParser, *, nargs: str | None = None, text: str = "the session") -> None:
    action = parser.add_argument("id", type=_session_id, metavar="ID", nargs=nargs, help=text)
    setattr(action, COMPLETED_BY, "session")


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="ask nothing")


def _add_timeout(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help=text)


def _add_json(parser: argparse.ArgumentParser, text: str = "print JSON for programs") -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help=text)
    return parser


def _session_id(text: str) -> str:
    try:
        return check_notebook_id(text)
    except SessionError as exc:
        raise argparse.ArgumentTypeError(exc.message) from None


def _days(text: str) -> float:
    return _duration(text, "days")


def _seconds(text: str) -> float | None:
    return check_duration("--timeout", _duration(text, "seconds"))


def _duration(text: str, unit: str) -> float:
    try:
        return read_duration(text, unit)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text) if len(text) < 19 else sys.maxsize  # all that there are
