"""The operations of one execution, on the handle that `submit` returns. Nothing here waits or opens a socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtimed.client.calls import executions
from runtimed.client.calls.cells import fetch_blobs, read_events
from runtimed.client.calls.executions import OnTimeout
from runtimed.client.calls.kernel import kernel_choice, log_environment, shown_on
from runtimed.client.calls.notebook import Notebook, check_text
from runtimed.client.calls.pages import Page, Pages
from runtimed.client.calls.streams import Stream
from runtimed.client.flows import Flow, OnEvent, ask, follow_events
from runtimed.client.given import check_callable
from runtimed.durations import DEFAULT_TIMEOUT, check_duration
from runtimed.errors import ExecutionNotFound, InvalidArgument
from runtimed.execution.outputs import OutputFold, blobs_in, to_public, with_values
from runtimed.ids import CellId, ExecutionId, cell_id_of, new_execution_id
from runtimed.models import ExecutionEvent, ExecutionResult, Output
from runtimed.progress import Progress
from runtimed.protocol import execution_operations as execution_ops
from runtimed.protocol.events import Event, Finished, InputRequested
from runtimed.transport.blocking import WaitTimeout

__all__ = [
    "Past",
    "answer",
    "cancel",
    "events",
    "find",
    "follow",
    "interrupt",
    "outputs",
    "past",
    "public",
    "raw_events",
    "submit",
    "wait",
]

END_OF_INPUT: Final = "\x04"
"""The answer to `input()` that ipykernel turns into EOFError."""


@dataclass(slots=True)
class Past:
    """The past of an execution; `Execution.follow` continues behind it.

    Attributes:
        outputs: Its outputs in their present state; none if they were not requested.
        question: The latest input request of its code.
        finished: Its last event, if it has ended.
        seen: The number of its latest event.
        fold: The fold that makes `outputs`.
    """

    outputs: tuple[Output, ...] = ()
    question: InputRequested | None = None
    finished: Finished | None = None
    seen: int = 0
    fold: OutputFold = field(default_factory=OutputFold)


def submit(
    notebook: Notebook,
    cell_id: str | None = None,
    *,
    code: str | None = None,
    execution_id: str | None = None,
    stdin: bool = True,
    unless_queued: bool = False,
    program: execution_ops.Program | None = None,
    user_expressions: Mapping[str, str] | None = None,
    silent: bool = False,
    store_history: bool = True,
    stop_on_error: bool = True,
    unless_failed: str | None = None,
    kernel_type: str = "python",
    env_source: str = "auto",
    notebook_path: str | Path | None = None,
    timeout_secs: float | None = None,
    progress: Progress | None = None,
) -> Flow[tuple[ExecutionId, CellId]]:
    """Queue code and return the handle of its execution at once; start a kernel if none runs.

    Args:
        cell_id: The cell to execute; None for a new one at the end of the document.
        code: The cell's new source, set in the same step; None executes the cell unchanged. A cell that does not exist
            is added.
        execution_id: The id of the execution, which makes a repeated call idempotent: of the same cell and code it
            returns the same handle. None for a generated one.
        stdin: Whether its code may ask for input (`input()`, `getpass`), because a client will `answer`; else asking
            raises.
        unless_queued: Whether to queue nothing while the latest execution of this cell has exactly this code and has
            not ended: then its handle is returned.
        program: How a Python kernel runs the code as a program; None runs it as a cell.
        user_expressions: Expressions by name that the kernel evaluates after the code, if that succeeds; for
            frontends. The raw event `Finished` has their values; see `Execution.follow`.
        silent: Whether the kernel neither counts the execution nor shows its result.
        store_history: Whether the kernel counts it. One that is silent or not counted belongs to no cell of the
            document: the code is neither added nor set.
        stop_on_error: Whether its failure cancels what this client has queued behind it.
        unless_failed: The id of an earlier execution. If that has failed meanwhile, this one is cancelled at once, as
            if it had waited behind it: for frontends that queue many cells in one go.
        kernel_type: The language, if a kernel is started; see `start_kernel`.
        env_source: Its environment; see `start_kernel`.
        notebook_path: Where it works; see `start_kernel`.
        timeout_secs: Seconds to wait for the start of a kernel; None for no limit.
        progress: Called with the progress of the environment's making.

    Raises:
        InvalidArgument: If neither a cell nor code is given.
        CellNotFound: If there is no such cell, and no code.
        InvalidCell: If it is no code cell, or the code is no valid source of a cell.
        InvalidArgument: If `execution_id` is that of an execution of another cell, or of other code.
        ExecutionTimeout: If the kernel takes too long to start. The execution is queued, and begins when it is there.
        KernelStartFailed: If a kernel was needed and did not start.

    Example:
        >>> execution = session.submit(code="train()")
        >>> for event in execution.events():
        ...     print(event.event_type)
        >>> execution.wait().success
        True
    """
    if cell_id is None and code is None:
        raise InvalidArgument("submit() takes the id of a cell, code, or both")
    if code is not None:
        check_text("code", code)
    timeout_secs = check_duration("timeout_secs", timeout_secs)
    execution_id = new_execution_id() if execution_id is None else execution_id
    operation = execution_ops.Enqueue(
        notebook_id=notebook.id,
        execution_id=execution_id,
        cell_id=cell_id_of(execution_id) if cell_id is None else cell_id,
        source=code,
        watch=False,
        stdin=stdin,
        program=program,
        user_expressions=dict(user_expressions or {}),
        silent=silent,
        store_history=store_history,
        stop_on_error=stop_on_error,
        unless_failed=unless_failed,
        unless_queued=unless_queued,
        kernel=kernel_choice(kernel_type, env_source, notebook_path),
    )
    try:
        reply = yield from follow_events(operation, shown_on(progress), timeout_secs)
    except WaitTimeout:
        raise (yield from executions.given_up(operation, timeout_secs, "leave")) from None
    explained = log_environment(reply.explained)
    if explained is not None and progress is not None:
        progress.announce(explained)
    return ExecutionId(reply.queued or operation.execution_id), CellId(operation.cell_id)


def find(notebook: Notebook, execution_id: str) -> Flow[tuple[ExecutionId, CellId]]:
    """Return the handle of an execution that any client submitted, at any time until it is deleted.

    Raises:
        ExecutionNotFound: If this session has no such execution.
    """
    for found in (yield from executions.find_executions(notebook, execution_id)):
        if found.execution_id == execution_id:
            return found.execution_id, found.cell_id
    raise ExecutionNotFound(f"Session {notebook.id!r} has no execution {execution_id!r}", execution_id=execution_id)


def events(notebook: Notebook, execution_id: str) -> Stream[ExecutionEvent]:
    """Iterate over the events of this execution, the past ones first, until it ends.

    First `execution_started`, then `output`s and, when its code asks for a line of input, `input_requested`; last
    exactly one `done` or `error`. All outputs come, however many there are, each in the pieces in which it arrived.
    """
    return Stream(notebook, to_public, execution_id=execution_id)


def raw_events(notebook: Notebook, execution_id: str) -> Stream[Event]:
    """Iterate over the raw events of this execution, the past ones first, until it ends; for frontends.

    As `raw_events` of a session: large values are in their places.
    """
    return Stream(notebook, with_values, execution_id=execution_id)


def answer(notebook: Notebook, execution_id: str, text: str | None) -> Flow[None]:
    """Answer the code's request for a line of input (`input_requested`).

    Args:
        text: The line, without its end; None for the end of the input: then `input()` raises EOFError.

    Raises:
        RuntimedError: If it does not wait for input.
        NoKernel: If its kernel is gone.
    """
    line = END_OF_INPUT if text is None else text
    yield from ask(execution_ops.Input(notebook_id=notebook.id, execution_id=execution_id, text=line))


def interrupt(notebook: Notebook, execution_id: str) -> Flow[None]:
    """Interrupt this execution if it runs: its code gets a KeyboardInterrupt. Harmless if it waits or has ended.

    Works from signal handlers and other threads while another call waits.
    """
    queue = yield from executions.get_queue(notebook)
    if any(entry.execution_id == execution_id and entry.status == "running" for entry in queue):
        # It may end meanwhile, and the next begin, which this leaves alone.
        yield from executions.cancel(notebook, execution_id)


def cancel(notebook: Notebook, execution_id: str) -> Flow[None]:
    """Remove this execution from the queue, or interrupt it if it runs. Harmless if it has ended.

    Works from signal handlers and other threads while another call waits.
    """
    yield from executions.cancel(notebook, execution_id)


def wait(
    notebook: Notebook, execution_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: OnTimeout = "leave"
) -> Flow[ExecutionResult]:
    """Wait for the end of this execution, and return the result. It can be called any number of times.

    Args:
        timeout_secs: How long to wait, in seconds; None for no limit.
        on_timeout: `leave` lets the execution go on, `interrupt` interrupts it.

    Raises:
        ExecutionTimeout: If it did not end in time.
        ExecutionCancelled: If it was cancelled before it began.
    """
    return (yield from executions.wait(notebook, execution_id, timeout_secs, on_timeout))


def past(notebook: Notebook, execution_id: str, *, whole: bool = True, outputs: bool = True) -> Flow[Past]:
    """Return the past of this execution, without waiting for more; for frontends.

    Args:
        whole: Whether to read the outputs beyond the daemon's limit `max_output_bytes`, too.
        outputs: Whether to return its outputs, and fetch their large values.
    """
    found = Past()

    def take(numbered: tuple[int, Event]) -> None:
        found.seen, event = numbered
        found.fold.add(event)
        match event:
            case InputRequested():
                found.question = event
            case Finished():
                found.finished = event
            case _:
                pass

    yield from read_events(notebook, execution_id, 0, whole=whole).each(take)
    if outputs:
        values = yield from fetch_blobs(notebook, found.fold.missing_blobs)
        found.outputs = found.fold.outputs_with(values)
    return found


def outputs(notebook: Notebook, execution_id: str) -> Pages[Output]:
    """Iterate over all stored outputs of this execution as its kernel sent them, also those that a result omits.

    A text that is longer than one page comes in pieces.
    """

    def read(after: int) -> Flow[Page[Output]]:
        page = yield from executions.read_outputs(notebook, execution_id, after)
        return Page(list(page.outputs), page.next)

    return Pages(read)


def follow(
    notebook: Notebook,
    execution_id: str,
    on_event: OnEvent | None = None,
    *,
    after: Past | None = None,
    timeout_secs: float | None = None,
    keep: bool = True,
) -> Flow[ExecutionResult]:
    """Follow this execution to its end and return the result, even if it was cancelled; for frontends.

    Args:
        on_event: Called with each raw event (`runtimed.protocol.events`), in order, before the next is read; `public`
            converts one to its public form. An exception of it ends the following, not the execution.
        after: The past that was read before: only later events come, and the result has both.
        timeout_secs: How long to wait, in seconds; None for no limit.
        keep: Whether the result has the outputs; else it has none.

    Raises:
        ExecutionTimeout: If it did not end in time. The execution goes on.
    """
    check_callable("on_event", on_event)
    if not isinstance(after, Past | None):
        raise InvalidArgument("after is what `read_past` returned, or None", argument="after")
    seen, fold = (0, None) if after is None else (after.seen, after.fold)
    watch = execution_ops.Watch(notebook_id=notebook.id, execution_id=execution_id, after=seen, whole=True)
    flow = executions.execute(notebook, watch, timeout_secs=timeout_secs, on_event=on_event, fold=fold, keep=keep)
    return (yield from flow)


def public(notebook: Notebook, event: Event) -> Flow[ExecutionEvent | None]:
    """Return the public form of a raw event, its large values fetched; None if it has none. For frontends."""
    blobs = blobs_in(event)
    return to_public(event, (yield from fetch_blobs(notebook, blobs)))
