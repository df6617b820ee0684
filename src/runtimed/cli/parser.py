"""The arguments of the command line, and the module of each command. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from runtimed.durations import check_duration, read_duration
from runtimed.errors import SessionError
from runtimed.ids import check_session_id
from runtimed.suggestions import did_you_mean
from runtimed.version import __version__

__all__ = ["COMPLETED_BY", "make_parser"]

COMPLETED_BY: Final = "runtimed_completed_by"
"""Attribute of an argument that names the kind of its value, for completion: `session`, `execution`, `cell`, `env`."""

ENVIRONMENTS: Final = ("auto", "conda:prewarmed", "current", "kernelspec:", "python:", "uv:prewarmed")

_EPILOG: Final = """\
exit codes:
  0    success
  1    failure: an error, a declined question, or code that raised; a program's own exit status where it has one
  2    usage: invalid arguments, or a file that cannot be read
  3    no daemon is running (status, logs)
  4    no session, cell or execution has this id, or the prefix is ambiguous
  124  --timeout expired; the code runs on
  130  interrupted with Ctrl-C; another signal that killed a program: 128 plus its number

An existing ID may be shortened to a unique prefix. Commands that need the daemon's data start the daemon; status,
doctor, logs, a bare stop, and env explain, list and prune do not.

environment variables:
  RUNTIMED_DATA_DIR     folder of the daemon's databases and log; one daemon serves one folder
  RUNTIMED_SOCKET_PATH  the daemon's Unix socket (default: inside the data folder)
  and one for each limit that `runtimed status` shows: RUNTIMED_MAX_SESSIONS is "max sessions"
"""


class _Program(argparse.Action):
    """A file and its arguments: parsed together, since argparse drops a `--` between two arguments."""

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
    """Suggests what was probably meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def parse_known_args(  # type: ignore[override]  # argparse's own overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and refuse unknown arguments here, where the options are known that may have been meant."""
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
        """Print the error below one line of usage; `--help` has more."""
        self.exit(2, f"{self.format_usage()}{self.prog}: error: {message}\n")


def _unknown(arguments: Sequence[str]) -> str:
    return f"unrecognized arguments: {' '.join(arguments)}"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser. Its results have `command`: the module in `runtimed.cli`, and the function there."""
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
    _add_kernelspec(commands)
    completion = commands.add(
        "completion",
        "completion",
        "print the script for Tab completion in the shell",
        'eval "$(runtimed completion bash)"',
    )
    completion.add_argument("shell", choices=("bash", "zsh"), help="the shell")
    commands.add(
        "demo",
        "demo.director",
        "watch a kernel outlive its notebook",
        "Three processes share one kernel on real data, in\na scratch folder that is removed at the end. One of them "
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
            name: The command, and the function in its module; a keyword or built-in has a `_` behind it there.
            module: The module.
            text: What it does.
            more: Further sentences.
        """
        command: argparse.ArgumentParser = self._commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip()
        )
        command.set_defaults(command=(module, f"{name}_" if name in ("exec", "import", "open") else name))
        return command


def _add_daemon(commands: _Commands) -> None:
    commands.add("start", "daemon", "start the daemon unless it is running")
    stop = commands.add(
        "stop",
        "ending",
        "end a session for everybody; without an ID, end the daemon and every session",
        "Asks first where code\nis running. Cells and outputs stay. Without a daemon there is nothing to stop.",
    )
    _add_id(stop, nargs="?", text="the session; without it the daemon")
    stop.add_argument("--keep-kernels", action="store_true", help="leave the kernels running for the next daemon")
    _add_yes(stop)
    commands.add(
        "restart", "daemon", "replace the daemon under its running kernels", "Kernels and their sessions live on."
    )
    _add_json(commands.add("status", "daemon", "show whether the daemon is running, and what it holds"))
    logs = commands.add("logs", "logs", "show the end of the daemon's log")
    logs.add_argument("-f", "--follow", action="store_true", help="follow the log until Ctrl-C")
    logs.add_argument(
        "-n", "--lines", type=_count, default=100, metavar="N", help="number of lines (default: %(default)s)"
    )
    _add_json(commands.add("doctor", "doctor", "check this installation, and say how to fix what is missing"))


