"""What clients ask of the daemon, each with its reply. What concerns browsers is in `browser_operations`."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec

from runtimed.models import (
    Attribution,
    AuditEntry,
    CellType,
    DaemonStatus,
    ExecutionSummary,
    KernelStatus,
    QueuedExecution,
    SessionStatus,
    SyncEnvironmentResult,
)
from runtimed.protocol.bounds import MAX_NUMBER, Environment, Expressions, Minutes, Number, Seconds, Texts
from runtimed.protocol.browser_operations import (
    BrowserOperation,
    DeleteProfile,
    ListProfiles,
    ReadActions,
    StartBrowser,
)
from runtimed.protocol.comms import CommBody
from runtimed.protocol.inherited import Inherited
from runtimed.protocol.operation import Edit, InRoom, OnSession, Operation, ReplyBody, Streamed, reply_type
from runtimed.protocol.replies import Done, EventPage, GetBlobReply, GetResultValueReply, GetVariableReply, KernelAnswer
from runtimed.structs import prepare

__all__ = [
    "MAX_LOG_PAGE",
    "MAX_QUEUE",
    "AddCell",
    "AddDependencies",
    "AppendSource",
    "CancelExecution",
    "ClearOutputs",
    "ClientOperation",
    "Complete",
    "DaemonOperation",
    "DeleteCell",
    "DeleteSession",
    "DeleteSessionReply",
    "DescribeProcess",
    "EditOperation",
    "Enqueue",
    "EnqueueReply",
    "FindCells",
    "FindExecutions",
    "FindExecutionsReply",
    "FindSessions",
    "FlushPool",
    "FoundIds",
    "GetBlob",
    "GetCell",
    "GetCellReply",
    "GetCells",
    "GetCellsReply",
    "GetContent",
    "GetContentReply",
    "GetDependencies",
    "GetDependenciesReply",
    "GetLog",
    "GetLogReply",
    "GetMetadata",
    "GetMetadataReply",
    "GetQueue",
    "GetQueueReply",
    "GetResultValue",
    "GetSession",
    "GetSessionReply",
    "GetStatus",
    "GetStatusReply",
    "GetVariable",
    "Input",
    "Inspect",
    "Interrupt",
    "Join",
    "JoinReply",
    "KernelChoice",
    "ListSessions",
    "ListSessionsReply",
    "MoveCell",
    "Program",
    "PutVariable",
    "ReadEvents",
    "RemoveDependency",
    "RemoveDependencyReply",
    "RestartKernel",
    "RestartKernelReply",
    "RestoreNotebook",
    "RestoreNotebookReply",
    "RoomOperation",
    "RoomStatus",
    "SendComm",
    "SetCellMetadata",
    "SetCellType",
    "SetKernelspec",
    "SetMetadata",
    "SetSource",
    "ShutdownDaemon",
    "ShutdownKernel",
    "StartKernel",
    "StartKernelReply",
    "StopSession",
    "StopSessionReply",
    "StoredCell",
    "Subscribe",
    "SyncEnvironment",
    "SyncEnvironmentReply",
    "TrustEnvironment",
    "TrustEnvironmentReply",
    "Watch",
    "WatchReply",
]

MAX_LOG_PAGE: Final = 1000
"""Most entries of a session's log in one reply."""

_Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
_Page = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


MAX_QUEUE: Final = 1000
"""Most executions of a queue in one reply."""


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

    page: _Page = 1
    page_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_LOG_PAGE)] = 100


class ListSessionsReply(ReplyBody, frozen=True):
    """Sessions, newest access first. `next` is where the list goes on; None after `count` sessions, or at the end."""

    sessions: list[SessionStatus]
    next: int | None = None


class ListSessions(Operation[ListSessionsReply], frozen=True, tag="sessions"):
    """List sessions from index `start`, until a page is full."""

    status: Literal["active", "closed", "error", "timed_out"] | None = None
    kind: Literal["kernel", "browser"] | None = None
    start: _Index = 0
    count: _Index = 100


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


