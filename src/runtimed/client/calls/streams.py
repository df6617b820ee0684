"""The operations that iterate over events."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from runtimed.client.calls.executions import queue_cell, timed_out
from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow, Follow
from runtimed.durations import DEFAULT_TIMEOUT, check_duration
from runtimed.execution.outputs import BlobValues, to_public
from runtimed.ids import ExecutionId
from runtimed.models import EventType, ExecutionEvent
from runtimed.protocol import operations as ops
from runtimed.protocol.events import Event, Finished
from runtimed.transport.blocking import WaitTimeout

__all__ = ["Stream", "stream_execute", "subscribe"]


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
            operation = ops.Watch(notebook_id=self._notebook.id, execution_id=execution_id, whole=True)
        else:
            operation = ops.Subscribe(notebook_id=self._notebook.id, cell_ids=self._cell_ids, after=joined["last"])
        return Follow(operation, lambda _event: None, self._timeout_secs)

    def public(self, event: Event, blob_values: BlobValues) -> ExecutionEvent | None:
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
            raise timed_out(self._execution_id, self._timeout_secs) from None


def stream_execute(notebook: Notebook, cell_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT) -> Stream:
    """Execute a cell and iterate over its events as they come; start a kernel if none runs.

    First `execution_started`, then `output`s, and last exactly one `done` or `error`. A stream's output holds the
    piece of text that just arrived; `get_cell_outputs` merges them. All outputs come, however many there are.

    Args:
        cell_id: A code cell.
        timeout_secs: How long to wait for the end, in seconds; None for no limit.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If it is no code cell.
        ExecutionTimeout: While iterating, if it does not end in time. The execution goes on.
    """
    return Stream(notebook, queue_cell(notebook, cell_id), check_duration("timeout_secs", timeout_secs))


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
