"""The operations on the history of a notebook."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from runtimed.client.calls.notebook import Notebook
from runtimed.client.calls.pages import Page, Pages, following
from runtimed.client.flows import Flow, ask
from runtimed.client.given import check_count
from runtimed.document.entries import value_of
from runtimed.errors import CellNotFound, ProtocolError
from runtimed.ids import CellId, ExecutionId
from runtimed.models import BlamedLine, Cell, NotebookEdit, NotebookVersion
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol.bounds import MAX_NUMBER

__all__ = ["blame", "get_version", "history", "restore_version"]

T = TypeVar("T")


def history(notebook: Notebook, cell_id: str | None = None) -> Pages[NotebookEdit]:
    """Iterate over the edits of the notebook, newest first: who made each, when, and what it was.

    It goes back to the first edit, or to the latest compaction, which drops what was before it. Then its last item says
    so (`history_begins`). The executions of cells are in the audit log instead.

    Args:
        cell_id: Only edits of this cell, which may be deleted; None for all.
    """

    def read(at: int) -> Flow[Page[NotebookEdit]]:
        # Positions ascend, and versions descend.
        request = document_ops.GetHistory(
            notebook_id=notebook.id, cell_id=cell_id, before=None if at == 0 else MAX_NUMBER - at
        )
        page = yield from ask(request)
        return Page(page.edits, None if page.next is None else MAX_NUMBER - page.next)

    return Pages(read)


def get_version(notebook: Notebook, version: int) -> Flow[NotebookVersion]:
    """Return the notebook as it was behind an edit of its history.

    Args:
        version: Number of the edit; see `NotebookEdit.version`. 0 is the empty notebook, if the history goes back so
            far.

    Raises:
        VersionNotFound: If the history has no such version, or no longer.
    """
    check_count("version", version, 0)
    operation = document_ops.GetVersion(notebook_id=notebook.id, version=version)
    content = yield from _whole(operation, document_ops.VersionContent)
    return NotebookVersion(version=version, cells=tuple(map(_cell, content.cells)), metadata=content.metadata)


def blame(notebook: Notebook, cell_id: str, version: int | None = None) -> Flow[list[BlamedLine]]:
    """Return the lines of a cell's source, each with the edit that wrote or last changed it.

    Args:
        cell_id: The cell.
        version: As the cell was at this version, see `get_version`; None for now.

    Raises:
        CellNotFound: If the notebook has no such cell, or had none then.
        VersionNotFound: If the history has no such version, or no longer.
    """
    if version is not None:
        check_count("version", version, 0)
    operation = document_ops.GetBlame(notebook_id=notebook.id, cell_id=cell_id, version=version)
    content = yield from _whole(operation, document_ops.BlameContent)
    if content.source is None:
        raise CellNotFound(f"Cell not found: {cell_id}", cell_id=cell_id)
    wanted, edits = set(content.versions), dict[int, NotebookEdit]()
    pages, at = history(notebook, cell_id), 0
    while wanted:
        page = yield from pages.page(at)
        edits.update((edit.version, edit) for edit in page.items if edit.version in wanted)
        wanted -= edits.keys()
        if page.next is None:
            break
        at = page.next
    lines = content.source.split("\n")
    if not lines[-1]:
        del lines[-1]  # the end of the last line
    return [
        BlamedLine(text=text, edit=edits.get(written)) for text, written in zip(lines, content.versions, strict=False)
    ]


def restore_version(notebook: Notebook, version: int) -> Flow[int]:
    """Edit the notebook so that it is again as it was at a version. Other clients see ordinary edits.

    Deleted cells come back with their ids, and with their outputs if the execution is kept; cells that were added since
    are deleted. The history goes on: `restore(edit.version - 1)` undoes an edit and all after it, and a restore can be
    undone likewise. A cell or an edit that another client makes meanwhile may stay.

    Args:
        version: See `get_version`.

    Returns:
        The number of edits; 0 if the notebook is as it was.

    Raises:
        VersionNotFound: If the history has no such version, or no longer.
    """
    check_count("version", version, 0)
    reply = yield from ask(document_ops.RestoreVersion(notebook_id=notebook.id, version=version))
    return reply.edits


def _whole(operation: document_ops.GetVersion | document_ops.GetBlame, kind: type[T]) -> Flow[T]:
    """Read what belongs to a version, in pieces, and decode it.

    Raises:
        ProtocolError: If the daemon sends something else.
    """
    content = bytearray()
    while True:
        page = yield from ask(msgspec.structs.replace(operation, offset=len(content)))
        content += page.piece
        if len(content) >= page.size:
            break
        operation = msgspec.structs.replace(operation, version=page.version)
        following(len(content) - len(page.piece), len(content))
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except msgspec.MsgspecError as exc:
        raise ProtocolError(f"the daemon sent an unreadable version of the notebook: {exc}") from exc


def _cell(found: document_ops.StoredCell) -> Cell:
    return Cell(
        id=CellId(found.id),
        cell_type=found.cell_type,
        source=found.source or "",
        execution_count=found.execution_count,
        metadata={key: value_of(value) for key, value in (found.metadata or {}).items()},
        position=found.position,
        execution_id=None if found.execution_id is None else ExecutionId(found.execution_id),
    )
