"""The operations between a session and its notebook file. Nothing here opens a file: `client.files` does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtimed.client.calls.cells import iter_cells, iter_whole_cells
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
from runtimed.errors import CellNotFound, InvalidCell, NotebookFileError
from runtimed.ids import CellId, SessionId
from runtimed.models import OpenedNotebook
from runtimed.notebook_file.merging import FileRecord, Merge
from runtimed.notebook_file.reading import FileCell, NotebookFile, without_transient
from runtimed.notebook_file.writing import ATTACHMENTS, file_cell, file_id
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol import session_operations as session_ops

__all__ = [
    "Contents",
    "Imports",
    "forget_file",
    "imports_of",
    "merge_copy",
    "read_contents",
    "record_file",
    "take_in",
]

PIECE: Final = 2**20
"""Bytes of cells from which a request is sent: performing it holds up everybody else for some 20 ms."""

MAX_CELL: Final = 15 * 2**20
"""Largest cell with its outputs, in bytes of JSON: what fits into a message."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a session has for a file.

    Attributes:
        notebook: The session as a file has it.
        cell_ids: The session's id of each cell by its id in a file.
        record: What it knows of its file; None if it has none.
    """

    session_id: SessionId
    notebook: NotebookFile
    cell_ids: Mapping[str, CellId]
    record: FileRecord | None


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


@dataclass(frozen=True, slots=True)
class Imports:
    """What a session takes from a file, ready to be sent.

    Attributes:
        requests: Cells and metadata.
        deleted: Cells to delete.
        moves: Cells to move, each with the one behind which it goes.
        record: What the session knows of its file afterwards; None if the file is not its own.
    """

    requests: tuple[document_ops.ImportCells, ...]
    deleted: tuple[CellId, ...]
    moves: tuple[tuple[CellId, CellId | None], ...]
    record: FileRecord | None


def imports_of(contents: Contents, merge: Merge, record: FileRecord | None) -> Imports:
    """Turn a merge into requests. All of it is checked here, so that a refusal leaves the session unchanged.

    Raises:
        InvalidCell: If a cell is invalid or too large for a session.
        SessionError: If the notebook's metadata is too large.
    """

    def session_id_of(cell_id: str) -> CellId:
        return contents.cell_ids.get(cell_id, CellId(cell_id))

    present = {cell.id: cell.source for cell in contents.notebook.cells}
    cells = [
        _imported(
            put.cell,
            session_id_of(put.cell.id),
            None if put.after is None else session_id_of(put.after),
            present.get(put.cell.id),
        )
        for put in merge.puts
    ]
    metadata = None if merge.metadata is None else json.dumps(dict(merge.metadata))
    check_metadata("notebook_metadata", metadata or "")
    order = [session_id_of(cell_id) for cell_id in merge.order or ()]
    requests = [document_ops.ImportCells(notebook_id=contents.session_id, cells=piece) for piece in _pieces(cells)]
    if metadata is not None:
        requests.append(document_ops.ImportCells(notebook_id=contents.session_id, cells=[], metadata=metadata))
    return Imports(
        tuple(requests),
        tuple(map(session_id_of, merge.deleted)),
        tuple(zip(order, [None, *order], strict=False)),
        record,
    )


def take_in(notebook: Notebook, imports: Imports) -> Flow[None]:
    """Take in what a file has. Sending it again changes nothing."""
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


def _imported(cell: FileCell, cell_id: CellId, after: CellId | None, base: str | None) -> document_ops.ImportedCell:
    check_cell_id(cell_id)
    check_text("source", cell.source)
    check_execution(None, cell.execution_count)
    values = {**cell.metadata, **({ATTACHMENTS: dict(cell.attachments)} if cell.attachments else {})}
    metadata = {key: text_of(value) for key, value in values.items()}
    for key, text in metadata.items():
        check_cell_metadata(key, text)
    check_whole_metadata(metadata)
    found = document_ops.ImportedCell(
        cell_id=cell_id,
        after=after,
        cell_type=cell.cell_type,
        source=cell.source,
        # Two long texts would not fit into a message, and do not merge anyway.
        base=base if base is not None and max(len(base), len(cell.source)) <= MAX_TEXT else None,
        metadata=metadata,
        execution_count=cell.execution_count,
        outputs=json.dumps(cell.outputs, separators=(",", ":")),
    )
    if (size := _size(found)) > MAX_CELL:
        raise InvalidCell(
            f"The cell {cell_id} has {size} bytes with its outputs, and a session takes at most {MAX_CELL} of a file: "
            "clear its outputs first",
            cell_id=cell_id,
        )
    return found


def _size(cell: document_ops.ImportedCell) -> int:
    texts = (cell.source, *cell.metadata.keys(), *cell.metadata.values())
    return len(cell.outputs) + sum(len(text.encode()) for text in texts)


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
