"""The operations that read and edit cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtimed.client.calls.notebook import Notebook, check_cell_type, check_text
from runtimed.client.calls.pages import Page, Pages, read_blob, read_content
from runtimed.client.flows import Flow, ask
from runtimed.document.checks import MAX_TEXT
from runtimed.document.entries import text_of, value_of
from runtimed.errors import CellNotFound, InvalidCell, StorageError
from runtimed.execution.outputs import OutputFold
from runtimed.ids import CellId, ExecutionId, new_cell_id
from runtimed.models import Cell, CellType, Output
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol import execution_operations as execution_ops
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Blob, Event, Omitted

__all__ = [
    "append_source",
    "clear_outputs",
    "create_cell",
    "delete_cell",
    "delete_cell_metadata",
    "fetch_blobs",
    "find_cells",
    "get_cell",
    "get_cell_execution_count",
    "get_cell_ids",
    "get_cell_metadata",
    "get_cell_outputs",
    "get_cell_position",
    "get_cell_source",
    "get_cell_type",
    "get_cells",
    "get_whole_cell",
    "iter_cells",
    "iter_whole_cells",
    "move_cell",
    "read_events",
    "set_cell_metadata",
    "set_cell_type",
    "set_source",
]


def create_cell(
    notebook: Notebook,
    source: str = "",
    cell_type: CellType = "code",
    index: int | None = None,
    *,
    cell_id: str | None = None,
) -> Flow[CellId]:
    """Add a cell to the document.

    Args:
        source: Its text, at most 10 MB.
        cell_type: `code`, `markdown` or `raw`.
        index: Its place, from 0 to the number of cells; None for the end.
        cell_id: Its id, such as its id in a notebook file; None for a generated one.

    Returns:
        The new cell's id.

    Raises:
        InvalidCell: If source, type or index is invalid.
    """
    check_text("source", source)
    check_cell_type(cell_type)
    if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
        raise InvalidCell(f"A cell's index must be an int or None, not {type(index).__name__}")
    new = new_cell_id() if cell_id is None else CellId(cell_id)
    yield from ask(
        document_ops.AddCell(notebook_id=notebook.id, cell_id=new, source=source, cell_type=cell_type, index=index)
    )
    notebook.seen[new] = source
    return new


def set_source(notebook: Notebook, cell_id: str, source: str) -> Flow[None]:
    """Set a cell's source. What others changed since this session last saw the cell is merged, not lost.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If the source is invalid.
    """
    check_text("source", source)
    base = notebook.seen.get(cell_id)
    if base is not None and max(len(base), len(source)) > MAX_TEXT:
        # Too long to merge: the last writer wins. Both texts together would not fit into a message.
        base = None
    with notebook.asking(cell_id):
        yield from ask(document_ops.SetSource(notebook_id=notebook.id, cell_id=cell_id, source=source, base=base))
    notebook.seen[cell_id] = source


def append_source(notebook: Notebook, cell_id: str, text: str) -> Flow[None]:
    """Append text to a cell's source, as one insertion: for streams of tokens.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If the source would be too long, or the text is invalid.
    """
    check_text("text", text)
    with notebook.asking(cell_id):
        yield from ask(document_ops.AppendSource(notebook_id=notebook.id, cell_id=cell_id, text=text))
    if cell_id in notebook.seen:
        notebook.seen[cell_id] += text


def delete_cell(notebook: Notebook, cell_id: str) -> Flow[None]:
    """Delete a cell. Its executions stay readable by id.

    Raises:
        CellNotFound: If there is no such cell.
    """
    with notebook.asking(cell_id):
        yield from ask(document_ops.DeleteCell(notebook_id=notebook.id, cell_id=cell_id))
    notebook.seen.pop(cell_id, None)


def move_cell(notebook: Notebook, cell_id: str, after_cell_id: str | None = None) -> Flow[None]:
    """Move a cell behind another one, or to the front if `after_cell_id` is None.

    Raises:
        CellNotFound: If there is no such cell.
    """
    yield from ask(document_ops.MoveCell(notebook_id=notebook.id, cell_id=cell_id, after_cell_id=after_cell_id))


def clear_outputs(notebook: Notebook, cell_id: str) -> Flow[None]:
    """Remove a cell's outputs and its execution count, for everybody. The execution stays readable by its id.

    Raises:
        CellNotFound: If there is no such cell.
    """
    yield from ask(document_ops.ClearOutputs(notebook_id=notebook.id, cell_id=cell_id))


def set_cell_metadata(notebook: Notebook, cell_id: str, key: str, value: Any) -> Flow[None]:
    """Set one value of a cell's metadata, such as `tags`. Other keys stay, concurrent edits included.

    Args:
        cell_id: The cell.
        key: At most 1 KB of UTF-8.
        value: A JSON value; None is JSON's null. `delete_cell_metadata` removes a key.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If key or value is invalid, or all metadata of the cell would be larger than 10 MB.

    Source: nbformat 4, "Cell metadata".
    """
    check_text("key", key)
    text = text_of(value)
    yield from ask(document_ops.SetCellMetadata(notebook_id=notebook.id, cell_id=cell_id, key=key, value=text))


def delete_cell_metadata(notebook: Notebook, cell_id: str, key: str) -> Flow[None]:
    """Delete a key of a cell's metadata; nothing happens if it is not set.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If the key is invalid.
    """
    check_text("key", key)
    yield from ask(document_ops.SetCellMetadata(notebook_id=notebook.id, cell_id=cell_id, key=key))


def set_cell_type(notebook: Notebook, cell_id: str, cell_type: CellType) -> Flow[None]:
    """Change a cell's type to `code`, `markdown` or `raw`.

    Raises:
        CellNotFound: If there is no such cell.
        InvalidCell: If there is no such type.
    """
    check_cell_type(cell_type)
    yield from ask(document_ops.SetCellType(notebook_id=notebook.id, cell_id=cell_id, cell_type=cell_type))


def get_cell(notebook: Notebook, cell_id: str, *, outputs: bool = True) -> Flow[Cell]:
    """Return a cell with the outputs of its latest execution, so far.

    An execution with more outputs than the daemon's limit `max_output_bytes` is marked: see `Cell.truncated`.

    Args:
        cell_id: The cell.
        outputs: Whether to read its outputs, which may be large; else the cell has none.

    Raises:
        CellNotFound: If there is no such cell.
    """
    found = yield from _find_cell(notebook, cell_id, outputs=outputs)
    if found is None:
        raise CellNotFound(f"Cell not found: {cell_id}", cell_id=cell_id)
    return (yield from _cell(notebook, found, whole=False))


def get_cells(notebook: Notebook, *, outputs: bool = True) -> Flow[list[Cell]]:
    """Return all cells in order, each as `get_cell` returns it; `iter_cells` returns one after another.

    Args:
        outputs: Whether to read their outputs, which may be large; else the cells have none.
    """
    return (yield from iter_cells(notebook, outputs=outputs).all())


def iter_cells(notebook: Notebook, *, outputs: bool = True) -> Pages[Cell]:
    """Iterate over the cells in order, each as `get_cell` returns it, without holding all of them at once.

    Args:
        outputs: Whether to read their outputs, which may be large; else the cells have none.
    """
    return _cells(notebook, outputs=outputs, whole=False)


def iter_whole_cells(notebook: Notebook) -> Pages[Cell]:
    """Iterate over the cells in order, with all of their outputs, those beyond the daemon's limit included."""
    return _cells(notebook, outputs=True, whole=True)