class FindCells(OnSession[FoundIds], frozen=True, tag="find_cells"):
    """Find the ids of cells that begin with a text, for somebody who types one, in the order of the cells.

    A session that never started has none. No use of the session.
    """

    prefix: str = ""


class FindExecutionsReply(ReplyBody, frozen=True):
    """Without a prefix in the order of the queue, else the newest first."""

    executions: list[ExecutionSummary]


class FindExecutions(OnSession[FindExecutionsReply], frozen=True, tag="find_executions"):
    """Find what a session runs, or ran. No use of the session. Raises SessionNotFound.

    Without a prefix those that run or wait; with one the latest whose ids begin so, at most 100.
    """

    prefix: str | None = None


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

    first_room: _Index = 0


class ShutdownDaemon(Operation[Done], frozen=True, tag="shutdown_daemon"):
    """End the daemon, and every session with it unless `keep_kernels`. The connection ends behind the reply."""

    keep_kernels: bool = False


class FlushPool(Operation[Done], frozen=True, tag="flush_pool"):
    """End the spares, which the reply waits for; more are made after the next start of a kernel or browser."""


# --- kernel -----------------------------------------------------------------------------------------------------------


class StartKernelReply(ReplyBody, frozen=True):
    """Which kernel there is.

    Attributes:
        started: Whether this request did it.
        explained: Which environment it is and why, for people; None where an earlier daemon has started the kernel.
    """

    kernel_type: str
    env_source: str
    started: bool
    explained: str | None = None


class KernelChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which kernel a client asks for. What the kernel takes over from the client, `DescribeProcess` says.

    Attributes:
        folder: Where the kernel works, and where the search for project files begins; None for the client's folder.
    """

    kernel_type: str = "python"
    env_source: str = "auto"
    folder: str | None = None


class DescribeProcess(Operation[Done], frozen=True, tag="describe_process"):
    """Describe the process of the client, for the kernels that this connection starts. The latest description counts.

    The daemon keeps it in memory, as long as the connection lasts.

    Attributes:
        environment: Its environment variables.
        cwd: The folder in which it works; None if that was deleted.
        interpreter: Its Python, for `env_source="current"`.
        uv: The uv that it has found; None if it has none.
        inherited: What a child of it would have beside these; None leaves it to the daemon.
    """

    environment: Environment = msgspec.field(default_factory=dict)
    cwd: str | None = None
    interpreter: str = ""
    uv: str | None = None
    inherited: Inherited | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<DescribeProcess cwd={self.cwd!r} interpreter={self.interpreter!r}>"


class StartKernel(Streamed[StartKernelReply], frozen=True, tag="start_kernel"):
    """Start a kernel unless one runs. Its reply comes after `EnvProgress` events.

    Attributes:
        kernel: Which one.
        source: The code for which the kernel is needed, which may say what it needs; None if the document has it.
        after: Only events with a seq above this one; None for those from now on.
    """

    needs_process = True

    kernel: KernelChoice = KernelChoice()
    source: str | None = None
    after: Number | None = None


class TrustEnvironmentReply(ReplyBody, frozen=True):
    """What was consented to, for people."""

    env_source: str
    explained: str


class TrustEnvironment(InRoom[TrustEnvironmentReply], frozen=True, tag="trust_environment"):
    """Consent to installing what this kernel would need; nothing is started."""

    needs_process = True

    kernel: KernelChoice = KernelChoice()


class RestartKernelReply(ReplyBody, frozen=True):
    """Which environment the new kernel has and why, for people."""

    explained: str | None = None


class RestartKernel(InRoom[RestartKernelReply], frozen=True, tag="restart_kernel"):
    """Replace the kernel's process; the session stays active. The reply comes when the new one is ready.

    The environment is chosen anew, by what was asked for when the kernel was started; if it cannot be had, the kernel
    runs on.
    """


class SyncEnvironmentReply(ReplyBody, frozen=True):
    """What was done."""

    result: SyncEnvironmentResult


class SyncEnvironment(InRoom[SyncEnvironmentReply], frozen=True, tag="sync_environment"):
    """Add to the running environment what the notebook names by now."""


class ShutdownKernel(InRoom[Done], frozen=True, tag="shutdown_kernel"):
    """End the kernel and leave the session active, without one."""


class Interrupt(InRoom[Done], frozen=True, tag="interrupt"):
    """Interrupt what runs. Raises NoKernel."""


class Complete(InRoom[KernelAnswer], frozen=True, tag="complete"):
    """Ask the kernel for completions: Jupyter's complete_request."""

    code: str
    cursor_pos: Number


