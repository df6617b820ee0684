"""`Session`: a notebook with its kernel, for scripts and notebooks. Every member is defined in `calls`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from runtimed.client import calls
from runtimed.client.blocking import Connection
from runtimed.client.connections import Connections
from runtimed.client.flows import Flow, Follow
from runtimed.client.handle import Handle, documented
from runtimed.durations import DEFAULT_TIMEOUT
from runtimed.errors import DaemonUnavailable, NotConnected, RuntimedError
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
from runtimed.texts import printable

__all__ = ["EventIterator", "Session"]

T = TypeVar("T")


@documented
class Session(Handle):
    """A live notebook session, joined by its id.

    Everybody who names the same id shares its kernel, its cells and its outputs. The constructor touches nothing;
    `connect` joins. As a context manager it stops a session that the block started under a generated id, and only
    leaves any other.

    Threads may share it: a call waits for its own answer, and not for the calls of others.

    Example:
        >>> with Session("analysis") as session:
        ...     print(session.run("6 * 7").display_data[0].data["text/plain"])
        42
    """

    def _prepare(self) -> None:
        self._connections = Connections(self._identity, self._join)

    # --- state ---

    @property
    def is_connected(self) -> bool:
        """Whether this handle is connected to the daemon. Never raises."""
        return self._connections.is_open

    @property
    def kernel_started(self) -> bool:
        """Whether a kernel runs for this session; False when disconnected. Never raises."""
        status = self._look()
        return status is not None and status.kernel_pid is not None

    @property
    def env_source(self) -> str | None:
        """Where the running kernel's environment comes from; None without one. Never raises."""
        status = self._look()
        return status.env_source if status is not None else None

    def __repr__(self) -> str:
        state = "disconnected"
        if self.is_connected:
            state = "kernel_running" if self.kernel_started else "connected"
        return f"Session(id={printable(self.notebook_id)}, status={state})"

    def _look(self) -> SessionStatus | None:
        if not self.is_connected:
            return None
        try:
            return self._apart(calls.get_session(self._notebook), start_daemon=False)
        except RuntimedError:
            return None

    # --- life ---

    def connect(self) -> None:
        """Join the session, starting the daemon if none answers. Harmless when connected.

        Raises:
            DaemonUnavailable: If no daemon can be reached or started.
            ProtocolError: If the daemon is of another version.
        """
        self._connections.open()
        self._was_connected = True

    def close(self) -> None:
        """Leave the session; it lives on. Closing twice is harmless."""
        self._connections.close()

    def stop(self) -> None:
        """See `calls.stop`."""
        self._check_was_connected()
        self._apart(calls.stop(self._notebook))
        self.close()

    def status(self) -> SessionStatus:
        """See `calls.get_session`."""
        self._check_was_connected()
        return self._apart(calls.get_session(self._notebook))

    def __enter__(self) -> Session:
        self.connect()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._generated:
                self._apart(calls.leave(self._notebook, failed=exc_type is not None), start_daemon=False)
        except DaemonUnavailable:
            # Whoever ended the daemon ended the session, or wants its kernel to live on.
            return
        except RuntimedError:
            # The error that ends the block is the one to see; without one, this is.
            if exc_type is None:
                raise
        finally:
            self.close()

    # --- kernel ---

    def start_kernel(
        self, kernel_type: str = "python", env_source: str = "auto", notebook_path: str | Path | None = None
    ) -> None:
        """See `calls.start_kernel`."""
        self.connect()
        self._perform(calls.start_kernel(self._notebook, kernel_type, env_source, notebook_path))

    def trust_environment(self, notebook_path: str | Path | None = None) -> str:
        """See `calls.trust_environment`."""
        self.connect()
        return self._perform(calls.trust_environment(self._notebook, notebook_path))

    def restart_kernel(self) -> None:
        """See `calls.restart_kernel`."""
        self._perform(calls.restart_kernel(self._notebook))

    def shutdown_kernel(self) -> None:
        """See `calls.shutdown_kernel`."""
        self._perform(calls.shutdown_kernel(self._notebook))

    def interrupt(self) -> None:
        """See `calls.interrupt`."""
        self._check_connected()
        self._apart(calls.interrupt(self._notebook))

    def complete(self, code: str, cursor_pos: int | None = None) -> dict[str, Any]:
        """See `calls.complete`."""
        return self._perform(calls.complete(self._notebook, code, cursor_pos))

    def inspect(self, code: str, cursor_pos: int | None = None, detail_level: int = 0) -> dict[str, Any]:
        """See `calls.inspect`."""
        return self._perform(calls.inspect(self._notebook, code, cursor_pos, detail_level))

    def get(self, name: str) -> Any:
        """See `calls.get`."""
        return self._perform(calls.get(self._notebook, name))

    def put(self, name: str, value: Any) -> None:
        """See `calls.put`."""
        self._perform(calls.put(self._notebook, name, value))

    # --- cells ---

    def create_cell(self, source: str = "", cell_type: CellType = "code", index: int | None = None) -> CellId:
        """See `calls.create_cell`."""
        self.connect()
        return self._perform(calls.create_cell(self._notebook, source, cell_type, index))

    def set_source(self, cell_id: str, source: str) -> None:
        """See `calls.set_source`."""
        self._perform(calls.set_source(self._notebook, cell_id, source))

    def append_source(self, cell_id: str, text: str) -> None:
        """See `calls.append_source`."""
        self._perform(calls.append_source(self._notebook, cell_id, text))

    def delete_cell(self, cell_id: str) -> None:
        """See `calls.delete_cell`."""
        self._perform(calls.delete_cell(self._notebook, cell_id))

    def move_cell(self, cell_id: str, after_cell_id: str | None = None) -> None:
        """See `calls.move_cell`."""
        self._perform(calls.move_cell(self._notebook, cell_id, after_cell_id))

    def clear_outputs(self, cell_id: str) -> None:
        """See `calls.clear_outputs`."""
        self._perform(calls.clear_outputs(self._notebook, cell_id))

    def set_cell_metadata(self, cell_id: str, key: str, value: str) -> None:
        """See `calls.set_cell_metadata`."""
        self._perform(calls.set_cell_metadata(self._notebook, cell_id, key, value))

    def set_cell_type(self, cell_id: str, cell_type: CellType) -> None:
        """See `calls.set_cell_type`."""
        self._perform(calls.set_cell_type(self._notebook, cell_id, cell_type))

    def get_cell(self, cell_id: str) -> Cell:
        """See `calls.get_cell`."""
        return self._perform(calls.get_cell(self._notebook, cell_id))

    def get_cells(self) -> list[Cell]:
        """See `calls.get_cells`."""
        return self._perform(calls.get_cells(self._notebook))

    def get_cell_ids(self) -> list[CellId]:
        """See `calls.get_cell_ids`."""
        return self._perform(calls.get_cell_ids(self._notebook))

    def get_cell_source(self, cell_id: str) -> str | None:
        """See `calls.get_cell_source`."""
        return self._perform(calls.get_cell_source(self._notebook, cell_id))

    def get_cell_type(self, cell_id: str) -> CellType | None:
        """See `calls.get_cell_type`."""
        return self._perform(calls.get_cell_type(self._notebook, cell_id))

    def get_cell_outputs(self, cell_id: str) -> list[Output] | None:
        """See `calls.get_cell_outputs`."""
        return self._perform(calls.get_cell_outputs(self._notebook, cell_id))

    def get_cell_execution_count(self, cell_id: str) -> int | None:
        """See `calls.get_cell_execution_count`."""
        return self._perform(calls.get_cell_execution_count(self._notebook, cell_id))

    def get_cell_position(self, cell_id: str) -> str | None:
        """See `calls.get_cell_position`."""
        return self._perform(calls.get_cell_position(self._notebook, cell_id))

    def get_cell_metadata(self, cell_id: str) -> dict[str, str] | None:
        """See `calls.get_cell_metadata`."""
        return self._perform(calls.get_cell_metadata(self._notebook, cell_id))

    # --- executions ---

    def run(
        self, code: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: calls.OnTimeout = "leave"
    ) -> ExecutionResult:
        """See `calls.run`."""
        self.connect()
        return self._perform(calls.run(self._notebook, code, timeout_secs, on_timeout))

    def execute_cell(
        self, cell_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: calls.OnTimeout = "leave"
    ) -> ExecutionResult:
        """See `calls.execute_cell`."""
        self.connect()
        return self._perform(calls.execute_cell(self._notebook, cell_id, timeout_secs, on_timeout))

    def queue_cell(self, cell_id: str) -> ExecutionId:
        """See `calls.queue_cell`."""
        return self._perform(calls.queue_cell(self._notebook, cell_id))

    def get_queue(self) -> list[QueuedExecution]:
        """See `calls.get_queue`."""
        return self._perform(calls.get_queue(self._notebook))

    def wait(
        self, execution_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT, on_timeout: calls.OnTimeout = "leave"
    ) -> ExecutionResult:
        """See `calls.wait`."""
        return self._perform(calls.wait(self._notebook, execution_id, timeout_secs, on_timeout))

    def read_outputs(self, execution_id: str, after: int = 0) -> OutputPage:
        """See `calls.read_outputs`."""
        return self._perform(calls.read_outputs(self._notebook, execution_id, after))

    def cancel(self, execution_id: str) -> None:
        """See `calls.cancel`."""
        self._check_connected()
        self._apart(calls.cancel(self._notebook, execution_id))

    def stream_execute(self, cell_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT) -> EventIterator:
        """See `calls.stream_execute`."""
        self._check_connected()
        return self._stream(calls.stream_execute(self._notebook, cell_id, timeout_secs))

    def subscribe(
        self, cell_ids: Sequence[str] | None = None, event_types: Sequence[EventType] | None = None
    ) -> EventIterator:
        """See `calls.subscribe`."""
        self._check_connected()
        return self._stream(calls.subscribe(self._notebook, cell_ids, event_types))

    # --- metadata ---

    def set_metadata(self, key: str, value: str) -> None:
        """See `calls.set_metadata`."""
        self.connect()
        self._perform(calls.set_metadata(self._notebook, key, value))

    def get_metadata(self, key: str) -> str | None:
        """See `calls.get_metadata`."""
        self.connect()
        return self._perform(calls.get_metadata(self._notebook, key))

    def set_kernelspec(self, name: str, display_name: str, language: str | None = None) -> None:
        """See `calls.set_kernelspec`."""
        self._perform(calls.set_kernelspec(self._notebook, name, display_name, language))

    def get_kernelspec(self) -> dict[str, str] | None:
        """See `calls.get_kernelspec`."""
        return self._perform(calls.get_kernelspec(self._notebook))

    # --- dependencies ---

    def get_uv_dependencies(self) -> list[str]:
        """See `calls.get_uv_dependencies`."""
        self.connect()
        return self._perform(calls.get_uv_dependencies(self._notebook))

    def add_uv_dependency(self, package: str) -> None:
        """See `calls.add_uv_dependency`."""
        self.connect()
        self._perform(calls.add_uv_dependency(self._notebook, package))

    def add_uv_dependencies(self, packages: Sequence[str]) -> None:
        """See `calls.add_uv_dependencies`."""
        self.connect()
        self._perform(calls.add_uv_dependencies(self._notebook, packages))

    def remove_uv_dependency(self, package: str) -> bool:
        """See `calls.remove_uv_dependency`."""
        self.connect()
        return self._perform(calls.remove_uv_dependency(self._notebook, package))

    def get_conda_dependencies(self) -> list[str]:
        """See `calls.get_conda_dependencies`."""
        self.connect()
        return self._perform(calls.get_conda_dependencies(self._notebook))

    def add_conda_dependency(self, package: str) -> None:
        """See `calls.add_conda_dependency`."""
        self.connect()
        self._perform(calls.add_conda_dependency(self._notebook, package))

    def add_conda_dependencies(self, packages: Sequence[str]) -> None:
        """See `calls.add_conda_dependencies`."""
        self.connect()
        self._perform(calls.add_conda_dependencies(self._notebook, packages))

    def remove_conda_dependency(self, package: str) -> bool:
        """See `calls.remove_conda_dependency`."""
        self.connect()
        return self._perform(calls.remove_conda_dependency(self._notebook, package))

    def sync_environment(self) -> SyncEnvironmentResult:
        """See `calls.sync_environment`."""
        return self._perform(calls.sync_environment(self._notebook))

    # --- how a call is made ---

    def _check_connected(self) -> None:
        if not self._connections.was_opened:
            raise NotConnected("Not connected", notebook_id=self.notebook_id)

    def _perform(self, flow: Flow[T]) -> T:
        self._check_connected()
        return self._connections.perform(flow)

    def _apart(self, flow: Flow[T], *, start_daemon: bool = True) -> T:
        """Use a short connection, so that it works while another call waits, and after the end."""
        connection = Connection(self._identity, start_daemon=start_daemon)
        connection.open()
        try:
            return connection.perform(flow)
        finally:
            connection.close()

    def _stream(self, plan: calls.Stream) -> EventIterator:
        self._perform(plan.prepare())
        connection = Connection(self._identity, self._join)
        connection.open()
        return EventIterator(self, connection, plan, plan.begin(connection.joined["last"]))


