"""What both faces of a session have in common: who they are, which session they name, and whether they joined it."""

from __future__ import annotations

from operator import attrgetter
from typing import TypeVar

from runtimed.client import calls
from runtimed.client.calls import Notebook
from runtimed.client.identity import Identity
from runtimed.durations import LONGEST, check_duration
from runtimed.errors import NotConnected, SessionError
from runtimed.ids import ClientId, NotebookId, check_notebook_id, new_notebook_id
from runtimed.protocol.client_operations import Join

__all__ = ["Handle", "documented", "session_duration"]

T = TypeVar("T", bound=type)


class Handle:
    """A name for a session. Nothing here waits or opens a socket."""

    def __init__(
        self,
        notebook_id: str | None = None,
        *,
        label: str | None = None,
        timeout_minutes: float | None = None,
        max_duration_minutes: float | None = None,
        keep_alive: float | None = 30.0,
    ) -> None:
        """Name a session; nothing happens before `connect`.

        Args:
            notebook_id: Its id; a generated one (`agent-session-<uuid4>`) if None.
            label: What people call this client: one line of plain text, at most 256 characters.
            timeout_minutes: Idle minutes after which the session times out, if this client starts it; None for never.
            max_duration_minutes: Minutes after which it times out in any case; None for never.
            keep_alive: Seconds that a session of a generated id outlives its last client; None for without end.

        Raises:
            SessionError: If the id, the label or a length of time cannot be one.
        """
        keep_alive_secs = session_duration("keep_alive", keep_alive)
        self._generated = notebook_id is None
        self._notebook = Notebook(new_notebook_id() if notebook_id is None else check_notebook_id(notebook_id))
        self._identity = Identity(label)
        self._join = Join(
            notebook_id=self._notebook.id,
            ephemeral=self._generated,
            keep_alive=LONGEST if keep_alive_secs is None else keep_alive_secs,
            timeout_minutes=session_duration("timeout_minutes", timeout_minutes, unit=60),
            max_duration_minutes=session_duration("max_duration_minutes", max_duration_minutes, unit=60),
        )
        self._was_connected = False
        self._prepare()

    def _prepare(self) -> None:
        """Make what the face needs, before anything is asked of it."""
        raise NotImplementedError

    @property
    def notebook_id(self) -> NotebookId:
        """The session's id."""
        return self._notebook.id

    @property
    def client_id(self) -> ClientId:
        """The id of this client, generated with the handle: others see it as the author of its edits."""
        return self._identity.client_id

    def _check_was_connected(self) -> None:
        if not self._was_connected:
            raise NotConnected("Not connected", notebook_id=self.notebook_id)


def documented(face: T) -> T:
    """Give each member of a face that says "See `calls.NAME`" the docstring of that definition, for `help` and `?`."""
    for member in vars(face).values():
        doc = getattr(member, "__doc__", None) or ""
        if callable(member) and doc.startswith("See `calls."):
            member.__doc__ = attrgetter(doc.removeprefix("See `calls.").removesuffix("`."))(calls).__doc__
    return face


def session_duration(name: str, value: object, *, unit: float = 1.0) -> float | None:
    """Return a length of time of a session's life; see `check_duration`.

    Raises:
        SessionError: If it cannot be one. The sentence names it.
    """
    try:
        return check_duration(name, value, unit=unit)
    except ValueError as exc:
        raise SessionError(str(exc)) from None
