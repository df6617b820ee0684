"""The operations on the session itself: its status and its end."""

from __future__ import annotations

import contextlib
import logging
from typing import Final, Literal

from runtimed.client.calls.notebook import Notebook
from runtimed.client.calls.pages import Page, Pages
from runtimed.client.flows import Flow, ask
from runtimed.client.given import check_count
from runtimed.errors import SessionNotFound
from runtimed.models import AuditEntry, SessionStatus
from runtimed.protocol import session_operations as session_ops

LOG_PAGE: Final = 500
"""Entries of a log in one page of an iteration."""

logger = logging.getLogger(__name__)

__all__ = ["delete", "get_log", "get_session", "iter_log", "leave", "restore", "stop", "stop_started"]


def get_session(notebook: Notebook) -> Flow[SessionStatus]:
    """Return the session's status. The call does not count as use: idle time goes on.

    Raises:
        SessionNotFound: If it never started.
    """
    reply = yield from ask(session_ops.GetSession(notebook_id=notebook.id))
    return reply.session


def get_log(notebook: Notebook, page: int = 1, page_size: int = 100) -> Flow[list[AuditEntry]]:
    """Return the audit log of a session, newest first. The call does not count as use.

    Ended sessions have a log, too. It never contains sources, outputs or values.

    Args:
        page: Number of the page, from 1.
        page_size: Entries of a page, at most 1000.

    Raises:
        SessionNotFound: If it never started.
        InvalidArgument: If a number is out of bounds.
    """
    check_count("page", page, 1)
    check_count("page_size", page_size, 1, session_ops.MAX_AUDIT_PAGE)
    reply = yield from ask(session_ops.GetAudit(notebook_id=notebook.id, page=page, page_size=page_size))
    return reply.entries


def iter_log(notebook: Notebook) -> Pages[AuditEntry]:
    """Iterate over the audit log of a session, newest first; see `get_log`."""

    def read(page: int) -> Flow[Page[AuditEntry]]:
        found = yield from get_log(notebook, page, LOG_PAGE)
        return Page(found, page + 1 if len(found) == LOG_PAGE else None)

    return Pages(read, 1)


def stop(notebook: Notebook) -> Flow[None]:
    """End the session for everybody: its kernel ends, its cells and outputs stay readable. Idempotent.

    It is saved into its notebook file first, if it has one; a file that cannot be written within ten seconds is written
    later. A session that never started stays so. A warning is logged if outputs that its kernel has left cannot be
    read from the disk now; they are read once they can be.
    """
    with contextlib.suppress(SessionNotFound):
        yield from stop_started(notebook)


def stop_started(notebook: Notebook) -> Flow[None]:
    """End a session that has started for everybody. Idempotent; see `stop`.

    Raises:
        SessionNotFound: If it never started.
    """
    yield from _stop(session_ops.StopSession(notebook_id=notebook.id))


def _stop(operation: session_ops.StopSession) -> Flow[None]:
    reply = yield from ask(operation)
    if reply.waits is not None:
        logger.warning("Session %r has ended. %s", operation.notebook_id, reply.waits)


def delete(notebook: Notebook) -> Flow[None]:
    """Delete an ended session with its cells, outputs, log, profile and downloads. Its id is free then.

    Clients that are still in it are disconnected. Large values, which sessions share, are removed from the disk within
    a day.

    Raises:
        SessionNotFound: If there is no such session.
        SessionError: If it is active; `stop` it first.
    """
    yield from ask(session_ops.GetSession(notebook_id=notebook.id))
    # A repeated request must not fail for a session that is gone: the first request may have deleted it.
    yield from ask(session_ops.DeleteSession(notebook_id=notebook.id))


def restore(notebook: Notebook) -> Flow[int]:
    """Restore a notebook that was set aside as damaged, if it is intact after all.

    A separate process loads it first. Its cells come first, unchanged; the cells written since follow. A cell that is
    in both and differs is there twice, and an entry of the notebook's metadata stays as it was written since.

    Returns:
        The number of restored cells.

    Raises:
        SessionError: If no notebook of this session was set aside, or its whole database was, which stays so.
        StorageError: If it cannot be loaded; it is kept, and the session stays unchanged.
    """
    reply = yield from ask(session_ops.RestoreNotebook(notebook_id=notebook.id))
    return reply.cells


def leave(notebook: Notebook, *, failed: bool) -> Flow[None]:
    """End the session if this client started it; called at the end of a `with` block."""
    reason: Literal["error", "stopped"] = "error" if failed else "stopped"
    with contextlib.suppress(SessionNotFound):
        yield from _stop(session_ops.StopSession(notebook_id=notebook.id, reason=reason, only_if_started_by_me=True))
