"""What this shell followed to its end, so that a cell which was asked for again meanwhile does not start once more.

While a cell follows its execution, the notebook's kernel is busy: a request that comes from a page that was closed and
opened again waits behind it, and is handled when the execution has ended. Nothing here talks to anybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

__all__ = ["Followed"]

_LATE: Final = 1.0
"""Largest delay of a clock that the network sets, in seconds; a larger one means that the request waited."""


@dataclass(frozen=True, slots=True)
class _End:
    execution_id: str
    source: str
    at: float


class Followed:
    """The latest execution of each cell that this shell followed to its end."""

    def __init__(self, shell: Any, clock: Callable[[], float]) -> None:
        """Start without executions.

        Args:
            shell: The IPython shell, which knows the request that it handles.
            clock: Returns the time in Unix seconds.
        """
        self._shell = shell
        self._clock = clock
        self._ends: dict[str, _End] = {}
        self._offset = math.inf

    def ended(self, cell_id: str, execution_id: str, source: str) -> None:
        """Note that an execution of a cell has just ended."""
        self._ends[cell_id] = _End(execution_id, source, self._clock())

    def asked_meanwhile(self, cell_id: str, source: str) -> str | None:
        """Return the execution of this code that had not ended when the running cell was requested.

        Returns:
            None if there is none, or the time of the request is unknown, as in a terminal.
        """
        asked = self._asked_at()
        end = self._ends.get(cell_id)
        if asked is None or end is None or end.source != source or asked >= end.at:
            return None
        return end.execution_id

    def _asked_at(self) -> float | None:
        """Return when the frontend sent the present request, in this machine's time, or a little later.

        Source: Jupyter messaging 5.4, header `date`.
        """
        get_parent = getattr(self._shell, "get_parent", None)
        date = None if get_parent is None else ((get_parent() or {}).get("header") or {}).get("date")
        if not isinstance(date, datetime) or date.tzinfo is None:
            return None
        sent = date.timestamp()
        # The frontend's clock may be another machine's. A request that met an idle kernel tells how far it is off; one
        # that had to wait seems to come from a clock that is further behind.
        self._offset = min(self._offset, self._clock() - sent)
        return sent if 0 <= self._offset < _LATE else sent + self._offset
