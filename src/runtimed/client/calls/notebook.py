"""What one handle knows of a notebook, and the checks of users' arguments. Nothing here waits or opens a socket."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Collection, Iterator
from typing import get_args

from runtimed.document import checks
from runtimed.errors import CellNotFound, InvalidCell
from runtimed.ids import SessionId, check_session_id
from runtimed.models import CellType

__all__ = ["Notebook", "check_cell_type", "check_text", "notebook"]


class Notebook:
    """What one handle knows of a session: its id, and the sources that it has seen.

    `set_source` merges against these sources: what this handle's caller knew when it wrote the new text. The source of
    a deleted cell is forgotten as soon as a reply or an event reports its end.
    """

    def __init__(self, notebook_id: SessionId) -> None:
        self.id = notebook_id
        self.seen: dict[str, str] = {}

    @contextlib.contextmanager
    def asking(self, cell_id: str) -> Iterator[None]:
        """Forget a cell if the block learns that it does not exist."""
        try:
            yield
        except CellNotFound:
            self.seen.pop(cell_id, None)
            raise

    def keep(self, cell_ids: Collection[str], before: Collection[str]) -> None:
        """Forget the cells that do not exist.

        Args:
            cell_ids: All existing cells.
            before: Cells seen before the request; those seen since may be newer.
        """
        for cell_id in set(before).difference(cell_ids):
            self.seen.pop(cell_id, None)


def notebook(session_id: str) -> Notebook:
    """Return the notebook of a user's id.

    Raises:
        SessionError: If the id is invalid.
    """
    return Notebook(check_session_id(session_id))


def check_text(name: str, value: object) -> None:
    """Refuse a value that is no text, or too long for a cell. The daemon checks, too, but would not receive it.

    Raises:
        InvalidCell: Names the field.
    """
    checks.check_text(value, f"A cell's {name}", InvalidCell)


def check_cell_type(value: object) -> None:
    """Refuse what is no type of a cell.

    Raises:
        InvalidCell: Names the three types.
    """
    if value not in get_args(CellType):
        raise InvalidCell(f"A cell's type must be code, markdown or raw, not {reprlib.repr(value)}")
