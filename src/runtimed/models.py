"""The public values of runtimed, all frozen. Nothing here talks to anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from runtimed import display
from runtimed.ids import CellId, ExecutionId

__all__ = [
    "Cell",
    "CellType",
    "DaemonStatus",
    "EventType",
    "ExecutionEvent",
    "ExecutionResult",
    "KernelStatus",
    "Output",
    "OutputType",
    "SessionStatus",
    "SyncEnvironmentResult",
]

CellType = Literal["code", "markdown", "raw"]
OutputType = Literal["stream", "display_data", "execute_result", "error"]
KernelStatus = Literal["not_started", "starting", "idle", "busy", "restarting", "dead"]
EventType = Literal["execution_started", "output", "done", "error", "kernel_status", "cell_changed", "env_progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of an execution, as nbformat 4 defines it, with values as Python has them.

    Attributes:
        output_type: Which of the other fields hold something.
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
                return re.sub(r"\x1b\[[0-9;]*m", "", lines)
            case _:
                data = self.data or {}
                return str(data.get("text/plain", f"<{', '.join(data)}>"))

    def _ipython_display_(self) -> None:
        display.show_output(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a notebook with the outputs of its latest execution.

    Attributes:
        position: Its place among the cells: compare as text, ties by id.
    """

    id: CellId
    cell_type: CellType
    source: str
    execution_count: int | None = None
    outputs: tuple[Output, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    position: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ExecutionResult:
    """What one run of one cell gave.

    As the last expression of a notebook cell it displays its outputs.

    Attributes:
        success: True if the code ended without an error and was not cancelled.
        started_at: When the kernel began with it, in UTC; None if it never did.
        ended_at: When it ended, in UTC.
    """

    cell_id: CellId
    execution_id: ExecutionId
    success: bool
    execution_count: int | None = None
    outputs: tuple[Output, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None

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

    def _stream(self, name: str) -> str:
        return "".join(o.text or "" for o in self.outputs if o.output_type == "stream" and o.name == name)

    def __repr__(self) -> str:
        status = "ok" if self.success else "error"
        return f"ExecutionResult(cell={self.cell_id}, status={status}, outputs={len(self.outputs)})"

    def _ipython_display_(self) -> None:
        for output in self.outputs:
            display.show_output(output)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEvent:
    """Something that happened in a session, as `stream_execute` and `subscribe` give it.

    Attributes:
        output: The output, when event_type is `output`. A stream's text is the piece that just arrived;
            an update of an earlier display is a display_data output with that display_id.
        error_message: What went wrong, when event_type is `error`.
        status: The kernel's status or the step of an environment (`resolve`, `download`, `install`, `start`), for
            those events.
        message: The step of an environment in words.
        bytes_done: Bytes of its downloads so far, where that is known.
        bytes_total: Bytes of its downloads that have begun, where that is known.
    """

    event_type: EventType
    cell_id: CellId | None = None
    execution_id: ExecutionId | None = None
    output: Output | None = None
    execution_count: int | None = None
    error_message: str | None = None
    status: str | None = None
    message: str | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatus:
    """The state of one session. Times are in UTC.

    Attributes:
        close_reason: Why it ended: `stopped`, `error`, `abandoned`, `idle_timeout`, `max_duration`,
            `died` or `host_lost`; None while it is active.
        last_accessed_at: When a peer last did something with it; reading its status does not count.
        timeout_minutes: Idle minutes after which it times out; None for never.
        max_duration_minutes: Minutes after which it times out in any case; None for never.
        duration: From its start to its end, or to now.
        peers: How many clients are connected to it.
        error: For status `error`: exit code or signal, and the last lines of standard error.
    """

    session_id: str
    kind: Literal["kernel", "browser"]
    status: Literal["active", "closed", "error", "timed_out"]
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
class SyncEnvironmentResult:
    """What `sync_environment` did.

    Attributes:
        success: Whether the kernel has now what the notebook names.
        synced_packages: What was added to the running kernel, as `name==version`; empty if it had everything.
        error: Why it needs a restart, a sentence; None after a success.
        needs_restart: Whether `restart_kernel` gives the kernel what it lacks; the environment is ready then.
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
        pool: Figures of the warm pool, by name.
        limits: The limits in force, by name.
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
