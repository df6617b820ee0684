"""Every operation of a session, once, for both faces. Nothing here waits or opens a socket.

Each function returns a flow (see `flows`). The docstrings are those of the public members of `Session` and
`AsyncSession`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from runtimed.client.flows import Ask, Flow, Follow, OnEvent
from runtimed.errors import (
    CellNotFound,
    ExecutionTimeout,
    InvalidCell,
    NoKernel,
    SessionError,
    SessionNotFound,
)
from runtimed.execution.outputs import OutputFold, to_public
from runtimed.ids import CellId, ExecutionId, NotebookId, new_cell_id, new_execution_id
from runtimed.models import Cell, CellType, EventType, ExecutionEvent, ExecutionResult, Output, SessionStatus
from runtimed.protocol import operations as ops
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Blob, Event, Finished
from runtimed.transport.blocking import WaitTimeout

__all__ = [
    "Notebook",
    "OnTimeout",
    "Stream",
    "append_source",
    "cancel",
    "clear_outputs",
    "complete",
    "create_cell",
    "delete_cell",
    "execute",
    "execute_cell",
    "fetch_blobs",
    "get_cell",
    "get_cell_execution_count",
    "get_cell_ids",
    "get_cell_metadata",
    "get_cell_outputs",
    "get_cell_position",
    "get_cell_source",
    "get_cell_type",
    "get_cells",
    "get_kernelspec",
    "get_metadata",
    "get_session",
    "inspect",
    "interrupt",
    "kernel_request",
    "leave",
    "move_cell",
    "queue_cell",
    "restart_kernel",
    "run",
    "session_status",
    "set_cell_metadata",
    "set_cell_type",
    "set_kernelspec",
    "set_metadata",
    "set_source",
    "shutdown_kernel",
    "start_kernel",
    "stop",
    "stream_execute",
    "subscribe",
    "wait",
]

OnTimeout = Literal["leave", "interrupt"]

NOTEBOOK_METADATA = "notebook_metadata"
"""The metadata key that holds, as JSON, what an .ipynb file holds at notebook level."""


class Notebook:
    """What one handle knows of a session: its id, and the sources that it has seen.

    The sources are what `set_source` merges against: what the caller of this handle knew when it wrote the new text.
    """

    def __init__(self, notebook_id: NotebookId) -> None:
        self.id = notebook_id
        self.seen: dict[str, str] = {}


# --- kernel -----------------------------------------------------------------------------------------------------------


def start_kernel(
    notebook: Notebook, kernel_type: str = "python", env_source: str = "auto", notebook_path: str | Path | None = None
) -> Flow[None]:
    """Start a kernel for this session; return at once if one runs already, whatever was asked for.

    The kernel gets this process's environment variables and working folder.

    Args:
        kernel_type: `python`, or the name of another language whose kernelspec `env_source` names.
        env_source: `auto`, `current` (this process's interpreter), `python:/path/to/python` or `kernelspec:NAME`. The
            property `env_source` tells what runs.
        notebook_path: The notebook's file, which need not exist: the kernel works in its nearest existing folder.

    Raises:
        KernelStartFailed: If the kernel does not become ready; the message has its last words.
        EnvironmentFailed: If that environment cannot be had.
    """
    yield Ask(kernel_request(notebook, kernel_type, env_source, notebook_path))


def kernel_request(
    notebook: Notebook,
    kernel_type: str = "python",
    env_source: str = "auto",
    notebook_path: str | Path | None = None,
) -> ops.StartKernel:
    """Return what asks for a kernel with this process's environment variables and folder; see `start_kernel`."""
    cwd = Path.cwd()
    if notebook_path is not None:
        folder = Path(notebook_path).expanduser().absolute().parent
        cwd = next(place for place in (folder, *folder.parents) if place.is_dir())
    return ops.StartKernel(
        notebook_id=notebook.id,
        kernel_type=kernel_type,
        env_source=env_source,
        notebook_path=None if notebook_path is None else str(notebook_path),
        environment=dict(os.environ),
        cwd=str(cwd),
        interpreter=sys.executable,
    )


def restart_kernel(notebook: Notebook) -> Flow[None]:
    """Replace the kernel by a fresh one; the session, its cells and its outputs stay.

    What ran ends with a `KernelDied` error, what was queued is cancelled.

    Raises:
        NoKernel: If no kernel runs.
        KernelStartFailed: If the new one does not become ready.
    """
    yield Ask(ops.RestartKernel(notebook_id=notebook.id))


def shutdown_kernel(notebook: Notebook) -> Flow[None]:
    """End the kernel; the session stays active without one. Without a kernel, do nothing."""
    yield Ask(ops.ShutdownKernel(notebook_id=notebook.id))


def interrupt(notebook: Notebook) -> Flow[None]:
    """Interrupt the cell that runs: its code gets a KeyboardInterrupt. Harmless when nothing runs.

    Works from signal handlers and other threads while another call waits.

    Raises:
        NoKernel: If no kernel runs.
    """
    yield Ask(ops.Interrupt(notebook_id=notebook.id))


def complete(notebook: Notebook, code: str, cursor_pos: int | None = None) -> Flow[dict[str, Any]]:
    """Ask the kernel for completions; it answers while a cell runs.

    Args:
        code: The code so far.
        cursor_pos: Where the cursor stands, in code points; the end if None.

    Returns:
        The content of Jupyter's complete_reply: `matches`, `cursor_start`, `cursor_end`, `metadata`.

    Raises:
        NoKernel: If no kernel runs.

    Source: Jupyter messaging 5.4, "Completion".
    """
    position = len(code) if cursor_pos is None else cursor_pos
    return (yield Ask(ops.Complete(notebook_id=notebook.id, code=code, cursor_pos=position)))


def inspect(notebook: Notebook, code: str, cursor_pos: int | None = None) -> Flow[dict[str, Any]]:
    """Ask the kernel about the object at a place in code; it answers while a cell runs.

    Args:
        code: The code so far.
        cursor_pos: Where the cursor stands, in code points; the end if None.

    Returns:
        The content of Jupyter's inspect_reply: `found`, `data` by MIME type, `metadata`.

    Raises:
        NoKernel: If no kernel runs.

    Source: Jupyter messaging 5.4, "Introspection".
    """
    position = len(code) if cursor_pos is None else cursor_pos
    return (yield Ask(ops.Inspect(notebook_id=notebook.id, code=code, cursor_pos=position)))


# --- cells ------------------------------------------------------------------------------------------------------------


def create_cell(
    notebook: Notebook, source: str = "", cell_type: CellType = "code", index: int | None = None
) -> Flow[CellId]:
    """Add a cell to the document.

    Args:
        source: Its text, at most 10 MB.
        cell_type: `code`, `markdown` or `raw`.
        index: Its place, from 0 to the number of cells; at the end if None.

    Returns:
        The new cell's id.

    Raises:
        InvalidCell: If source, type or index cannot be.
    """
    _check_text("source", source)
    _check_cell_type(cell_type)
    if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
        raise InvalidCell(f"A cell's index must be an int or None, not {type(index).__name__}")
    cell_id = new_cell_id()
    yield Ask(ops.AddCell(notebook_id=notebook.id, cell_id=cell_id, source=source, cell_type=cell_type, index=index))
    notebook.seen[cell_id] = source
    return cell_id


def set_source(notebook: Notebook, cell_id: str, source: str) -> Flow[None]:
    """Give a cell a new source. What others changed since this session last saw the cell is merged, not lost.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If the source cannot be.
    """
    _check_text("source", source)
    base = notebook.seen.get(cell_id)
    yield Ask(ops.SetSource(notebook_id=notebook.id, cell_id=cell_id, source=source, base=base))
    notebook.seen[cell_id] = source


def append_source(notebook: Notebook, cell_id: str, text: str) -> Flow[None]:
    """Append text to a cell's source: one insertion, for streams of tokens.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If the source would be too long, or the text cannot be.
    """
    _check_text("text", text)
    yield Ask(ops.AppendSource(notebook_id=notebook.id, cell_id=cell_id, text=text))
    if cell_id in notebook.seen:
        notebook.seen[cell_id] += text


def delete_cell(notebook: Notebook, cell_id: str) -> Flow[None]:
    """Delete a cell. Its executions stay readable by id.

    Raises:
        CellNotFound: If there is no such cell.
    """
    yield Ask(ops.DeleteCell(notebook_id=notebook.id, cell_id=cell_id))
    notebook.seen.pop(cell_id, None)


def move_cell(notebook: Notebook, cell_id: str, after_cell_id: str | None = None) -> Flow[None]:
    """Move a cell behind another one, or to the front if that is None.

    Raises:
        CellNotFound: If there is no such cell.
    """
    yield Ask(ops.MoveCell(notebook_id=notebook.id, cell_id=cell_id, after_cell_id=after_cell_id))


def clear_outputs(notebook: Notebook, cell_id: str) -> Flow[None]:
    """Take a cell's outputs and its execution count away, for everybody. The execution stays readable by its id.

    Raises:
        CellNotFound: If there is no such cell.
    """
    yield Ask(ops.ClearOutputs(notebook_id=notebook.id, cell_id=cell_id))


def set_cell_metadata(notebook: Notebook, cell_id: str, key: str, value: str) -> Flow[None]:
    """Set one value of a cell's metadata: a text, typically JSON.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If key or value is no text.
    """
    _check_text("key", key)
    _check_text("value", value)
    yield Ask(ops.SetCellMetadata(notebook_id=notebook.id, cell_id=cell_id, key=key, value=value))


def set_cell_type(notebook: Notebook, cell_id: str, cell_type: CellType) -> Flow[None]:
    """Make a cell `code`, `markdown` or `raw`.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If there is no such type.
    """
    _check_cell_type(cell_type)
    yield Ask(ops.SetCellType(notebook_id=notebook.id, cell_id=cell_id, cell_type=cell_type))


def get_cell(notebook: Notebook, cell_id: str) -> Flow[Cell]:
    """Return a cell with the outputs of its latest execution, so far.

    Raises:
        CellNotFound: If there is no such cell.
    """
    found = yield from _find_cell(notebook, cell_id, outputs=True)
    if found is None:
        raise CellNotFound(f"Cell not found: {cell_id}", cell_id=cell_id)
    return (yield from _cell(notebook, found))


def get_cells(notebook: Notebook) -> Flow[list[Cell]]:
    """Return all cells in order, each with the outputs of its latest execution, so far."""
    cells: list[Cell] = []
    start: int | None = 0
    while start is not None:
        page = yield Ask(ops.GetCells(notebook_id=notebook.id, start=start))
        for found in page["cells"]:
            cell = yield from _cell(notebook, found)
            cells.append(cell)
        start = page["next"]
    return cells


def get_cell_ids(notebook: Notebook) -> Flow[list[CellId]]:
    """Return the ids of all cells, in order."""
    ids: list[CellId] = []
    start: int | None = 0
    while start is not None:
        page = yield Ask(ops.GetCells(notebook_id=notebook.id, start=start, outputs=False))
        ids += [CellId(found["id"]) for found in page["cells"]]
        start = page["next"]
    return ids


def get_cell_source(notebook: Notebook, cell_id: str) -> Flow[str | None]:
    """Return a cell's source, None if there is no such cell."""
    source: str | None = yield from _field(notebook, cell_id, "source")
    if source is not None:
        notebook.seen[cell_id] = source
    return source


def get_cell_type(notebook: Notebook, cell_id: str) -> Flow[CellType | None]:
    """Return a cell's type, None if there is no such cell."""
    cell_type: CellType | None = yield from _field(notebook, cell_id, "cell_type")
    return cell_type


def get_cell_outputs(notebook: Notebook, cell_id: str) -> Flow[list[Output] | None]:
    """Return the outputs of a cell's latest execution, None if there is no such cell."""
    found = yield from _find_cell(notebook, cell_id, outputs=True)
    if found is None:
        return None
    return list((yield from _outputs(notebook, found)))


def get_cell_execution_count(notebook: Notebook, cell_id: str) -> Flow[int | None]:
    """Return the count of a cell's latest execution, None if it never ran or there is no such cell."""
    count: int | None = yield from _field(notebook, cell_id, "execution_count")
    return count


def get_cell_position(notebook: Notebook, cell_id: str) -> Flow[str | None]:
    """Return a cell's place: compare places as text. None if there is no such cell."""
    position: str | None = yield from _field(notebook, cell_id, "position")
    return position


def get_cell_metadata(notebook: Notebook, cell_id: str) -> Flow[dict[str, str] | None]:
    """Return a cell's metadata, None if there is no such cell."""
    metadata: dict[str, str] | None = yield from _field(notebook, cell_id, "metadata")
    return metadata


def _find_cell(notebook: Notebook, cell_id: str, *, outputs: bool) -> Flow[dict[str, Any] | None]:
    reply = yield Ask(ops.GetCell(notebook_id=notebook.id, cell_id=cell_id, outputs=outputs))
    found: dict[str, Any] | None = reply["cell"]
    return found


def _field(notebook: Notebook, cell_id: str, name: str) -> Flow[Any]:
    found = yield from _find_cell(notebook, cell_id, outputs=False)
    return None if found is None else found[name]


def _cell(notebook: Notebook, found: dict[str, Any]) -> Flow[Cell]:
    notebook.seen[found["id"]] = found["source"]
    return Cell(
        id=CellId(found["id"]),
        cell_type=found["cell_type"],
        source=found["source"],
        execution_count=found["execution_count"],
        outputs=(yield from _outputs(notebook, found)),
        metadata=found["metadata"],
        position=found["position"],
    )


def _outputs(notebook: Notebook, found: dict[str, Any]) -> Flow[tuple[Output, ...]]:
    fold = OutputFold()
    for body in found["events"]:
        fold.add(decode_event(body))
    after = found["more"]
    while after is not None:
        page = yield Ask(ops.ReadEvents(notebook_id=notebook.id, execution_id=found["execution_id"], after=after))
        for _seq, body in page["events"]:
            fold.add(decode_event(body))
        after = page["events"][-1][0] if page["more"] else None
    return fold.outputs_with((yield from fetch_blobs(notebook, fold.missing_blobs)))


def fetch_blobs(notebook: Notebook, blobs: list[Blob]) -> Flow[dict[str, bytes | str]]:
    """Fetch the contents of blobs, by SHA-256."""
    values: dict[str, bytes | str] = {}
    for blob in blobs:
        content = bytearray()
        while len(content) < blob.size:
            reply = yield Ask(ops.GetBlob(notebook_id=notebook.id, sha256=blob.sha256, offset=len(content)))
            content += reply["data"]
        values[blob.sha256] = bytes(content)
    return values


# --- executions -------------------------------------------------------------------------------------------------------


def run(
    notebook: Notebook, code: str, timeout_secs: float | None = 60.0, on_timeout: OnTimeout = "leave"
) -> Flow[ExecutionResult]:
    """Add a cell with this code, execute it, and return what it gave; start a kernel if none runs.

    Args:
        code: The code. It is in the document before anybody sees its first output.
        timeout_secs: How long to wait for the end, in seconds; None for no limit.
        on_timeout: `leave` lets the execution go on, `interrupt` stops it.

    Raises:
        ExecutionTimeout: If it did not end in time; its `execution_id` is good for `wait` and `cancel`.
        InvalidCell: If the code cannot be a cell's source.
        KernelStartFailed: If a kernel was needed and did not start.
    """
    _check_text("code", code)
    operation = ops.Enqueue(
        notebook_id=notebook.id, execution_id=new_execution_id(), cell_id=new_cell_id(), source=code
    )
    return (yield from execute(notebook, operation, timeout_secs=timeout_secs, on_timeout=on_timeout))


def execute_cell(
    notebook: Notebook, cell_id: str, timeout_secs: float | None = 60.0, on_timeout: OnTimeout = "leave"
) -> Flow[ExecutionResult]:
    """Execute a cell of the document and return what it gave; start a kernel if none runs.

    The daemon reads the source from the document, so everybody sees the same code executed.

    Args:
        cell_id: A code cell.
        timeout_secs: How long to wait for the end, in seconds; None for no limit.
        on_timeout: `leave` lets the execution go on, `interrupt` stops it.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If it is no code cell.
        ExecutionTimeout: If it did not end in time; its `execution_id` is good for `wait` and `cancel`.
        KernelStartFailed: If a kernel was needed and did not start.
    """
    operation = ops.Enqueue(notebook_id=notebook.id, execution_id=new_execution_id(), cell_id=cell_id)
    return (yield from execute(notebook, operation, timeout_secs=timeout_secs, on_timeout=on_timeout))


def queue_cell(notebook: Notebook, cell_id: str) -> Flow[ExecutionId]:
    """Queue the execution of a cell and return its id at once; start a kernel if none runs.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If it is no code cell.
        KernelStartFailed: If a kernel was needed and did not start.
    """
    operation = ops.Enqueue(notebook_id=notebook.id, execution_id=new_execution_id(), cell_id=cell_id, watch=False)
    try:
        yield Ask(operation)
    except NoKernel:
        yield Ask(kernel_request(notebook))
        yield Ask(operation)
    return ExecutionId(operation.execution_id)


def wait(
    notebook: Notebook, execution_id: str, timeout_secs: float | None = 60.0, on_timeout: OnTimeout = "leave"
) -> Flow[ExecutionResult]:
    """Wait for the end of an execution that anybody started, at any time, and return what it gave.

    Raises:
        ExecutionTimeout: If it did not end in time.
        RuntimedError: If this session has no such execution.
    """
    operation = ops.Watch(notebook_id=notebook.id, execution_id=execution_id)
    return (yield from execute(notebook, operation, timeout_secs=timeout_secs, on_timeout=on_timeout))


def cancel(notebook: Notebook, execution_id: str) -> Flow[None]:
    """Take an execution from the queue, or interrupt it if it runs; one that ended stays as it is.

    Raises:
        RuntimedError: If this session has no such execution.
    """
    yield Ask(ops.CancelExecution(notebook_id=notebook.id, execution_id=execution_id))


def execute(
    notebook: Notebook,
    operation: ops.Enqueue | ops.Watch,
    *,
    timeout_secs: float | None,
    on_timeout: OnTimeout = "leave",
    on_event: OnEvent | None = None,
    kernel: ops.StartKernel | None = None,
) -> Flow[ExecutionResult]:
    """Follow an execution to its end; start a kernel if it needs one.

    Args:
        on_event: Sees each raw event, too.
        kernel: What to start if none runs; a Python kernel in the default environment if None.
    """
    _check_timeout(timeout_secs)
    if on_timeout not in get_args(OnTimeout):
        raise ValueError(f"on_timeout must be 'leave' or 'interrupt', not {on_timeout!r}")
    fold = OutputFold()

    def take(event: Any) -> None:
        fold.add(event)
        if on_event is not None:
            on_event(event)

    follow = Follow(operation, take, timeout_secs)
    try:
        try:
            reply = yield follow
        except NoKernel:
            yield Ask(kernel or kernel_request(notebook))
            reply = yield follow
    except WaitTimeout:
        if on_timeout == "interrupt":
            yield Ask(ops.CancelExecution(notebook_id=notebook.id, execution_id=operation.execution_id))
        raise ExecutionTimeout(
            f"Execution timed out after {timeout_secs:g} seconds",
            execution_id=operation.execution_id,
            timeout_secs=timeout_secs,
        ) from None
    values = yield from fetch_blobs(notebook, fold.missing_blobs)
    return fold.result(CellId(reply["cell_id"]), ExecutionId(operation.execution_id), values)


class Stream:
    """How an iterator of events is made, for both faces.

    `prepare` is performed on the handle's own connection; `begin` gives the step to follow on a connection apart.
    """

    def __init__(
        self,
        notebook: Notebook,
        prepare: Flow[ExecutionId] | None,
        timeout_secs: float | None,
        cell_ids: Sequence[str] | None = None,
        event_types: Sequence[EventType] | None = None,
    ) -> None:
        self.prepare = prepare
        self._notebook = notebook
        self._timeout_secs = timeout_secs
        self._cell_ids = None if cell_ids is None else list(cell_ids)
        self._event_types = None if event_types is None else frozenset(event_types)
        self._execution_id: ExecutionId | None = None

    def begin(self, joined: dict[str, Any], execution_id: ExecutionId | None) -> Follow:
        """Return the step to follow.

        Args:
            joined: The daemon's reply to `Join` on the connection that will carry the events.
            execution_id: What `prepare` returned.
        """
        self._execution_id = execution_id
        operation: ops.Watch | ops.Subscribe
        if execution_id is not None:
            operation = ops.Watch(notebook_id=self._notebook.id, execution_id=execution_id)
        else:
            operation = ops.Subscribe(notebook_id=self._notebook.id, cell_ids=self._cell_ids, after=joined["last"])
        return Follow(operation, lambda _event: None, self._timeout_secs)

    def public(self, event: Event, blob_values: dict[str, bytes | str]) -> ExecutionEvent | None:
        """Return the event that the consumer sees, None for one that it does not."""
        public = to_public(event, blob_values)
        if public is None or (self._event_types is not None and public.event_type not in self._event_types):
            return None
        return public

    def is_last(self, event: Event) -> bool:
        """Whether the iterator ends here."""
        return self._execution_id is not None and isinstance(event, Finished)

    @contextlib.contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Turn the end of the waiting into the error that the consumer expects."""
        try:
            yield
        except WaitTimeout:
            raise ExecutionTimeout(
                f"Execution timed out after {self._timeout_secs:g} seconds",
                execution_id=self._execution_id,
                timeout_secs=self._timeout_secs,
            ) from None


def stream_execute(notebook: Notebook, cell_id: str, timeout_secs: float | None = 60.0) -> Stream:
    """Execute a cell and iterate over its events as they come; start a kernel if none runs.

    First `execution_started`, then `output`s, and last exactly one `done` or `error`. A stream's output holds the
    piece of text that just arrived; `get_cell_outputs` merges them.

    Args:
        cell_id: A code cell.
        timeout_secs: How long to wait for the end, in seconds; None for no limit.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If it is no code cell.
        ExecutionTimeout: While iterating, if it does not end in time. The execution goes on.
    """
    _check_timeout(timeout_secs)
    return Stream(notebook, queue_cell(notebook, cell_id), timeout_secs)


def subscribe(
    notebook: Notebook, cell_ids: Sequence[str] | None = None, event_types: Sequence[EventType] | None = None
) -> Stream:
    """Iterate over the events of everybody's work in this session, from now on, until the iterator is closed.

    Args:
        cell_ids: Only the events of these cells, and those of the kernel; all if None.
        event_types: Only events of these types; all if None.
    """
    unknown = set(event_types or ()) - set(get_args(EventType))
    if unknown:
        raise ValueError(f"There are no events of the type {', '.join(sorted(map(repr, unknown)))}")
    return Stream(notebook, None, None, cell_ids, event_types)


# --- metadata ---------------------------------------------------------------------------------------------------------


def set_metadata(notebook: Notebook, key: str, value: str) -> Flow[None]:
    """Set a value of the document's metadata: a text, typically JSON.

    Raises:
        SessionError: If key or value is no text.
    """
    for name, text in (("key", key), ("value", value)):
        if not isinstance(text, str):
            raise SessionError(f"A metadata {name} must be a str, not {type(text).__name__}; encode it with json.dumps")
    yield Ask(ops.SetMetadata(notebook_id=notebook.id, key=key, value=value))


def get_metadata(notebook: Notebook, key: str) -> Flow[str | None]:
    """Return a value of the document's metadata, None if it is not set."""
    reply = yield Ask(ops.GetMetadata(notebook_id=notebook.id, key=key))
    value: str | None = reply["value"]
    return value


def set_kernelspec(notebook: Notebook, name: str, display_name: str, language: str | None = None) -> Flow[None]:
    """Say which kernel the notebook is meant for, as an .ipynb file does: in `notebook_metadata`.

    Source: nbformat 4, notebook metadata `kernelspec`.
    """
    metadata = yield from _notebook_metadata(notebook)
    metadata["kernelspec"] = {"name": name, "display_name": display_name}
    if language is not None:
        metadata["kernelspec"]["language"] = language
    yield from set_metadata(notebook, NOTEBOOK_METADATA, json.dumps(metadata))


def get_kernelspec(notebook: Notebook) -> Flow[dict[str, str] | None]:
    """Return the kernelspec in `notebook_metadata`, None if there is none."""
    spec = (yield from _notebook_metadata(notebook)).get("kernelspec")
    return spec if isinstance(spec, dict) else None


def _notebook_metadata(notebook: Notebook) -> Flow[dict[str, Any]]:
    text = yield from get_metadata(notebook, NOTEBOOK_METADATA)
    try:
        metadata = json.loads(text) if text is not None else {}
    except ValueError as exc:
        raise SessionError(f"The metadata value {NOTEBOOK_METADATA!r} is no JSON: {exc}") from exc
    if not isinstance(metadata, dict):
        raise SessionError(f"The metadata value {NOTEBOOK_METADATA!r} is no JSON object")
    return metadata


# --- the session itself -----------------------------------------------------------------------------------------------


def get_session(notebook: Notebook) -> Flow[SessionStatus]:
    """Return the session's state. Asking is no use of the session: its idle time goes on.

    Raises:
        SessionNotFound: If it never started.
    """
    reply = yield Ask(ops.GetSession(notebook_id=notebook.id))
    return session_status(reply)


def stop(notebook: Notebook) -> Flow[None]:
    """End the session for everybody: its kernel ends, its cells and outputs stay readable.

    Stopping twice, or a session that never started, is harmless.
    """
    try:
        yield Ask(ops.StopSession(notebook_id=notebook.id))
    except SessionNotFound:
        return


def leave(notebook: Notebook, *, failed: bool) -> Flow[None]:
    """End the session if this client started it; used when a `with` block ends."""
    try:
        yield Ask(
            ops.StopSession(
                notebook_id=notebook.id, reason="error" if failed else "stopped", only_if_started_by_me=True
            )
        )
    except SessionNotFound:
        return


def session_status(fields: dict[str, Any]) -> SessionStatus:
    """Return a session's status from the map that the daemon sends."""
    times = {
        name: None if fields[name] is None else datetime.fromtimestamp(fields[name], UTC)
        for name in ("created_at", "closed_at", "last_accessed_at")
    }
    return SessionStatus(**{**fields, **times, "duration": timedelta(seconds=fields["duration"])})


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidCell(f"A cell's {name} must be a str, not {type(value).__name__}")


def _check_cell_type(value: object) -> None:
    if value not in get_args(CellType):
        raise InvalidCell(f"A cell's type must be code, markdown or raw, not {value!r}")


def _check_timeout(value: object) -> None:
    if value is not None and not (isinstance(value, int | float) and value >= 0):
        raise ValueError(f"A timeout must be a number of seconds, not negative, or None; not {value!r}")