def _add_running(commands: _Commands) -> None:
    run = commands.add(
        "run",
        "run",
        "run a Python file in a session as `python FILE ARG…` would, or a notebook",
        "Output streams as the\ncode writes it, and the exit status is the program's. A notebook runs cell by cell, "
        "up to the first failure.\nCtrl-C interrupts the code; a second Ctrl-C stops waiting.",
    )
    session = run.add_argument(
        "--session",
        type=_session_id,
        metavar="ID",
        help="the session's full id, a new one too, which stays; without it, a new session that ends with the code",
    )
    setattr(session, COMPLETED_BY, "session")
    _add_kernel(run)
    _add_timeout(run, "stop waiting after this time, for each cell of a notebook; the code runs on")
    run.add_argument("--detach", action="store_true", help="print the ids and return at once; see `runtimed attach`")
    _add_json(run, "print only the final result, as JSON")
    run.add_argument(
        "file",
        nargs=argparse.PARSER,
        action=_Program,
        metavar="FILE",
        help="a .py or .ipynb file; - reads standard input; everything after it belongs to the program, options too",
    )
    exec_ = commands.add(
        "exec",
        "attach",
        "run code as a new cell of a session",
        "As in a notebook, the value of the last expression is shown.",
    )
    _add_id(exec_)
    exec_.add_argument("code", metavar="CODE", help="the code; - reads standard input")
    _add_timeout(exec_, "stop waiting after this time; the code runs on")
    _add_json(exec_, "print only the final result, as JSON")
    console = commands.add(
        "console",
        "terminal",
        "open IPython's prompt on a session",
        "Every cell runs in the session, whose kernel is\nstarted if none runs. What others run appears above the "
        "prompt, and their code is in the history.\nCtrl-C interrupts the code, Ctrl-D leaves; the session lives on.",
    )
    _add_id(console)
    console.add_argument("--new", action="store_true", help="begin a session of this id if there is none")
    _add_kernel(console)
    attach = commands.add(
        "attach",
        "attach",
        "show the output of a session's running code from its start, until it ends",
        "Without\nEXECUTION: what runs now, else what ran last. Ctrl-C leaves without interrupting.",
    )
    _add_id(attach)
    execution = attach.add_argument(
        "execution", nargs="?", metavar="EXECUTION", help="an execution, or a cell for its latest one"
    )
    setattr(execution, COMPLETED_BY, "cell")
    _add_timeout(attach, "leave after this time")
    interrupt = commands.add("interrupt", "ending", "interrupt the running code of a session")
    _add_id(interrupt)


