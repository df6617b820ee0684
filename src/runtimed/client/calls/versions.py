"""The operations on the history of a notebook."""

from __future__ import annotations

from runtimed.client.calls.notebook import Notebook
from runtimed.client.calls.pages import Page, Pages
from runtimed.client.flows import Flow, ask
from runtimed.models import NotebookEdit
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol.bounds import MAX_NUMBER

__all__ = ["history"]


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
