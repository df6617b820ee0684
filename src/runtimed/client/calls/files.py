"""The operations between a session and its notebook file. Nothing here opens a file: `client.files` does."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from runtimed.client.calls.cells import get_whole_cell, iter_cells, iter_whole_cells
from runtimed.client.calls.metadata import get_notebook_metadata
from runtimed.client.calls.notebook import Notebook, check_text
from runtimed.client.flows import Flow, ask
from runtimed.document.checks import (
    MAX_TEXT,
    check_cell_id,
    check_cell_metadata,
    check_execution,
    check_metadata,
    check_whole_metadata,
)
from runtimed.document.entries import text_of
from runtimed.errors import CellNotFound, NotebookFileError
from runtimed.execution.jupyter_messages import Origin
from runtimed.ids import CellId, ExecutionId, SessionId
from runtimed.models import OpenedNotebook
from runtimed.notebook_file.merging import FileRecord, Merge
from runtimed.notebook_file.outputs import events_from
from runtimed.notebook_file.reading import FileCell, NotebookFile, without_transient
from runtimed.notebook_file.writing import ATTACHMENTS, file_cell, file_id
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol import session_operations as session_ops
from runtimed.protocol.bounds import MAX_ITEMS
from runtimed.protocol.codec import encode_event
from runtimed.protocol.events import Failed

__all__ = [
    "Contents",
    "Imports",
    "Outputs",
    "forget_file",
    "imports_of",
    "merge_copy",
    "read_contents",
    "record_file",
    "take_in",
    "with_outputs",
]

PIECE: Final = 2**19
"""Bytes of cells or outputs from which a request is sent: performing it takes 8 ms, for which everybody else waits."""

_EXECUTIONS: Final = uuid.UUID("0d0f2c1a-0c3d-5c52-9f55-0e7a9b7d1f63")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a session has for a file.

    Attributes:
        notebook: The session as a file has it.
        cell_ids: The session's id of each cell by its id in a file.
        record: What it knows of its file; None if it has none.
        shown: The cells, by their ids in a file, that are there with their outputs although the others are not.
    """

    session_id: SessionId
    notebook: NotebookFile
    cell_ids: Mapping[str, CellId]
    record: FileRecord | None
    shown: frozenset[str] = frozenset()


def read_contents(notebook: Notebook, path: Path | None = None, *, outputs: bool = True) -> Flow[Contents]:
    """Return the session as a file has it.

    Args:
        path: Real path of a file that is to become its own; None if none is.
        outputs: Whether with all outputs, those beyond the daemon's limit included, or with none.

    Raises:
        NotebookFileError: If it is the file of another active session.
    """
    known = yield from ask(session_ops.GetFile(notebook_id=notebook.id, path=None if path is None else str(path)))
    cells = yield from (iter_whole_cells(notebook) if outputs else iter_cells(notebook, outputs=False)).all()
    metadata = yield from get_notebook_metadata(notebook)
    content = NotebookFile(metadata=without_transient(metadata), cells=tuple(map(file_cell, cells)))
    record = FileRecord.of_text(known.record)
    return Contents(notebook.id, content, {file_id(cell.id): cell.id for cell in cells}, record)


