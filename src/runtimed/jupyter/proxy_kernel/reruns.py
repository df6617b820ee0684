"""Which cell of a notebook a program runs that names none, as nbclient and papermill do. Nothing here waits."""

from __future__ import annotations

from collections.abc import Sequence

from runtimed.models import Cell

__all__ = ["Reruns"]


class Reruns:
    """The cells that one run of a notebook, from top to bottom, has reached."""

    def __init__(self) -> None:
        self._found: str | None = None
        self._ran: set[str] = set()

    def find(self, code: str, cells: Sequence[Cell]) -> str | None:
        """Return the next cell with exactly this source; None if there is none.

        Next is behind the cell that was found before. A cell that was added since is passed over, so that a notebook
        with two equal cells has two.

        Args:
            code: The code that the program sends.
            cells: The session's cells, in order.
        """
        behind = next((index + 1 for index, cell in enumerate(cells) if cell.id == self._found), 0)
        return next(
            (
                cell.id
                for cell in cells[behind:]
                if cell.cell_type == "code" and cell.source == code and cell.id not in self._ran
            ),
            None,
        )

    def found(self, cell_id: str) -> None:
        """Note that the run has reached a cell of the notebook."""
        self._found = cell_id
        self._ran.add(cell_id)

    def added(self, cell_id: str) -> None:
        """Note that the run has added a cell; the next one of the notebook is where it was."""
        self._ran.add(cell_id)
