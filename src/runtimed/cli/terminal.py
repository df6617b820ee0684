"""The command `console`: a terminal on a session."""

from __future__ import annotations

import argparse
import getpass
import os
import sys

from runtimed.cli.exits import Exit
from runtimed.cli.printing import complain
from runtimed.cli.reach import find_notebook, reach
from runtimed.errors import SessionNotFound
from runtimed.texts import printable

__all__ = ["console"]


def console(arguments: argparse.Namespace) -> int:
    """Open IPython's prompt on a session, whose kernel is started if none runs."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        complain("There is no terminal here; `runtimed exec` runs code in a session without one")
        return Exit.USAGE
    client = reach("console")
    try:
        notebook_id = find_notebook(client, arguments.id).session_id
    except SessionNotFound as exc:
        if not arguments.new:
            separator = " " if exc.message.endswith("?") else "; "
            raise SessionNotFound(f"{exc.message}{separator}--new begins one", **exc.data) from None
        notebook_id = arguments.id
    from runtimed.ipython.terminal import open_terminal  # noqa: PLC0415  # a wrong id is refused before it is loaded

    open_terminal(notebook_id, label=_own_name(), kernel_type=arguments.kernel_type, env_source=arguments.env)
    return Exit.OK


def _own_name() -> str:
    """Return this person's name and terminal for others: `ada@pts/3`."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        name = str(os.getuid())
    return printable(f"{name}@{os.ttyname(sys.stdin.fileno()).removeprefix('/dev/')}")
