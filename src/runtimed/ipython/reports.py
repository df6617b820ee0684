"""Reports as plain text: the output of `%runtimed` and its commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from runtimed.client import NOTEBOOK_METADATA, Client, Session, working_folder
from runtimed.environments.decision import explain
from runtimed.environments.detection import decide
from runtimed.environments.facts import gather
from runtimed.environments.maker import refusal, with_settings
from runtimed.environments.uv_program import find_uv
from runtimed.errors import CellNotFound, DaemonUnavailable, EnvironmentFailed, SessionError, SessionNotFound
from runtimed.ipython.queue import age, read_queue, state_of_execution
from runtimed.models import ExecutionSummary, QueuedExecution, SessionStatus
from runtimed.settings import read_settings
from runtimed.suggestions import did_you_mean
from runtimed.texts import printable
from runtimed.version import version_note

__all__ = [
    "cell_named",
    "cells_report",
    "check_begun",
    "env_report",
    "kernel_note",
    "last_execution",
    "sessions_report",
    "state_of",
    "state_report",
    "status_of",
    "table",
]

MAX_WIDTH = 60
"""Longest shown first line of a source, in characters."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows as text in aligned columns; unprintable characters are escaped."""
    lines = [list(head), *([printable(text) for text in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def state_report(current: str | None, joined: bool, browser: str | None, *, all_cells: bool) -> str:
    """Return the state of the daemon and of one session.

    Args:
        current: The magics' session; None for one that does not exist yet.
        joined: Whether this shell has joined it.
        browser: The magics' browser session; None for one that does not exist yet.
        all_cells: Whether every cell goes to the session, not only those under `%%runtimed`.
    """
    daemon = Client().status()
    if daemon is None:
        rows = [("daemon", "not running; it starts with the first cell")]
    else:
        rows = [
            ("daemon", f"running, version {daemon.version}, process {daemon.pid}"),
            *([("note", note)] if (note := version_note(daemon.version)) is not None else []),
            ("socket", daemon.socket_path),
            ("data", daemon.data_dir),
            ("sessions", f"{daemon.sessions} active (`%runtimed sessions` lists them)"),
        ]
    if current is None:
        rows.append(("session", "none; the first %%runtimed cell starts one, `%runtimed connect ID` joins one"))
    else:
        rows.append(("session", f"{printable(current)} ({'joined' if joined else 'not joined yet'})"))
        status = status_of(current)
        rows += [] if status is None else _session_rows(status)
    if all_cells:
        rows.append(("cells", "all go to the session (`%%local` keeps one here, `%runtimed off` ends it)"))
    if browser is not None:
        status = status_of(browser)
        state = "no longer there" if status is None else state_of(status)
        rows.append(("browser", f"{printable(browser)}: {state} (`%runtimed browser status` says more)"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def _session_rows(status: SessionStatus) -> list[tuple[str, str]]:
    rows = [("status", f"{state_of(status)}, for {age(status.duration)}, {_count(status.peers, 'client')} connected")]
    if status.kernel_pid is not None:
        rows.append(("kernel", f"{status.kernel_type}, {status.kernel_status}, process {status.kernel_pid}"))
        rows.append(("env", str(status.env_source)))
    elif status.kernel_status == "starting":
        rows.append(("kernel", f"{status.kernel_type}, starting"))
    else:
        rows.append(("kernel", "none; the next cell starts one"))
    if status.file is not None:
        rows.append(("file", printable(status.file if status.file_notice is None else status.file_notice)))
    if status.error:
        rows.append(("error", printable(status.error.strip(), "\n").replace("\n", "\n       ")))
    return rows


def state_of(status: SessionStatus) -> str:
    """Describe the state of a session: `closed (stopped)`."""
    return status.status if status.close_reason is None else f"{status.status} ({status.close_reason})"


def sessions_report(*current: str | None) -> str:
    """Return all sessions of the daemon, most recently used first.

    Args:
        current: The sessions to mark with a star.
    """
    sessions = list(Client().sessions)
    if not sessions:
        return "No sessions."
    return table(
        ["", "ID", "KIND", "STATUS", "KERNEL", "ENV", "CLIENTS", "LASTED"],
        (
            [
                "*" if status.session_id in current else "",
                status.session_id,
                status.kind,
                status.status,
                status.kernel_status or "-",
                status.env_source or "-",
                str(status.peers),
                age(status.duration),
            ]
            for status in sessions
        ),
    )


def cells_report(session: Session) -> str:
    """Return the cells of a joined session, in order, and which of them run or wait, since when, and for whom."""
    cells = session.get_cells(outputs=False)
    if not cells:
        return f"Session {printable(session.notebook_id)} has no cells."
    queue = read_queue(session)
    return table(
        ["ID", "TYPE", "COUNT", "STATE", "SOURCE"],
        (
            [
                cell.id,
                cell.cell_type,
                "-" if cell.execution_count is None else str(cell.execution_count),
                _state(queue.of_cell(cell.id)),
                _first_line(cell.source),
            ]
            for cell in cells
        ),
    )


def cell_named(notebook_id: str, typed: str) -> str:
    """Return the id of the cell that a user typed, or a unique prefix of.

    Raises:
        CellNotFound: If no cell matches, or several do.
    """
    ids = Client().sessions.find_cells(notebook_id, typed)
    if len(ids) == 1 or typed in ids:
        return typed if typed in ids else str(ids[0])
    if not ids:
        raise CellNotFound(f"Cell not found: {typed}", cell_id=typed)
    some = ", ".join(ids[:5]) + (" …" if len(ids) > 5 else "")
    raise CellNotFound(f"{len(ids)} cells have ids that begin with {typed}: {some}", cell_id=typed)


def last_execution(notebook_id: str) -> ExecutionSummary | None:
    """Return the execution that a session queued last, whatever its end; None if there is none."""
    try:
        found = Client().sessions.find_executions(notebook_id, "")
    except SessionNotFound:
        return None
    return found[0] if found else None


def _state(entry: QueuedExecution | None) -> str:
    return "-" if entry is None else f"{state_of_execution(entry)}, by {entry.label or 'another client'}"


def env_report(current: str | None, kernel_type: str, env: str, notebook: Path | None) -> str:
    """Return which environment a kernel of the magics would get, and which one runs.

    Args:
        current: The magics' session; None for one that does not exist yet.
        kernel_type: The magics' kernel type.
        env: The magics' environment.
        notebook: The file of this notebook, if known: the search for project files begins there.
    """
    folder = working_folder() if notebook is None else notebook.parent
    lines = [f"A kernel that these magics start: {kernel_type}, env {_explained(current, kernel_type, env, folder)}"]
    if env != "auto":
        lines.append(f"With --env auto: {_explained(current, kernel_type, 'auto', folder)}")
    name = printable(current or "")
    status = None if current is None else status_of(current)
    if status is None or status.kernel_pid is None:
        lines.append(f"Running in session {name}: no kernel" if current else "No session is joined.")
    else:
        lines.append(f"Running in session {name}: {status.kernel_type}, env {status.env_source}")
    return "\n".join(lines)


def _explained(current: str | None, kernel_type: str, env: str, folder: Path) -> str:
    metadata, sources = (None, []) if current is None else _document(current)
    facts = gather(
        asked=env,
        kernel_type=kernel_type,
        metadata=metadata,
        sources=sources,
        folder=str(folder),
        environment=os.environ,
        interpreter=sys.executable,
        uv=find_uv(),
    )
    try:
        decision = with_settings(decide(facts), os.environ)
        refused = refusal(decision, read_settings().environments_dir)
        return explain(decision) if refused is None else f"{explain(decision)}\n  refused: {refused}"
    except EnvironmentFailed as exc:
        return f"none: {exc}"


def _document(notebook_id: str) -> tuple[str | None, list[str]]:
    """Return what a session's document says about its environment: notebook metadata, code cells."""
    if not Client().is_running():
        return None, []
    session = Session(notebook_id)  # read, and left
    session.connect()
    try:
        sources = [cell.source for cell in session.iter_cells(outputs=False) if cell.cell_type == "code"]
        return session.get_metadata(NOTEBOOK_METADATA), sources
    finally:
        session.close()


def status_of(notebook_id: str) -> SessionStatus | None:
    """Return the status of a session; None if there is none, or no daemon."""
    try:
        return Client().sessions.get(notebook_id)
    except (SessionNotFound, DaemonUnavailable):
        return None


def check_begun(notebook_id: str) -> None:
    """Refuse the id of a session that never began.

    Raises:
        SessionNotFound: With the ids that are similar.
    """
    client = Client()
    try:
        client.sessions.get(notebook_id)
    except SessionNotFound as exc:
        meant = did_you_mean(notebook_id, client.sessions.find(kind="kernel"))
        raise SessionNotFound(f"{exc.message}{'.' if meant else ''}{meant}", session_id=notebook_id) from None


def kernel_note(notebook_id: str, kernel_type: str | None, env: str | None) -> str | None:
    """Return a note if the running kernel has another environment than the requested one; it keeps its own.

    Args:
        notebook_id: The session.
        kernel_type: The requested language; None for any.
        env: The requested environment; None for any.

    Raises:
        SessionError: If the running kernel has another language, in which the code means something else.
    """
    status = None if kernel_type is None and env is None else status_of(notebook_id)
    if status is None or status.env_source is None:
        return None
    # A kernelspec that was requested by name may have any language.
    is_known = not status.env_source.startswith("kernelspec:")
    if kernel_type is not None and is_known and kernel_type != status.kernel_type:
        raise SessionError(
            f"Session {notebook_id} has a {status.kernel_type} kernel, which --kernel-type does not change: "
            f"`%runtimed stop {notebook_id}` ends it, or name another session",
            session_id=notebook_id,
        )
    if env in (None, "auto", status.env_source):
        return None
    return (
        f"Session {notebook_id} has a kernel in the environment {status.env_source}; --env counts only when a kernel "
        "starts"
    )


def _first_line(source: str) -> str:
    lines = source.strip().splitlines() or [""]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} …"
    return text if len(text) <= MAX_WIDTH else f"{text[: MAX_WIDTH - 1]}…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
