"""The commands that show sessions: `sessions`, `cells`."""

from __future__ import annotations

import argparse
from typing import Final

from rich.text import Text

from runtimed.cli.as_json import print_json
from runtimed.cli.exits import Exit
from runtimed.cli.listing import ending
from runtimed.cli.printing import ago, complain, print_table, say, short_duration
from runtimed.cli.reach import find_cell, find_session, reach
from runtimed.display import readable_size
from runtimed.models import Cell, SessionStatus
from runtimed.texts import printable

__all__ = ["cells", "sessions"]

SHOWN_LINES: Final = 8
"""Lines of a source or an output in a table; `--json` has all."""

_ACTIONS: Final = "`runtimed replay {} --list` shows what was done in it"

_STYLES: Final = {"active": "green", "error": "red", "timed_out": "yellow"}


def sessions(arguments: argparse.Namespace) -> int:
    """List the sessions."""
    found = list(reach("sessions").sessions.iter(arguments.status, arguments.kind))
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
            ids=["SESSION"],
        )
        for one in found:
            if one.file_notice is not None:
                say(f"{one.session_id}: {one.file_notice}")
    else:
        what = "No sessions" if arguments.kind is None else f"No {arguments.kind} sessions"
        say(what if arguments.status is None else f"{what} are {arguments.status}")
    return Exit.OK


def cells(arguments: argparse.Namespace) -> int:
    """Show the cells of one session; an ended one stays ended."""
    client = reach("cells")
    status = find_session(client, arguments.id)
    name = status.session_id
    if status.kind == "browser":  # joining would report neither that, nor that there is none
        complain(f"The session {name!r} is a browser: it has no cells. {_ACTIONS.format(name)}")
        return Exit.FAILED
    chosen = [find_cell(client, name, given) for given in arguments.cells]
    with client.Session(name) as session:
        found = [session.get_cell(cell_id) for cell_id in chosen] if chosen else session.get_cells()
    if arguments.json:
        print_json(found)
    elif found:
        print_table(
            ["", "CELL", "LAST EDIT", "SOURCE", "OUTPUTS"],
            [
                [
                    _count(cell),
                    cell.id,
                    _last_edit(cell),
                    Text(_clip(cell.source, whole=bool(chosen))),
                    Text(_outputs(cell, whole=bool(chosen))),
                ]
                for cell in found
            ],
            ids=["CELL"],
        )
    else:
        say(f"The session {name!r} has no cells")
    return Exit.OK


def _status(session: SessionStatus) -> Text:
    return Text(ending(session), style=_STYLES.get(session.status, "dim"))


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


def _outputs(cell: Cell, *, whole: bool) -> str:
    shown = []
    for output in cell.outputs:
        others = "".join(f" [{printable(mime)}]" for mime in output.data or () if mime != "text/plain")
        shown.append(_clip(str(output).rstrip("\n"), whole=whole) + others)
    if cell.truncated:
        shown.append(f"… {readable_size(cell.omitted_bytes)} more, for `Session.read_outputs`")
    return "\n".join(shown)


def _clip(text: str, *, whole: bool) -> str:
    """Return a text made printable, and only the first and the last lines of a long one."""
    lines = printable(text, "\n").split("\n")
    if len(lines) > SHOWN_LINES and not whole:
        half = SHOWN_LINES // 2
        lines[half:-half] = [f"… {len(lines) - 2 * half} more lines"]
    return "\n".join(lines)
