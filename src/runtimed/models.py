"""The public values of runtimed, all frozen. Nothing here does I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

from runtimed import display
from runtimed.errors import ExecutionFailed, KernelDied
from runtimed.ids import CellId, ExecutionId
from runtimed.kernel_launcher.values import load_plain
from runtimed.texts import printable, without_colours

__all__ = [
    "Attribution",
    "AuditAction",
    "AuditEntry",
    "Cell",
    "CellType",
    "CommMessage",
    "CommType",
    "DaemonStatus",
    "EventType",
    "ExecutionEvent",
    "ExecutionResult",
    "ExecutionSummary",
    "Image",
    "KernelStatus",
    "Output",
    "OutputPage",
    "OutputType",
    "QueuedExecution",
    "SessionStatus",
    "SyncEnvironmentResult",
]

CellType = Literal["code", "markdown", "raw"]
OutputType = Literal["stream", "display_data", "execute_result", "error"]
KernelStatus = Literal["not_started", "starting", "idle", "busy", "restarting", "dead"]
CommType = Literal["comm_open", "comm_msg", "comm_close"]
EventType = Literal[
    "execution_started",
    "output",
    "input_requested",
    "done",
    "error",
    "kernel_status",
    "cell_changed",
    "env_progress",
    "comm",
]
AuditAction = Literal[
    "session_started",
    "session_closed",
    "session_timed_out",
    "session_error",
    "session_deleted",
    "kernel_start",
    "kernel_restart",
    "kernel_shutdown",
    "kernel_interrupt",
    "kernel_input",
    "environment_sync",
    "cell_added",
    "cell_edited",
    "cell_moved",
    "cell_deleted",
    "cell_metadata_set",
    "cell_type_set",
    "outputs_cleared",
    "metadata_set",
    "notebook_restored",
    "execution_queued",
    "execution_cancelled",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of an execution, as nbformat 4 defines it, with values as Python has them.

    Attributes:
        output_type: Decides which of the other fields are set.
        name: `stdout` or `stderr`, for a stream.
        text: The text of a stream; `\\r`, backspace applied as on a terminal line, colours kept.
        data: By MIME type: text as str, binary types as bytes, JSON types parsed.
        metadata: By MIME type or key, as the kernel sent it.
        ename: Name of the exception, for an error.
        evalue: Its text.
        traceback: Its lines as the kernel rendered them, with ANSI colours.
        execution_count: The `Out[n]` of an execute_result.
        display_id: The id under which the kernel may update this output later.
    """

    output_type: OutputType
    name: str | None = None
    text: str | None = None
    data: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ename: str | None = None
    evalue: str | None = None
    traceback: tuple[str, ...] = ()
    execution_count: int | None = None
    display_id: str | None = None

    def __str__(self) -> str:
        match self.output_type:
            case "stream":
                return self.text or ""
            case "error":
                lines = "\n".join(self.traceback) or f"{self.ename}: {self.evalue}"
                return without_colours(lines)
            case _:
                data = self.data or {}
                return str(data.get("text/plain", f"<{', '.join(data)}>"))

    def _ipython_display_(self) -> None:
        display.show_output(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Who made the last edit of a cell, and when. Running a cell is no edit of it.

    Attributes:
        at: When, by the daemon's clock, in UTC.
        client_id: The client, as `Session.client_id` names it.
        label: What the client calls itself; None if nobody named it.
        uid: The user that the operating system says it belongs to.
        pid: The process that the operating system says it is; None if that is out of sight, in another container.
    """

    at: datetime
    client_id: str
    label: str | None
    uid: int
    pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a notebook with the outputs of its latest execution.

    Attributes:
        position: Its place among the cells: compare as text, ties by id.
        execution_id: Its latest execution; None if it never ran, or its outputs were cleared.
        omitted_bytes: As those of an `ExecutionResult`.
        omitted_after: As those of an `ExecutionResult`.
        last_edit: Who added, edited, moved or cleared it last; None where that is not recorded.
    """

    id: CellId
    cell_type: CellType
    source: str
    execution_count: int | None = None
    outputs: tuple[Output, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    position: str = ""
    execution_id: ExecutionId | None = None
    omitted_bytes: int = 0
    omitted_after: int | None = None
    last_edit: Attribution | None = None

    @property
    def truncated(self) -> bool:
        """Whether there are more outputs than these; see `Session.read_outputs`."""
        return self.omitted_after is not None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ExecutionResult:
    """The result of one run of one cell.

    As the last expression of a notebook cell it displays its outputs.

    Attributes:
        success: True if the code ended without an error and was not cancelled.
        payload: The payload of Jupyter's execute_reply, requests to a frontend: `set_next_input` (`%load`, `%recall`),
            `ask_exit`, `edit_magic`, each a dict with its `source`. Pages are among the outputs.
        started_at: When the kernel started it, in UTC; None if it never did.
        ended_at: When it ended, in UTC.
        omitted_bytes: Bytes of outputs that are left out, because the execution gave more than the daemon's limit
            `max_output_bytes`: about what they take on its disk.
        omitted_after: The `after` with which `Session.read_outputs` reads the rest; None if nothing is left out.
        pickled: The pickle behind `value`; None where that is a text.
    """

    cell_id: CellId
    execution_id: ExecutionId
    success: bool
    execution_count: int | None = None
    outputs: tuple[Output, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    omitted_bytes: int = 0
    omitted_after: int | None = None
    payload: tuple[Mapping[str, Any], ...] = ()
    pickled: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def value(self) -> Any:
        """The value of the last expression as a fresh copy; None if there is none.

        Plain data come as they are: built-in types, dates, decimals, paths, numpy's and pandas' types, up to 256 KiB,
        if the result is one of the kernel's last 32. Of everything else, and where the package is missing here, this is
        the text that a notebook shows. Nothing of the user's own code is called for it, in neither process; `get` of
        the session gives any variable.
        """
        shown = [output for output in self.outputs if output.output_type == "execute_result"]
        if not shown:
            return None
        if self.pickled is not None:
            with contextlib.suppress(Exception):  # whatever is missing here, the value has its text
                return load_plain(self.pickled)
        return (shown[-1].data or {}).get("text/plain")

    @property
    def truncated(self) -> bool:
        """Whether the execution gave more outputs than these; see `Session.read_outputs`."""
        return self.omitted_after is not None

    @property
    def stdout(self) -> str:
        """Everything written to standard output."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        """Everything written to standard error."""
        return self._stream("stderr")

    @property
    def display_data(self) -> tuple[Output, ...]:
        """The display_data and execute_result outputs, in order."""
        return tuple(o for o in self.outputs if o.output_type in ("display_data", "execute_result"))

    @property
    def error(self) -> Output | None:
        """The first error output, or None."""
        return next((o for o in self.outputs if o.output_type == "error"), None)

    def raise_for_error(self) -> Self:
        """Raise the code's error as an exception of this process; return this result if it succeeded.

        Raises:
            KernelDied: If the kernel died.
            ExecutionFailed: If the code raised; `ename`, `evalue` and `traceback` are those of the error output.
        """
        if self.success:
            return self
        error = self.error
        if error is None:
            raise ExecutionFailed(
                f"The execution {self.execution_id} failed, and its error is not among its outputs",
                execution_id=self.execution_id,
                ename=None,
                evalue=None,
                traceback=(),
            )
        kind = KernelDied if error.ename == KernelDied.__name__ else ExecutionFailed
        raised = kind(
            f"{error.ename}: {error.evalue}"
            if kind is ExecutionFailed and error.evalue
            else str(error.evalue or error.ename),
            execution_id=self.execution_id,
            ename=error.ename,
            evalue=error.evalue,
            traceback=error.traceback,
        )
        raised.add_note(str(error))
        raise raised

    def _stream(self, name: str) -> str:
        return "".join(o.text or "" for o in self.outputs if o.output_type == "stream" and o.name == name)

    def __repr__(self) -> str:
        status = "ok" if self.success else "error"
        omitted = f", omitted={display.readable_size(self.omitted_bytes)}" if self.truncated else ""
        cell = printable(self.cell_id)
        return f"ExecutionResult(cell={cell}, status={status}, outputs={len(self.outputs)}{omitted})"

    def _ipython_display_(self) -> None:
        for output in self.outputs:
            display.show_output(output)
        if self.truncated:
            display.show_note(
                f"[{display.readable_size(self.omitted_bytes)} of output are left out here; "
                f"session.read_outputs({self.execution_id!r}, after={self.omitted_after}) reads them]"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedExecution:
    """An execution that runs or waits.

    Attributes:
        source: The first line of its code that is not blank, cut at 100 characters; ` …` follows where there is more.
        sha256: The SHA-256 of the code in UTF-8, in hexadecimal.
        status: Whether it runs or waits for its turn.
        is_asking: Whether its code waits for a line of input.
        queued_at: When it was queued, in UTC.
        started_at: When the kernel started it, in UTC; None if it waits.
        client_id: Who asked for it, as `Session.client_id` names them.
        label: What that client calls itself; None if nobody named it.
    """

    execution_id: ExecutionId
    cell_id: CellId
    source: str
    sha256: str
    status: Literal["running", "queued"]
    is_asking: bool
    queued_at: datetime
    started_at: datetime | None
    client_id: str
    label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPage:
    """A part of the outputs of one execution, as the kernel sent them.

    Attributes:
        outputs: In their order. Texts of one stream that follow one another are one output; `\\r`, backspace,
            `clear_output` and updates of displays are not applied: an update is one more display_data output with the
            display's id.
        next: The value of `after` for the next page; None if this is the last.
    """

    outputs: tuple[Output, ...]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommMessage:
    """A message between the two ends of a comm, one in the kernel and one in a frontend. Widgets speak like this.

    Attributes:
        msg_type: `comm_open`, `comm_msg` or `comm_close`.
        content: The content of the message: `comm_id`, `data`, and for `comm_open` the `target_name`.
        metadata: The metadata of the message.
        buffers: Its binary buffers.

    Source: Jupyter messaging 5.4, "Custom Messages".
    """

    msg_type: CommType
    content: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    buffers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEvent:
    """Something that happened in a session, as `Execution.events`, `stream_execute` and `subscribe` give it.

    Attributes:
        output: The output, when event_type is `output`. A stream's text is the piece that just arrived;
            an update of an earlier display is a display_data output with that display_id.
        error_message: What went wrong, when event_type is `error`.
        status: The kernel's status, the step of an environment (`resolve`, `download`, `install`, `start`), or what was
            changed in a cell, for those events.
        author: For `cell_changed`, the client that did it, as `Session.client_id` names it.
        message: The step of an environment in words, or the question of an `input_requested`.
        password: Whether the answer to an `input_requested` is one that nobody should see (`getpass`).
        bytes_done: Bytes of its downloads so far, where that is known.
        bytes_total: Bytes of its downloads that have begun, where that is known.
        comm: What the kernel sent, when event_type is `comm`.
    """

    event_type: EventType
    cell_id: CellId | None = None
    execution_id: ExecutionId | None = None
    output: Output | None = None
    execution_count: int | None = None
    error_message: str | None = None
    status: str | None = None
    author: str | None = None
    message: str | None = None
    password: bool = False
    bytes_done: int | None = None
    bytes_total: int | None = None
    comm: CommMessage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSummary:
    """One execution of a session, as `Client.sessions.find_executions` returns it. Times are in UTC.

    Attributes:
        status: `queued`, `running`, or how it ended: `ok`, `error`, `cancelled`, `died`.
        program: Whether it ran as a program (`runtimed run FILE`).
        label: What people call the client that asked for it.
        uid: The user who did, as the operating system says.
        pid: The process of that client, as the operating system says.
    """

    execution_id: ExecutionId
    cell_id: CellId
    status: str
    program: bool
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    client_id: str | None
    label: str | None
    uid: int | None
    pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatus:
    """The state of one session. Times are in UTC.

    Attributes:
        status: `not_started` is said only by the handle of a browser session that never was: its id is empty if it has
            none, and its times are those of the handle.
        close_reason: Why it ended: `stopped`, `error`, `abandoned`, `idle_timeout`, `max_duration`,
            `died` or `host_lost`; None while it is active.
        last_accessed_at: When a peer last used it; reading its status is no use.
        timeout_minutes: Idle minutes after which it times out; None for never.
        max_duration_minutes: Minutes after its start when it times out; None for never.
        duration: From its start to its end, or to now.
        peers: How many clients are connected to it.
        error: For status `error`: exit code or signal, and the last lines of standard error.
    """

    session_id: str
    kind: Literal["kernel", "browser"]
    status: Literal["not_started", "active", "closed", "error", "timed_out"]
    close_reason: str | None
    created_at: datetime
    closed_at: datetime | None
    last_accessed_at: datetime
    timeout_minutes: float | None
    max_duration_minutes: float | None
    duration: timedelta
    peers: int
    label: str | None
    error: str | None
    host_pid: int | None
    kernel_type: str | None = None
    kernel_status: KernelStatus | None = None
    kernel_pid: int | None = None
    env_source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture, PNG. As the last expression of a notebook cell it displays itself.

    Attributes:
        data: The file's bytes.
    """

    data: bytes

    def save(self, path: str | Path) -> None:
        """Write it to a file."""
        Path(path).write_bytes(self.data)

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height in pixels."""
        # Source: PNG, third edition, 11.2.1: the first chunk begins with both.
        return int.from_bytes(self.data[16:20], "big"), int.from_bytes(self.data[20:24], "big")

    def __repr__(self) -> str:
        width, height = self.size
        return f"Image({width} x {height})"

    def _repr_png_(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncEnvironmentResult:
    """What `sync_environment` did.

    Attributes:
        success: Whether the kernel now has everything that the notebook names.
        synced_packages: The packages added to the running kernel, as `name==version`.
        error: Why it needs a restart; None after a success.
        needs_restart: Whether `restart_kernel` would give the kernel what it lacks; the environment is ready.
    """

    success: bool
    synced_packages: tuple[str, ...] = ()
    error: str | None = None
    needs_restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStatus:
    """The state of the daemon.

    Attributes:
        sessions: Number of active sessions.
        peers: Number of connected clients, the asking one included.
        pool: Spares, by name: `uv_available`, `uv_warming` (being made), the same of `conda` and `current`, and of
            `browser`.
        limits: The limits in force, by name: that of `max_sessions` is set with RUNTIMED_MAX_SESSIONS, and so on. Sizes
            are in bytes, `max_request_rate` is a second's, None is no limit.
        problems: What it found damaged or unreachable, in sentences, newest last.
    """

    pid: int
    version: str
    socket_path: str
    data_dir: str
    started_at: datetime
    sessions: int
    peers: int
    pool: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """An entry of the audit log: one action in a session, and who did it. No sources, outputs or values.

    Attributes:
        at: When, by the daemon's clock, in UTC; the first time where `count` is above 1.
        until: The last time; the same as `at` where `count` is 1.
        action: What was done. `kernel_…` is a request to a kernel; later entries and outputs tell its result.
        count: How often: the same client's edits of one kind to one cell within a minute are one entry.
        client_id: Who, as `Session.client_id` names it; None for what the daemon did by itself: a timeout, a death.
        label: What that client calls itself; None if nobody named it.
        uid: The user that the operating system says it belongs to.
        pid: The process that the operating system says it is; None if that is out of sight, in another container.
        cell_id: The cell that it concerns.
        execution_id: The execution that it concerns.
        detail: More of it, in a word: why a session ended (its `close_reason`), the environment of a kernel that is
            to start, a cell's new type.
    """

    at: datetime
    until: datetime
    action: AuditAction
    count: int = 1
    client_id: str | None = None
    label: str | None = None
    uid: int | None = None
    pid: int | None = None
    cell_id: CellId | None = None
    execution_id: ExecutionId | None = None
    detail: str | None = None
