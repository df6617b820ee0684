"""The command `log`: who did what in a session, and when."""

from __future__ import annotations

import argparse
import itertools

from runtimed.cli.as_json import print_json
from runtimed.cli.exits import Exit
from runtimed.cli.printing import print_table
from runtimed.cli.reach import find_session, reach
from runtimed.models import AuditEntry
from runtimed.texts import client_name

__all__ = ["log"]


def log(arguments: argparse.Namespace) -> int:
    """Show the audit log of a session, newest first; an ended session stays ended."""
    client = reach("log")
    session_id = find_session(client, arguments.id).session_id
    found = list(itertools.islice(client.sessions.iter_log(session_id), arguments.entries))
    if arguments.json:
        print_json(found)
    else:
        print_table(
            ["WHEN", "WHO", "UID", "PID", "WHAT", "CELL", "EXECUTION"],
            [
                [
                    f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}",
                    _who(entry),
                    "" if entry.uid is None else str(entry.uid),
                    "" if entry.pid is None else str(entry.pid),
                    _what(entry),
                    entry.cell_id or "",
                    entry.execution_id or "",
                ]
                for entry in found
            ],
            ids=["CELL", "EXECUTION"],
        )
    return Exit.OK


def _who(entry: AuditEntry) -> str:
    if entry.client_id is None:
        return "(by itself)"
    return client_name(entry.client_id, entry.label)


def _what(entry: AuditEntry) -> str:
    what = entry.action.replace("_", " ")
    if entry.detail is not None:
        what += f" ({entry.detail})"
    if entry.count > 1:
        what += f", {entry.count} times until {entry.until.astimezone():%H:%M:%S}"
    return what
