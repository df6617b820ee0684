"""`runtimed` and `jupyter runtimed`: reads the arguments and hands over to the command's own module.

Nothing heavy is imported here, so that `runtimed --help` and Tab completions answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from runtimed.cli.exits import Exit
from runtimed.errors import RuntimedError, SessionError, SessionNotFound
from runtimed.ids import check_notebook_id
from runtimed.version import __version__

__all__ = ["main"]

_EPILOG: Final = """\
exit codes:
  0    done
  1    it failed, or the code that was run raised an error; a program's own status where it has one
  2    the arguments make no sense, or a file cannot be read
  3    no daemon runs (start, restart, run, restore and demo start one; the other commands do not)
  4    no session has this id
  124  --timeout is over; the code runs on
  130  interrupted with Ctrl-C

environment:
  RUNTIMED_DATA_DIR     the folder of the daemon's databases and log; one daemon serves one folder
  RUNTIMED_SOCKET_PATH  the daemon's Unix socket (default: inside the data folder)
  and the limits that `runtimed status` shows: max sessions is RUNTIMED_MAX_SESSIONS
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An id or an output that the terminal's encoding lacks is shown escaped; it is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    module, name = arguments.command
    command: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(f"runtimed.cli.{module}"), name)
    try:
        code = command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`runtimed logs | head`); the interpreter's last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except RuntimedError as exc:
        complain = importlib.import_module("runtimed.cli.console").complain
        complain(exc.message)
        return Exit.NO_SESSION if isinstance(exc, SessionNotFound) else Exit.FAILED
    return code


def _parser() -> argparse.ArgumentParser:
    program = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(
        prog={"jupyter-runtimed": "jupyter runtimed", "__main__.py": "python -m runtimed"}.get(program, "runtimed"),
        description="Live sessions that notebooks, scripts and agents share, and that outlive them all.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"runtimed {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND [OPTIONS]", required=True)

    def add(name: str, module: str, text: str, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. {more}".strip(),
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(command=(module, name.replace("-", "_")))
        return command

    add("start", "daemon", "start the daemon, unless one runs")
    stop = add("stop", "daemon", "end the daemon and every session", "Without a daemon there is nothing to do.")
    stop.add_argument("--keep-kernels", action="store_true", help="leave the kernels running for the next daemon")
    add("restart", "daemon", "replace the daemon under its running kernels", "Kernels and their sessions live on.")
    _add_json(add("status", "daemon", "say whether a daemon runs, and what it holds"))
    logs = add("logs", "logs", "show the end of the daemon's log")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as the log grows, until Ctrl-C")
    logs.add_argument(
        "-n", "--lines", type=_count, default=100, metavar="N", help="how many lines (default: %(default)s)"
    )
    _add_json(add("doctor", "doctor", "check this installation, and say how to mend what is missing"))
    sessions = _add_json(add("sessions", "sessions", "list the sessions, latest use first"))
    sessions.add_argument(
        "--status", choices=("active", "closed", "error", "timed_out"), help="only those in this state"
    )
    sessions.add_argument("--kind", choices=("kernel", "browser"), help="only those of this kind")
    run = add(
        "run",
        "run",
        "run a Python file in a session as `python FILE ARG…` would, or a notebook",
        "Output comes as the code\nwrites it, and the exit status is the program's. Of a notebook each code cell runs "
        "in its turn, up to\nthe first that fails. Ctrl-C interrupts the code; a second one stops waiting.",
    )
    run.add_argument(
        "--session",
        type=_session_id,
        metavar="ID",
        help="the session, a new one too, which stays afterwards; without it a new one that ends with the code",
    )
    run.add_argument(
        "--env", default="auto", metavar="E", help="the environment of a kernel that is started (default: auto)"
    )
    run.add_argument("--kernel-type", default="python", metavar="T", help="python or deno (default: %(default)s)")
    run.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="stop waiting then; the code runs on (for each cell of a notebook)",
    )
    run.add_argument("--detach", action="store_true", help="print the ids and wait for nothing; see `runtimed attach`")
    _add_json(run, "print the result as JSON at the end, and nothing before")
    run.add_argument("file", metavar="FILE", help="a .py or .ipynb file; - reads standard input")
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARG", help="what the program gets, options too")
    cells = _add_json(add("cells", "sessions", "show the cells of a session with their latest outputs"))
    cells.add_argument("id", type=_session_id, metavar="ID", help="the session")
    log = _add_json(add("log", "audit", "show who did what in a session, the latest first", "Ended sessions too."))
    log.add_argument("id", type=_session_id, metavar="ID", help="the session")
    log.add_argument(
        "-n", "--entries", type=_count, default=100, metavar="N", help="how many entries (default: %(default)s)"
    )
    stop_session = add("stop-session", "sessions", "end a session for everybody", "Its cells and outputs stay.")
    stop_session.add_argument("id", type=_session_id, metavar="ID", help="the session")
    restore = add(
        "restore",
        "restore",
        "bring back a session's notebook that was found damaged and set aside",
        "It is\nloaded by a process of its own first. Cells written since stay, behind those that come back.",
    )
    restore.add_argument("id", type=_session_id, metavar="ID", help="the session")
    replay = _add_json(
        add(
            "replay",
            "replay",
            "do again, in a new browser, what was done in a browser session",
            "Ended sessions too. What\nthe page refused is left out; secrets are in no log, and are asked for.",
        ),
        "with --list: print JSON for programs",
    )
    replay.add_argument("id", type=_session_id, metavar="ID", help="the session")
    replay.add_argument("--session", type=_session_id, metavar="ID", help="the new session (default: a generated id)")
    replay.add_argument("--window", action="store_true", help="show it: in a window, and in the viewer")
    replay.add_argument("--list", action="store_true", help="only list what was done")
    env = add(
        "env", "env", "say which environment a kernel would get, and why; consent to it; list and remove environments"
    )
    env_commands = env.add_subparsers(metavar="COMMAND", required=True)
    explain = env_commands.add_parser(
        "explain", help='say what env_source="auto" means for a notebook, a script or a folder'
    )
    explain.set_defaults(command=("env", "env_explain"))
    explain.add_argument(
        "path", nargs="?", default=".", metavar="PATH", help="it need not exist (default: this folder)"
    )
    _add_json(explain)
    trust = env_commands.add_parser("trust", help="consent to installing what a session's document or project asks for")
    trust.add_argument("id", type=_session_id, metavar="ID", help="the session")
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
    add(
        "demo",
        "demo.director",
        "watch a kernel outlive its notebook",
        "Three processes share one kernel on real data, in\na scratch folder that is removed at the end; one of them "
        "is killed in the middle of its work.",
    )
    return parser


def _add_json(parser: argparse.ArgumentParser, text: str = "print JSON for programs") -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help=text)
    return parser


def _session_id(text: str) -> str:
    try:
        return check_notebook_id(text)
    except SessionError as exc:
        raise argparse.ArgumentTypeError(exc.message) from None


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days")
    return days


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)