def with_outputs(notebook: Notebook, contents: Contents, cell_ids: Iterable[CellId]) -> Flow[Contents]:
    """Return contents that were read without outputs, with those of some cells.

    Cells that wait for their execution are left out: what they show will be theirs.
    """
    found: dict[str, FileCell] = {}
    for cell_id in cell_ids:
        cell = yield from get_whole_cell(notebook, cell_id)
        is_waiting = cell is not None and cell.execution_id is not None and cell.execution_count is None
        if cell is not None and (cell.outputs or not is_waiting):
            found[file_id(cell.id)] = file_cell(cell)
    cells = tuple(found.get(cell.id, cell) for cell in contents.notebook.cells)
    return replace(contents, notebook=replace(contents.notebook, cells=cells), shown=frozenset(found))


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs of a cell that are sent before it.

    Attributes:
        cell: The cell; its own request has none of these outputs.
        events: Encoded events, in order; none if they are sent with the cell.
        blobs: Large values to which the events refer, by SHA-256.
    """

    cell: document_ops.ImportedCell
    events: Sequence[bytes]
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Imports:
    """What a session takes from a file, ready to be sent.

    Attributes:
        outputs: Outputs that are sent first.
        requests: Cells and metadata.
        deleted: Cells to delete.
        moves: Cells to move, each with the one behind which it goes.
        record: What the session knows of its file afterwards; None if the file is not its own.
    """

    outputs: tuple[Outputs, ...]
    requests: tuple[document_ops.ImportCells, ...]
    deleted: tuple[CellId, ...]
    moves: tuple[tuple[CellId, CellId | None], ...]
    record: FileRecord | None


def imports_of(contents: Contents, merge: Merge, record: FileRecord | None) -> Imports:
    """Turn a merge into requests. All of it is checked here, so that a refusal leaves the session unchanged.

    Raises:
        InvalidCell: If a cell is invalid.
        SessionError: If the notebook's metadata is too large.
    """

    def session_id_of(cell_id: str) -> CellId:
        return contents.cell_ids.get(cell_id, CellId(cell_id))

    present = {cell.id: cell.source for cell in contents.notebook.cells}
    found = [
        _imported(
            put.cell,
            session_id_of(put.cell.id),
            None if put.after is None else session_id_of(put.after),
            present.get(put.cell.id),
        )
        for put in merge.puts
    ]
    cells = [outputs.cell for outputs in found]
    metadata = None if merge.metadata is None else json.dumps(dict(merge.metadata))
    check_metadata("notebook_metadata", metadata or "")
    order = [session_id_of(cell_id) for cell_id in merge.order or ()]
    requests = [document_ops.ImportCells(notebook_id=contents.session_id, cells=piece) for piece in _pieces(cells)]
    if metadata is not None:
        requests.append(document_ops.ImportCells(notebook_id=contents.session_id, cells=[], metadata=metadata))
    return Imports(
        tuple(outputs for outputs in found if outputs.events or outputs.blobs),
        tuple(requests),
        tuple(map(session_id_of, merge.deleted)),
        tuple(zip(order, [None, *order], strict=False)),
        record,
    )


def take_in(notebook: Notebook, imports: Imports) -> Flow[None]:
    """Take in what a file has. Sending it again changes nothing."""
    for outputs in imports.outputs:
        for sha256, value in outputs.blobs.items():
            yield from _put_blob(notebook, sha256, value)
        yield from _bring_outputs(notebook, outputs)
    for request in imports.requests:
        yield from ask(request)
        for cell in request.cells:
            notebook.seen[cell.cell_id] = cell.source
    for cell_id in imports.deleted:
        try:
            yield from ask(document_ops.DeleteCell(notebook_id=notebook.id, cell_id=cell_id))
        except CellNotFound:
            continue  # somebody else was faster
    for cell_id, after in imports.moves:
        try:
            yield from ask(document_ops.MoveCell(notebook_id=notebook.id, cell_id=cell_id, after_cell_id=after))
        except CellNotFound:
            continue
    if imports.record is not None:
        yield from record_file(notebook, imports.record)


def record_file(notebook: Notebook, record: FileRecord) -> Flow[None]:
    """Note what the session and its file had when they were the same."""
    yield from ask(session_ops.SetFile(notebook_id=notebook.id, path=record.path, record=record.text()))


def forget_file(notebook: Notebook, path: Path) -> Flow[None]:
    """Note that a file is not the session's."""
    yield from ask(session_ops.SetFile(notebook_id=notebook.id, path=str(path)))


def merge_copy(notebook: Notebook, path: Path, copy: bytes) -> Flow[OpenedNotebook]:
    """Merge a copy of the session's Automerge document that was edited elsewhere.

    Args:
        notebook: The session.
        path: The copy's real path.
        copy: Its bytes.

    Raises:
        NotebookFileError: If it is refused; the session is unchanged.
    """
    try:
        reply = yield from ask(document_ops.MergeCopy(notebook_id=notebook.id, copy=copy))
    except NotebookFileError as exc:
        raise NotebookFileError(f"{path} was not imported: {exc.message}", path=str(path)) from exc
    return OpenedNotebook(
        path=path, added=tuple(reply.added), changed=tuple(reply.changed), deleted=tuple(reply.deleted)
    )