class EventIterator(Iterator[ExecutionEvent]):
    """The events of a session or of one execution, on a connection of their own, for one thread at a time.

    A consumer that stops taking events holds up nothing else. `close` ends it early, from any thread; so does dropping
    it, as `break` does. A forked child that goes on with it has the events of a stream of its own.
    """

    def __init__(self, session: Session, connection: Connection, plan: calls.Stream, follow: Follow) -> None:
        self._session = session
        self._connection = connection
        self._plan = plan
        self._events = connection.stream(follow)
        self._turn = threading.Lock()
        self._is_over = False

    def __del__(self) -> None:
        self.close()

    def __next__(self) -> ExecutionEvent:
        if not self._turn.acquire(blocking=False):
            raise RuntimedError("Another thread waits for the next of these events; give each thread an iterator")
        try:
            while not self._is_over:
                public = self._step()
                if public is not None:
                    return public
        except BaseException as exc:
            if self._is_over and isinstance(exc, RuntimedError):  # closed while this waited
                raise StopIteration from None
            self.close()
            raise
        finally:
            self._turn.release()
        raise StopIteration

    def _step(self) -> ExecutionEvent | None:
        with self._plan.translated_errors():
            event = next(self._events)
        blobs = self._session._perform(calls.fetch_blobs(self._session._notebook, blobs_in(event)))
        if self._plan.is_last(event):
            self.close()
        return self._plan.public(event, blobs)

    def close(self) -> None:
        """End the stream; the execution goes on. Closing twice is harmless."""
        self._is_over = True
        with contextlib.suppress(ValueError):  # another thread waits in it, which the end of the connection wakes
            self._events.close()
        self._connection.close()

    def __enter__(self) -> EventIterator:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
