"""The public values of runtimed, all immutable. Nothing here does I/O."""

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
    "BlamedLine",
    "Cell",
    "CellType",
    "CommMessage",
    "CommType",
    "DaemonStatus",
    "EditAction",
    "EventType",
    "ExecutionEvent",
    "ExecutionResult",
    "ExecutionSummary",
    "Image",
    "KernelStatus",
    "NotebookEdit",
    "NotebookVersion",
    "OpenedNotebook",
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
    "comms_missed",
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
EditAction = Literal[
    "history_begins",
    "cell_added",
    "cell_edited",
    "cell_moved",
    "cell_deleted",
    "cell_metadata_set",
    "cell_type_set",
    "cell_executed",
    "outputs_cleared",
    "metadata_set",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of an execution, as nbformat 4 defines it, with decoded values.

    Attributes:
        output_type: Determines which of the other fields are set.
        name: For a stream, `stdout` or `stderr`.
        text: For a stream, its text; `\\r` and backspace are applied as on a terminal line, ANSI colours are kept.
        data: Values by MIME type: text as str, binary types as bytes, JSON types parsed.
        metadata: Metadata as the kernel sent them.
        ename: For an error, the exception's class name.
        evalue: For an error, the exception's text.
        traceback: For an error, the lines that the kernel rendered, with ANSI colours.
        execution_count: The `Out[n]` of an execute_result.
        display_id: The id by which the kernel may update this output later.
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
    """Who made the last edit of a cell, and when. Running a cell is not an edit.

    Attributes:
        at: Time of the edit, by the daemon's clock, in UTC.
        client_id: The client; see `Session.client_id`.
        label: The client's name for people; None if it has none.
        uid: The client's user id, from the operating system.
        pid: The client's process id, from the operating system; None if it is not visible, in another container.
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
        metadata: JSON values, such as `tags`.
        position: Sort key among the cells: compare as text, ties by id.
        execution_id: Its latest execution; None if it never ran, or its outputs were cleared.
        omitted_bytes: See `ExecutionResult`.
        omitted_after: See `ExecutionResult`.
        last_edit: Who added, edited, moved or cleared it last; None if that is not recorded.
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
        """Whether outputs are omitted here; `Session.read_outputs` reads them."""
        return self.omitted_after is not None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ExecutionResult:
    """The result of one run of one cell.

    As the last expression of a notebook cell it displays its outputs.

    Attributes:
        success: True if the code ended without an error and was not cancelled.
        payload: The payload of Jupyter's execute_reply, which are requests to a frontend: `set_next_input` (`%load`,
            `%recall`), `ask_exit`, `edit_magic`, each a dict with its `source`. Pages are among the outputs instead.
        started_at: When the kernel started it, in UTC; None if it never did.
        ended_at: When it ended, in UTC.
        omitted_bytes: Approximate size of the outputs that are omitted, because the execution has more of them than the
            daemon's limit `max_output_bytes`.
        omitted_after: The argument `after` with which `Session.read_outputs` reads the omitted outputs; None if there
            are none.
        pickled: The pickle of `value`; None if that is text.
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

        Plain data are copied: built-in types, dates, decimals, paths, and the types of numpy and pandas, up to 256 KiB,
        for the kernel's last 32 results. For everything else, or if the package is not installed here, this is the text
        that a notebook shows. No user code runs for it, in either process; `Session.get` copies any variable.
        """
        shown = [output for output in self.outputs if output.output_type == "execute_result"]
        if not shown:
            return None
        if self.pickled is not None:
            with contextlib.suppress(Exception):  # for example a missing package: the text is returned
                return load_plain(self.pickled)
        return (shown[-1].data or {}).get("text/plain")

    @property
    def truncated(self) -> bool:
        """Whether outputs are omitted here; `Session.read_outputs` reads them."""
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
        """The first error output, None if there is none."""
        return next((o for o in self.outputs if o.output_type == "error"), None)

    def raise_for_error(self) -> Self:
        """Raise the execution's error as an exception; return this result if it succeeded.

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
    """A running or queued execution.

    Attributes:
        source: The first line of its code that is not blank, cut at 100 characters; ` …` marks that there is more.
        sha256: SHA-256 of the code in UTF-8, in hexadecimal.
        status: Whether it runs or is queued.
        is_asking: Whether its code waits for a line of input.
        queued_at: When it was queued, in UTC.
        started_at: When the kernel started it, in UTC; None while it is queued.
        client_id: The client that requested it; see `Session.client_id`.
        label: That client's name for people; None if it has none.
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
    """A page of the outputs of one execution, as the kernel sent them.

    Attributes:
        outputs: The outputs in order. Consecutive texts of one stream are joined; `\\r`, backspace, `clear_output` and
            updates of displays are not applied: an update is another display_data output with the same display id.
        next: The argument `after` for the next page; None if this is the last one.
    """

    outputs: tuple[Output, ...]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommMessage:
    """A message of a comm, the channel between a kernel and a frontend that widgets use.

    Attributes:
        msg_type: `comm_open`, `comm_msg` or `comm_close`.
        content: The message's content: `comm_id`, `data`, and for `comm_open` the `target_name`.
        metadata: The message's metadata.
        buffers: The message's binary buffers.

    Source: Jupyter messaging 5.4, "Custom Messages".
    """

    msg_type: CommType
    content: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    buffers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEvent:
    """An event in a session, as `Execution.events`, `stream_execute` and `subscribe` yield it.

    Attributes:
        output: For `output`, the output. A stream's text is the piece that just arrived; an update of an earlier
            display is a display_data output with that display_id.
        error_message: For `error`, what went wrong.
        status: For `kernel_status`, the status; for `env_progress`, the step (`resolve`, `download`, `install`,
            `start`); for `cell_changed`, what was changed.
        author: For `cell_changed`, the client that changed it; see `Session.client_id`.
        message: For `env_progress`, the step for people; for `input_requested`, the prompt; for `comms_missed`, the
            reason, None if the reader was too slow.
        password: For `input_requested`, whether the answer must not be shown (`getpass`).
        bytes_done: For `env_progress`, bytes downloaded so far, if known.
        bytes_total: For `env_progress`, total size of the downloads that have started, in bytes, if known.
        comm: For `comm`, the kernel's message.
        missed: For `comms_missed`, the number of comm messages that did not arrive; None if it is unknown and may be
            0, as after a restart of the daemon.
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
    missed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSummary:
    """One execution of a session, as `Client.sessions.find_executions` returns it. Times are in UTC.

    Attributes:
        status: `queued`, `running`, or how it ended: `ok`, `error`, `cancelled`, `died`.
        program: Whether it ran as a program (`runtimed run FILE`).
        client_id: The client that requested it; see `Session.client_id`.
        label: That client's name for people; None if it has none.
        uid: That client's user id, from the operating system.
        pid: That client's process id, from the operating system.
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
    """The status of one session. Times are in UTC.

    Attributes:
        status: `not_started` only comes from the handle of a browser session that was never started: the id is empty if
            the handle has none, and the times are those of the handle.
        close_reason: Why it ended: `stopped`, `error`, `abandoned`, `idle_timeout`, `max_duration`,
            `died` or `host_lost`; None while it is active.
        last_accessed_at: When a peer last used it; reading its status does not count.
        timeout_minutes: Idle minutes after which it times out; None for never.
        max_duration_minutes: Minutes after its start when it times out; None for never.
        duration: From its start to its end, or to now.
        peers: Number of connected clients.
        error: For status `error`: exit code or signal, and the last lines of standard error.
        file: Real path of its notebook file; None if it has none.
        file_notice: What there is to say of the file: why it was not saved, or what was edited in both; None if the two
            agree, or will in a few seconds.
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
    file: str | None = None
    file_notice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A PNG picture. As the last expression of a notebook cell it displays itself.

    Attributes:
        data: Content of the PNG file.
    """

    data: bytes

    def save(self, path: str | Path) -> None:
        """Write the picture to a file."""
        Path(path).write_bytes(self.data)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        # Source: PNG, third edition, 11.2.1: the first chunk begins with them.
        return int.from_bytes(self.data[16:20], "big"), int.from_bytes(self.data[20:24], "big")

    def __repr__(self) -> str:
        width, height = self.size
        return f"Image({width} x {height})"

    def _repr_png_(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedNotebook:
    """What a session took from its notebook file.

    Attributes:
        path: The file's real path.
        upgraded_from: Format of the file if it is older than 4.5, such as `3.0`; the next `save` writes 4.5.
        added: New cells.
        changed: Cells that were changed in the file alone.
        deleted: Cells that are gone from the file, and were not changed in the session.
        kept: Cells that are gone from the file, and were changed in the session.
        conflicts: Cells that were changed in both: the session's version, and the id under which the file's version
            stands behind it.
        order_conflict: Whether cells were moved in both; the session's order stays.
        metadata_conflicts: Entries of the notebook's metadata that were changed in both. The session's stay, and the
            file's are under `conflicts` in the entry `runtimed`.
    """

    path: Path
    upgraded_from: str | None = None
    added: tuple[CellId, ...] = ()
    changed: tuple[CellId, ...] = ()
    deleted: tuple[CellId, ...] = ()
    kept: tuple[CellId, ...] = ()
    conflicts: Mapping[CellId, CellId] = field(default_factory=dict)
    order_conflict: bool = False
    metadata_conflicts: tuple[str, ...] = ()

    @property
    def differences(self) -> list[str]:
        """Sentences that say where both sides had changed, and what was kept; empty if none had."""
        found = [
            f"Cell {cell_id} differs in the session and the file: the file's version is cell {twin}, behind it"
            for cell_id, twin in self.conflicts.items()
        ]
        found += [
            f"Cell {cell_id} is gone from the file and was changed in the session, which keeps it"
            for cell_id in self.kept
        ]
        if self.order_conflict:
            found.append("Cells were moved in the session and in the file: the session keeps its order")
        found += [
            f"{key!r} of the notebook's metadata differs in the session and the file: the session keeps its own, and "
            "has the file's under 'conflicts' of the entry 'runtimed'"
            for key in self.metadata_conflicts
        ]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncEnvironmentResult:
    """The result of `sync_environment`.

    Attributes:
        success: Whether the running kernel now has all dependencies of the notebook.
        synced_packages: The packages that were installed, as `name==version`.
        error: Why it failed; None after a success.
        needs_restart: Whether the dependencies are available after `restart_kernel`.
    """

    success: bool
    synced_packages: tuple[str, ...] = ()
    error: str | None = None
    needs_restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStatus:
    """The status of the daemon.

    Attributes:
        sessions: Number of active sessions.
        peers: Number of connected clients, this one included.
        pool: Numbers of spares, by name: `uv_available`, `uv_warming` (being made), and the same for `conda`, `current`
            and `browser`.
        limits: The limits in force, by name; RUNTIMED_MAX_SESSIONS sets `max_sessions`, and so on. Sizes are in bytes,
            `max_request_rate` is per second, None means unlimited.
        problems: What the daemon found damaged or unreachable, in sentences, newest last.
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
        at: Time of the action, by the daemon's clock, in UTC; if `count` is above 1, of the first one.
        until: Time of the last one; equal to `at` if `count` is 1.
        action: What was done. `kernel_…` is a request to a kernel; its result is in later entries and outputs.
        count: Number of merged actions: a client's edits of one kind to one cell within a minute are one entry.
        client_id: The client, see `Session.client_id`; None for the daemon's own actions, such as a timeout.
        label: The client's name for people; None if it has none.
        uid: The client's user id, from the operating system.
        pid: The client's process id, from the operating system; None if it is not visible, in another container.
        cell_id: The cell that it concerns.
        execution_id: The execution that it concerns.
        detail: The session's `close_reason`, the environment of a kernel to start, or a cell's new type.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookEdit:
    """An edit of a notebook, as `Session.history` yields it: who made it, when, and what it was.

    Attributes:
        version: Its number. Numbers ascend and are never reused; some are skipped: an execution has numbers, too.
        at: Time of the edit, by the daemon's clock, in UTC.
        action: What was done. `history_begins` is no edit: what was before was dropped (compaction), and `version` is
            the oldest one that is kept.
        cell_id: The cell; None for the notebook's metadata.
        detail: `+` inserted and `-` deleted code points of an edited source (`+12 -3`), the type of an added or changed
            cell, or the key of an entry of the metadata.
        client_id: The client, see `Session.client_id`; None for `history_begins`.
        label: The client's name for people; None if it has none, or is no longer in the audit log.
        uid: The client's user id, from the operating system.
    """

    version: int
    at: datetime
    action: EditAction
    cell_id: CellId | None = None
    detail: str | None = None
    client_id: str | None = None
    label: str | None = None
    uid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookVersion:
    """What a notebook said at a version, as `Session.get_version` returns it.

    Attributes:
        version: Number of its last edit.
        cells: The cells in order, without outputs. `Session.read_outputs` reads those of a cell's `execution_id`, if
            that execution is kept.
        metadata: The notebook's metadata.
    """

    version: int
    cells: tuple[Cell, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlamedLine:
    """A line of a cell's source, and who wrote it, as `Session.blame` returns it.

    Attributes:
        text: The line, without its end.
        edit: The edit that wrote or last changed it: who, and when. `history_begins` for a line that is older than the
            history; None if what the history says about the edit is damaged.
    """

    text: str
    edit: NotebookEdit | None
