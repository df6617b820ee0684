"""`AsyncSession`: a notebook with its kernel, for asyncio. Every member is defined in `calls`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from runtimed.client import calls
from runtimed.client.async_execution import AsyncExecution
from runtimed.client.async_handle import AsyncHandle, EventStream
from runtimed.client.async_pages import AsyncItems
from runtimed.client.async_work import work
from runtimed.client.files import (
    ExportFormat,
    ReadNotebook,
    check_format,
    export,
    file_to_own,
    is_document,
    lock_file_of,
    merge_file,
    outputs_to_compare,
    prepare_save,
    read_document_file,
    read_importable,
    read_notebook_file,
    write_file,
)
from runtimed.client.handle import documented
from runtimed.durations import DEFAULT_TIMEOUT
from runtimed.errors import DaemonUnavailable, NotebookFileError, RuntimedError
from runtimed.ids import CellId, ExecutionId
from runtimed.models import (
    BlamedLine,
    Cell,
    CellType,
    CommType,
    EventType,
    ExecutionEvent,
    ExecutionResult,
    NotebookEdit,
    NotebookVersion,
    OpenedNotebook,
    Output,
    OutputPage,
    QueuedExecution,
    SessionStatus,
    SyncEnvironmentResult,
)
from runtimed.progress import Progress
from runtimed.protocol.events import Event
from runtimed.protocol.execution_operations import Program
from runtimed.protocol.kernel_operations import FrontendQuestion

__all__ = ["AsyncSession"]


@documented
class AsyncSession(AsyncHandle):
    """A live notebook session, joined by its id.

    All clients that name the same id share its kernel, its cells and its outputs. The constructor has no effect;
    `connect` joins the session. As a context manager it stops a session that the block started under a generated id,
    and only leaves any other.

    Event loops and threads may share a handle: a call waits for its own answer, not for other calls.

    Example:
        >>> async with AsyncSession("analysis") as session:
        ...     result = await session.run("6 * 7")
        ...     print(result.display_data[0].data["text/plain"])
        42
    """

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

    async def _look(self) -> SessionStatus | None:
        if not await self.is_connected():
            return None
        try:
            return await self._apart(calls.get_session(self._notebook), start_daemon=False)
        except RuntimedError:
            return None

    # --- life ---

    async def connect(self) -> None:
        """Join the session, and start the daemon if none answers. Idempotent.

        Raises:
            DaemonUnavailable: If no daemon can be reached or started.
            ProtocolError: If the daemon is of another version.
        """
        await self._connection.open()
        self._was_connected = True

    async def close(self) -> None:
        """Leave the session; it lives on. Idempotent.

        Calls that wait in other threads or tasks end with ConnectionLost, iterators of events with NotConnected.
        """
        self._leave_streams()  # first: what they ask of the handle then ends with this, too
        self._connection.close()
        self._leave_streams()  # another thread may have begun one meanwhile

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
            # A client that ended the daemon ended the session, or wants its kernel to live on.
            return
        except RuntimedError:
            # The block's own error is the one to raise; without one, this is.
            if exc_type is None:
                raise
        finally:
            await self.close()

    # --- kernel ---

    async def start_kernel(
        self,
        kernel_type: str = "python",
        env_source: str = "auto",
        notebook_path: str | Path | None = None,
        *,
        source: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """See `calls.start_kernel`."""
        await self.connect()
        await self._perform(
            calls.start_kernel(self._notebook, kernel_type, env_source, notebook_path, source=source, progress=progress)
        )

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

    async def ask_kernel(self, msg_type: FrontendQuestion, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """See `calls.ask_kernel`."""
        return await self._perform(calls.ask_kernel(self._notebook, msg_type, content))

    async def send_comm(
        self,
        msg_type: CommType,
        content: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] = (),
        request_id: str | None = None,
    ) -> None:
        """See `calls.send_comm`."""
        await self._perform(
            calls.send_comm(
                self._notebook, msg_type, content, metadata=metadata, buffers=buffers, request_id=request_id
            )
        )

    async def get(self, name: str, *, arrow: bool = False, on_size: Callable[[int], object] | None = None) -> Any:
        """See `calls.get`."""
        return await self._perform(calls.get(self._notebook, name, arrow=arrow, on_size=on_size))

    async def put(
        self, name: str, value: Any, *, arrow: bool = False, on_size: Callable[[int], object] | None = None
    ) -> None:
        """See `calls.put`."""
        await self._perform(calls.put(self._notebook, name, value, arrow=arrow, on_size=on_size))

    # --- cells ---

    async def create_cell(
        self,
        source: str = "",
        cell_type: CellType = "code",
        index: int | None = None,
        *,
        cell_id: str | None = None,
    ) -> CellId:
        """See `calls.create_cell`."""
        await self.connect()
        return await self._perform(calls.create_cell(self._notebook, source, cell_type, index, cell_id=cell_id))

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

    async def set_cell_metadata(self, cell_id: str, key: str, value: Any) -> None:
        """See `calls.set_cell_metadata`."""
        await self._perform(calls.set_cell_metadata(self._notebook, cell_id, key, value))

    async def delete_cell_metadata(self, cell_id: str, key: str) -> None:
        """See `calls.delete_cell_metadata`."""
        await self._perform(calls.delete_cell_metadata(self._notebook, cell_id, key))

    async def set_cell_type(self, cell_id: str, cell_type: CellType) -> None:
        """See `calls.set_cell_type`."""
        await self._perform(calls.set_cell_type(self._notebook, cell_id, cell_type))

    async def get_cell(self, cell_id: str, *, outputs: bool = True) -> Cell:
        """See `calls.get_cell`."""
        return await self._perform(calls.get_cell(self._notebook, cell_id, outputs=outputs))

    async def get_cells(self, *, outputs: bool = True) -> list[Cell]:
        """See `calls.get_cells`."""
        return await self._perform(calls.get_cells(self._notebook, outputs=outputs))

    def iter_cells(self, *, outputs: bool = True) -> AsyncItems[Cell]:
        """See `calls.iter_cells`."""
        self._check_connected()
        return AsyncItems(self._perform, calls.iter_cells(self._notebook, outputs=outputs))

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

    async def get_cell_metadata(self, cell_id: str) -> dict[str, Any] | None:
        """See `calls.get_cell_metadata`."""
        return await self._perform(calls.get_cell_metadata(self._notebook, cell_id))

    # --- history ---

    def history(self, cell_id: str | None = None) -> AsyncItems[NotebookEdit]:
        """See `calls.history`."""
        self._check_connected()
        return AsyncItems(self._perform, calls.history(self._notebook, cell_id))

    async def get_version(self, version: int) -> NotebookVersion:
        """See `calls.get_version`."""
        return await self._perform(calls.get_version(self._notebook, version))

    async def blame(self, cell_id: str, version: int | None = None) -> list[BlamedLine]:
        """See `calls.blame`."""
        return await self._perform(calls.blame(self._notebook, cell_id, version))

    async def restore(self, version: int) -> int:
        """See `calls.restore_version`."""
        return await self._perform(calls.restore_version(self._notebook, version))

    # --- files ---

    async def open_notebook(self, path: str | os.PathLike[str]) -> OpenedNotebook:
        """Take the cells of an .ipynb file into the session, with ids, metadata and outputs; the file is its own then.

        A session that has cells merges with the file cell by cell, by id: what one side left as it was since the last
        `open_notebook` or `save` is taken from the other. Where both changed a cell, both versions are kept. Opening a
        file is no consent to install the dependencies that it names.

        Args:
            path: The file. Formats before 4.5 are converted.

        Returns:
            What was taken, and where both sides had changed.

        Raises:
            NotebookFileError: If there is no such file, it is not understood or too large, or it is the file of another
                active session. The session is unchanged.

        Source: nbformat 4.5.
        """
        await self.connect()
        async with self._saving():
            return await self._take_in(await work(read_notebook_file, path), becomes_its_own=True)

    async def import_notebook(self, path: str | os.PathLike[str]) -> OpenedNotebook:
        """Take the cells of a file into the session, which does not become its own: `save` writes elsewhere.

        Cells merge by id, as in `open_notebook`; those of scripts and Markdown have ids made from path and place. Of an
        Automerge document that `export` gave and somebody edited, the edits themselves are merged: concurrent ones in
        one source both stay, and importing it again changes nothing.

        Args:
            path: An .ipynb file; a `.py` script, with cells in percent format or as one cell; a `.md` file, whose code
                blocks are code cells; an `.automerge` document of this session.

        Returns:
            What was taken, and which cells the session had in another form.

        Raises:
            NotebookFileError: If there is no such file, it is not understood, or too large; if the document is not
                this session's, its history was dropped since, or it has anything that no notebook has. The session is
                unchanged.
            RuntimedError: If the package that reads the format is not installed; the sentence names it.
            StorageError: If the session's own document cannot be read now.

        Source: Jupytext, "Notebook formats"; Automerge binary format.
        """
        if is_document(path):
            file, copy = await work(read_document_file, path)
            await self.connect()
            return await self._perform(calls.merge_copy(self._notebook, file, copy))
        return await self._take_in(await work(read_importable, path), becomes_its_own=False)

    async def _take_in(self, file: ReadNotebook, *, becomes_its_own: bool) -> OpenedNotebook:
        await self.connect()
        own = file.path if becomes_its_own else None
        contents = await self._perform(calls.read_contents(self._notebook, own, outputs=False))
        cell_ids = await work(outputs_to_compare, contents, file)
        contents = await self._perform(calls.with_outputs(self._notebook, contents, cell_ids))
        imports, opened = await work(merge_file, contents, file, becomes_its_own=becomes_its_own)
        await self._perform(calls.take_in(self._notebook, imports))
        return opened

    async def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the session into its .ipynb file, atomically; do nothing if the file has just that already.

        The bytes are those that Jupyter writes. A file that was changed since this session read or wrote it, and one
        that is another's or no notebook, is never overwritten.

        Args:
            path: The file, which is the session's from now on; None for the one that it has.

        Returns:
            The file's real path.

        Raises:
            NotebookFileError: If the file cannot or must not be written, or is that of another active session.
        """
        await self.connect()
        async with self._saving():
            contents = await self._perform(calls.read_contents(self._notebook, await work(file_to_own, path)))
            save = await work(prepare_save, contents, path)
            if save.record != contents.record:
                await self._perform(calls.record_file(self._notebook, save.record))
            try:
                await work(write_file, save)
            except NotebookFileError:
                await self._perform(
                    calls.forget_file(self._notebook, Path(save.record.path))
                    if contents.record is None
                    else calls.record_file(self._notebook, contents.record)
                )
                raise
            if save.record.replaces is not None:
                record = msgspec.structs.replace(save.record, replaces=None)
                await self._perform(calls.record_file(self._notebook, record))
            return Path(save.record.path)

    @contextlib.asynccontextmanager
    async def _saving(self) -> AsyncIterator[None]:
        """Keep others from reading and writing the session's file in the block."""
        lock = await work(lock_file_of, self._notebook.id)
        try:
            yield
        finally:
            lock.close()

    async def export(self, format: ExportFormat = "ipynb") -> bytes:  # noqa: A002  # as `runtimed export --format`
        """Return the session in the format of a file.

        Args:
            format: `ipynb`; `py`, a script with cells in percent format; `md`, Markdown; `html`, a page; `automerge`,
                the document with its history and without outputs, which every Automerge loads.

        Raises:
            RuntimedError: If the package that writes the format is not installed; the sentence names it.
            StorageError: For `automerge`, if the document cannot be written.

        Source: Jupytext, "Notebook formats"; nbconvert, `HTMLExporter`; Automerge binary format.
        """
        check_format(format)
        await self.connect()
        if format == "automerge":
            return await self._perform(calls.read_document(self._notebook))
        contents = await self._perform(calls.read_contents(self._notebook))
        return await work(export, contents.notebook, format)

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

    async def submit(
        self,
        cell_id: str | None = None,
        *,
        code: str | None = None,
        execution_id: str | None = None,
        stdin: bool = True,
        unless_queued: bool = False,
        program: Program | None = None,
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
    ) -> AsyncExecution:
        """See `calls.submit`."""
        await self.connect()
        submitted = calls.submit(
            self._notebook,
            cell_id,
            code=code,
            execution_id=execution_id,
            stdin=stdin,
            unless_queued=unless_queued,
            program=program,
            user_expressions=user_expressions,
            silent=silent,
            store_history=store_history,
            stop_on_error=stop_on_error,
            unless_failed=unless_failed,
            kernel_type=kernel_type,
            env_source=env_source,
            notebook_path=notebook_path,
            timeout_secs=timeout_secs,
            progress=progress,
        )
        return AsyncExecution(self, *await self._perform(submitted))

    async def execution(self, execution_id: str) -> AsyncExecution:
        """See `calls.execution.find`."""
        return AsyncExecution(self, *await self._perform(calls.execution.find(self._notebook, execution_id)))

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

    def stream_execute(self, cell_id: str, timeout_secs: float | None = DEFAULT_TIMEOUT) -> EventStream[ExecutionEvent]:
        """See `calls.stream_execute`."""
        return self._stream(calls.stream_execute(self._notebook, cell_id, timeout_secs))

    def subscribe(
        self, cell_ids: Sequence[str] | None = None, event_types: Sequence[EventType] | None = None
    ) -> EventStream[ExecutionEvent]:
        """See `calls.subscribe`."""
        return self._stream(calls.subscribe(self._notebook, cell_ids, event_types))

    def raw_events(self) -> EventStream[Event]:
        """See `calls.raw_events`."""
        return self._stream(calls.raw_events(self._notebook))

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