class Inspect(InRoom[KernelAnswer], frozen=True, tag="inspect"):
    """Ask the kernel about an object: Jupyter's inspect_request. A `detail_level` of 1 asks for its source, too."""

    code: str
    cursor_pos: Number
    detail_level: Number = 0


class SendComm(InRoom[Done], frozen=True, tag="send_comm"):
    """Send the kernel a message of a comm. It takes it when no cell runs; what it answers comes as `Comm` events.

    Raises NoKernel.
    """

    message: CommBody


class GetVariable(InRoom[GetVariableReply], frozen=True, tag="get_variable"):
    """Pickle a variable of the kernel. Raises VariableNotFound, ValueRefused."""

    name: str


class PutVariable(InRoom[Done], frozen=True, tag="put_variable"):
    """Set a variable of the kernel to a pickled value. Raises ValueRefused."""

    name: str
    pickled: bytes


class GetResultValue(InRoom[GetResultValueReply], frozen=True, tag="get_result_value"):
    """Return the value of an execution's last expression, as long as the kernel's host has it. It is never stored."""

    execution_id: str


# --- document ---------------------------------------------------------------------------------------------------------


class AddCell(Edit[Done], frozen=True, tag="add_cell"):
    """Add a cell under an id that the client made."""

    cell_id: str
    source: str = ""
    cell_type: CellType = "code"
    index: Number | None = None


class SetSource(Edit[Done], frozen=True, tag="set_source"):
    """Give a cell a new source.

    With `base`, the text that the client knew, the difference from it to `source` is applied to the present text. It is
    left out where one of the two is too long to merge.
    """

    cell_id: str
    source: str
    base: str | None = None


class AppendSource(Edit[Done], frozen=True, tag="append_source"):
    """Append text to a cell's source."""

    cell_id: str
    text: str


class DeleteCell(Edit[Done], frozen=True, tag="delete_cell"):
    """Delete a cell."""

    cell_id: str


class MoveCell(Edit[Done], frozen=True, tag="move_cell"):
    """Move a cell behind another one, or to the front."""

    cell_id: str
    after_cell_id: str | None = None


class SetCellMetadata(Edit[Done], frozen=True, tag="set_cell_metadata"):
    """Set one value of a cell's metadata; `value` is a text, typically JSON."""

    cell_id: str
    key: str
    value: str


class SetCellType(Edit[Done], frozen=True, tag="set_cell_type"):
    """Make a cell one of another type."""

    cell_id: str
    cell_type: CellType


class ClearOutputs(Edit[Done], frozen=True, tag="clear_outputs"):
    """Detach a cell from its latest execution, whose events stay readable by id."""

    cell_id: str


