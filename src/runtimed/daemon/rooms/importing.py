"""Takes cells of a file into a room, with their outputs. Nothing here reads a file."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.executions import Executions
from runtimed.document import editing
from runtimed.environments.dependencies import NOTEBOOK_METADATA
from runtimed.errors import InvalidCell
from runtimed.execution.jupyter_messages import Origin, Store
from runtimed.ids import CellId, ExecutionId
from runtimed.notebook_file.outputs import events_from
from runtimed.protocol.document_operations import ImportCells, ImportedCell
from runtimed.storage.audit import Actor

__all__ = ["import_cells"]

_EXECUTIONS: Final = uuid.UUID("0d0f2c1a-0c3d-5c52-9f55-0e7a9b7d1f63")


def import_cells(
    document: SharedDocument, executions: Executions, store: Store, operation: ImportCells, actor: Actor
) -> None:
    """Add or replace the cells of an operation, in the caller's transaction.

    Args:
        document: The notebook.
        executions: The executions of the session.
        store: Stores outputs that are too large for an event.
        operation: The cells.
        actor: The client.

    Raises:
        InvalidCell: If a cell is invalid.
        StorageError: If anything cannot be stored.
    """
    for cell in operation.cells:
        _import_cell(document, cell, actor)
        _import_outputs(document, executions, store, cell, actor)
    metadata = operation.metadata
    if metadata is not None:
        document.edit("metadata", actor, lambda cells: editing.set_metadata(cells, NOTEBOOK_METADATA, metadata))


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


def _import_outputs(
    document: SharedDocument, executions: Executions, store: Store, cell: ImportedCell, actor: Actor
) -> None:
    """Let a cell show an execution with its outputs; its id is made from them, so that importing again adds none."""
    cell_id, outputs, count = CellId(cell.cell_id), _outputs(cell), cell.execution_count
    execution_id = None
    if outputs:
        digest = hashlib.sha256(cell.outputs.encode()).hexdigest()
        execution_id = ExecutionId(f"execution-{uuid.uuid5(_EXECUTIONS, f'{cell_id} {count} {digest}')}")
        origin = Origin(at=executions.now(), execution_id=execution_id, cell_id=cell_id)
        events = events_from(outputs, origin, store)
        executions.add_ended(execution_id, cell_id, cell.source, count, events, actor)
    document.set_execution(cell_id, execution_id, count, author=actor.client_id)


def _outputs(cell: ImportedCell) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(cell.outputs)
    except (ValueError, RecursionError) as exc:
        raise InvalidCell(f"The outputs of cell {cell.cell_id} are no JSON: {exc}", cell_id=cell.cell_id) from exc
    if not isinstance(found, list) or not all(isinstance(one, dict) and "output_type" in one for one in found):
        raise InvalidCell(f"The outputs of cell {cell.cell_id} are no list of outputs", cell_id=cell.cell_id)
    if found and cell.cell_type != "code":
        raise InvalidCell(f"The cell {cell.cell_id} has outputs and is no code cell", cell_id=cell.cell_id)
    return found
