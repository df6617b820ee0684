"""What clients ask of the daemon about sessions as a whole, and about the daemon itself, each with its reply."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from runtimed.models import AuditEntry, DaemonStatus, KernelStatus, SessionStatus
from runtimed.protocol.bounds import Index, Minutes, Page, Seconds
from runtimed.protocol.operation import InRoom, OnSession, Operation, ReplyBody
from runtimed.protocol.replies import Done

__all__ = [
    "MAX_LOG_PAGE",
    "DeleteSession",
    "DeleteSessionReply",
    "FindSessions",
    "FlushPool",
    "FoundIds",
    "GetLog",
    "GetLogReply",
    "GetSession",
    "GetSessionReply",
    "GetStatus",
    "GetStatusReply",
    "Join",
    "JoinReply",
    "ListSessions",
    "ListSessionsReply",
    "RestoreNotebook",
    "RestoreNotebookReply",
    "RoomStatus",
    "SessionDaemonOperation",
    "SessionRoomOperation",
    "ShutdownDaemon",
    "StopSession",
    "StopSessionReply",
]

MAX_LOG_PAGE: Final = 1000
"""Most entries of a session's log in one reply."""


class JoinReply(ReplyBody, frozen=True):
    """`last` is the number of the latest event in the session's log."""

    last: int


class Join(InRoom[JoinReply], frozen=True, tag="join"):
    """Join a session, as long as this connection lasts. Changes nothing for a session that never started."""

    kind = None
    is_use = False

    ephemeral: bool = False
    keep_alive: Seconds = 30.0
    timeout_minutes: Minutes | None = None
    max_duration_minutes: Minutes | None = None


class GetSessionReply(ReplyBody, frozen=True):
    """The state of a session."""

    session: SessionStatus


class GetSession(OnSession[GetSessionReply], frozen=True, tag="session"):
    """Read a session's status. Raises SessionNotFound."""


class GetLogReply(ReplyBody, frozen=True):
    """A page of a session's log, the newest first."""

    entries: list[AuditEntry]


class GetLog(OnSession[GetLogReply], frozen=True, tag="log"):
    """Read who did what in a session, whatever its state. No use of the session. Raises SessionNotFound."""

    page: Page = 1
    page_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_LOG_PAGE)] = 100


class ListSessionsReply(ReplyBody, frozen=True):
    """Sessions, newest access first. `next` is where the list goes on; None after `count` sessions, or at the end."""

    sessions: list[SessionStatus]
    next: int | None = None


class ListSessions(Operation[ListSessionsReply], frozen=True, tag="sessions"):
    """List sessions from index `start`, until a page is full."""

    status: Literal["active", "closed", "error", "timed_out"] | None = None
    kind: Literal["kernel", "browser"] | None = None
    start: Index = 0
    count: Index = 100


class FoundIds(ReplyBody, frozen=True):
    """Ids that begin with a text, as many as one reply takes."""

    ids: list[str]


class FindSessions(Operation[FoundIds], frozen=True, tag="find_sessions"):
    """Find the ids of sessions that begin with a text, for somebody who types one: newest access first.

    No use of any session.
    """

    prefix: str = ""
    status: Literal["active", "closed", "error", "timed_out"] | None = None
    kind: Literal["kernel", "browser"] | None = None


class StopSessionReply(ReplyBody, frozen=True):
    """`waits` says what a dead host has left that cannot be read now, and is taken when it can be."""

    started_here: bool
    waits: str | None = None


class StopSession(OnSession[StopSessionReply], frozen=True, tag="stop"):
    """End a session for everybody; one that ended already stays as it is.

    With `only_if_started_by_me`, a session that another client started is only left.
    """

    reason: Literal["stopped", "error"] = "stopped"
    only_if_started_by_me: bool = False


class DeleteSessionReply(ReplyBody, frozen=True):
    """`deleted` is whether there was such a session."""

    deleted: bool


class DeleteSession(OnSession[DeleteSessionReply], frozen=True, tag="delete_session"):
    """Delete an ended session with its data; raises SessionError if it is active. Its clients are disconnected.

    Where there is no such session nothing happens, so that sending again is harmless.
    """


class RestoreNotebookReply(ReplyBody, frozen=True):
    """`cells` is how many cells came back."""

    cells: int


class RestoreNotebook(InRoom[RestoreNotebookReply], frozen=True, tag="restore"):
    """Bring back what of the notebook was found damaged and set aside, if it is whole after all.

    Raises SessionNotFound, SessionError, StorageError.
    """


class RoomStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An open room."""

    notebook_id: str
    active_peers: int
    has_kernel: bool
    kernel_type: str | None
    kernel_status: KernelStatus
    env_source: str | None


class GetStatusReply(ReplyBody, frozen=True):
    """The daemon's state, and a page of its rooms. `next_room` is where they go on, None at the end."""

    status: DaemonStatus
    rooms: list[RoomStatus]
    next_room: int | None = None


class GetStatus(Operation[GetStatusReply], frozen=True, tag="status"):
    """Read the daemon's state, and its rooms from index `first_room` until a page is full. A ping, too."""

    first_room: Index = 0


class ShutdownDaemon(Operation[Done], frozen=True, tag="shutdown_daemon"):
    """End the daemon, and every session with it unless `keep_kernels`. The connection ends behind the reply."""

    keep_kernels: bool = False


class FlushPool(Operation[Done], frozen=True, tag="flush_pool"):
    """End the spares, which the reply waits for; more are made after the next start of a kernel or browser."""


SessionDaemonOperation = (
    ListSessions
    | FindSessions
    | GetStatus
    | ShutdownDaemon
    | FlushPool
    | GetSession
    | GetLog
    | StopSession
    | DeleteSession
)
"""Those which the daemon performs itself: no room is opened for them."""

SessionRoomOperation = Join | RestoreNotebook
"""Those which are performed in a session's room."""