def get_whole_cell(notebook: Notebook, cell_id: str) -> Flow[Cell | None]:
    """Return a cell with all of its outputs, those beyond the daemon's limit included; None if there is none."""
    found = yield from _find_cell(notebook, cell_id, outputs=True)
    try:
        return None if found is None else (yield from _cell(notebook, found, whole=True))
    except CellNotFound:
        return None  # deleted meanwhile


def _cells(notebook: Notebook, *, outputs: bool, whole: bool) -> Pages[Cell]:

    def read(start: int) -> Flow[Page[Cell]]:
        cells: list[Cell] = []
        seen = list(notebook.seen)
        page = yield from ask(document_ops.GetCells(notebook_id=notebook.id, start=start, outputs=outputs))
        _forget_missing(notebook, seen, start, page)
        for found in page.cells:
            try:
                cell = yield from _cell(notebook, found, whole=whole)
            except CellNotFound:
                continue  # deleted since the page was read
            cells.append(cell)
        return Page(cells, page.next)

    return Pages(read)


def get_cell_ids(notebook: Notebook) -> Flow[list[CellId]]:
    """Return the ids of all cells, in order."""

    def read(start: int) -> Flow[Page[CellId]]:
        seen = list(notebook.seen)
        page = yield from ask(document_ops.GetCells(notebook_id=notebook.id, start=start, outputs=False, content=False))
        _forget_missing(notebook, seen, start, page)
        return Page([CellId(found.id) for found in page.cells], page.next)

    return (yield from Pages(read).all())


def _forget_missing(notebook: Notebook, seen: list[str], start: int, page: document_ops.GetCellsReply) -> None:
    """Forget cells that are not in a page with all cells. Between two pages a cell may have moved."""
    if start == 0 and page.next is None:
        notebook.keep({found.id for found in page.cells}, seen)


def find_cells(notebook: Notebook, prefix: str) -> Flow[list[CellId]]:
    """Return the ids of cells that begin with a text, in order; see `Sessions.find_cells`."""
    reply = yield from ask(document_ops.FindCells(notebook_id=notebook.id, prefix=prefix))
    return [CellId(found) for found in reply.ids]


def get_cell_source(notebook: Notebook, cell_id: str) -> Flow[str | None]:
    """Return a cell's source; None if there is no such cell."""
    content = yield from _content(notebook, cell_id)
    if content is None:
        return None
    notebook.seen[cell_id] = content[0]
    return content[0]


def get_cell_type(notebook: Notebook, cell_id: str) -> Flow[CellType | None]:
    """Return a cell's type; None if there is no such cell."""
    found = yield from _find_cell(notebook, cell_id, outputs=False)
    return None if found is None else found.cell_type


