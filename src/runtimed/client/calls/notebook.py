"""What one handle knows of a notebook, and the checks of what users pass. Nothing here waits or opens a socket."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import get_args

from runtimed.document import checks
from runtimed.errors import CellNotFound, InvalidCell
from runtimed.ids import NotebookId, check_notebook_id
from runtimed.models import CellType

__all__ = ["Notebook", "check_cell_type", "check_text", "notebook"]


class Notebook:
    """What one handle knows of a session: its id, and the sources that it has seen.

    The sources are what `set_source` merges against: what the caller of this handle knew when it wrote the new text.
    That of a deleted cell is forgotten as soon as an answer or an event tells of its end.
    """

    def __init__(self, notebook_id: NotebookId) -> None:
        self.id = notebook_id
        self.seen: dict[str, str] = {}

    @contextlib.contextmanager
    def asking(self, cell_id: str) -> Iterator[None]:
        """Forget a cell of which the block hears that it is not there."""
        try:
            yield
        except CellNotFound:
            self.seen.pop(cell_id, None)
            raise

    def keep(self, cell_ids: Collection[str], before: Collection[str]) -> None:
        """Forget the cells that are not there.

        Args:
            cell_ids: All that are there.
            before: Those seen before somebody asked; what was seen since may be newer.
        """
        for cell_id in set(before).difference(cell_ids):
            self.seen.pop(cell_id, None)


def notebook(session_id: str) -> Notebook:
    """Return the notebook of an id that somebody gave.

    Raises:
        SessionError: If it cannot be one.
    """
    return Notebook(check_notebook_id(session_id))


def check_text(name: str, value: object) -> None:
    """Refuse what is no text that a cell may have. The daemon does so too, but is not sent what it cannot take.

    Raises:
        InvalidCell: Naming the field.
    """
    checks.check_text(value, f"A cell's {name}", InvalidCell)


def check_cell_type(value: object) -> None:
    """Refuse what is no type of a cell.

    Raises:
        InvalidCell: Naming the three there are.
    """
    if value not in get_args(CellType):
        raise InvalidCell(f"A cell's type must be code, markdown or raw, not {value!r}")
