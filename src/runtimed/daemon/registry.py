"""The sessions that this daemon knows, their lifecycle and its history: each step is committed with its author."""

from __future__ import annotations

import builtins
import dataclasses
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from runtimed.errors import NotebookFileError, SessionError, SessionNotFound, StorageError
from runtimed.ids import SessionId, check_new_session_id, check_session_id
from runtimed.lifecycle import Limits, SessionEvent, SessionState, close_reason, step
from runtimed.models import AuditAction
from runtimed.notebook_file.merging import FileRecord
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.registry_store import RegistryStore, SessionRow

__all__ = ["Registry", "check_kind"]

logger = logging.getLogger(__name__)

_ACTIONS: Final[dict[str, AuditAction]] = {
    "active": "session_started",
    "closed": "session_closed",
    "timed_out": "session_timed_out",
    "error": "session_error",
}
"""Name in the history of the step to a state."""


class Registry:
    """All sessions, by id."""

    def __init__(self, store: RegistryStore, clock: Callable[[], float], max_active: int) -> None:
        self._store = store
        self._clock = clock
        self._max_active = max_active
        self._used_at: dict[str, float] = {}

    def find(self, session_id: str) -> SessionRow | None:
        """Return the row of a session; None if it never started."""
        row = self._store.get(session_id)
        if row is not None and (used_at := self._used_at.get(session_id)) is not None:
            row = dataclasses.replace(row, last_accessed_at=max(used_at, row.last_accessed_at))
        return row

    def get(self, session_id: str) -> SessionRow:
        """Return the row of a session.

        Raises:
            SessionNotFound: If it never started.
            SessionError: If the id is invalid.
        """
        row = self.find(check_session_id(session_id))
        if row is None:
            raise SessionNotFound(
                f"No session has the id {session_id!r} yet; it begins with its first cell or kernel",
                session_id=session_id,
            )
        return row

    def ids(self) -> Iterable[SessionId]:
        """Return the ids of all sessions."""
        return map(SessionId, self._store.ids())

    def active(self) -> list[SessionRow]:
        """Return the active sessions."""
        return self._store.active()

    def list(self, status: str | None, kind: str | None, start: int, count: int) -> list[SessionRow]:
        """Return a page of sessions from an index on, most recently used first."""
        self._flush_for_order()
        return self._store.list(status=status, kind=kind, start=start, count=count)

    def find_ids(self, prefix: str, status: str | None, kind: str | None) -> builtins.list[str]:
        """Return the ids of the sessions that begin with a text, most recently used first."""
        self._flush_for_order()
        return self._store.find_ids(prefix, status, kind)

    def _flush_for_order(self) -> None:
        try:
            self.flush()
        except StorageError as exc:
            # The list must be readable on a full disk, too; only its order is a little older then.
            logger.debug("the times of the last use are not stored: %s", exc)

    def count(self, status: str | None, kind: str | None) -> int:
        """Return the number of sessions on all pages of `list`."""
        return self._store.count(status, kind)

    def history(self, session_id: str) -> builtins.list[AuditRow]:
        """Return the steps in a session's life, newest first."""
        return self._store.history(session_id)

    def prune_history(self, before: float) -> None:
        """Delete the steps that were taken before a moment (Unix time), but for the last one of each session.

        Raises:
            StorageError: If that cannot be stored.
        """
        self._store.prune_history(before)

    def start(
        self, session_id: SessionId, actor: Actor, limits: Limits, kind: Literal["kernel", "browser"] = "kernel"
    ) -> SessionRow:
        """Make a session active. Idempotent.

        Raises:
            SessionError: If it is of another kind, its id is new and unfit, or the limit of active sessions is reached;
                nothing has changed.
        """
        row = self.find(session_id)
        if row is None:
            check_new_session_id(session_id)
        else:
            check_kind(row, kind)
        if row is not None and row.status == "active":
            return row
        if self._store.count(status=SessionState.ACTIVE.value) >= self._max_active:
            raise SessionError(
                f"Session {session_id!r} cannot start: this daemon has {self._max_active:,} active sessions, as many "
                "as it may have. Stop one (`runtimed sessions --status active` lists them, `runtimed stop ID` "
                "stops one), or raise the limit: `RUNTIMED_MAX_SESSIONS=… runtimed restart`",
                notebook_id=session_id,
                max_sessions=self._max_active,
            )
        now = self._clock()
        self._check(row, SessionEvent.STARTED)
        row = SessionRow(
            session_id=session_id,
            kind=kind,
            status=SessionState.ACTIVE.value,
            close_reason=None,
            created_at=row.created_at if row else now,
            started_at=now,
            closed_at=None,
            last_accessed_at=now,
            timeout_minutes=limits.timeout_minutes,
            max_duration_minutes=limits.max_duration_minutes,
            keep_alive=limits.keep_alive,
            ephemeral=limits.ephemeral,
            creator=actor.client_id,
            label=actor.label,
            error=None,
            host_epoch=None,
            host_dir=None,
            host_pid=None,
            kernel_type=None,
            kernel_pid=None,
            env_source=None,
        )
        self._put(row, SessionEvent.STARTED, actor)
        return row

    def end(
        self, session_id: SessionId, event: SessionEvent, actor: Actor | None = None, *, error: str | None = None
    ) -> bool:
        """Take the step of an ending event.

        Args:
            session_id: The session.
            event: What ends it.
            actor: The client that ends it; None if it ended by itself.
            error: How it failed, in sentences.

        Returns:
            False if the session was not active: then nothing changed.
        """
        row = self.find(session_id)
        state = self._check(row, event)
        if row is None or state is None:
            return False
        row = dataclasses.replace(
            row,
            status=state.value,
            close_reason=close_reason(event),
            closed_at=self._clock(),
            error=error,
            host_epoch=None,
            host_dir=None,
            host_pid=None,
            kernel_pid=None,
        )
        self._put(row, event, actor)
        return True

    def check_ended(self, session_id: SessionId) -> None:
        """Refuse to delete a session that has not ended.

        Raises:
            SessionError: If it is active.
        """
        if self.get(session_id).status == "active":
            raise SessionError(
                f"Session {session_id!r} is active; stop it before it is deleted (`Client().sessions.stop`, "
                "`runtimed delete ID --stop`)",
                session_id=session_id,
            )

    def delete(self, session_id: SessionId, actor: Actor) -> None:
        """Delete an ended session with its history. A note that it was deleted, and by whom, replaces them."""
        now = self._clock()
        note = AuditRow(at=now, until=now, action="session_deleted", actor=actor, detail=None)
        self._store.delete(session_id, note)
        self._used_at.pop(session_id, None)
        logger.info("session %r was deleted by client %s", session_id, actor.client_id)

    # --- notebook files ---

    def file(self, session_id: str) -> FileRecord | None:
        """Return what a session knows of its notebook file; None if it has none."""
        return FileRecord.of_text(self._store.file(session_id))

    def file_path(self, session_id: str) -> str | None:
        """Return the real path of a session's notebook file; None if it has none."""
        return self._store.file_path(session_id)

    def owner_of_file(self, path: str) -> SessionId | None:
        """Return the session whose notebook file this is; None if it is nobody's."""
        owner = self._store.owner_of_file(path)
        return None if owner is None else SessionId(owner)

    def check_file(self, session_id: str, path: str) -> None:
        """Refuse a notebook file that is another active session's.

        Raises:
            NotebookFileError: If it is.
        """
        owner = self.owner_of_file(path)
        if owner is not None and owner != session_id and (row := self.find(owner)) and row.status == "active":
            raise NotebookFileError(
                f"{path} is the file of the session {owner!r}, which is active: join that one, or stop it first",
                path=path,
                session_id=owner,
            )

    def set_file(self, session_id: str, path: str, record: str | None) -> None:
        """Store what a session knows of its notebook file, which is no other session's any more; None for nothing.

        Raises:
            NotebookFileError: If it is another active session's.
        """
        self.check_file(session_id, path)
        self._store.put_file(session_id, path, record)

    def files_of_active(self) -> builtins.list[tuple[SessionId, str]]:
        """Return id and path of each active session that has a notebook file."""
        return [(SessionId(session_id), path) for session_id, path in self._store.files_of_active()]

    def deleted(self) -> builtins.list[SessionId]:
        """Return the ids of sessions that were deleted and not started again."""
        return builtins.list(map(SessionId, self._store.deleted()))

    def update(self, session_id: SessionId, **fields: Any) -> None:
        """Store facts about a session that are no steps of its life. Known facts need no space."""
        row = self.get(session_id)
        changed = dataclasses.replace(row, **fields)
        if changed != row:
            self._store.put(changed)

    def touch(self, session_id: SessionId, at: float | None = None) -> None:
        """Note a client's operation, now or at that time: kept in memory, written by the next `flush`."""
        self._used_at[session_id] = self._clock() if at is None else max(at, self._used_at.get(session_id, 0.0))

    def flush(self) -> None:
        """Write the times of the last use.

        Raises:
            StorageError: If one cannot be written. On a full disk they are kept for the next call.
        """
        failure: StorageError | None = None
        for session_id, at in list(self._used_at.items()):
            try:
                self._store.touch(session_id, at)
            except StorageError as exc:
                failure = exc
                if exc.data.get("session_id") != session_id:
                    continue
            # Written, or its row is damaged.
            del self._used_at[session_id]
        if failure is not None:
            raise failure

    @staticmethod
    def _check(row: SessionRow | None, event: SessionEvent) -> SessionState | None:
        return step(SessionState(row.status) if row else None, event)

    def _put(self, row: SessionRow, event: SessionEvent, actor: Actor | None) -> None:
        now = self._clock()
        note = AuditRow(at=now, until=now, action=_ACTIONS[row.status], actor=actor, detail=row.close_reason)
        with self._store.transaction():
            self._store.put(row)
            self._store.add_history(row.session_id, note)
        logger.info("session %r is %s (%s)", row.session_id, row.status, event.name.lower())


def check_kind(row: SessionRow, kind: Literal["kernel", "browser"]) -> None:
    """Refuse an operation on a session of another kind.

    Raises:
        SessionError: If it is of another kind.
    """
    if row.kind != kind:
        use = "BrowserSession" if row.kind == "browser" else "Session"
        raise SessionError(
            f"Session {row.session_id!r} is a {row.kind} session; join it with {use}, or choose another id",
            session_id=row.session_id,
            kind=row.kind,
        )
