"""The command `restore`: brings back a notebook that was set aside."""

from __future__ import annotations

import argparse

from runtimed.cli.console import say
from runtimed.cli.exits import Exit
from runtimed.client.client import Client

__all__ = ["restore"]


def restore(arguments: argparse.Namespace) -> int:
    """Bring back a session's notebook; an ended session stays ended."""
    client = Client(label="runtimed restore")
    # Joining starts a daemon where none runs.
    with client.Session(arguments.id):
        cells = client.sessions.restore(arguments.id)
    say(
        f"{cells} cells of the session {arguments.id!r} are back; cells written since follow them. "
        f"`runtimed cells {arguments.id}` shows them"
    )
    return Exit.OK
