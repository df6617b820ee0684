"""Operations on whole sessions and on the daemon itself, each with its reply."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from runtimed.models import AuditEntry, DaemonStatus, KernelStatus, SessionStatus
from runtimed.protocol.bounds import Index, Minutes, Page, Seconds
from runtimed.protocol.operation import InRoom, OnSession, Operation, ReplyBody
from runtimed.protocol.replies import Done

__all__ = [
    "MAX_AUDIT_PAGE",
    "DeleteSession",
    "DeleteSessionReply",
    "FindSessions",
    "FlushPool",
    "FoundIds",
    "GetAudit",
    "GetAuditReply",
    "GetFile",
    "GetFileReply",
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
    "SetFile",
    "ShutdownDaemon",
    "StopSession",
    "StopSessionReply",
]

MAX_AUDIT_PAGE: Final = 1000
"""Most entries of a session's audit log in one reply."""


class JoinReply(ReplyBody, frozen=True):
    """`last` is the number of the session's latest event."""

    last: int


class Join(InRoom[JoinReply], frozen=True, tag="join"):
    """Join a session as a peer, until the connection ends. Joining alone does not start a session.

    `writes_file` is the path of a notebook file that the client's editor writes itself: as long as it is here, the
    daemon does not write it.
    """

    kind = None
    is_use = False

    ephemeral: bool = False
    keep_alive: Seconds = 30.0
    timeout_minutes: Minutes | None = None
    max_duration_minutes: Minutes | None = None
    writes_file: str | None = None


class GetSessionReply(ReplyBody, frozen=True):
    """The state of a session."""

    session: SessionStatus


class GetSession(OnSession[GetSessionReply], frozen=True, tag="session"):
    """Read a session's status. Raises SessionNotFound."""


class GetAuditReply(ReplyBody, frozen=True):
    """A page of a session's audit log, newest first."""

    entries: list[AuditEntry]


class GetAudit(OnSession[GetAuditReply], frozen=True, tag="audit"):
    """Read a page of a session's audit log, in any state. Does not count as use. Raises SessionNotFound."""

    page: Page = 1
    page_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_AUDIT_PAGE)] = 100


class GetFileReply(ReplyBody, frozen=True):
    """What a session knows of its notebook file (`FileRecord` as JSON text); None if it has none."""

    record: str | None = None


class GetFile(OnSession[GetFileReply], frozen=True, tag="file"):
    """Read what a session knows of its notebook file.

    With `path`, raises NotebookFileError if that is the file of another session, which is active.
    """

    path: str | None = None


class SetFile(OnSession[Done], frozen=True, tag="set_file"):
    """Store what a session knows of its notebook file, `FileRecord` as JSON text. Without it the session has no file.

    Raises NotebookFileError if it is the file of another session, which is active. One that has ended loses it.
    """

    path: str
    record: str | None = None


class ListSessionsReply(ReplyBody, frozen=True):
    """A page of sessions, most recently accessed first. `next` is the next page's index; None after the last page."""

    sessions: list[SessionStatus]
    next: int | None = None


class ListSessions(Operation[ListSessionsReply], frozen=True, tag="sessions"):
    """List at most `count` sessions from index `start`, a page at a time."""

    status: Literal["active", "closed", "error", "timed_out"] | None = None
    kind: Literal["kernel", "browser"] | None = None
    start: Index = 0
    count: Index = 100


class FoundIds(ReplyBody, frozen=True):
    """The ids that begin with a prefix, as many as fit into a reply."""

    ids: list[str]


class FindSessions(Operation[FoundIds], frozen=True, tag="find_sessions"):
    """Find the session ids that begin with a prefix, most recently accessed first, for completion.

    Does not count as use.
    """

    prefix: str = ""
    status: Literal["active", "closed", "error", "timed_out"] | None = None
    kind: Literal["kernel", "browser"] | None = None


class StopSessionReply(ReplyBody, frozen=True):
    """The session is stopped.

    Attributes:
        started_here: Whether this client started the session.
        waits: A sentence if a dead host left events that are unreadable at the moment; they are read later.
    """

    started_here: bool
    waits: str | None = None


class StopSession(OnSession[StopSessionReply], frozen=True, tag="stop"):
    """Stop a session for all clients. Does nothing if it has ended already.

    With `only_if_started_by_me`, a session that another client started is only left.
    """

    reason: Literal["stopped", "error"] = "stopped"
    only_if_started_by_me: bool = False


class DeleteSessionReply(ReplyBody, frozen=True):
    """`deleted` is whether the session existed."""

    deleted: bool


class DeleteSession(OnSession[DeleteSessionReply], frozen=True, tag="delete_session"):
    """Delete an ended session with its data, and disconnect its clients. Raises SessionError if it is active.

    Idempotent: an unknown session is ignored.
    """


class RestoreNotebookReply(ReplyBody, frozen=True):
    """`cells` is the number of restored cells."""

    cells: int


class RestoreNotebook(InRoom[RestoreNotebookReply], frozen=True, tag="restore"):
    """Restore the notebook's document that was found damaged and set aside, if it is readable after all.

    Raises SessionNotFound, SessionError, StorageError.
    """


class RoomStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of an open room."""

    notebook_id: str
    active_peers: int
    has_kernel: bool
    kernel_type: str | None
    kernel_status: KernelStatus
    env_source: str | None


class GetStatusReply(ReplyBody, frozen=True):
    """The daemon's status and a page of its rooms. `next_room` is the next page's index, None after the last page."""

    status: DaemonStatus
    rooms: list[RoomStatus]
    next_room: int | None = None


class GetStatus(Operation[GetStatusReply], frozen=True, tag="status"):
    """Read the daemon's status and a page of its rooms from index `first_room`. Also serves as a ping."""

    first_room: Index = 0


class ShutdownDaemon(Operation[Done], frozen=True, tag="shutdown_daemon"):
    """Shut the daemon down, with every session unless `keep_kernels`. The connection ends after the reply."""

    keep_kernels: bool = False


class FlushPool(Operation[Done], frozen=True, tag="flush_pool"):
    """End the spare hosts, and reply when they have ended. The next start of a kernel or browser makes new ones."""


SessionDaemonOperation = (
    ListSessions
    | FindSessions
    | GetStatus
    | ShutdownDaemon
    | FlushPool
    | GetSession
    | GetAudit
    | GetFile
    | SetFile
    | StopSession
    | DeleteSession
)
"""Operations that the daemon performs itself, without opening a room."""

SessionRoomOperation = Join | RestoreNotebook
"""Operations that are performed in a session's room."""
