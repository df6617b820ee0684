"""`AsyncExecution`: one run of one cell, for asyncio. Every member is defined in `calls.execution`."""

from __future__ import annotations

from runtimed.client import calls
from runtimed.client.async_handle import AsyncHandle, EventStream
from runtimed.client.async_pages import AsyncItems
from runtimed.client.flows import OnEvent
from runtimed.client.handle import documented
from runtimed.durations import DEFAULT_TIMEOUT
from runtimed.execution.outputs import blobs_in, to_public
from runtimed.ids import CellId, ExecutionId
from runtimed.models import ExecutionEvent, ExecutionResult, Output
from runtimed.protocol.events import Event
from runtimed.texts import printable

__all__ = ["AsyncExecution"]


@documented
class AsyncExecution:
    """One run of one cell, as `submit` and `execution` of a session return it. Dropping it does not affect the run.

    Attributes:
        id: Its id, by which any client finds it again.
        cell_id: The cell that is executed.

    Example:
        >>> async with AsyncSession("analysis") as session:
        ...     execution = await session.submit(code="name = input('Who? ')")
        ...     async for event in execution.events():
        ...         if event.event_type == "input_requested":
        ...             await execution.answer("Ada")
    """

    def __init__(self, session: AsyncHandle, execution_id: ExecutionId, cell_id: CellId) -> None:
        """Name an execution of a joined session; `submit` and `execution` of the session do so."""
        self.id = execution_id
        self.cell_id = cell_id
        self._session = session

    def __repr__(self) -> str:
        return f"AsyncExecution(id={printable(self.id)}, cell={printable(self.cell_id)})"

    def events(self) -> EventStream[ExecutionEvent]:
        """See `calls.execution.events`."""
        return self._session._stream(calls.execution.events(self._session._notebook, self.id))

    def raw_events(self) -> EventStream[Event]:
        """See `calls.execution.raw_events`."""
        return self._session._stream(calls.execution.raw_events(self._session._notebook, self.id))

    def outputs(self) -> AsyncItems[Output]:
        """See `calls.execution.outputs`."""
        self._session._check_connected()
        return AsyncItems(self._session._perform, calls.execution.outputs(self._session._notebook, self.id))

    async def answer(self, text: str | None) -> None:
        """See `calls.execution.answer`."""
        self._session._check_connected()
        await self._session._apart(calls.execution.answer(self._session._notebook, self.id, text))

    async def interrupt(self) -> None:
        """See `calls.execution.interrupt`."""
        self._session._check_connected()
        await self._session._apart(calls.execution.interrupt(self._session._notebook, self.id))

    async def cancel(self) -> None:
        """See `calls.execution.cancel`."""
        self._session._check_connected()
        await self._session._apart(calls.execution.cancel(self._session._notebook, self.id))

    async def wait(
        self, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: calls.OnTimeout = "leave"
    ) -> ExecutionResult:
        """See `calls.execution.wait`."""
        return await self._session._perform(
            calls.execution.wait(self._session._notebook, self.id, timeout_secs, on_timeout)
        )

    async def past(self, *, whole: bool = True, outputs: bool = True) -> calls.Past:
        """See `calls.execution.past`."""
        return await self._session._perform(
            calls.execution.past(self._session._notebook, self.id, whole=whole, outputs=outputs)
        )

    async def follow(
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
        return await self._session._perform(followed)

    async def public(self, event: Event) -> ExecutionEvent | None:
        """See `calls.execution.public`."""
        if not blobs_in(event):
            return to_public(event)
        # The session's own connection may be in the middle of the exchange that brought this event.
        return await self._session._apart(calls.execution.public(self._session._notebook, event))
