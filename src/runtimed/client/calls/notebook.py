"""What one handle knows of a notebook, and the checks of what users pass. Nothing here waits or opens a socket."""

from __future__ import annotations

from typing import get_args

from runtimed.document import checks
from runtimed.errors import InvalidCell
from runtimed.ids import NotebookId
from runtimed.models import CellType

__all__ = ["Notebook", "check_cell_type", "check_text"]


class Notebook:
    """What one handle knows of a session: its id, and the sources that it has seen.

    The sources are what `set_source` merges against: what the caller of this handle knew when it wrote the new text.
    """

    def __init__(self, notebook_id: NotebookId) -> None:
        self.id = notebook_id
        self.seen: dict[str, str] = {}


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
