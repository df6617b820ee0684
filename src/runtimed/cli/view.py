"""The command `view`: opens a page that shows a browser session live."""

from __future__ import annotations

import argparse

from runtimed.cli.exits import Exit
from runtimed.cli.reach import find_session, reach
from runtimed.client import BrowserSession

__all__ = ["view"]


def view(arguments: argparse.Namespace) -> int:
    """Open the viewer of a session in this user's own browser. If none opens, print the address."""
    session = BrowserSession(find_session(reach("view"), arguments.id).session_id, label="runtimed view")
    try:
        session.open_viewer()
    finally:
        session.close()
    return Exit.OK