class StoredCell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cell, and the beginning of what its latest execution gave.

    Attributes:
        source: None if source and metadata are more than a page, or were not asked for; `GetContent` gives them.
        metadata: Likewise.
        last_edit: Who made it; None where that is not recorded, or was not asked for.
        events: Those of its latest execution, each as its own bytes, up to the daemon's limit.
        more: The seq after which `ReadEvents` continues, or None.
    """

    id: str
    cell_type: CellType
    source: str | None = None
    execution_count: int | None = None
    execution_id: str | None = None
    metadata: dict[str, str] | None = None
    position: str
    last_edit: Attribution | None = None
    events: list[bytes] = msgspec.field(default_factory=list)
    more: int | None = None


class GetCellReply(ReplyBody, frozen=True):
    """None if there is no such cell."""

    cell: StoredCell | None = None


class GetCell(InRoom[GetCellReply], frozen=True, tag="get_cell"):
    """Read a cell, with or without outputs."""

    cell_id: str
    outputs: bool = True


class GetCellsReply(ReplyBody, frozen=True):
    """A page of cells. `next` is the index of the first one behind it, None at the end."""

    cells: list[StoredCell]
    next: int | None = None


class GetCells(InRoom[GetCellsReply], frozen=True, tag="get_cells"):
    """Read cells from index `start`, until a page is full.

    Without `content` no cell has its source, its metadata or its latest edit.
    """

    start: _Index = 0
    outputs: bool = True
    content: bool = True


class GetContentReply(ReplyBody, frozen=True):
    """A piece of a cell's content.

    Attributes:
        piece: At most 1 MiB of the MessagePack of `{source, metadata}`.
        size: Bytes of all of it.
        sha256: That of all of it. Who edits the cell meanwhile changes it.
    """

    piece: bytes
    size: int
    sha256: str


class GetContent(InRoom[GetContentReply], frozen=True, tag="get_content"):
    """Read a piece of a cell's source and metadata, from `offset`. Raises CellNotFound."""

    cell_id: str
    offset: _Index = 0


class SetMetadata(Edit[Done], frozen=True, tag="set_metadata"):
    """Set a value of the document's metadata; `value` is a text, typically JSON."""

    key: str
    value: str


class SetKernelspec(Edit[Done], frozen=True, tag="set_kernelspec"):
    """Say in the notebook's metadata which kernel it is meant for."""

    name: str
    display_name: str
    language: str | None = None


class GetMetadataReply(ReplyBody, frozen=True):
    """None if the value is not set."""

    value: str | None = None


class GetMetadata(InRoom[GetMetadataReply], frozen=True, tag="get_metadata"):
    """Read a value of the document's metadata."""

    key: str


class GetDependenciesReply(ReplyBody, frozen=True):
    """Those that the notebook names in its metadata."""

    dependencies: list[str]


class GetDependencies(InRoom[GetDependenciesReply], frozen=True, tag="get_dependencies"):
    """Read which dependencies the notebook names in its metadata."""

    manager: Literal["uv", "conda"]


class AddDependencies(Edit[Done], frozen=True, tag="add_dependencies"):
    """Write dependencies into the notebook's metadata, in place of those of the same packages."""

    manager: Literal["uv", "conda"]
    packages: Texts


class RemoveDependencyReply(ReplyBody, frozen=True):
    """`removed` is whether it was there."""

    removed: bool


class RemoveDependency(Edit[RemoveDependencyReply], frozen=True, tag="remove_dependency"):
    """Take a package's dependency out of the notebook's metadata."""

    manager: Literal["uv", "conda"]
    package: str


# --- executions -------------------------------------------------------------------------------------------------------


