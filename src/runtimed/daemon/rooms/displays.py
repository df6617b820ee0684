"""The displays of the running kernel, by id and by execution. Nothing here waits or stores anything.

A loop may create hundreds of thousands of displays, so each costs little more than its id.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

__all__ = ["Displays"]


@dataclass(slots=True)
class _Execution:
    """The displays of one execution.

    Attributes:
        cell_id: Its cell.
        alone: A tuple of its id: one object, shared by all displays that no other execution shows.
        display_ids: Ids of its displays, each once.
    """

    cell_id: str
    alone: tuple[str, ...]
    display_ids: list[str] = field(default_factory=list)


class Displays:
    """The displays, by their ids and by the executions that show them."""

    def __init__(self) -> None:
        self._shown_by: dict[str, tuple[str, ...]] = {}
        self._executions: dict[str, _Execution] = {}

    def __len__(self) -> int:
        """Return the number of displays."""
        return len(self._shown_by)

    def show(self, display_id: str, execution_id: str, cell_id: str) -> None:
        """Note that an execution shows a display. Idempotent."""
        execution = self._executions.get(execution_id)
        if execution is None:
            execution = self._executions[execution_id] = _Execution(cell_id, (execution_id,))
        shown_by = self._shown_by.get(display_id, ())
        if execution_id not in shown_by:
            self._shown_by[display_id] = (*shown_by, execution_id) if shown_by else execution.alone
            execution.display_ids.append(display_id)

    def where(self, display_id: str) -> list[tuple[str, str]]:
        """Return the executions that show a display, each with its cell, in the order of their first display of it."""
        return [(one, self._executions[one].cell_id) for one in self._shown_by.get(display_id, ())]

    def of_cells(self, cell_ids: Collection[str]) -> list[tuple[str, str]]:
        """Return the executions of these cells that show any display, each with its cell."""
        return [(one, of.cell_id) for one, of in self._executions.items() if of.cell_id in cell_ids]

    def forget(self, execution_id: str) -> None:
        """Forget the displays of an execution, which gets no more updates. Idempotent."""
        execution = self._executions.pop(execution_id, None)
        if execution is None:
            return
        for display_id in execution.display_ids:
            others = tuple(one for one in self._shown_by[display_id] if one != execution_id)
            if others:
                self._shown_by[display_id] = self._executions[others[0]].alone if len(others) == 1 else others
            else:
                del self._shown_by[display_id]
        if len(execution.display_ids) > len(self._shown_by):
            # A dict keeps the memory of its largest size.
            self._shown_by = dict(self._shown_by)
