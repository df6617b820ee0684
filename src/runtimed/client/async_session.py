"""`AsyncSession`: `Session` with coroutines. Every member is defined in `calls`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from runtimed.client import calls
from runtimed.client.aio import AsyncConnection, AsyncEvents
from runtimed.client.blocking import Connection
from runtimed.client.flows import Flow
from runtimed.client.handle import Handle, documented
from runtimed.durations import DEFAULT_TIMEOUT
from runtimed.errors import ConnectionLost, DaemonUnavailable, NotConnected, RuntimedError
from runtimed.execution.outputs import blobs_in
from runtimed.ids import CellId, ExecutionId
from runtimed.models import (
    Cell,
    CellType,
    EventType,
    ExecutionEvent,
    ExecutionResult,
    Output,
    OutputPage,
    QueuedExecution,
    SessionStatus,
    SyncEnvironmentResult,
)
from runtimed.protocol.events import Event
from runtimed.texts import printable

__all__ = ["AsyncSession", "EventStream"]

T = TypeVar("T")


@documented
class AsyncSession(Handle):
    """A live notebook session, joined by its id, for asyncio.

    The members are those of `Session`, as coroutines; so are `is_connected`, `kernel_started` and `env_source`. Many
    calls may be in flight at a time, in as many event loops and threads: each loop has a connection of its own. What
    iterates over events belongs to the loop in which it began.

    Example:
        >>> async with AsyncSession("analysis") as session:
        ...     result = await session.run("6 * 7")
    """

    def _prepare(self) -> None:
        self._connection = AsyncConnection(self._identity, self._join)

    # --- state ---

    async def is_connected(self) -> bool:
        """Whether this handle is connected to the daemon. Never raises."""
        return self._connection.is_open

    async def kernel_started(self) -> bool:
        """Whether a kernel runs for this session; False when disconnected. Never raises."""
        status = await self._look()
        return status is not None and status.kernel_pid is not None

    async def env_source(self) -> str | None:
        """Where the running kernel's environment comes from; None without one. Never raises."""
        status = await self._look()
        return status.env_source if status is not None else None

    def __repr__(self) -> str:
        state = "connected" if self._connection.is_open else "disconnected"
        return f"AsyncSession(id={printable(self.notebook_id)}, status={state})"

    async def _look(self) -> SessionStatus | None:
        if not self._connection.is_open:
            return None
        try:
            return await self._apart(calls.get_session(self._notebook), start_daemon=False)
        except RuntimedError:
            return None

    # --- life ---

    async def connect(self) -> None:
        """Join the session, starting the daemon if none answers. Harmless when connected.

        Raises:
            DaemonUnavailable: If no daemon can be reached or started.
            ProtocolError: If the daemon is of another version.
        """
        await self._connection.open()
        self._was_connected = True

    async def close(self) -> None:
        """Leave the session; it lives on. Closing twice is harmless."""
        self._connection.close()

    async def stop(self) -> None:
        """See `calls.stop`."""
        self._check_was_connected()
        await self._apart(calls.stop(self._notebook))
        await self.close()

    async def status(self) -> SessionStatus:
        """See `calls.get_session`."""
        self._check_was_connected()
        return await self._apart(calls.get_session(self._notebook))

    async def __aenter__(self) -> AsyncSession:
        await self.connect()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._generated:
                await self._apart(calls.leave(self._notebook, failed=exc_type is not None), start_daemon=False)
        except DaemonUnavailable:
            # Whoever ended the daemon ended the session, or wants its kernel to live on.
            return
        except RuntimedError:
            # The error that ends the block is the one to see; without one, this is.
            if exc_type is None:
                raise
        finally:
            await self.close()

    # --- kernel ---

    async def start_kernel(
        self, kernel_type: str = "python", env_source: str = "auto", notebook_path: str | Path | None = None
    ) -> None:
        """See `calls.start_kernel`."""
        await self.connect()
        await self._perform(calls.start_kernel(self._notebook, kernel_type, env_source, notebook_path))

    async def trust_environment(self, notebook_path: str | Path | None = None) -> str:
        """See `calls.trust_environment`."""
        await self.connect()
        return await self._perform(calls.trust_environment(self._notebook, notebook_path))

    async def restart_kernel(self) -> None:
        """See `calls.restart_kernel`."""
        await self._perform(calls.restart_kernel(self._notebook))

    async def shutdown_kernel(self) -> None:
        """See `calls.shutdown_kernel`."""
        await self._perform(calls.shutdown_kernel(self._notebook))

    async def interrupt(self) -> None:
        """See `calls.interrupt`."""
        self._check_connected()
        await self._apart(calls.interrupt(self._notebook))

    async def complete(self, code: str, cursor_pos: int | None = None) -> dict[str, Any]:
        """See `calls.complete`."""
        return await self._perform(calls.complete(self._notebook, code, cursor_pos))

    async def inspect(self, code: str, cursor_pos: int | None = None, detail_level: int = 0) -> dict[str, Any]:
        """See `calls.inspect`."""
        return await self._perform(calls.inspect(self._notebook, code, cursor_pos, detail_level))

    async def get(self, name: str) -> Any:
        """See `calls.get`."""
        return await self._perform(calls.get(self._notebook, name))

    async def put(self, name: str, value: Any) -> None:
        """See `calls.put`."""
        await self._perform(calls.put(self._notebook, name, value))

    # --- cells ---

    async def create_cell(self, source: str = "", cell_type: CellType = "code", index: int | None = None) -> CellId:
        """See `calls.create_cell`."""
        await self.connect()
        return await self._perform(calls.create_cell(self._notebook, source, cell_type, index))

    async def set_source(self, cell_id: str, source: str) -> None:
        """See `calls.set_source`."""
        await self._perform(calls.set_source(self._notebook, cell_id, source))

    async def append_source(self, cell_id: str, text: str) -> None:
        """See `calls.append_source`."""
        await self._perform(calls.append_source(self._notebook, cell_id, text))

    async def delete_cell(self, cell_id: str) -> None:
        """See `calls.delete_cell`."""
        await self._perform(calls.delete_cell(self._notebook, cell_id))

    async def move_cell(self, cell_id: str, after_cell_id: str | None = None) -> None:
        """See `calls.move_cell`."""
        await self._perform(calls.move_cell(self._notebook, cell_id, after_cell_id))

    async def clear_outputs(self, cell_id: str) -> None:
        """See `calls.clear_outputs`."""
        await self._perform(calls.clear_outputs(self._notebook, cell_id))

    async def set_cell_metadata(self, cell_id: str, key: str, value: str) -> None:
        """See `calls.set_cell_metadata`."""
        await self._perform(calls.set_cell_metadata(self._notebook, cell_id, key, value))

    async def set_cell_type(self, cell_id: str, cell_type: CellType) -> None:
        """See `calls.set_cell_type`."""
        await self._perform(calls.set_cell_type(self._notebook, cell_id, cell_type))

    async def get_cell(self, cell_id: str) -> Cell:
        """See `calls.get_cell`."""
        return await self._perform(calls.get_cell(self._notebook, cell_id))

    async def get_cells(self) -> list[Cell]:
        """See `calls.get_cells`."""
        return await self._perform(calls.get_cells(self._notebook))

    async def get_cell_ids(self) -> list[CellId]:
        """See `calls.get_cell_ids`."""
        return await self._perform(calls.get_cell_ids(self._notebook))

    async def get_cell_source(self, cell_id: str) -> str | None:
        """See `calls.get_cell_source`."""
        return await self._perform(calls.get_cell_source(self._notebook, cell_id))

    async def get_cell_type(self, cell_id: str) -> CellType | None:
        """See `calls.get_cell_type`."""
        return await self._perform(calls.get_cell_type(self._notebook, cell_id))

    async def get_cell_outputs(self, cell_id: str) -> list[Output] | None:
        """See `calls.get_cell_outputs`."""
        return await self._perform(calls.get_cell_outputs(self._notebook, cell_id))

    async def get_cell_execution_count(self, cell_id: str) -> int | None:
        """See `calls.get_cell_execution_count`."""
        return await self._perform(calls.get_cell_execution_count(self._notebook, cell_id))

    async def get_cell_position(self, cell_id: str) -> str | None:
        """See `calls.get_cell_position`."""
        return await self._perform(calls.get_cell_position(self._notebook, cell_id))

    async def get_cell_metadata(self, cell_id: str) -> dict[str, str] | None:
        """See `calls.get_cell_metadata`."""
        return await self._perform(calls.get_cell_metadata(self._notebook, cell_id))

    # --- executions ---

    async def run(
        self, code: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: calls.OnTimeout = "leave"
    ) -> ExecutionResult:
        """See `calls.run`."""
        await self.connect()
        return await self._perform(calls.run(self._notebook, code, timeout_secs, on_timeout))

    async def execute_cell(
        self, cell_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: calls.OnTimeout = "leave"
    ) -> ExecutionResult:
        """See `calls.execute_cell`."""
        await self.connect()
        return await self._perform(calls.execute_cell(self._notebook, cell_id, timeout_secs, on_timeout))

    async def queue_cell(self, cell_id: str) -> ExecutionId:
        """See `calls.queue_cell`."""
        return await self._perform(calls.queue_cell(self._notebook, cell_id))

    async def get_queue(self) -> list[QueuedExecution]:
        """See `calls.get_queue`."""
        return await self._perform(calls.get_queue(self._notebook))

    async def wait(
        self, execution_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: calls.OnTimeout = "leave"
    ) -> ExecutionResult:
        """See `calls.wait`."""
        return await self._perform(calls.wait(self._notebook, execution_id, timeout_secs, on_timeout))

    async def read_outputs(self, execution_id: str, after: int = 0) -> OutputPage:
        """See `calls.read_outputs`."""
        return await self._perform(calls.read_outputs(self._notebook, execution_id, after))

    async def cancel(self, execution_id: str) -> None:
        """See `calls.cancel`."""
        self._check_connected()
        await self._apart(calls.cancel(self._notebook, execution_id))

    def stream_execute(self, cell_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT) -> EventStream:
        """See `calls.stream_execute`."""
        self._check_connected()
        return EventStream(self, calls.stream_execute(self._notebook, cell_id, timeout_secs))

    def subscribe(
        self, cell_ids: Sequence[str] | None = None, event_types: Sequence[EventType] | None = None
    ) -> EventStream:
        """See `calls.subscribe`."""
        self._check_connected()
        events = EventStream(self, calls.subscribe(self._notebook, cell_ids, event_types))
        events._pin()
        return events

    # --- metadata ---

    async def set_metadata(self, key: str, value: str) -> None:
        """See `calls.set_metadata`."""
        await self.connect()
        await self._perform(calls.set_metadata(self._notebook, key, value))

    async def get_metadata(self, key: str) -> str | None:
        """See `calls.get_metadata`."""
        await self.connect()
        return await self._perform(calls.get_metadata(self._notebook, key))

    async def set_kernelspec(self, name: str, display_name: str, language: str | None = None) -> None:
        """See `calls.set_kernelspec`."""
        await self._perform(calls.set_kernelspec(self._notebook, name, display_name, language))

    async def get_kernelspec(self) -> dict[str, str] | None:
        """See `calls.get_kernelspec`."""
        return await self._perform(calls.get_kernelspec(self._notebook))

    # --- dependencies ---

    async def get_uv_dependencies(self) -> list[str]:
        """See `calls.get_uv_dependencies`."""
        await self.connect()
        return await self._perform(calls.get_uv_dependencies(self._notebook))

    async def add_uv_dependency(self, package: str) -> None:
        """See `calls.add_uv_dependency`."""
        await self.connect()
        await self._perform(calls.add_uv_dependency(self._notebook, package))

    async def add_uv_dependencies(self, packages: Sequence[str]) -> None:
        """See `calls.add_uv_dependencies`."""
        await self.connect()
        await self._perform(calls.add_uv_dependencies(self._notebook, packages))

    async def remove_uv_dependency(self, package: str) -> bool:
        """See `calls.remove_uv_dependency`."""
        await self.connect()
        return await self._perform(calls.remove_uv_dependency(self._notebook, package))

    async def get_conda_dependencies(self) -> list[str]:
        """See `calls.get_conda_dependencies`."""
        await self.connect()
        return await self._perform(calls.get_conda_dependencies(self._notebook))

    async def add_conda_dependency(self, package: str) -> None:
        """See `calls.add_conda_dependency`."""
        await self.connect()
        await self._perform(calls.add_conda_dependency(self._notebook, package))

    async def add_conda_dependencies(self, packages: Sequence[str]) -> None:
        """See `calls.add_conda_dependencies`."""
        await self.connect()
        await self._perform(calls.add_conda_dependencies(self._notebook, packages))

    async def remove_conda_dependency(self, package: str) -> bool:
        """See `calls.remove_conda_dependency`."""
        await self.connect()
        return await self._perform(calls.remove_conda_dependency(self._notebook, package))

    async def sync_environment(self) -> SyncEnvironmentResult:
        """See `calls.sync_environment`."""
        return await self._perform(calls.sync_environment(self._notebook))

    # --- how a call is made ---

    def _check_connected(self) -> None:
        if not self._connection.was_opened:
            raise NotConnected("Not connected", notebook_id=self.notebook_id)

    async def _perform(self, flow: Flow[T]) -> T:
        self._check_connected()
        return await self._connection.perform(flow)

    async def _apart(self, flow: Flow[T], *, start_daemon: bool = True) -> T:
        """Use a short connection, so that it works after the end, too."""
        connection = AsyncConnection(self._identity, start_daemon=start_daemon)
        await connection.open()
        try:
            return await connection.perform(flow)
        finally:
            connection.close()


