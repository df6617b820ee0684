"""The operations that execute cells and wait for results."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Final, Literal, get_args

import msgspec

from runtimed.client.calls.cells import fetch_blobs
from runtimed.client.calls.kernel import kernel_choice, log_environment
from runtimed.client.calls.notebook import Notebook, check_text
from runtimed.client.calls.variables import result_value
from runtimed.client.flows import Flow, OnEvent, ask, follow_events
from runtimed.client.given import check_choice
from runtimed.durations import DEFAULT_TIMEOUT, check_duration
from runtimed.errors import ExecutionCancelled, ExecutionTimeout, NoKernel, ProtocolError, RuntimedError
from runtimed.execution.outputs import OutputFold, blobs_in, plain_outputs
from runtimed.ids import CellId, ExecutionId, new_cell_id, new_execution_id
from runtimed.models import ExecutionResult, ExecutionSummary, OutputPage, QueuedExecution
from runtimed.protocol import execution_operations as execution_ops
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Clear, Display, Event, Failed, Finished, Stream
from runtimed.transport.blocking import WaitTimeout

__all__ = [
    "OnTimeout",
    "cancel",
    "enqueue",
    "execute",
    "execute_cell",
    "find_executions",
    "get_queue",
    "given_up",
    "queue_cell",
    "queued",
    "read_outputs",
    "run",
    "timed_out",
    "wait",
]

OnTimeout = Literal["leave", "interrupt"]

PAGE: Final = 8 * 2**20
"""Bytes of outputs, values of blobs included, in one page."""


def run(
    notebook: Notebook, code: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: OnTimeout = "leave"
) -> Flow[ExecutionResult]:
    """Add a cell with this code, execute it, and return the result; start a kernel if none runs.

    Args:
        code: The code. It is in the document before any client sees its first output.
        timeout_secs: How long to wait for the end, in seconds, the start of a kernel included; None for no limit.
        on_timeout: `leave` lets the execution go on, `interrupt` interrupts it.

    Returns:
        The outputs, up to the daemon's limit `max_output_bytes`. A result that omits some is marked (`truncated`), and
        `read_outputs` reads them.

    Raises:
        ExecutionTimeout: If it did not end in time; `wait` and `cancel` take its `execution_id`.
        ExecutionCancelled: If it was cancelled before it began.
        InvalidCell: If the code is no valid source of a cell.
        KernelStartFailed: If a kernel was needed and did not start.
    """
    check_text("code", code)
    operation = execution_ops.Enqueue(
        notebook_id=notebook.id,
        execution_id=new_execution_id(),
        cell_id=new_cell_id(),
        source=code,
        kernel=kernel_choice(),
    )
    return (yield from _execute_to_the_end(notebook, operation, timeout_secs, on_timeout))


def execute_cell(
    notebook: Notebook, cell_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: OnTimeout = "leave"
) -> Flow[ExecutionResult]:
    """Execute a cell of the document and return the result; start a kernel if none runs.

    The daemon reads the source from the document, so all clients see the executed code. Each call is an execution of
    its own, even if the cell runs already.

    Args:
        cell_id: A code cell.
        timeout_secs: How long to wait for the end, in seconds, the start of a kernel included; None for no limit.
        on_timeout: `leave` lets the execution go on, `interrupt` interrupts it.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If it is no code cell.
        ExecutionTimeout: If it did not end in time; `wait` and `cancel` take its `execution_id`.
        ExecutionCancelled: If it was cancelled before it began.
        KernelStartFailed: If a kernel was needed and did not start.
    """
    operation = execution_ops.Enqueue(
        notebook_id=notebook.id, execution_id=new_execution_id(), cell_id=cell_id, kernel=kernel_choice()
    )
    return (yield from _execute_to_the_end(notebook, operation, timeout_secs, on_timeout))


def queue_cell(notebook: Notebook, cell_id: str) -> Flow[ExecutionId]:
    """Queue the execution of a cell and return its id at once; start a kernel if none runs.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If it is no code cell.
        KernelStartFailed: If a kernel was needed and did not start.
    """
    operation = queued(notebook, cell_id)
    yield from enqueue(operation)
    return ExecutionId(operation.execution_id)


def queued(notebook: Notebook, cell_id: str) -> execution_ops.Enqueue:
    """Return what asks for an execution that nobody watches yet."""
    return execution_ops.Enqueue(
        notebook_id=notebook.id, execution_id=new_execution_id(), cell_id=cell_id, kernel=kernel_choice(), watch=False
    )


def enqueue(operation: execution_ops.Enqueue) -> Flow[None]:
    """Queue an execution; start a kernel if none runs."""
    log_environment((yield from ask(operation)).explained)


def get_queue(notebook: Notebook) -> Flow[list[QueuedExecution]]:
    """Return the running execution, and behind it the waiting ones, in order. The call does not count as use.

    Returns:
        The first 1000 executions; none if nothing runs or waits.
    """
    reply = yield from ask(execution_ops.GetQueue(notebook_id=notebook.id))
    return reply.executions


def find_executions(notebook: Notebook, prefix: str | None) -> Flow[list[ExecutionSummary]]:
    """Return executions of a session; see `Sessions.find_executions`."""
    return (yield from ask(execution_ops.FindExecutions(notebook_id=notebook.id, prefix=prefix))).executions


def wait(
    notebook: Notebook, execution_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: OnTimeout = "leave"
) -> Flow[ExecutionResult]:
    """Wait for the end of an execution that any client started, at any time, and return the result.

    Raises:
        ExecutionTimeout: If it did not end in time.
        ExecutionCancelled: If it was cancelled before it began.
        ExecutionNotFound: If this session has no such execution.
    """
    operation = execution_ops.Watch(notebook_id=notebook.id, execution_id=execution_id)
    return (yield from _execute_to_the_end(notebook, operation, timeout_secs, on_timeout))


def cancel(notebook: Notebook, execution_id: str) -> Flow[None]:
    """Remove an execution from the queue, or interrupt it if it runs. Harmless if it has ended.

    Raises:
        ExecutionNotFound: If this session has no such execution.
    """
    yield from ask(execution_ops.CancelExecution(notebook_id=notebook.id, execution_id=execution_id))


def read_outputs(notebook: Notebook, execution_id: str, after: int = 0) -> Flow[OutputPage]:
    """Read all stored outputs of an execution in pages, also those that a result omits.

    Args:
        execution_id: An execution of this session, at any time until it is deleted (see RUNTIMED_KEEP_DAYS).
        after: Where to begin: 0, the `next` of a page, or the `omitted_after` of a result or a cell.

    Returns:
        About 8 MiB of outputs, as the kernel sent them. A single larger one is a page of its own.

    Raises:
        ExecutionNotFound: If this session has no such execution.

    Example:
        >>> after = 0
        >>> while after is not None:
        ...     page = session.read_outputs(result.execution_id, after)
        ...     file.writelines(output.text for output in page.outputs if output.name == "stdout")
        ...     after = page.next
    """
    reply = yield from ask(
        execution_ops.ReadEvents(notebook_id=notebook.id, execution_id=execution_id, after=after, whole=True)
    )
    events: list[Event] = []
    last, size, more = after, 0, reply.more
    for seq, body in reply.events:
        event = decode_event(body)
        size += len(body) + sum(blob.size for blob in blobs_in(event))
        if events and size > PAGE:
            more = True
            break
        last = seq
        events.append(event)
    values = yield from fetch_blobs(notebook, [blob for event in events for blob in blobs_in(event)])
    return OutputPage(outputs=plain_outputs(events, values), next=last if more else None)


def _execute_to_the_end(
    notebook: Notebook,
    operation: execution_ops.Enqueue | execution_ops.Watch,
    timeout_secs: float | None,
    on_timeout: OnTimeout,
) -> Flow[ExecutionResult]:
    ends: list[Finished] = []

    def note_end(event: Event) -> None:
        if isinstance(event, Finished):
            ends.append(event)

    result = yield from execute(
        notebook, operation, timeout_secs=timeout_secs, on_timeout=on_timeout, on_event=note_end
    )
    if ends and ends[-1].status == "cancelled":
        raise ExecutionCancelled(ends[-1].message or "Cancelled", execution_id=operation.execution_id)
    return result


def execute(
    notebook: Notebook,
    operation: execution_ops.Enqueue | execution_ops.Watch,
    *,
    timeout_secs: float | None,
    on_timeout: OnTimeout = "leave",
    on_event: OnEvent | None = None,
    fold: OutputFold | None = None,
    keep: bool = True,
) -> Flow[ExecutionResult]:
    """Follow an execution to its end, even one that is cancelled; start a kernel if it needs one.

    Args:
        on_event: Sees each raw event, too, and the progress of a kernel's start.
        fold: What came before, for a `Watch` that begins in the middle; the result has it, too.
        keep: Whether the result holds the outputs.
    """
    timeout_secs = check_duration("timeout_secs", timeout_secs)
    check_choice("on_timeout", on_timeout, get_args(OnTimeout))
    fold = fold or OutputFold()
    is_queued = isinstance(operation, execution_ops.Watch)

    def take(event: Event) -> None:
        nonlocal is_queued
        is_queued = is_queued or event.execution_id is not None
        if keep or not isinstance(event, Stream | Display | Failed | Clear):
            fold.add(event)
        if on_event is not None:
            on_event(event)

    try:
        ended = yield from _end(operation, take, timeout_secs)
    except WaitTimeout:
        if isinstance(operation, execution_ops.Enqueue) and not is_queued:
            raise (yield from given_up(operation, timeout_secs, on_timeout)) from None
        outcome = None
        if on_timeout == "interrupt":
            yield from ask(execution_ops.CancelExecution(notebook_id=notebook.id, execution_id=operation.execution_id))
            outcome = "it was interrupted"
        raise timed_out(operation.execution_id, timeout_secs, outcome) from None
    values = yield from fetch_blobs(notebook, fold.missing_blobs)
    result = fold.result(CellId(ended.cell_id), ExecutionId(operation.execution_id), values)
    if any(output.output_type == "execute_result" for output in result.outputs):
        # Read now: the kernel, and the connection, may be gone when the value is used.
        pickled = yield from result_value(notebook, operation.execution_id)
        result = replace(result, pickled=pickled)
    return result


def _end(
    operation: execution_ops.Enqueue | execution_ops.Watch, on_event: OnEvent, timeout_secs: float | None
) -> Flow[execution_ops.WatchReply]:
    """Follow an execution, and return how it has ended."""
    if isinstance(operation, execution_ops.Watch):
        return (yield from follow_events(operation, on_event, timeout_secs))
    reply = yield from follow_events(operation, on_event, timeout_secs)
    log_environment(reply.explained)
    if reply.ended is None:
        raise ProtocolError(f"the daemon does not say how the execution {operation.execution_id} has ended")
    return reply.ended


def given_up(
    operation: execution_ops.Enqueue, timeout_secs: float | None, on_timeout: OnTimeout
) -> Flow[ExecutionTimeout]:
    """Return the error of a request that was given up, because the kernel that it waits for still starts.

    Args:
        on_timeout: `leave` queues the execution, which begins when the kernel is there.
    """
    execution_id, outcome = operation.execution_id, "it never began, as its kernel still starts"
    if on_timeout == "interrupt":
        # Another client's request may have queued it.
        with contextlib.suppress(RuntimedError):
            yield from ask(execution_ops.CancelExecution(notebook_id=operation.notebook_id, execution_id=execution_id))
        return timed_out(execution_id, timeout_secs, outcome)
    # The start may have failed just now.
    with contextlib.suppress(NoKernel):
        reply = yield from ask(msgspec.structs.replace(operation, watch=False, kernel=None))
        return timed_out(reply.queued or execution_id, timeout_secs)
    return timed_out(execution_id, timeout_secs, outcome)


def timed_out(execution_id: str | None, timeout_secs: float | None, outcome: str | None = None) -> ExecutionTimeout:
    """Return the error for a wait that timed out; it says what became of the execution.

    Args:
        outcome: What became of it; None if it runs on.
    """
    runs_on = f"it runs on: session.wait({execution_id!r}) waits for it, session.cancel({execution_id!r}) ends it"
    return ExecutionTimeout(
        f"Execution timed out after {timeout_secs:g} seconds; {outcome or runs_on}",
        execution_id=execution_id,
        timeout_secs=timeout_secs,
    )
