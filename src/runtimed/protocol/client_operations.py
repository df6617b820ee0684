"""What clients ask of the daemon. What concerns browsers is in `browser_operations`.

Each operation's docstring gives its reply.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from runtimed.models import CellType
from runtimed.protocol.bounds import MAX_NUMBER, Environment, Minutes, Number, Seconds, Texts
from runtimed.protocol.browser_operations import (
    BrowserOperation,
    DeleteProfile,
    ListProfiles,
    ReadActions,
    StartBrowser,
)
from runtimed.protocol.inherited import Inherited
from runtimed.protocol.operation import Edit, InRoom, OnSession, Operation

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
    "EditOperation",
    "Enqueue",
    "FindCells",
    "FindExecutions",
    "FindSessions",
    "FlushPool",
    "GetBlob",
    "GetCell",
    "GetCells",
    "GetContent",
    "GetDependencies",
    "GetLog",
    "GetMetadata",
    "GetQueue",
    "GetResultValue",
    "GetSession",
    "GetStatus",
    "GetVariable",
    "Input",
    "Inspect",
    "Interrupt",
    "Join",
    "ListSessions",
    "MoveCell",
    "Program",
    "PutVariable",
    "ReadEvents",
    "RemoveDependency",
    "RestartKernel",
    "RestoreNotebook",
    "RoomOperation",
    "SetCellMetadata",
    "SetCellType",
    "SetKernelspec",
    "SetMetadata",
    "SetSource",
    "ShutdownDaemon",
    "ShutdownKernel",
    "StartKernel",
    "StopSession",
    "Subscribe",
    "SyncEnvironment",
    "TrustEnvironment",
    "Watch",
]

MAX_LOG_PAGE: Final = 1000
"""Most entries of a session's log in one reply."""

_Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
_Page = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


MAX_QUEUE: Final = 1000
"""Most executions of a queue in one reply."""


class Join(InRoom, frozen=True, tag="join"):
    """Join a session, as long as this connection lasts. Changes nothing for a session that never started.

    Reply: `{last: int}`, the number of the latest event in the session's log.
    """

    kind = None
    is_use = False

    ephemeral: bool = False
    keep_alive: Seconds = 30.0
    timeout_minutes: Minutes | None = None
    max_duration_minutes: Minutes | None = None


class GetSession(OnSession, frozen=True, tag="session"):
    """Read a session's status. Reply: the fields of `SessionStatus`, times as Unix seconds. Raises SessionNotFound."""


class GetLog(OnSession, frozen=True, tag="log"):
    """Read who did what in a session, whatever its state. No use of the session. Raises SessionNotFound.

    Reply: `{entries: [...]}`, the newest first: the fields of `AuditEntry`, times as Unix seconds.
    """

    page: _Page = 1
    page_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_LOG_PAGE)] = 100


class ListSessions(Operation, frozen=True, tag="sessions"):
    """Reply: `{sessions: [...], next: int | None}`: from index `start`, newest access first, until a page is full.

    `next` is where the list goes on; None after `count` sessions, or at the end.
    """

    status: Literal["active", "closed", "error", "timed_out"] | None = None
    kind: Literal["kernel", "browser"] | None = None
    start: _Index = 0
    count: _Index = 100


class FindSessions(Operation, frozen=True, tag="find_sessions"):
    """Find the ids of sessions that begin with a text, for somebody who types one. No use of any session.

    Reply: `{ids: [str, ...]}`, newest access first, as many as one reply takes.
    """

    prefix: str = ""
    status: Literal["active", "closed", "error", "timed_out"] | None = None
    kind: Literal["kernel", "browser"] | None = None


class FindCells(OnSession, frozen=True, tag="find_cells"):
    """Find the ids of cells that begin with a text, for somebody who types one. No use of the session.

    Reply: `{ids: [str, ...]}` in the order of the cells, as many as one reply takes; none of a session that never
    started.
    """

    prefix: str = ""


