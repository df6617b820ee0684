"""The operations that iterate over events."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Generic, TypeVar, get_args

import msgspec

from runtimed.client.calls.executions import enqueue, queued, timed_out
from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow, Follow
from runtimed.client.given import check_text_list
from runtimed.durations import DEFAULT_TIMEOUT, check_duration
from runtimed.errors import InvalidArgument
from runtimed.execution.outputs import BlobValues, to_public, with_values
from runtimed.models import EventType, ExecutionEvent
from runtimed.protocol import execution_operations as execution_ops
from runtimed.protocol.events import CellChanged, Event, Finished
from runtimed.transport.blocking import WaitTimeout

__all__ = ["Stream", "raw_events", "stream_execute", "subscribe"]

EventT = TypeVar("EventT")

Show = Callable[[Event, BlobValues], EventT | None]
"""Returns an event, with its large values, as the consumer gets it; None for one that it does not get."""


class Stream(Generic[EventT]):
    """A recipe for an iterator of events, for both faces.

    `prepare` runs on the handle's own connection; `begin` returns the step to follow on a separate connection.
    """

    def __init__(
        self,
        notebook: Notebook,
        show: Show[EventT],
        *,
        enqueue: execution_ops.Enqueue | None = None,
        execution_id: str | None = None,
        timeout_secs: float | None = None,
        cell_ids: Sequence[str] | None = None,
        comms: bool = False,
    ) -> None:
        """Describe a stream.

        Args:
            notebook: The notebook.
            show: Makes the consumer's form of an event.
            enqueue: What to queue first.
            execution_id: The execution whose events come, from its first one on; None for all events.
            timeout_secs: Seconds to wait for its end.
            cell_ids: Only the events of these cells, and those of the kernel.
            comms: Whether messages of comms come, too.
        """
        self._notebook = notebook
        self._show = show
        self._enqueue = enqueue
        self._execution_id = execution_id if enqueue is None else enqueue.execution_id
        self._timeout_secs = timeout_secs
        operation: execution_ops.Watch | execution_ops.Subscribe
        if self._execution_id is not None:
            operation = execution_ops.Watch(notebook_id=notebook.id, execution_id=self._execution_id, whole=True)
        else:
            operation = execution_ops.Subscribe(
                notebook_id=notebook.id,
                cell_ids=None if cell_ids is None else list(cell_ids),
                comms=comms,
            )
        self._follow = Follow(operation, lambda _event: None, timeout_secs)

    @property
    def counts_from_now(self) -> bool:
        """Whether only events after the iterator's creation count."""
        return self._execution_id is None

    def prepare(self) -> Flow[None]:
        """Queue the watched execution. The ids are the stream's, so this is idempotent."""
        if self._enqueue is not None:
            yield from enqueue(self._enqueue)

    def begin(self, after: int) -> Follow:
        """Return the step to follow.

        Args:
            after: Number of the last event before those that count. All events of an execution count.
        """
        if not self.counts_from_now:
            return self._follow
        return replace(self._follow, operation=msgspec.structs.replace(self._follow.operation, after=after))

    def shown(self, event: Event, blob_values: BlobValues) -> EventT | None:
        """Return the event for the consumer; None for one that it does not get."""
        if isinstance(event, CellChanged) and event.change == "deleted" and event.cell_id is not None:
            self._notebook.seen.pop(event.cell_id, None)
        return self._show(event, blob_values)

    def is_last(self, event: Event) -> bool:
        """Whether the iterator ends here."""
        return self._execution_id is not None and isinstance(event, Finished)

    @contextlib.contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Translate the end of the wait into the error that the consumer expects."""
        try:
            yield
        except WaitTimeout:
            raise timed_out(self._execution_id, self._timeout_secs) from None


def stream_execute(
    notebook: Notebook, cell_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT
) -> Stream[ExecutionEvent]:
    """Execute a cell and iterate over its events as they come; start a kernel if none runs.

    First `execution_started`, then `output`s, and last exactly one `done` or `error`. A stream's output has the piece
    of text that just arrived; `get_cell_outputs` merges them. All outputs come, however many there are.

    Args:
        cell_id: A code cell.
        timeout_secs: How long to wait for the end, in seconds; None for no limit.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If it is no code cell.
        ExecutionTimeout: While iterating, if it does not end in time. The execution goes on.
    """
    timeout = check_duration("timeout_secs", timeout_secs)
    return Stream(notebook, to_public, enqueue=queued(notebook, cell_id), timeout_secs=timeout)


def subscribe(
    notebook: Notebook, cell_ids: Sequence[str] | None = None, event_types: Sequence[EventType] | None = None
) -> Stream[ExecutionEvent]:
    """Iterate over the events of all clients' work in this session, until the iterator is closed.

    Events count from this call on, whenever the first of them is taken.

    Args:
        cell_ids: Only the events of these cells, and those of the kernel; None for all.
        event_types: Only events of these types; None for all but input requests of code (`input_requested`) and
            messages of comms (`comm`). The latter are not stored: they come from the first event on that is taken, as
            long as the reader keeps up. Where some are missing, because the reader was too slow, the connection broke,
            or one was larger than 15 MiB, comes a `comms_missed` with their number.

    Raises:
        InvalidArgument: If an argument is no list, or if there is no such type.
    """
    if cell_ids is not None:
        cell_ids = check_text_list("cell_ids", cell_ids)
    every = set(get_args(EventType))
    if event_types is None:
        wanted = every - {"input_requested", "comm"}
    else:
        wanted = set(check_text_list("event_types", event_types))
        for unknown in sorted(wanted - every):
            raise InvalidArgument(
                f"There are no events of the type {reprlib.repr(unknown)}; those that there are: "
                f"{', '.join(get_args(EventType))}",
                argument="event_types",
            )
    if "comm" in wanted:
        wanted.add("comms_missed")

    def show(event: Event, values: BlobValues) -> ExecutionEvent | None:
        public = to_public(event, values)
        return public if public is not None and public.event_type in wanted else None

    return Stream(notebook, show, cell_ids=cell_ids, comms="comm" in wanted)


def raw_events(notebook: Notebook) -> Stream[Event]:
    """Iterate over the raw events of all clients' work in this session, until the iterator is closed; for frontends.

    Events (`runtimed.protocol.events`) count from this call on, and are complete: a display can be told from its update
    and from its end, and large values are in their places. An update comes once for each execution that shows the
    display. Messages of comms come as with `subscribe`.
    """
    return Stream(notebook, with_values, comms=True)
