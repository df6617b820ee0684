"""How commands reach the daemon, and resolve prefixes of ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from runtimed.client import Client
from runtimed.errors import SessionError, SessionNotFound
from runtimed.ids import CellId, ExecutionId, SessionId
from runtimed.models import SessionStatus
from runtimed.settings import read_settings
from runtimed.suggestions import did_you_mean
from runtimed.transport.autostart import daemon_answers, ensure_daemon

__all__ = ["find_cell", "find_execution", "find_notebook", "find_session", "reach"]

SHOWN: Final = 5
"""Number of ids that an error names that begin with the given one."""


def reach(command: str) -> Client:
    """Return a client of a running daemon for a command; start a daemon if necessary.

    Raises:
        DaemonUnavailable: If there can be none.
    """
    settings = read_settings()
    if not daemon_answers(settings):
        ensure_daemon(settings)
    return Client(label=f"runtimed {command}")


def find_session(client: Client, given: str) -> SessionStatus:
    """Return the session with this id, or the only one with this prefix.

    The fixed part of a generated id may be left out.

    Raises:
        SessionNotFound: If there is none, or several.
    """
    try:
        return client.sessions.get(given)
    except SessionNotFound as exc:
        prefixes = (given, f"agent-session-{given}", f"browser-session-{given}")
        found = _first(client.sessions.find, *prefixes)
        if found:
            return client.sessions.get(_only(given, found, "sessions"))
        meant = did_you_mean(given, client.sessions.find())
        raise SessionNotFound(f"{exc.message}{'.' if meant else ''}{meant}", session_id=given) from None


def find_notebook(client: Client, given: str) -> SessionStatus:
    """Return the session, which has to be a notebook; see `find_session`.

    Raises:
        SessionNotFound: If there is none, or several.
        SessionError: If it is a browser.
    """
    found = find_session(client, given)
    if found.kind == "browser":
        raise SessionError(
            f"The session {found.session_id!r} is a browser: it runs no code. `runtimed replay {found.session_id} "
            "--list` shows what was done in it",
            session_id=SessionId(found.session_id),
        )
    return found


def find_cell(client: Client, session_id: str, given: str) -> CellId:
    """Return the id of a cell by its prefix, as `find_session` does.

    Raises:
        SessionNotFound: If there is none, or several.
    """
    found = _find_cells(client, session_id, given)
    if not found:
        meant = did_you_mean(given, client.sessions.find_cells(session_id))
        raise SessionNotFound(f"The session {session_id!r} has no cell {given!r}.{meant}", cell_id=given)
    return CellId(_only(given, found, "cells"))


def find_execution(client: Client, session_id: str, given: str) -> ExecutionId:
    """Return the id of an execution by its prefix, or that of a cell's latest execution.

    Raises:
        SessionNotFound: If there is none, or several.
    """
    found = _first(
        lambda prefix: [one.execution_id for one in client.sessions.find_executions(session_id, prefix)],
        given,
        f"execution-{given}",
    )
    if found:
        return ExecutionId(_only(given, found, "executions"))
    cells = _find_cells(client, session_id, given)
    if not cells:
        raise SessionNotFound(f"The session {session_id!r} has no execution and no cell {given!r}", execution_id=given)
    cell_id = _only(given, cells, "cells")
    with client.Session(session_id) as session:
        execution_id = session.get_cell(cell_id, outputs=False).execution_id
    if execution_id is None:
        raise SessionNotFound(f"The cell {cell_id!r} of the session {session_id!r} never ran", cell_id=cell_id)
    return execution_id


def _find_cells(client: Client, session_id: str, given: str) -> Sequence[str]:
    return _first(lambda prefix: client.sessions.find_cells(session_id, prefix), given, f"cell-{given}")


def _first(find: Callable[[str], Sequence[str]], *prefixes: str) -> Sequence[str]:
    return next(filter(None, map(find, prefixes)), ())


def _only(given: str, found: Sequence[str], what: str) -> str:
    """Return the only match, or the exact one.

    Raises:
        SessionNotFound: If there are several.
    """
    if given in found:
        return given
    if len(found) > 1:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        names = ", ".join(repr(one) for one in sorted(found)[:SHOWN])
        raise SessionNotFound(
            f"{len(found)} {what} begin with {given!r}: {names}{more}. Type more of the id", given=given
        )
    return found[0]
