"""What both faces of a session share: the client, the session's name, and whether the client has joined it."""

from __future__ import annotations

import os
from operator import attrgetter
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from runtimed.client import calls
from runtimed.client.calls import Notebook
from runtimed.client.identity import Identity
from runtimed.durations import LONGEST, check_duration
from runtimed.errors import NotConnected, SessionError
from runtimed.ids import ClientId, SessionId, check_session_id, new_notebook_id
from runtimed.protocol.session_operations import Join

__all__ = ["Handle", "HandleStream", "documented", "session_duration"]

T = TypeVar("T", bound=type)


class HandleStream(Protocol):
    """A stream of a handle, which ends with it."""

    def leave(self) -> None:
        """End the stream with NotConnected, from any thread. Idempotent."""


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
        writes_file: str | None = None,
    ) -> None:
        """Name a session, without any effect before `connect`.

        Args:
            notebook_id: Its id; None for a generated one (`agent-session-<uuid4>`).
            label: This client's name for people: one line of plain text, at most 256 characters.
            timeout_minutes: Idle minutes after which the session times out, if this client starts it; None for never.
            max_duration_minutes: Minutes after which it times out in any case; None for never.
            keep_alive: Seconds that a session with a generated id outlives its last client; None for no limit.
            writes_file: Path of a notebook file that this client writes itself, as an editor does; symbolic links are
                followed now. While it is connected the session is not saved into that file, and what the client writes
                is merged.

        Raises:
            SessionError: If the id, the label or a duration is invalid.
        """
        keep_alive_secs = session_duration("keep_alive", keep_alive)
        self._generated = notebook_id is None
        self._notebook = Notebook(new_notebook_id() if notebook_id is None else check_session_id(notebook_id))
        self._identity = Identity(label)
        self._join = Join(
            notebook_id=self._notebook.id,
            ephemeral=self._generated,
            keep_alive=LONGEST if keep_alive_secs is None else keep_alive_secs,
            timeout_minutes=session_duration("timeout_minutes", timeout_minutes, unit=60),
            max_duration_minutes=session_duration("max_duration_minutes", max_duration_minutes, unit=60),
            writes_file=None if writes_file is None else os.path.realpath(writes_file),
        )
        self._was_connected = False
        self._streams: WeakValueDictionary[int, HandleStream] = WeakValueDictionary()
        self._prepare()

    def _prepare(self) -> None:
        """Create what the face needs, before any request."""
        raise NotImplementedError

    @property
    def notebook_id(self) -> SessionId:
        """The session's id."""
        return self._notebook.id

    @property
    def client_id(self) -> ClientId:
        """The id of this client, generated with the handle: the author of its edits for other clients."""
        return self._identity.client_id

    def _leave_streams(self) -> None:
        """End the streams of this handle."""
        # Other threads may begin streams meanwhile: this copy is one step, which an iteration is not.
        for reference in self._streams.valuerefs():
            stream = reference()
            if stream is not None:
                stream.leave()

    def _not_connected(self) -> NotConnected:
        message = "Not connected"
        if self._was_connected:
            message += f": this handle of session {self.notebook_id!r} was closed; connect() joins the session again"
        return NotConnected(message, notebook_id=self.notebook_id)

    def _check_was_connected(self) -> None:
        if not self._was_connected:
            raise self._not_connected()


def documented(face: T) -> T:
    """Copy the docstrings of `calls.NAME` to the members of a face that say "See `calls.NAME`", for `help` and `?`."""
    for member in vars(face).values():
        doc = getattr(member, "__doc__", None) or ""
        if callable(member) and doc.startswith("See `calls."):
            member.__doc__ = attrgetter(doc.removeprefix("See `calls.").removesuffix("`."))(calls).__doc__
    return face


def session_duration(name: str, value: object, *, unit: float = 1.0) -> float | None:
    """Return a duration of a session's life; see `check_duration`.

    Raises:
        SessionError: If it is invalid. The sentence names it.
    """
    try:
        return check_duration(name, value, unit=unit)
    except ValueError as exc:
        raise SessionError(str(exc)) from None
