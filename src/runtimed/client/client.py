# Made from async_client.py by `python -m tests.blocking_face`: edit that one.

"""`Client`: the daemon itself, the list of its sessions, and its profiles."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any, TypeVar

from runtimed.client import calls
from runtimed.client.apart import apart
from runtimed.client.browser_session import BrowserSession
from runtimed.client.files import KERNELSPECS, new_file
from runtimed.client.flows import Flow
from runtimed.client.identity import Identity
from runtimed.client.pages import Items
from runtimed.client.session import Session
from runtimed.client.work import work
from runtimed.durations import check_duration
from runtimed.errors import ConnectionLost, DaemonUnavailable, ExecutionTimeout, ProtocolError
from runtimed.ids import CellId
from runtimed.models import AuditEntry, DaemonStatus, ExecutionSummary, SessionStatus
from runtimed.notebook_names import session_id_of
from runtimed.settings import read_settings
from runtimed.transport.autostart import daemon_answers

__all__ = ["Client", "Profiles", "Sessions"]

T = TypeVar("T")


class Client:
    """The daemon of this user: its status, its sessions and profiles, and handles of its sessions.

    Example:
        >>> client = Client()
        >>> with client.Session("analysis") as session:
        ...     session.run("1 + 1")
        >>> [status.session_id for status in client.sessions.list(status="active")]
        ['analysis']
    """

    def __init__(self, *, label: str | None = None, patience: float | None = None) -> None:
        """Make a client, without any effect before a call.

        Args:
            label: The client's name for people: one line of plain text, at most 256 characters.
            patience: Seconds to wait for a daemon that is busy or hangs, after which a call raises DaemonUnavailable or
                ExecutionTimeout; None for the usual deadlines. Handles of sessions ignore it.

        Raises:
            SessionError: If the label is invalid.
        """
        self._label = label
        self._patience = check_duration("patience", patience)
        self._identity = Identity(label)
        self.sessions = Sessions(self)
        self.profiles = Profiles(self)

    def ping(self) -> bool:
        """Whether a daemon of this version answers. Never starts one."""
        try:
            return self.status() is not None
        except (DaemonUnavailable, ConnectionLost, ExecutionTimeout, ProtocolError):
            return False

    def is_running(self) -> bool:
        """Whether a process listens on the daemon's socket. Never starts one."""
        try:
            return daemon_answers(read_settings())
        except DaemonUnavailable:
            return False

    def status(self) -> DaemonStatus | None:
        """Return the daemon's status; None if none runs. Never starts one.

        Raises:
            DaemonUnavailable: If one runs and does not answer, or accepts no more connections.
        """
        try:
            return self._perform(calls.daemon_status()) if self.is_running() else None
        except DaemonUnavailable:
            if self.is_running():
                raise
            return None  # it was just ending

    def shutdown(self, keep_kernels: bool = False) -> None:  # the name is a promise
        """End the daemon. Idempotent.

        Args:
            keep_kernels: Leave the kernels running for the next daemon; else every session ends as `stopped`.
        """
        if self.is_running():
            self._perform(calls.shutdown(keep_kernels=keep_kernels))

    def create_notebook(
        self,
        path: str | os.PathLike[str],
        kernel_type: str = "python",
        working_dir: str | os.PathLike[str] | None = None,
    ) -> Session:
        """Create an .ipynb file with the session that is named after it, and start its kernel.

        Args:
            path: The new file. The session's id is its real path; one of this id that exists already keeps its cells,
                which the file gets.
            kernel_type: See `start_kernel` of a session.
            working_dir: The kernel's working directory, where the search for project files starts; None for the file's
                folder.

        Returns:
            A connected handle; close it to leave the session.

        Raises:
            NotebookFileError: If there is such a file already, or it cannot be written.
            KernelStartFailed: If the kernel did not start; there is no file then.
        """
        real = work(new_file, path)
        session = self.Session(session_id_of(real))
        try:
            session.start_kernel(
                kernel_type, notebook_path=real if working_dir is None else Path(working_dir) / real.name
            )
            if kernel_type in KERNELSPECS:
                session.set_kernelspec(*KERNELSPECS[kernel_type])
            session.save(real)
        except BaseException:
            session.close()
            raise
        return session

    def Session(  # noqa: N802  # as in the reference
        self, notebook_id: str | None = None, **options: Any
    ) -> Session:
        """Make a handle of a session; the arguments are those of `runtimed.Session`."""
        return Session(notebook_id, **{"label": self._label, **options})

    def BrowserSession(  # noqa: N802  # as Session
        self, session_id: str | None = None, **options: Any
    ) -> BrowserSession:
        """Make a handle of a browser session; the arguments are those of `runtimed.BrowserSession`."""
        return BrowserSession(session_id, **{"label": self._label, **options})

    def _perform(self, flow: Flow[T]) -> T:
        return apart(self._identity, flow, start_daemon=False, patience=self._patience)

    def _page(self, flow: Flow[calls.Page[T]]) -> calls.Page[T]:
        """Read a page; an empty one if no daemon runs."""
        return self._perform(flow) if self.is_running() else calls.Page([], None)


