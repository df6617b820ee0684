"""Measures the size of an execution's outputs as a reader keeps them. Nothing here waits or stores anything.

An update of a display replaces the earlier value, and cleared outputs count nothing. A size is that of the encoded
event plus the blobs that it refers to.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from runtimed.execution.outputs import blobs_in
from runtimed.protocol.events import BrowserLogged, Clear, Display, Event, Failed, Finished, Stream

__all__ = ["ERRORS_FREE", "Measure", "OutputSizes"]

ERRORS_FREE: Final = 16 * 2**20
"""Bytes of one execution's errors that do not count as output, so that its failure always reaches the reader."""

_MAX_EXECUTIONS: Final = 1000
"""Capacity of the cache, in executions. A full cache is cleared, and the next updates count in full."""


class Measure(NamedTuple):
    """The effect of one event on the size of its execution's outputs.

    Attributes:
        output: Bytes that it adds; None if it is not an output.
        clears: Whether it clears all outputs.
        blobs: SHA-256 of the blobs that it refers to.
    """

    output: int | None = None
    clears: bool = False
    blobs: tuple[str, ...] = ()


class OutputSizes:
    """Measures the events of a session, given in the order of storage."""

    def __init__(self) -> None:
        self._displays: dict[str, dict[str, int]] = {}
        self._updates: dict[str, dict[str, int]] = {}
        self._errors: dict[str, int] = {}

    @property
    def remembered(self) -> int:
        """Number of remembered sizes: of displays, of updates of other executions' displays, and of errors."""
        of_displays = (*self._displays.values(), *self._updates.values())
        return sum(map(len, of_displays)) + len(self._errors)

    def measure(self, event: Event, size: int) -> Measure:
        """Measure the next event.

        Args:
            event: The event.
            size: Length of the encoded event, in bytes.
        """
        match event:
            case Stream():
                return Measure(size)
            case Display():
                blobs = blobs_in(event)
                size += sum(blob.size for blob in blobs)
                return Measure(self._display(event, size), blobs=tuple(blob.sha256 for blob in blobs))
            case Failed():
                return Measure(self._error(event, size))
            case BrowserLogged():
                return Measure(blobs=tuple(blob.sha256 for blob in blobs_in(event)))
            case Clear():
                self._displays.pop(event.execution_id or "", None)
                self._updates.pop(event.execution_id or "", None)
                return Measure(clears=True)
            case Finished():
                self._updates.pop(event.execution_id or "", None)
                return Measure()
            case _:
                return Measure()

    def forget(self, execution_id: str | None = None) -> None:
        """Forget an execution, or all; its later updates count in full."""
        if execution_id is None:
            for remembered in (self._displays, self._updates, self._errors):
                remembered.clear()
        else:
            for remembered in (self._displays, self._updates, self._errors):
                remembered.pop(execution_id, None)

    def _display(self, event: Display, size: int) -> int:
        if event.display_id is None:
            return size
        execution_id = event.execution_id or ""
        is_update = event.kind == "update_display_data"
        # Updates of another execution's display are remembered while this execution runs.
        of_others = is_update and event.display_id not in self._displays.get(execution_id, ())
        remembered = self._updates if of_others else self._displays
        displays = remembered.get(execution_id)
        if displays is None:
            if len(remembered) >= _MAX_EXECUTIONS:
                remembered.clear()
            displays = remembered[execution_id] = {}
        before = displays.get(event.display_id, 0)
        # The largest value counts, so that the sum never decreases and a reader beyond the limit stays there.
        displays[event.display_id] = max(before, size)
        return max(size - before, 0) if is_update else size

    def _error(self, event: Failed, size: int) -> int | None:
        if len(self._errors) >= _MAX_EXECUTIONS:
            self._errors.clear()
        errors = self._errors.get(event.execution_id or "", 0) + size
        self._errors[event.execution_id or ""] = errors
        return None if errors <= ERRORS_FREE else size
