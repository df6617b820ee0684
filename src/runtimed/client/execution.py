# Made from async_execution.py by `python -m tests.blocking_face`: edit that one.

"""`Execution`: one run of one cell. Every member is defined in `calls.execution`."""

from __future__ import annotations

from runtimed.client import calls
from runtimed.client.blocking_handle import BlockingHandle, EventIterator
from runtimed.client.flows import OnEvent
from runtimed.client.handle import documented
from runtimed.client.pages import Items
from runtimed.durations import DEFAULT_TIMEOUT
from runtimed.execution.outputs import blobs_in, to_public
from runtimed.ids import CellId, ExecutionId
from runtimed.models import ExecutionEvent, ExecutionResult, Output
from runtimed.protocol.events import Event
from runtimed.texts import printable

__all__ = ["Execution"]


@documented
class Execution:
    """One run of one cell, as `submit` and `execution` of a session return it. Dropping it does not affect the run.

    Attributes:
        id: Its id, by which any client finds it again.
        cell_id: The cell that is executed.

    Example:
        >>> with Session("analysis") as session:
        ...     execution = session.submit(code="name = input('Who? ')")
        ...     for event in execution.events():
        ...         if event.event_type == "input_requested":
        ...             execution.answer("Ada")
    """

    def __init__(self, session: BlockingHandle, execution_id: ExecutionId, cell_id: CellId) -> None:
        """Name an execution of a joined session; `submit` and `execution` of the session do so."""
        self.id = execution_id
        self.cell_id = cell_id
        self._session = session

    def __repr__(self) -> str:
        return f"Execution(id={printable(self.id)}, cell={printable(self.cell_id)})"

    def events(self) -> EventIterator[ExecutionEvent]:
        """See `calls.execution.events`."""
        return self._session._stream(calls.execution.events(self._session._notebook, self.id))

    def raw_events(self) -> EventIterator[Event]:
        """See `calls.execution.raw_events`."""
        return self._session._stream(calls.execution.raw_events(self._session._notebook, self.id))

    def outputs(self) -> Items[Output]:
        """See `calls.execution.outputs`."""
        self._session._check_connected()
        return Items(self._session._perform, calls.execution.outputs(self._session._notebook, self.id))

    def answer(self, text: str | None) -> None:
        """See `calls.execution.answer`."""
        self._session._check_connected()
        self._session._apart(calls.execution.answer(self._session._notebook, self.id, text))

    def interrupt(self) -> None:
        """See `calls.execution.interrupt`."""
        self._session._check_connected()
        self._session._apart(calls.execution.interrupt(self._session._notebook, self.id))

    def cancel(self) -> None:
        """See `calls.execution.cancel`."""
        self._session._check_connected()
        self._session._apart(calls.execution.cancel(self._session._notebook, self.id))

    def wait(
        self, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: calls.OnTimeout = "leave"
    ) -> ExecutionResult:
        """See `calls.execution.wait`."""
        return self._session._perform(calls.execution.wait(self._session._notebook, self.id, timeout_secs, on_timeout))

    def past(self, *, whole: bool = True, outputs: bool = True) -> calls.Past:
        """See `calls.execution.past`."""
        return self._session._perform(
            calls.execution.past(self._session._notebook, self.id, whole=whole, outputs=outputs)
        )

    def follow(
        self,
        on_event: OnEvent | None = None,
        *,
        after: calls.Past | None = None,
        timeout_secs: float | None = None,
        keep: bool = True,
    ) -> ExecutionResult:
        """See `calls.execution.follow`."""
        followed = calls.execution.follow(
            self._session._notebook, self.id, on_event, after=after, timeout_secs=timeout_secs, keep=keep
        )
        return self._session._perform(followed)

    def public(self, event: Event) -> ExecutionEvent | None:
        """See `calls.execution.public`."""
        if not blobs_in(event):
            return to_public(event)
        # The session's own connection may be in the middle of the exchange that brought this event.
        return self._session._apart(calls.execution.public(self._session._notebook, event))