def _add_sessions(commands: _Commands) -> None:
    sessions = _add_json(commands.add("sessions", "sessions", "list the sessions, most recently used first"))
    sessions.add_argument(
        "--status",
        choices=("active", "closed", "error", "timed_out"),
        help="only sessions in this state; `active` leaves out ended ones",
    )
    sessions.add_argument("--kind", choices=("kernel", "browser"), help="only sessions of this kind")
    cells = _add_json(commands.add("cells", "sessions", "show a session's cells with their latest outputs"))
    _add_id(cells)
    cell = cells.add_argument("cells", nargs="*", metavar="CELL", help="only these cells, with all of their outputs")
    setattr(cell, COMPLETED_BY, "cell")
    opened = _add_json(
        commands.add(
            "open",
            "files",
            "take a notebook file into the session that is named after it, and merge outside edits",
            "The session's\nid is the file's real path. Cells and outputs merge by cell id; where the session and the "
            "file both changed a\ncell, both versions stay. Nothing runs, and no dependency is installed.",
        )
    )
    opened.add_argument("file", metavar="FILE", help="an .ipynb file")
    imported = _add_json(
        commands.add(
            "import",
            "files",
            "take the cells of a notebook, script or Markdown file into a session",
            "The file does not\nbecome the session's own. Of an Automerge document that `export` wrote and somebody "
            "edited, the edits are\nmerged.",
        )
    )
    imported.add_argument(
        "file",
        metavar="FILE",
        help="an .ipynb file; a .py script, with cells in percent format; a .md file; an .automerge document of the "
        "session ID",
    )
    session = imported.add_argument(
        "--session", type=_session_id, metavar="ID", help="the session's full id (default: a new one, which stays)"
    )
    setattr(session, COMPLETED_BY, "session")
    export = commands.add(
        "export",
        "files",
        "write a session's cells and outputs as a notebook, script, Markdown or HTML",
        "Ended sessions\ntoo.",
    )
    _add_id(export)
    export.add_argument(
        "--format",
        choices=("ipynb", "py", "md", "html", "automerge"),
        help="py is a script with cells in percent format, automerge the document with its history, without outputs "
        "(default: what FILE's suffix says, else ipynb)",
    )
    export.add_argument(
        "-o", "--output", metavar="FILE", help="the file, which is replaced atomically (default: standard output)"
    )
    log = _add_json(
        commands.add(
            "log", "audit", "show who did what in a session (the audit log), newest first", "Ended\nsessions too."
        )
    )
    _add_id(log)
    log.add_argument(
        "-n", "--entries", type=_count, default=100, metavar="N", help="number of entries (default: %(default)s)"
    )
    history = _add_json(
        commands.add(
            "history",
            "history",
            "show who edited a session's notebook, when and how, newest first",
            "As far as\ncompaction keeps it. A client's edits of one kind to one cell within a minute are one row; "
            "JSON has each edit.",
        )
    )
    _add_id(history)
    edited = history.add_argument("--cell", metavar="CELL", help="only edits of this cell, which may be deleted")
    setattr(edited, COMPLETED_BY, "cell")
    history.add_argument(
        "-n", "--entries", type=_count, default=100, metavar="N", help="number of entries (default: %(default)s)"
    )
    history.add_argument(
        "--blame", action="store_true", help="with --cell: show who wrote each line of the cell, and when"
    )
    history.add_argument(
        "--restore",
        type=_count,
        metavar="VERSION",
        help="edit the notebook so that it is again as this version was; the edits since stay in the history",
    )
    delete = commands.add(
        "delete",
        "ending",
        "delete a session with its cells, outputs, log and profile",
        "Asks first. The id can be used again.",
    )
    _add_id(delete)
    delete.add_argument("--stop", action="store_true", help="end the session first if it is active")
    _add_yes(delete)
    prune = commands.add(
        "prune",
        "ending",
        "delete ended sessions that were not used for long, with their data",
        "Asks first. Names\nkernels that nobody has used for a day, and leaves them running.",
    )
    prune.add_argument(
        "--older-than",
        type=_days,
        default=30.0,
        metavar="DAYS",
        help="not used for this many days (default: 30)",
    )
    prune.add_argument("--dry-run", action="store_true", help="only list what would be deleted")
    _add_yes(prune)
    _add_json(prune)
    restore = commands.add(
        "restore",
        "restore",
        "restore a session's notebook that was set aside as damaged",
        "A separate process\nloads it first. Cells written since stay, after the restored ones.",
    )
    _add_id(restore)
    _add_id(
        commands.add(
            "view",
            "view",
            "watch a browser session live, in your own browser",
            "If none opens, its\naddress is printed. The address is enough to watch.",
        )
    )
    replay = _add_json(
        commands.add(
            "replay",
            "replay",
            "repeat, in a new browser, what was done in a browser session",
            "Ended sessions too. The\nbrowser starts with the same options. Refused actions are left out. Secrets "
            "and passwords are in no log,\nand are asked for.",
        ),
        "with --list: print JSON",
    )
    _add_id(replay)
    replay.add_argument(
        "--session", type=_session_id, metavar="ID", help="id of the new session (default: a generated one)"
    )
    replay.add_argument("--window", action="store_true", help="show the browser in a window and in the viewer")
    replay.add_argument("--list", action="store_true", help="only list the actions")


