"""The commands about sessions: `sessions`, `cells`, `stop-session`."""

from __future__ import annotations

import argparse
import itertools
from typing import Final

from rich.text import Text

from runtimed.cli.as_json import print_json
from runtimed.cli.console import ago, complain, print_table, say, short_duration
from runtimed.cli.daemon import no_daemon
from runtimed.cli.exits import Exit
from runtimed.client.client import Client
from runtimed.display import readable_size
from runtimed.models import Cell, SessionStatus
from runtimed.settings import read_settings
from runtimed.texts import printable
from runtimed.transport.autostart import daemon_answers

__all__ = ["cells", "sessions", "stop_session"]

PAGE: Final = 200
"""Sessions asked for at a time."""

SHOWN_LINES: Final = 8
"""Lines of a source or of an output that a table shows; `--json` has all."""

_ACTIONS: Final = "`runtimed replay {} --list` shows what was done in it"

_STYLES: Final = {"active": "green", "error": "red", "timed_out": "yellow"}


def sessions(arguments: argparse.Namespace) -> int:
    """List the sessions."""
    settings = read_settings()
    if not daemon_answers(settings):
        return no_daemon(settings.socket_path)
    found = _all_sessions(arguments.status, arguments.kind)
    if arguments.json:
        print_json(found)
    elif found:
        print_table(
            ["SESSION", "STATUS", "KERNEL", "CLIENTS", "LASTED", "LAST USED", "LABEL"],
            [
                [
                    one.session_id,
                    _status(one),
                    _kernel(one),
                    str(one.peers),
                    short_duration(one.duration),
                    ago(one.last_accessed_at),
                    one.label or "",
                ]
                for one in found
            ],
        )
    else:
        what = "No sessions" if arguments.kind is None else f"No {arguments.kind} sessions"
        say(what if arguments.status is None else f"{what} are {arguments.status}")
    return Exit.OK


def cells(arguments: argparse.Namespace) -> int:
    """Show the cells of one session; an ended one stays ended."""
    settings = read_settings()
    if not daemon_answers(settings):
        return no_daemon(settings.socket_path)
    client = Client(label="runtimed cells")
    if client.sessions.get(arguments.id).kind == "browser":  # joining would say neither that, nor that there is none
        complain(f"The session {arguments.id!r} is a browser: it has no cells. {_ACTIONS.format(arguments.id)}")
        return Exit.FAILED
    with client.Session(arguments.id) as session:
        found = session.get_cells()
    if arguments.json:
        print_json(found)
    elif found:
        print_table(
            ["", "CELL", "LAST EDIT", "SOURCE", "OUTPUTS"],
            [
                [_count(cell), cell.id, _last_edit(cell), Text(_clip(cell.source)), Text(_outputs(cell))]
                for cell in found
            ],
        )
    else:
        say(f"The session {arguments.id!r} has no cells")
    return Exit.OK


def stop_session(arguments: argparse.Namespace) -> int:
    """End a session for everybody."""
    settings = read_settings()
    if not daemon_answers(settings):
        return no_daemon(settings.socket_path)
    client = Client(label="runtimed stop-session")
    before = client.sessions.get(arguments.id)
    client.sessions.stop(arguments.id)
    what = "is closed" if before.status == "active" else f"had ended before: {_ending(before)}"
    rest = _ACTIONS.format(arguments.id) if before.kind == "browser" else "Its cells and outputs stay readable"
    say(f"The session {arguments.id!r} {what}. {rest}")
    return Exit.OK


def _all_sessions(status: str | None, kind: str | None) -> list[SessionStatus]:
    client = Client(label="runtimed sessions")
    found: list[SessionStatus] = []
    for page in itertools.count(1):
        more = client.sessions.list(status, kind, page, PAGE)  # type: ignore[arg-type]  # argparse checked
        found += more
        if len(more) < PAGE:
            break
    return found


def _status(session: SessionStatus) -> Text:
    return Text(_ending(session), style=_STYLES.get(session.status, "dim"))


def _ending(session: SessionStatus) -> str:
    return session.status if session.close_reason is None else f"{session.status} ({session.close_reason})"


def _kernel(session: SessionStatus) -> str:
    if session.kind == "browser":
        return "browser" if session.host_pid is None else f"browser (host {session.host_pid})"
    if session.kernel_pid is None:
        return f"{session.kernel_type} starting" if session.kernel_status == "starting" else "none"
    return f"{session.kernel_type} {session.kernel_status} (pid {session.kernel_pid}, {session.env_source})"


def _count(cell: Cell) -> str:
    if cell.cell_type != "code":
        return cell.cell_type
    return f"[{' ' if cell.execution_count is None else cell.execution_count}]"


def _last_edit(cell: Cell) -> str:
    if cell.last_edit is None:
        return ""
    return f"{cell.last_edit.label or f'pid {cell.last_edit.pid}'}, {ago(cell.last_edit.at)}"


def _outputs(cell: Cell) -> str:
    shown = []
    for output in cell.outputs:
        others = "".join(f" [{printable(mime)}]" for mime in output.data or () if mime != "text/plain")
        shown.append(_clip(str(output).rstrip("\n")) + others)
    if cell.truncated:
        shown.append(f"… {readable_size(cell.omitted_bytes)} more, for `Session.read_outputs`")
    return "\n".join(shown)


def _clip(text: str) -> str:
    """Return a text made printable, of a long one the first and the last lines."""
    lines = printable(text, "\n").split("\n")
    if len(lines) > SHOWN_LINES:
        half = SHOWN_LINES // 2
        lines[half:-half] = [f"… {len(lines) - 2 * half} more lines"]
    return "\n".join(lines)
