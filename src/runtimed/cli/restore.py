"""The command `restore`: restores a notebook that was set aside as damaged."""

from __future__ import annotations

import argparse

from runtimed.cli.exits import Exit
from runtimed.cli.printing import say
from runtimed.cli.reach import find_session, reach

__all__ = ["restore"]


def restore(arguments: argparse.Namespace) -> int:
    """Restore a session's notebook; an ended session stays ended."""
    client = reach("restore")
    session_id = find_session(client, arguments.id).session_id
    cells = client.sessions.restore(session_id)
    say(
        f"{cells} cells of the session {session_id!r} are back; cells written since follow them. "
        f"`runtimed cells {session_id}` shows them"
    )
    return Exit.OK
