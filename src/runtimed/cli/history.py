"""The command `history`: who edited a session's notebook, when and how; and back to an earlier version."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from runtimed.cli.as_json import print_json
from runtimed.cli.exits import Exit
from runtimed.cli.printing import complain, print_table, say
from runtimed.cli.reach import find_cell, find_session, reach
from runtimed.errors import SessionNotFound
from runtimed.models import BlamedLine, NotebookEdit
from runtimed.texts import client_name

__all__ = ["history"]

MERGED_WITHIN: Final = timedelta(minutes=1)
"""Time within which edits are shown in one row for people, as in the audit log: who types makes many."""


def history(arguments: argparse.Namespace) -> int:
    """Show the edits of a session's notebook, newest first, or restore a version; an ended session stays ended."""
    if arguments.blame and arguments.cell is None:
        complain("--blame needs --cell CELL: the cell whose lines are to be shown")
        return Exit.USAGE
    client = reach("history")
    session_id = find_session(client, arguments.id).session_id
    with client.Session(session_id) as session:
        if arguments.restore is not None:
            edits = session.restore(arguments.restore)
            say(f"The notebook of session {session_id!r} is again as version {arguments.restore} was ({edits} edits)")
            return Exit.OK
        try:
            cell_id = None if arguments.cell is None else find_cell(client, session_id, arguments.cell)
        except SessionNotFound:
            # It may be deleted.
            cell_id = arguments.cell
            if all(edit.cell_id != cell_id for edit in session.history(cell_id)):
                raise
        if arguments.blame:
            return _blame(session.blame(cell_id or ""), as_json=arguments.json)
        if arguments.json:
            print_json(list(itertools.islice(session.history(cell_id), arguments.entries)))
            return Exit.OK
        rows = [
            [*_who_and_when(run[0]), _what(run), run[0].cell_id or ""]
            for run in itertools.islice(_runs(session.history(cell_id)), arguments.entries)
        ]
        print_table(["VERSION", "WHEN", "WHO", "WHAT", "CELL"], rows, ids=["CELL"])
    return Exit.OK


def _blame(lines: list[BlamedLine], *, as_json: bool) -> int:
    if as_json:
        print_json(lines)
    else:
        who = [["", "", ""] if line.edit is None else _who_and_when(line.edit) for line in lines]
        rows = [[*one, str(number), line.text] for number, (one, line) in enumerate(zip(who, lines, strict=True), 1)]
        print_table(["VERSION", "WHEN", "WHO", "LINE", "SOURCE"], rows)
    return Exit.OK


def _who_and_when(edit: NotebookEdit) -> list[str]:
    who = "(older)" if edit.client_id is None else client_name(edit.client_id, edit.label)
    return [str(edit.version), f"{edit.at.astimezone():%Y-%m-%d %H:%M:%S}", who]


def _runs(edits: Iterable[NotebookEdit]) -> Iterator[list[NotebookEdit]]:
    """Yield one client's consecutive edits of one kind to one cell within MERGED_WITHIN together, newest first."""
    run: list[NotebookEdit] = []
    for edit in edits:
        if run and (_kind(edit) != _kind(run[0]) or run[0].at - edit.at >= MERGED_WITHIN):
            yield run
            run = []
        run.append(edit)
    if run:
        yield run


def _kind(edit: NotebookEdit) -> tuple[str | None, ...]:
    detail = None if edit.action == "cell_edited" else edit.detail
    return edit.client_id, edit.action, edit.cell_id, detail


def _what(run: list[NotebookEdit]) -> str:
    newest, oldest = run[0], run[-1]
    what, detail = newest.action.replace("_", " "), newest.detail
    if newest.action == "cell_edited":
        inserted, deleted = (
            sum(abs(int(edit.detail.split()[place])) for edit in run if edit.detail) for place in (0, 1)
        )
        detail = f"+{inserted} -{deleted}"
    if detail is not None:
        what += f" ({detail})"
    return what if len(run) == 1 else f"{what}, {len(run)} times since {oldest.at.astimezone():%H:%M:%S}"