class FindExecutions(OnSession, frozen=True, tag="find_executions"):
    """Find what a session runs, or ran. No use of the session. Raises SessionNotFound.

    Reply: `{executions: [...]}`, maps of execution_id, cell_id, status, `program: bool`, queued_at, started_at and
    ended_at (Unix seconds or None), and client_id, label, uid and pid of who asked for it. Without a prefix those that
    run or wait, in the order of the queue; with one the latest whose ids begin so, at most 100, the newest first.
    """

    prefix: str | None = None


class StopSession(OnSession, frozen=True, tag="stop"):
    """End a session for everybody; one that ended already stays as it is.

    Reply: `{started_here: bool, waits: str | None}`: `waits` says what a dead host has left that cannot be read now,
    and is taken when it can be. With `only_if_started_by_me`, a session that another client started is only left.
    """

    reason: Literal["stopped", "error"] = "stopped"
    only_if_started_by_me: bool = False


class DeleteSession(OnSession, frozen=True, tag="delete_session"):
    """Delete an ended session with its data; raises SessionError if it is active. Its clients are disconnected.

    Reply: `{deleted: bool}`; where there is no such session nothing happens, so that sending again is harmless.
    """


class RestoreNotebook(InRoom, frozen=True, tag="restore"):
    """Bring back what of the notebook was found damaged and set aside, if it is whole after all.

    Reply: `{cells: int}`, how many cells that gave. Raises SessionNotFound, SessionError, StorageError.
    """


class GetStatus(Operation, frozen=True, tag="status"):
    """Reply: the fields of `DaemonStatus`, times as Unix seconds, `rooms: [...]` and `next_room`. A ping, too.

    The rooms are those from index `first_room` until a page is full; `next_room` is where they go on, None at the end.
    """

    first_room: _Index = 0


class ShutdownDaemon(Operation, frozen=True, tag="shutdown_daemon"):
    """End the daemon, and every session with it unless `keep_kernels`. Reply: `{}`, then the connection ends."""

    keep_kernels: bool = False


class FlushPool(Operation, frozen=True, tag="flush_pool"):
    """End the spares; more are made after the next start of a kernel or browser. Reply: `{}` when they have ended."""


# --- kernel -----------------------------------------------------------------------------------------------------------


class StartKernel(InRoom, frozen=True, tag="start_kernel"):
    """Start a kernel unless one runs. Its reply comes after `EnvProgress` events.

    Reply: `{kernel_type, env_source, started: bool, explained: str | None}`. `started` is whether this request did it,
    `explained` which environment it is and why, for people; None where an earlier daemon has started the kernel.

    Attributes:
        environment: The environment variables of the client.
        cwd: The folder in which the kernel works, and where the search for project files begins.
        interpreter: The client's Python, for `env_source="current"`.
        uv: The uv that this client has found; None if it has none.
        inherited: What the kernel has as if this client had started it itself; None leaves it to the daemon.
        source: The code for which the kernel is needed, which may say what it needs; None if the document has it.
        after: Only events with a seq above this one; None for those from now on.
    """

    kernel_type: str = "python"
    env_source: str = "auto"
    notebook_path: str | None = None
    environment: Environment = msgspec.field(default_factory=dict)
    cwd: str = ""
    interpreter: str = ""
    uv: str | None = None
    inherited: Inherited | None = None
    source: str | None = None
    after: Number | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<StartKernel notebook_id={self.notebook_id!r} env_source={self.env_source!r} cwd={self.cwd!r}>"


class TrustEnvironment(InRoom, frozen=True, tag="trust_environment"):
    """Consent to installing what `start` would need. Reply: `{env_source: str, explained: str}`; nothing is started."""

    start: StartKernel


class RestartKernel(InRoom, frozen=True, tag="restart_kernel"):
    """Replace the kernel's process; the session stays active. Reply when the new one is ready: `{explained}`.

    The environment is chosen anew, by what was asked for when the kernel was started; if it cannot be had, the kernel
    runs on.
    """


class SyncEnvironment(InRoom, frozen=True, tag="sync_environment"):
    """Add to the running environment what the notebook names by now. Reply: the fields of `SyncEnvironmentResult`."""