class Sessions:
    """All sessions of the daemon, active and ended. Iterating gives their statuses, most recently used first."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __iter__(self) -> Items[SessionStatus]:
        return self.iter()

    def iter(
        self, status: calls.SessionState | None = None, kind: calls.SessionKind | None = None
    ) -> Items[SessionStatus]:
        """Iterate over sessions, most recently used first; over none if no daemon runs.

        Args:
            status: Only sessions in this state; None for all.
            kind: Only sessions of this kind; None for all.
        """

        return Items(self._client._page, calls.iter_sessions(status, kind))

    def list(
        self,
        status: calls.SessionState | None = None,
        kind: calls.SessionKind | None = None,
        page: int = 1,
        page_size: int = 100,
    ) -> list[SessionStatus]:
        """Return sessions, most recently used first; none if no daemon runs.

        Args:
            status: Only sessions in this state, so that `"active"` leaves out all that have ended; None for all.
            kind: Only sessions of this kind; None for all.
            page: Number of the page, from 1.
            page_size: Sessions of a page.
        """
        if not self._client.is_running():
            return []
        return self._client._perform(calls.list_sessions(status, kind, page, page_size))

    def get(self, session_id: str) -> SessionStatus:
        """Return the status of one session.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return self._client._perform(calls.get_session(calls.notebook(session_id)))

    def log(self, session_id: str, page: int = 1, page_size: int = 100) -> builtins.list[AuditEntry]:
        """Return the audit log of a session, newest first. The call does not count as use.

        Ended sessions have a log, too. It never contains sources, outputs or values.

        Args:
            session_id: The session.
            page: Number of the page, from 1.
            page_size: Entries of a page, at most 1000.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return self._client._perform(calls.get_log(calls.notebook(session_id), page, page_size))

    def iter_log(self, session_id: str) -> Items[AuditEntry]:
        """Iterate over the audit log of a session, newest first; see `log`.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return Items(self._client._perform, calls.iter_log(calls.notebook(session_id)))

    def find(
        self, prefix: str = "", status: calls.SessionState | None = None, kind: calls.SessionKind | None = None
    ) -> builtins.list[str]:
        """Return the ids of all sessions that begin with a text, most recently used first, for completion.

        Args:
            prefix: The beginning of the ids.
            status: Only sessions in this state; None for all.
            kind: Only sessions of this kind; None for all.

        Raises:
            DaemonUnavailable: If no daemon runs.
        """
        return self._client._perform(calls.find_sessions(prefix, status, kind))

    def find_cells(self, session_id: str, prefix: str = "") -> builtins.list[CellId]:
        """Return the ids of a session's cells that begin with a text, in order. The call does not count as use.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return self._client._perform(calls.find_cells(calls.notebook(session_id), prefix))

    def find_executions(self, session_id: str, prefix: str | None = None) -> builtins.list[ExecutionSummary]:
        """Return what a session runs, or ran. The call does not count as use.

        Args:
            session_id: The session.
            prefix: None for the running execution, and behind it the waiting ones; else the latest whose ids begin so,
                at most 100, newest first.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        return self._client._perform(calls.find_executions(calls.notebook(session_id), prefix))

    def complete(self, session_id: str, code: str, cursor_pos: int | None = None) -> dict[str, Any]:
        """Ask a session's kernel for completions without joining the session; see `complete` of a session."""
        return self._client._perform(calls.complete(calls.notebook(session_id), code, cursor_pos))

    def inspect(
        self, session_id: str, code: str, cursor_pos: int | None = None, detail_level: int = 0
    ) -> dict[str, Any]:
        """Ask a session's kernel about an object without joining the session; see `inspect` of a session."""
        return self._client._perform(calls.inspect(calls.notebook(session_id), code, cursor_pos, detail_level))

    def stop(self, session_id: str) -> None:
        """End a session for everybody. Idempotent.

        Raises:
            SessionNotFound: If it never started.
            DaemonUnavailable: If no daemon runs.
        """
        self._client._perform(calls.stop_started(calls.notebook(session_id)))

    def delete(self, session_id: str) -> None:
        """Delete an ended session with its cells, outputs, log, profile and downloads. Its id is free then.

        Clients that are still in it are disconnected. Large values, which sessions share, are removed from the disk
        within a day.

        Raises:
            SessionNotFound: If there is no such session.
            SessionError: If it is active; `stop` it first.
            DaemonUnavailable: If no daemon runs.
        """
        self._client._perform(calls.delete(calls.notebook(session_id)))

    def restore(self, session_id: str) -> int:
        """Restore a session's notebook that was set aside as damaged, if it is intact after all.

        A separate process loads it first. Its cells come first, unchanged; the cells written since follow. A cell that
        is in both and differs is there twice, and an entry of the notebook's metadata stays as it was written since.

        Returns:
            The number of restored cells.

        Raises:
            SessionError: If no notebook of this session was set aside, or its whole database was, which stays so.
            StorageError: If it cannot be loaded; it is kept, and the session stays unchanged.
            DaemonUnavailable: If no daemon runs.
        """
        return self._client._perform(calls.restore(calls.notebook(session_id)))


class Profiles:
    """The named profiles that `save_profile` and `BrowserSession(profile=…)` stored. Iterating gives their names."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __iter__(self) -> Items[str]:
        return Items(self._client._page, calls.browser.iter_profiles())

    def list(self) -> builtins.list[str]:
        """Return their names, sorted; none if no daemon runs."""
        if not self._client.is_running():
            return []
        return self._client._perform(calls.browser.list_profiles())

    def delete(self, name: str) -> None:
        """Delete one.

        Raises:
            BrowserError: If there is none of this name, or a running session would store it again at its end (attribute
                `session_id`).
            DaemonUnavailable: If no daemon runs.
        """
        self._client._perform(calls.browser.delete_profile(name))
