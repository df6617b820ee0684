"""The command `export`: writes a session in the format of a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from runtimed.cli.console import say
from runtimed.cli.exits import Exit
from runtimed.cli.reach import find_session, reach
from runtimed.client import ExportFormat
from runtimed.storage.notebook_files import real_path, replace_file

__all__ = ["export"]

_SUFFIXES: Final[dict[str, ExportFormat]] = {".ipynb": "ipynb", ".py": "py", ".md": "md", ".html": "html"}


def export(arguments: argparse.Namespace) -> int:
    """Write a session into a file, or to standard output."""
    client = reach("export")
    session_id = find_session(client, arguments.id).session_id
    output: str | None = arguments.output
    wanted: ExportFormat = arguments.format or _SUFFIXES.get(Path(output or "").suffix.lower(), "ipynb")
    with client.Session(session_id) as session:
        content = session.export(wanted)
    if output is None:
        sys.stdout.buffer.write(content)
        return Exit.OK
    path = real_path(output)
    replace_file(path, content, path.stat() if path.exists() else None)
    say(f"{path}  {len(content)} bytes, {wanted}")
    return Exit.OK
