"""Takes cells of a file into a room, with their outputs. Nothing here reads a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.executions import BroughtOutput, Executions
from runtimed.document import editing
from runtimed.document.checks import check_execution, check_new_id
from runtimed.environments.dependencies import NOTEBOOK_METADATA
from runtimed.errors import InvalidCell, ProtocolError
from runtimed.execution.outputs import blobs_in
from runtimed.ids import CellId, ExecutionId
from runtimed.protocol.codec import decode_event
from runtimed.protocol.document_operations import ImportCells, ImportedCell, ImportOutputs
from runtimed.protocol.events import Display, Failed, Stream
from runtimed.storage.audit import Actor

__all__ = ["HasBlob", "import_cells", "import_outputs"]

MAX_EVENT: Final = 6 * 2**20
"""Largest event that a client may bring, in bytes: readers get it in one message."""

HasBlob = Callable[[str], bool]
"""Whether there is a blob of this name. One that there is stays for long enough to be referred to."""


def import_cells(
    document: SharedDocument, executions: Executions, has_blob: HasBlob, operation: ImportCells, actor: Actor
) -> None:
    """Add or replace the cells of an operation, in the caller's transaction.

    Args:
        document: The notebook.
        executions: The executions of the session.
        has_blob: Looks up large values to which outputs refer.
        operation: The cells.
        actor: The client.

    Raises:
        InvalidCell: If a cell is invalid.
        StorageError: If anything cannot be stored.
    """
    for cell in operation.cells:
        _import_cell(document, cell, actor)
        _show_outputs(document, executions, has_blob, cell, actor)
    metadata = operation.metadata
    if metadata is not None:
        document.edit("metadata", actor, lambda cells: editing.set_metadata(cells, NOTEBOOK_METADATA, metadata))


def import_outputs(executions: Executions, has_blob: HasBlob, operation: ImportOutputs, actor: Actor) -> int:
    """Store some of the outputs of a cell, which no cell shows yet, in a transaction.

    Returns:
        Number of the execution's events that are stored.

    Raises:
        InvalidCell: If an output is invalid.
        StorageError: If anything cannot be stored.
    """
    return executions.bring(
        _execution_id(operation.execution_id),
        CellId(operation.cell_id),
        operation.source,
        operation.first,
        list(_outputs(operation.events, operation.cell_id, has_blob)),
        actor,
    )


def _import_cell(document: SharedDocument, cell: ImportedCell, actor: Actor) -> None:
    cell_id, source, cell_type, metadata = cell.cell_id, cell.source, cell.cell_type, cell.metadata
    present = document.content.cell(CellId(cell_id))
    if present is None:
        document.edit(
            "added",
            actor,
            lambda cells: editing.insert_cell(cells, cell_id, source, cell_type, metadata, cell.after),
        )
        return
    document.edit("source", actor, lambda cells: editing.set_source(cells, cell_id, source, base=cell.base))
    document.edit("type", actor, lambda cells: editing.set_cell_type(cells, cell_id, cell_type), detail=cell_type)
    for key in [*(present.metadata.keys() - metadata.keys()), *metadata]:
        value = metadata.get(key)
        document.edit(
            "metadata",
            actor,
            lambda cells, key=key, value=value: editing.set_cell_metadata(cells, cell_id, key, value),  # type: ignore[misc]  # mypy infers no defaults
        )


def _show_outputs(
    document: SharedDocument, executions: Executions, has_blob: HasBlob, cell: ImportedCell, actor: Actor
) -> None:
    """Let a cell show an execution with its outputs; its id is made from them, so that importing again adds none.

    A cell that runs, or waits, goes on showing that.
    """
    present = document.content.cell(CellId(cell.cell_id))
    if present is not None and present.execution_id is not None and executions.is_unfinished(present.execution_id):
        return
    cell_id, count, execution_id = CellId(cell.cell_id), cell.execution_count, None
    if cell.execution_id is not None:
        if cell.cell_type != "code":
            raise InvalidCell(f"The cell {cell_id} has outputs and is no code cell", cell_id=cell_id)
        execution_id = _execution_id(cell.execution_id)
        events = list(_outputs(cell.events, cell_id, has_blob))
        executions.end_brought(execution_id, cell_id, cell.source, count, cell.status, cell.brought, events, actor)
    document.set_execution(cell_id, execution_id, count, author=actor.client_id)


def _execution_id(execution_id: str) -> ExecutionId:
    check_execution(execution_id, None)
    check_new_id(execution_id, "An execution id")
    return ExecutionId(execution_id)


def _outputs(bodies: Iterable[bytes], cell_id: str, has_blob: HasBlob) -> Iterator[BroughtOutput]:
    for body in bodies:
        try:
            event = decode_event(body)
            blobs = blobs_in(event)
        except ProtocolError as exc:
            raise _invalid(cell_id, f"is unreadable: {exc}") from exc
        if not isinstance(event, Stream | Display | Failed):
            raise _invalid(cell_id, f"is none, but {type(event).__name__}")
        if len(body) > MAX_EVENT:
            raise _invalid(cell_id, f"has {len(body)} bytes, and at most {MAX_EVENT} without large values")
        if isinstance(event, Display) and not all(isinstance(one, str | bytes | dict) for one in event.data.values()):
            raise _invalid(cell_id, "has a value that is neither text nor bytes")
        if missing := [blob.sha256 for blob in blobs if not has_blob(blob.sha256)]:
            raise _invalid(cell_id, f"refers to the blob {missing[0]}, which is not stored")
        yield event


def _invalid(cell_id: str, why: str) -> InvalidCell:
    return InvalidCell(f"An output of the cell {cell_id} {why}", cell_id=cell_id)