def _put_blob(notebook: Notebook, sha256: str, value: bytes) -> Flow[None]:
    stored = 0
    while True:
        piece = value[stored : stored + PIECE]
        request = document_ops.PutBlob(
            notebook_id=notebook.id, sha256=sha256, size=len(value), offset=stored, piece=piece
        )
        stored = (yield from ask(request)).stored
        if stored >= len(value):
            return


def _bring_outputs(notebook: Notebook, outputs: Outputs) -> Flow[None]:
    cell, stored = outputs.cell, 0
    while stored < len(outputs.events):
        piece = [outputs.events[stored]]
        left = PIECE - len(piece[0])
        for event in outputs.events[stored + 1 : stored + MAX_ITEMS]:
            left -= len(event)
            if left < 0:
                break
            piece.append(event)
        request = document_ops.ImportOutputs(
            notebook_id=notebook.id,
            execution_id=cell.execution_id or "",
            cell_id=cell.cell_id,
            source="" if stored else cell.source,
            first=stored,
            events=piece,
        )
        stored = (yield from ask(request)).stored


def _imported(cell: FileCell, cell_id: CellId, after: CellId | None, base: str | None) -> Outputs:
    check_cell_id(cell_id)
    check_text("source", cell.source)
    check_execution(None, cell.execution_count)
    values = {**cell.metadata, **({ATTACHMENTS: dict(cell.attachments)} if cell.attachments else {})}
    metadata = {key: text_of(value) for key, value in values.items()}
    for key, text in metadata.items():
        check_cell_metadata(key, text)
    check_whole_metadata(metadata)
    blobs: dict[str, bytes] = {}

    def store(value: bytes) -> str:
        sha256 = hashlib.sha256(value).hexdigest()
        blobs[sha256] = value
        return sha256

    outputs = events_from(cell.outputs, Origin(at=0.0), store)
    events = list(map(encode_event, outputs))
    # A source and outputs that are both large would not fit into one message.
    are_sent_before = len(events) > MAX_ITEMS or sum(map(len, events)) > PIECE
    imported = document_ops.ImportedCell(
        cell_id=cell_id,
        after=after,
        cell_type=cell.cell_type,
        source=cell.source,
        # Two long texts would not fit into a message, and do not merge anyway.
        base=base if base is not None and max(len(base), len(cell.source)) <= MAX_TEXT else None,
        metadata=metadata,
        execution_count=cell.execution_count,
        execution_id=_execution_id(cell_id, cell.execution_count, events) if events else None,
        status="error" if any(isinstance(output, Failed) for output in outputs) else "ok",
        brought=len(events) if are_sent_before else 0,
        events=[] if are_sent_before else events,
    )
    return Outputs(imported, events if are_sent_before else [], blobs)


def _execution_id(cell_id: CellId, count: int | None, events: Iterable[bytes]) -> ExecutionId:
    """Return the id of an execution with these outputs, always the same for the same ones."""
    digest = hashlib.sha256()
    for event in events:
        digest.update(event)
    return ExecutionId(f"execution-{uuid.uuid5(_EXECUTIONS, f'{cell_id} {count} {digest.hexdigest()}')}")


def _size(cell: document_ops.ImportedCell) -> int:
    texts = (cell.source, *cell.metadata.keys(), *cell.metadata.values())
    return sum(map(len, cell.events)) + sum(len(text.encode()) for text in texts)


def _pieces(cells: Iterable[document_ops.ImportedCell]) -> Iterator[list[document_ops.ImportedCell]]:
    piece: list[document_ops.ImportedCell] = []
    size = 0
    for cell in cells:
        more = _size(cell)
        if piece and (size + more > PIECE or len(piece) == 100):
            yield piece
            piece, size = [], 0
        piece.append(cell)
        size += more
    if piece:
        yield piece
