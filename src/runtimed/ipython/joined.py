"""The sessions that one shell has joined, and the magics' default session."""

from __future__ import annotations

from pathlib import Path

from runtimed.client import Session
from runtimed.ids import SessionId
from runtimed.notebook_names import session_id_of

__all__ = ["JoinedSessions"]


class JoinedSessions:
    """Handles that stay connected while the shell lives, so that others see its presence.

    Attributes:
        current: The magics' default session; None until one is joined.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self.current: SessionId | None = None

    def join(self, notebook_id: str, *, label: str | None, notebook: Path | None = None) -> Session:
        """Return the connected handle of a session. The first one that is joined becomes the default.

        Every session gets its id from here, so it is durable: it stays until somebody stops it.

        Args:
            notebook_id: Its id.
            label: This client's name for people.
            notebook: The notebook's file, which the frontend writes; None if it is unknown.

        Raises:
            SessionError: If the id is invalid.
            DaemonUnavailable: If no daemon can be reached or started.
        """
        session = self._sessions.get(notebook_id)
        if session is None:
            session = Session(notebook_id, label=label, writes_file=None if notebook is None else str(notebook))
        session.connect()
        self._sessions[notebook_id] = session
        if self.current is None:
            self.current = session.notebook_id
        return session

    def chosen(self, notebook_id: str | None, notebook: Path | None) -> str | None:
        """Return the id of the session to use: the named one, the default one, or the notebook's own.

        Args:
            notebook_id: The user's id.
            notebook: The notebook's file, if known.
        """
        if notebook_id is not None:
            return notebook_id
        if self.current is not None:
            return self.current
        return None if notebook is None else session_id_of(notebook)

    def is_joined(self, notebook_id: str) -> bool:
        """Whether this shell has joined a session."""
        return notebook_id in self._sessions

    def forget(self, notebook_id: str) -> None:
        """Forget a session that ended."""
        session = self._sessions.pop(notebook_id, None)
        if session is not None:
            session.close()
        if self.current == notebook_id:
            self.current = None

    def close(self) -> None:
        """Leave all sessions; they live on. Idempotent."""
        for notebook_id in list(self._sessions):
            self.forget(notebook_id)
