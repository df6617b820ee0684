"""The registry's row of a room's session: what the room, and its kernel or browser, read and change of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from runtimed.daemon.registry import Registry, check_kind
from runtimed.ids import SessionId
from runtimed.lifecycle import Limits, SessionEvent
from runtimed.protocol.session_operations import Join
from runtimed.storage.audit import Actor
from runtimed.storage.registry_store import SessionRow
from runtimed.storage.session_store import SessionStore

__all__ = ["Registration", "limits_of"]


class Registration:
    """One session's row. Its kernel or browser reports here; see `HostedListener`.

    Args:
        notebook_id: The session.
        registry: Has the row.
        store: Knows the clients.
        report: Reports a problem to the users, in a sentence.
    """

    def __init__(
        self, notebook_id: SessionId, registry: Registry, store: SessionStore, report: Callable[[str], None]
    ) -> None:
        self._notebook_id = notebook_id
        self._registry = registry
        self._store = store
        self._report = report
        self._kind: Literal["kernel", "browser"] | None = None

    @property
    def row(self) -> SessionRow | None:
        """The row; None if the session never started."""
        return self._registry.find(self._notebook_id)

    @property
    def is_ephemeral(self) -> bool:
        """Whether the session ends some time after its last client has left."""
        row = self.row
        return row is not None and row.ephemeral

    def check_kind(self, kind: Literal["kernel", "browser"]) -> None:
        """Refuse an operation for sessions of another kind. A session that never started is of no kind.

        Raises:
            SessionError: If the session is of another kind.
        """
        if self._kind == kind:
            return
        row = self.row
        if row is not None:
            check_kind(row, kind)
            # It never changes, and nearly every request needs it.
            self._kind = kind

    def activate(self, actor: Actor, join: Join | None) -> None:
        """Make the session an active kernel session, with the limits that the client gave when it joined."""
        if join is None:
            join = Join(notebook_id=self._notebook_id)
        self._registry.start(
            self._notebook_id,
            actor,
            Limits(
                timeout_minutes=join.timeout_minutes,
                max_duration_minutes=join.max_duration_minutes,
                ephemeral=join.ephemeral,
                keep_alive=join.keep_alive,
            ),
        )

    def activate_browser(self, actor: Actor, limits: Limits) -> SessionRow:
        """Make the session an active browser session; see `Registry.start`."""
        return self._registry.start(self._notebook_id, actor, limits, "browser")

    def end(self, event: SessionEvent, actor: Actor | None) -> None:
        """End the session; see `Registry.end`."""
        self._registry.end(self._notebook_id, event, actor)

    # --- reports of the kernel or browser ---

    def hosted_facts(self, **fields: Any) -> None:
        """See `HostedListener`."""
        self._registry.update(self._notebook_id, **fields)

    def hosted_used(self, at: float | None = None) -> None:
        """See `HostedListener`."""
        self._registry.touch(self._notebook_id, at)

    def hosted_lost(self, why: Literal["died", "host_lost"], error: str) -> None:
        """See `HostedListener`."""
        self._registry.end(self._notebook_id, SessionEvent(why), error=error)

    def hosted_found(self) -> None:
        """See `HostedListener`: reactivates a session that an earlier daemon gave up."""
        row = self.row
        if row is not None and row.status != "active":
            self._registry.start(self._notebook_id, self._store.actor(row.creator), limits_of(row), row.kind)
            self.hosted_facts(
                host_epoch=row.host_epoch,
                host_dir=row.host_dir,
                kernel_type=row.kernel_type,
                env_source=row.env_source,
            )

    def hosted_fate(self) -> str:
        """See `HostedListener`."""
        row = self.row
        if row is None or row.status == "active":
            return "it is not started"
        return f"it is {row.status} ({row.close_reason})" + ("" if row.error is None else f": {row.error.rstrip('.')}")

    def hosted_problem(self, sentence: str) -> None:
        """See `HostedListener`."""
        self._report(sentence)


def limits_of(row: SessionRow) -> Limits:
    """Return the limits of a session."""
    return Limits(
        timeout_minutes=row.timeout_minutes,
        max_duration_minutes=row.max_duration_minutes,
        ephemeral=row.ephemeral,
        keep_alive=row.keep_alive,
    )
