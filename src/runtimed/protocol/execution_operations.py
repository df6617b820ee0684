"""What clients ask of the daemon about executions and their events, each with its reply."""

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
    """Without a prefix in the order of the queue, else the newest first."""

    executions: list[ExecutionSummary]


class FindExecutions(OnSession[FindExecutionsReply], frozen=True, tag="find_executions"):
    """Find what a session runs, or ran. No use of the session. Raises SessionNotFound.

    Without a prefix those that run or wait; with one the latest whose ids begin so, at most 100.
    """

    prefix: str | None = None


class Program(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a source is run as `python FILE.py ARG…` runs it.

    Attributes:
        argv: What `sys.argv` is.
        cwd: The folder in which it works.
        path: The absolute path of its file; None for standard input.
    """

    raw_texts: ClassVar[frozenset[str]] = frozenset({"argv", "cwd", "path"})

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
    which says what `whole` means; else the reply comes at once. An id that is known already is not queued again; it is
    refused for another cell, or other code.
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


ExecutionDaemonOperation = FindExecutions | GetQueue
"""Those which the daemon performs itself: no room is opened for them."""

ExecutionRoomOperation = Enqueue | Watch | ReadEvents | Subscribe | CancelExecution | Input | GetBlob
"""Those which are performed in a session's room."""
