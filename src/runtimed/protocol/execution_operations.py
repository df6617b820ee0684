"""Operations on executions and their events, each with its reply."""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from runtimed.models import ExecutionSummary, QueuedExecution
from runtimed.protocol.bounds import Expressions, Number, Texts
from runtimed.protocol.kernel_operations import KernelChoice
from runtimed.protocol.operation import InRoom, OnSession, ReplyBody, Streamed
from runtimed.protocol.replies import Done, EventPage, GetBlobReply

__all__ = [
    "MAX_QUEUE",
    "CancelExecution",
    "Enqueue",
    "EnqueueReply",
    "ExecutionDaemonOperation",
    "ExecutionRoomOperation",
    "FindExecutions",
    "FindExecutionsReply",
    "GetBlob",
    "GetQueue",
    "GetQueueReply",
    "Input",
    "Program",
    "ReadEvents",
    "Subscribe",
    "Watch",
    "WatchReply",
]

MAX_QUEUE: Final = 1000
"""Most executions of a queue in one reply."""


class FindExecutionsReply(ReplyBody, frozen=True):
    """Executions: without a prefix in the order of the queue, with one the newest first."""

    executions: list[ExecutionSummary]


class FindExecutions(OnSession[FindExecutionsReply], frozen=True, tag="find_executions"):
    """Find executions of a session. Does not count as use. Raises SessionNotFound.

    Without a prefix, finds the running and queued ones; with one, at most 100 of the latest whose ids begin with it.
    """

    prefix: str | None = None


class Program(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The call of a source that runs as a program, as `python FILE.py ARG…` runs it.

    Attributes:
        argv: Its `sys.argv`.
        cwd: Its working directory.
        path: Absolute path of its file; None for standard input.
    """

    raw_texts: ClassVar[frozenset[str]] = frozenset({"argv", "cwd", "path"})

    argv: Texts
    cwd: str
    path: str | None = None


class EnqueueReply(ReplyBody, frozen=True):
    """The result of `Enqueue`.

    Attributes:
        ended: With `watch`, how the execution ended.
        queued: With `unless_queued`, the execution that is in the queue already; None if the new one was queued.
        explained: The kernel's environment and why it was chosen, for people; None unless this request started it.
    """

    ended: WatchReply | None = None
    queued: str | None = None
    explained: str | None = None


class Enqueue(Streamed[EnqueueReply], frozen=True, tag="enqueue"):
    """Queue an execution of a cell, with an execution id that the client made.

    A known id is not queued again; it is refused for another cell, or other code.

    Attributes:
        source: If given, the cell is added first, or gets this source.
        kernel: If no kernel runs, this one is started first, with `EnvProgress` events; a request that is cancelled
            before it has started queues nothing, one whose connection ends is queued. None raises NoKernel instead.
        watch: Whether to answer as `Watch` does; otherwise the reply comes at once.
        after: See `Watch`.
        whole: See `Watch`.
        stdin: Whether the client answers requests for input.
        program: If given, a Python kernel runs the source as a program; the notebook contains the source alone.
        user_expressions: Expressions by name that the kernel evaluates after the code; `Finished` has their values.
        silent: Whether the kernel neither counts it nor shows its result.
        store_history: Whether the kernel counts it. An execution that is silent or not counted is none of the document:
            no cell is added, or gets its source.
        stop_on_error: Whether its failure cancels what the same client has queued behind it.
        unless_failed: An execution; if it has ended, neither well nor without `stop_on_error`, this one is cancelled at
            once, as it would have been if it had waited behind it.
        unless_queued: Queue nothing, and reply at once, if the cell's latest execution has the same code and has not
            ended.
    """

    outlives_client = True
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
    silent: bool = False
    store_history: bool = True
    stop_on_error: bool = True
    unless_failed: str | None = None
    unless_queued: bool = False


class WatchReply(ReplyBody, frozen=True):
    """How an execution ended."""

    status: str
    cell_id: str


class Watch(Streamed[WatchReply], frozen=True, tag="watch"):
    """Stream the events of an execution with numbers above `after`; the reply comes when it has ended.

    Where the outputs exceed the daemon's limit, an `Omitted` is sent, and further outputs are left out until they are
    cleared. With `whole`, for a client that keeps none, all outputs are sent.
    """

    execution_id: str
    after: Number = 0
    whole: bool = False


class GetQueueReply(ReplyBody, frozen=True):
    """The running execution, then the queued ones in order; at most MAX_QUEUE."""

    executions: list[QueuedExecution] = msgspec.field(default_factory=list)


class GetQueue(OnSession[GetQueueReply], frozen=True, tag="queue"):
    """Read the running and the queued executions. Does not count as use."""


class ReadEvents(InRoom[EventPage], frozen=True, tag="read_events"):
    """Read a page of an execution's stored events, the same that `Watch` streams."""

    execution_id: str
    after: Number = 0
    whole: bool = False


class Subscribe(Streamed[Done], frozen=True, tag="subscribe"):
    """Stream the events of a session with numbers above `after`, until cancelled.

    Attributes:
        cell_ids: Only events of these cells; None for all.
        after: None for events from now on.
        comms: Whether to send the kernel's `Comm` events, too, as long as the client keeps up, and a `CommsMissed`
            where some are missing. Their number is that of an earlier event.
        resumed: Whether the client followed before and its connection broke: it may have missed some since.
    """

    cell_ids: Texts | None = None
    after: Number | None = None
    comms: bool = False
    resumed: bool = False


class CancelExecution(InRoom[Done], frozen=True, tag="cancel_execution"):
    """Remove an execution from the queue, or from those held for a kernel that starts, or interrupt it if it runs.

    Does nothing if it has ended.
    """

    execution_id: str


class Input(InRoom[Done], frozen=True, tag="input"):
    """Answer an `InputRequested`."""

    execution_id: str
    text: str


class GetBlob(InRoom[GetBlobReply], frozen=True, tag="get_blob"):
    """Read a piece of a blob from `offset`."""

    kind = None

    sha256: str
    offset: Number = 0


ExecutionDaemonOperation = FindExecutions | GetQueue
"""Operations that the daemon performs itself, without opening a room."""

ExecutionRoomOperation = Enqueue | Watch | ReadEvents | Subscribe | CancelExecution | Input | GetBlob
"""Operations that are performed in a session's room."""