class ShutdownKernel(InRoom, frozen=True, tag="shutdown_kernel"):
    """End the kernel and leave the session active, without one. Reply: `{}`."""


class Interrupt(InRoom, frozen=True, tag="interrupt"):
    """Interrupt what runs. Reply: `{}`. Raises NoKernel."""


class Complete(InRoom, frozen=True, tag="complete"):
    """Reply: the content of Jupyter's complete_reply."""

    code: str
    cursor_pos: Number


class Inspect(InRoom, frozen=True, tag="inspect"):
    """Reply: the content of Jupyter's inspect_reply. A `detail_level` of 1 asks for the source code, too."""

    code: str
    cursor_pos: Number
    detail_level: Number = 0


class GetVariable(InRoom, frozen=True, tag="get_variable"):
    """Pickle a variable of the kernel. Reply: `{value: bytes}`. Raises VariableNotFound, ValueRefused."""

    name: str


class PutVariable(InRoom, frozen=True, tag="put_variable"):
    """Set a variable of the kernel to a pickled value. Reply: `{}`. Raises ValueRefused."""

    name: str
    pickled: bytes


class GetResultValue(InRoom, frozen=True, tag="get_result_value"):
    """Return the pickled value of an execution's last expression, as long as the kernel's host has it.

    Reply: `{value: bytes | None}`, of plain data. It is never stored.
    """

    execution_id: str


# --- document ---------------------------------------------------------------------------------------------------------


class AddCell(Edit, frozen=True, tag="add_cell"):
    """Add a cell under an id that the client made. Reply: `{}`."""

    cell_id: str
    source: str = ""
    cell_type: CellType = "code"
    index: Number | None = None


class SetSource(Edit, frozen=True, tag="set_source"):
    """Give a cell a new source. Reply: `{}`.

    With `base`, the text that the client knew, the difference from it to `source` is applied to the present text. It is
    left out where one of the two is too long to merge.
    """

    cell_id: str
    source: str
    base: str | None = None


class AppendSource(Edit, frozen=True, tag="append_source"):
    """Append text to a cell's source. Reply: `{}`."""

    cell_id: str
    text: str


class DeleteCell(Edit, frozen=True, tag="delete_cell"):
    """Reply: `{}`."""

    cell_id: str


class MoveCell(Edit, frozen=True, tag="move_cell"):
    """Move a cell behind another one, or to the front. Reply: `{}`."""

    cell_id: str
    after_cell_id: str | None = None


class SetCellMetadata(Edit, frozen=True, tag="set_cell_metadata"):
    """Set one value of a cell's metadata; `value` is a text, typically JSON. Reply: `{}`."""

    cell_id: str
    key: str
    value: str


class SetCellType(Edit, frozen=True, tag="set_cell_type"):
    """Reply: `{}`."""

    cell_id: str
    cell_type: CellType


class ClearOutputs(Edit, frozen=True, tag="clear_outputs"):
    """Detach a cell from its latest execution, whose events stay readable by id. Reply: `{}`."""

    cell_id: str


class GetCell(InRoom, frozen=True, tag="get_cell"):
    """Reply: `{cell: {...} | None}`.

    A cell is a map of id, cell_type, source, execution_count, execution_id, metadata, position, `last_edit`
    (client_id, label, uid and pid of who made it, and when; or None), `events` (those of its latest execution, each as
    its own bytes, up to the daemon's limit) and `more`: the seq after which `ReadEvents` continues, or None.
    Source and metadata of more than a page are None: `GetContent` gives them.
    """

    cell_id: str
    outputs: bool = True


class GetCells(InRoom, frozen=True, tag="get_cells"):
    """Reply: `{cells: [...], next: int | None}`: cells from index `start`, until a page is full.

    Without `content` no cell has its source, its metadata or its latest edit.
    """

    start: _Index = 0
    outputs: bool = True
    content: bool = True