def get_cell_outputs(notebook: Notebook, cell_id: str) -> Flow[list[Output] | None]:
    """Return the outputs of a cell's latest execution; None if there is no such cell.

    At most the daemon's limit `max_output_bytes`: `get_cell` says whether there are more.
    """
    found = yield from _find_cell(notebook, cell_id, outputs=True)
    if found is None:
        return None
    fold = yield from _fold(notebook, found)
    return list(fold.outputs_with((yield from fetch_blobs(notebook, fold.missing_blobs))))


def get_cell_execution_count(notebook: Notebook, cell_id: str) -> Flow[int | None]:
    """Return the execution count of a cell; None if it never ran, or there is no such cell."""
    found = yield from _find_cell(notebook, cell_id, outputs=False)
    return None if found is None else found.execution_count


def get_cell_position(notebook: Notebook, cell_id: str) -> Flow[str | None]:
    """Return a cell's position, which sorts as text; None if there is no such cell."""
    found = yield from _find_cell(notebook, cell_id, outputs=False)
    return None if found is None else found.position


def get_cell_metadata(notebook: Notebook, cell_id: str) -> Flow[dict[str, Any] | None]:
    """Return a cell's metadata, as JSON values; None if there is no such cell."""
    content = yield from _content(notebook, cell_id)
    return None if content is None else _values(content[1])


def _find_cell(notebook: Notebook, cell_id: str, *, outputs: bool) -> Flow[document_ops.StoredCell | None]:
    found = (yield from ask(document_ops.GetCell(notebook_id=notebook.id, cell_id=cell_id, outputs=outputs))).cell
    if found is None:
        notebook.seen.pop(cell_id, None)
    return found


def _content(notebook: Notebook, cell_id: str) -> Flow[tuple[str, dict[str, str]] | None]:
    """Return a cell's source and metadata; None if there is no such cell."""
    found = yield from _find_cell(notebook, cell_id, outputs=False)
    try:
        return None if found is None else (yield from _content_of(notebook, found))
    except CellNotFound:
        return None


def _content_of(notebook: Notebook, found: document_ops.StoredCell) -> Flow[tuple[str, dict[str, str]]]:
    """Return a cell's source and metadata, which are read in pieces if they exceed a page."""
    if found.source is not None and found.metadata is not None:
        return found.source, found.metadata
    return (yield from read_content(notebook, found.id))


def _values(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {key: value_of(text) for key, text in metadata.items()}


def _cell(notebook: Notebook, found: document_ops.StoredCell, *, whole: bool) -> Flow[Cell]:
    source, metadata = yield from _content_of(notebook, found)
    notebook.seen[found.id] = source
    fold = yield from _fold(notebook, found)
    if whole and fold.omitted is not None and found.execution_id is not None:
        fold = OutputFold()
        events = read_events(notebook, found.execution_id, 0, whole=True)
        for _seq, event in (yield from events.all()):
            if not isinstance(event, Omitted):
                fold.add(event)
    omitted = fold.omitted
    return Cell(
        id=CellId(found.id),
        cell_type=found.cell_type,
        source=source,
        execution_count=found.execution_count,
        outputs=fold.outputs_with((yield from fetch_blobs(notebook, fold.missing_blobs))),
        metadata=_values(metadata),
        position=found.position,
        execution_id=None if found.execution_id is None else ExecutionId(found.execution_id),
        omitted_bytes=omitted.size if omitted is not None else 0,
        omitted_after=omitted.after if omitted is not None else None,
        last_edit=found.last_edit,
    )


def _fold(notebook: Notebook, found: document_ops.StoredCell) -> Flow[OutputFold]:
    fold = OutputFold()
    for body in found.events:
        fold.add(decode_event(body))
    if found.more is not None and found.execution_id is not None:
        rest = read_events(notebook, found.execution_id, found.more, whole=False)
        yield from rest.each(lambda numbered: fold.add(numbered[1]))
    return fold


def read_events(notebook: Notebook, execution_id: str, after: int, *, whole: bool) -> Pages[tuple[int, Event]]:
    """Read the stored events of an execution, with their numbers.

    Args:
        execution_id: The execution.
        after: Number of the last event that is not wanted.
        whole: Whether to read the outputs beyond the daemon's limit, too.
    """

    def read(place: int) -> Flow[Page[tuple[int, Event]]]:
        request = execution_ops.ReadEvents(notebook_id=notebook.id, execution_id=execution_id, after=place, whole=whole)
        page = yield from ask(request)
        events = [(seq, decode_event(body)) for seq, body in page.events]
        return Page(events, page.last if page.more else None)

    return Pages(read, after)


def fetch_blobs(notebook: Notebook, blobs: list[Blob]) -> Flow[dict[str, bytes | str | StorageError]]:
    """Fetch the contents of blobs, by SHA-256; for a lost or damaged one, the error that says so."""
    values: dict[str, bytes | str | StorageError] = {}
    for blob in blobs:
        try:
            values[blob.sha256] = yield from read_blob(notebook, blob.sha256, blob.size)
        except StorageError as exc:
            values[blob.sha256] = exc
    return values