class Program(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a source is run as `python FILE.py ARG…` runs it.

    Attributes:
        argv: What `sys.argv` is.
        cwd: The folder in which it works.
        path: The absolute path of its file; None for standard input.
    """

    argv: Texts
    cwd: str
    path: str | None = None


class EnqueueReply(ReplyBody, frozen=True):
    """What became of the request.

    Attributes:
        ended: How the execution has ended, with `watch`.
        queued: With `unless_queued`, the execution in whose favour nothing was queued.
        explained: Which environment the kernel has and why, for people; None unless this request has started it.
    """

    ended: WatchReply | None = None
    queued: str | None = None
    explained: str | None = None


class Enqueue(Streamed[EnqueueReply], frozen=True, tag="enqueue"):
    """Queue the execution of a cell under an execution id that the client made.

    Without a kernel, the one of `kernel` is started first, and its `EnvProgress` events come. Who gives the request up
    before that has started has queued nothing. If `kernel` is None, NoKernel is raised instead.

    With `source`, the cell is added first (`run`), or gets this source. With `watch`, the answer is that of `Watch`,
    which says what `whole` means; else the reply comes at once. An id that is known already is not queued again.
    With `program`, a Python kernel runs the source as a program; the document holds the source alone.
    With `user_expressions`, the kernel evaluates these behind the code, each by a name; `Finished` has their values.
    With `unless_queued`, nothing is queued while the latest execution of the cell is one of exactly this code and has
    not ended: the reply says so at once.
    """

    needs_process = True

    execution_id: str
    cell_id: str
    source: str | None = None
    kernel: KernelChoice | None = None
    watch: bool = True
    after: Number = 0
    whole: bool = False
    stdin: bool = False
    program: Program | None = None
    user_expressions: Expressions = msgspec.field(default_factory=dict)
    unless_queued: bool = False


class WatchReply(ReplyBody, frozen=True):
    """How an execution has ended."""

    status: str
    cell_id: str


class Watch(Streamed[WatchReply], frozen=True, tag="watch"):
    """Stream the events of an execution with seq above `after`; the reply comes when it has ended.

    Where its outputs are larger than the daemon's limit comes an `Omitted`, and they are left out from there on until
    they are cleared; with `whole`, for who keeps none, they come all the same.
    """

    execution_id: str
    after: Number = 0
    whole: bool = False


class GetQueueReply(ReplyBody, frozen=True):
    """What runs, and behind it what waits, the first MAX_QUEUE in their order."""

    executions: list[QueuedExecution] = msgspec.field(default_factory=list)


class GetQueue(OnSession[GetQueueReply], frozen=True, tag="queue"):
    """Read what runs and what waits behind it. No use of the session."""


class ReadEvents(InRoom[EventPage], frozen=True, tag="read_events"):
    """Read stored events of an execution, the same that a `Watch` would stream, a page at a time."""

    execution_id: str
    after: Number = 0
    whole: bool = False


class Subscribe(Streamed[Done], frozen=True, tag="subscribe"):
    """Stream the events of the session with seq above `after` (None: from now on), until cancelled.

    With `comms`, the kernel's `Comm` events come, too, as long as the client keeps up; their seq is that of an event
    before them.
    """

    cell_ids: Texts | None = None
    after: Number | None = None
    comms: bool = False


class CancelExecution(InRoom[Done], frozen=True, tag="cancel_execution"):
    """Take an execution from the queue, or interrupt it if it runs; one that ended stays as it is."""

    execution_id: str


class Input(InRoom[Done], frozen=True, tag="input"):
    """Answer an `InputRequested`."""

    execution_id: str
    text: str


class GetBlob(InRoom[GetBlobReply], frozen=True, tag="get_blob"):
    """Read part of a blob, from `offset`."""

    kind = None

    sha256: str
    offset: Number = 0


# --- all of them ------------------------------------------------------------------------------------------------------


DaemonOperation = (
    ListSessions
    | FindSessions
    | GetStatus
    | ShutdownDaemon
    | FlushPool
    | DescribeProcess
    | GetSession
    | GetLog
    | FindCells
    | FindExecutions
    | StopSession
    | DeleteSession
    | GetQueue
    | ListProfiles
    | DeleteProfile
)
"""What the daemon does itself: no room is opened for it."""

RoomOperation = (
    Join
    | RestoreNotebook
    | StartKernel
    | TrustEnvironment
    | RestartKernel
    | SyncEnvironment
    | ShutdownKernel
    | Interrupt
    | Complete
    | Inspect
    | SendComm
    | GetVariable
    | PutVariable
    | GetResultValue
    | GetCell
    | GetCells
    | GetContent
    | GetMetadata
    | GetDependencies
    | Enqueue
    | Watch
    | ReadEvents
    | Subscribe
    | CancelExecution
    | Input
    | GetBlob
    | StartBrowser
    | ReadActions
    | BrowserOperation
)
"""What is done in a session's room, other than edits."""

EditOperation = (
    AddCell
    | SetSource
    | AppendSource
    | DeleteCell
    | MoveCell
    | SetCellMetadata
    | SetCellType
    | ClearOutputs
    | SetMetadata
    | SetKernelspec
    | AddDependencies
    | RemoveDependency
)
"""Edits of the document."""

ClientOperation = DaemonOperation | RoomOperation | EditOperation
"""What a client can ask of the daemon."""

prepare(*map(reply_type, get_args(ClientOperation)))