class GetContent(InRoom, frozen=True, tag="get_content"):
    """Read a cell's source and metadata. Raises CellNotFound.

    Reply: `{piece: bytes, size: int, sha256: str}`: at most 1 MiB from `offset` of the MessagePack of
    `{source, metadata}`, and what is true of all of it. Who edits the cell meanwhile changes the SHA-256.
    """

    cell_id: str
    offset: _Index = 0


class SetMetadata(Edit, frozen=True, tag="set_metadata"):
    """Reply: `{}`."""

    key: str
    value: str


class SetKernelspec(Edit, frozen=True, tag="set_kernelspec"):
    """Say in the notebook's metadata which kernel it is meant for. Reply: `{}`."""

    name: str
    display_name: str
    language: str | None = None


class GetMetadata(InRoom, frozen=True, tag="get_metadata"):
    """Reply: `{value: str | None}`."""

    key: str


class GetDependencies(InRoom, frozen=True, tag="get_dependencies"):
    """Reply: `{dependencies: [...]}`, those that the notebook names in its metadata."""

    manager: Literal["uv", "conda"]


class AddDependencies(Edit, frozen=True, tag="add_dependencies"):
    """Write dependencies into the notebook's metadata, in place of those of the same packages. Reply: `{}`."""

    manager: Literal["uv", "conda"]
    packages: Texts


class RemoveDependency(Edit, frozen=True, tag="remove_dependency"):
    """Take a package's dependency out of the notebook's metadata. Reply: `{removed: bool}`."""

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


class Enqueue(InRoom, frozen=True, tag="enqueue"):
    """Queue the execution of a cell under an execution id that the client made. Raises NoKernel if none runs.

    With `source`, the cell is added first (`run`), or gets this source. With `watch`, the answer is that of `Watch`,
    which says what `whole` means; else the reply is `{}` at once. An id that is known already is not queued again.
    With `program`, a Python kernel runs the source as a program; the document holds the source alone.
    With `unless_queued`, nothing is queued while the latest execution of the cell is one of exactly this code and has
    not ended: the reply is `{queued: its id}` at once.
    """

    execution_id: str
    cell_id: str
    source: str | None = None
    watch: bool = True
    after: Number = 0
    whole: bool = False
    stdin: bool = False
    program: Program | None = None
    unless_queued: bool = False


class Watch(InRoom, frozen=True, tag="watch"):
    """Stream the events of an execution with seq above `after`; reply `{status, cell_id}` when it has ended.

    Where its outputs are larger than the daemon's limit comes an `Omitted`, and they are left out from there on until
    they are cleared; with `whole`, for who keeps none, they come all the same.
    """

    execution_id: str
    after: Number = 0
    whole: bool = False


class GetQueue(OnSession, frozen=True, tag="queue"):
    """Read what runs and what waits behind it. No use of the session.

    Reply: `{executions: [...]}`: the first MAX_QUEUE in their order, each with the fields of `QueuedExecution`, times
    as Unix seconds.
    """


class ReadEvents(InRoom, frozen=True, tag="read_events"):
    """Read stored events of an execution, the same that a `Watch` would stream, a page at a time.

    Reply: `{events: [[seq, bytes], ...], last: int, more: bool}`; with `more`, reading goes on after `last`.
    """

    execution_id: str
    after: Number = 0
    whole: bool = False


class Subscribe(InRoom, frozen=True, tag="subscribe"):
    """Stream the events of the session with seq above `after` (None: from now on), until cancelled."""

    cell_ids: Texts | None = None
    after: Number | None = None


class CancelExecution(InRoom, frozen=True, tag="cancel_execution"):
    """Take an execution from the queue, or interrupt it if it runs; one that ended stays as it is. Reply: `{}`."""

    execution_id: str


class Input(InRoom, frozen=True, tag="input"):
    """Answer an `InputRequested`. Reply: `{}`."""

    execution_id: str
    text: str


class GetBlob(InRoom, frozen=True, tag="get_blob"):
    """Read part of a blob. Reply: `{data: bytes}`, at most 1 MiB from `offset`."""

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