def _add_env(commands: _Commands) -> None:
    env = commands.add(
        "env", "env", "show which environment a kernel would get, and why; consent to it; list and remove environments"
    )
    env.set_defaults(command=None, helped=env)
    env_commands = env.add_subparsers(metavar="COMMAND")
    explain = env_commands.add_parser(
        "explain", help='show what env_source="auto" means for a notebook, a script or a folder'
    )
    explain.set_defaults(command=("env", "env_explain"))
    explain.add_argument("path", nargs="?", default=".", metavar="PATH", help="default: this folder")
    _add_json(explain)
    trust = env_commands.add_parser("trust", help="consent to installing what a session's document or project asks for")
    _add_id(trust)
    trust.set_defaults(command=("env", "env_trust"))
    listing = env_commands.add_parser("list", help="list the environments made so far, with their size and use")
    listing.set_defaults(command=("env", "env_list"))
    _add_json(listing)
    prune = env_commands.add_parser(
        "prune",
        help="remove environments that no session uses",
        description="Remove environments that no session uses, and that none has begun to use within the last minute. "
        "Without an option: those beyond the daemon's limits RUNTIMED_ENV_KEEP_DAYS (30), "
        "RUNTIMED_ENV_MAX_COUNT (100), RUNTIMED_ENV_MAX_BYTES (20 GiB).",
    )
    prune.set_defaults(command=("env", "env_prune"))
    which = prune.add_mutually_exclusive_group()
    which.add_argument("--older-than", type=_days, metavar="DAYS", help="environments not used for this many days")
    which.add_argument("--all", action="store_true", help="all environments that are not in use")
    prune.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    _add_json(prune)


def _add_kernelspec(commands: _Commands) -> None:
    kernelspec = commands.add(
        "kernelspec", "kernelspec", "install a kernel for Jupyter's frontends that joins one session"
    )
    kernelspec.set_defaults(command=None, helped=kernelspec)
    kernelspec_commands = kernelspec.add_subparsers(metavar="COMMAND")
    install = kernelspec_commands.add_parser(
        "install",
        help="install one",
        description="Install a kernel that joins one session, whatever notebook runs it. The kernel "
        '"Shared session (runtimed)", which comes with the package, joins the notebook\'s session.',
    )
    install.set_defaults(command=("kernelspec", "kernelspec_install"))
    session = install.add_argument(
        "--session",
        dest="id",
        type=_session_id,
        metavar="ID",
        required=True,
        help="the session, which need not exist yet",
    )
    setattr(session, COMPLETED_BY, "session")
    install.add_argument("--name", required=True, help="the kernelspec's name: ASCII letters, digits and - . _")
    install.add_argument("--display-name", metavar="TEXT", help="what frontends show (default: the ID)")
    install.add_argument(
        "--prefix", metavar="DIR", help="below this folder, such as that of an environment (default: for this user)"
    )


def _add_id(parser: argparse.ArgumentParser, *, nargs: str | None = None, text: str = "the session") -> None:
    action = parser.add_argument("id", type=_session_id, metavar="ID", nargs=nargs, help=text)
    setattr(action, COMPLETED_BY, "session")


def _add_kernel(parser: argparse.ArgumentParser) -> None:
    env = parser.add_argument(
        "--env", default="auto", metavar="E", help="environment of a kernel that is started (default: auto)"
    )
    setattr(env, COMPLETED_BY, "env")
    parser.add_argument("--kernel-type", default="python", metavar="T", help="python or deno (default: %(default)s)")


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _add_timeout(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help=text)


def _add_json(parser: argparse.ArgumentParser, text: str = "print JSON") -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help=text)
    return parser


def _session_id(text: str) -> str:
    try:
        return check_session_id(text)
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
    return int(text) if len(text) < 19 else sys.maxsize  # more than there are
