"""The commands between sessions and files: `open`, `import`, `export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from runtimed.cli.as_json import jsonable, print_json
from runtimed.cli.exits import Exit
from runtimed.cli.printing import complain, say
from runtimed.cli.reach import find_session, reach
from runtimed.client import Client, ExportFormat
from runtimed.errors import NotebookFileError
from runtimed.ids import SessionId
from runtimed.models import OpenedNotebook
from runtimed.notebook_file.reading import FORMAT
from runtimed.notebook_names import session_id_of
from runtimed.storage.notebook_files import real_path, replace_file

__all__ = ["export", "import_", "open_"]

_SUFFIXES: Final[dict[str, ExportFormat]] = {
    ".ipynb": "ipynb",
    ".py": "py",
    ".md": "md",
    ".html": "html",
    ".automerge": "automerge",
}


def open_(arguments: argparse.Namespace) -> int:
    """Take a notebook file into its session: the one that has it already, or the one that is named after it."""
    try:
        path = real_path(arguments.file)
        session_id, opened = _open_where_it_is(reach("open"), path)
    except NotebookFileError as exc:
        complain(exc.message)
        return Exit.USAGE
    return _tell(session_id, opened, as_json=arguments.json)


def _open_where_it_is(client: Client, path: Path) -> tuple[SessionId, OpenedNotebook]:
    session_id = session_id_of(path)
    try:
        return session_id, _open(client, session_id, path)
    except NotebookFileError as exc:
        owner = exc.data.get("session_id")
        if owner is None:
            raise
        session_id = SessionId(owner)
    return session_id, _open(client, session_id, path)


def _open(client: Client, session_id: SessionId, path: Path) -> OpenedNotebook:
    with client.Session(session_id) as session:
        return session.open_notebook(path)


def import_(arguments: argparse.Namespace) -> int:
    """Take the cells of a file into a session."""
    session = reach("import").Session(arguments.session, keep_alive=None)
    session.connect()  # leaving the block would end a new session
    try:
        opened = session.import_notebook(arguments.file)
    except NotebookFileError as exc:
        complain(exc.message)
        return Exit.USAGE
    finally:
        session.close()
    return _tell(session.notebook_id, opened, as_json=arguments.json)


def _tell(session_id: SessionId, opened: OpenedNotebook, *, as_json: bool) -> int:
    if as_json:
        print_json({"session_id": session_id, **jsonable(opened)})
        return Exit.OK
    say(f"session  {session_id}")
    if opened.upgraded_from is not None:
        say(f"The file has format {opened.upgraded_from}; saving the session writes {'.'.join(map(str, FORMAT))}")
    for what, cells in (("added", opened.added), ("changed", opened.changed), ("deleted", opened.deleted)):
        if cells:
            say(f"{len(cells)} cell{'' if len(cells) == 1 else 's'} {what}")
    for sentence in opened.differences:
        say(sentence)
    return Exit.OK


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