class EventStream(AsyncIterator[ExecutionEvent]):
    """The events of a session or of one execution, on a connection of their own, for one task of one event loop.

    Iterate with `async for`; leaving the loop closes it. Awaiting it (`events = await session.subscribe()`) makes sure
    that it has begun. `aclose` ends it early.
    """

    def __init__(self, session: AsyncSession, plan: calls.Stream) -> None:
        self._session = session
        self._plan = plan
        self._connection = AsyncConnection(session._identity, session._join)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._after: asyncio.Future[dict[str, Any]] | int | None = None
        self._events: AsyncEvents | None = None
        self._next: Event | None = None
        self._is_taken = False
        self._is_over = False

    def __del__(self) -> None:
        self._close()

    def __await__(self) -> Generator[Any, None, EventStream]:
        return self._begun().__await__()

    async def __anext__(self) -> ExecutionEvent:
        with self._taken():
            try:
                while not self._is_over:
                    public = await self._step()
                    if public is not None:
                        return public
            except asyncio.CancelledError:
                raise  # nothing is lost: it goes on where it was
            except BaseException as exc:
                if self._is_over and isinstance(exc, RuntimedError):  # closed while this waited
                    raise StopAsyncIteration from None
                self._close()
                raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream; the execution goes on. Closing twice is harmless."""
        self._close()

    async def __aenter__(self) -> EventStream:
        return await self._begun()

    async def __aexit__(self, *exc: object) -> None:
        self._close()

    def _close(self) -> None:
        self._is_over = True
        if self._events is not None:
            self._events.close()
        self._connection.close()

    def _pin(self) -> None:
        """Let the events count from now on."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimedError(
                "subscribe() counts from the call, so call it where its events are awaited: inside of the event loop"
            ) from None
        session = self._session
        # The daemon reads it before anything that is sent to it later. The reply to `Join` says where the log is.
        self._after = session._connection.post(session._join)
        if self._after is None:
            connection = Connection(session._identity, session._join)
            connection.open()
            self._after = connection.joined["last"]
            connection.close()

    @contextlib.contextmanager
    def _taken(self) -> Iterator[None]:
        """Refuse a second task, and another event loop."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimedError("This stream belongs to another event loop; make one in this loop")
        if self._is_taken:
            raise RuntimedError("Another task waits for the next event of this stream; give each task one of its own")
        self._is_taken = True
        try:
            yield
        finally:
            self._is_taken = False

    async def _begun(self) -> EventStream:
        with self._taken():
            await self._begin()
        return self

    async def _begin(self) -> AsyncEvents:
        """Begin; what is cancelled in between is done again with the same ids."""
        if self._events is None:
            plan, session = self._plan, self._session
            await session._perform(plan.prepare())
            after = self._after
            if isinstance(after, asyncio.Future):
                try:
                    after = (await asyncio.shield(after))["last"]
                except ConnectionLost:
                    after = None  # the daemon has died: it goes on where the next one begins
            await self._connection.open()
            if after is None:
                after = self._connection.joined["last"]
            self._events = self._connection.stream(plan.begin(after))
        return self._events

    async def _step(self) -> ExecutionEvent | None:
        """Take one event, and return what is public of it."""
        plan, session = self._plan, self._session
        if self._next is None:
            events = await self._begin()
            with plan.translated_errors():
                self._next = await anext(events, None)
        event = self._next
        if event is None:
            self._close()
            return None
        blobs = await session._perform(calls.fetch_blobs(session._notebook, blobs_in(event)))
        self._next = None
        if plan.is_last(event):
            self._close()
        return plan.public(event, blobs)
