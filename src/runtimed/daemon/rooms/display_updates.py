"""Updates of displays: copies each to all executions that show the display, and forgets displays that nobody sees."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from runtimed.daemon.rooms.displays import Displays
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.ids import CellId, ExecutionId
from runtimed.protocol.events import Display
from runtimed.storage.session_store import SessionStore

__all__ = ["DisplayUpdates"]


class DisplayUpdates:
    """The displays of a session's running kernel, which can update them."""

    def __init__(self, store: SessionStore, log: EventLog, document: SharedDocument) -> None:
        self._store = store
        self._log = log
        self._document = document
        self._displays: Displays | None = None

    @property
    def count(self) -> int:
        """Number of remembered displays."""
        return 0 if self._displays is None else len(self._displays)

    def take(self, event: Display, display_id: str, running: ExecutionId | None) -> None:
        """Note a display, or copy its update to every execution that shows it: the event names only the running one.

        Args:
            event: The event, which was just stored.
            display_id: The display's id.
            running: The execution that runs.
        """
        if self._displays is None:
            self._displays = self._stored_displays()
        if event.kind == "update_display_data":
            for execution_id, cell_id in self._displays.where(display_id):
                if execution_id != event.execution_id:
                    self._log.append(msgspec.structs.replace(event, execution_id=execution_id, cell_id=cell_id))
        elif event.execution_id is not None and event.cell_id is not None:
            self._store.show_display(display_id, event.execution_id, event.cell_id)
            self._displays.show(display_id, event.execution_id, event.cell_id)
            if event.execution_id != running:
                # From one of its threads, after its end.
                self._document.reshown.add(CellId(event.cell_id))

    def _stored_displays(self) -> Displays:
        """Return the displays of a kernel that an earlier daemon started."""
        displays = Displays()
        for display_id, execution_id, cell_id in self._store.displays():
            displays.show(display_id, execution_id, cell_id)
        return displays

    def forget(self, execution_id: str) -> None:
        """Forget the displays of an execution, which gets no more updates."""
        self._store.forget_displays(execution_id)
        if self._displays is not None:
            self._displays.forget(execution_id)
        self._log.forget_sizes(execution_id)

    def forget_all(self) -> None:
        """Forget all displays: the kernel that could update them is gone."""
        self._store.forget_displays()
        self._displays = Displays()

    def forget_unshown(self, cell_ids: Collection[CellId], running: ExecutionId | None) -> None:
        """Forget the displays of executions that none of these cells shows any more: nobody sees their updates."""
        for execution_id, cell_id in (self._displays or Displays()).of_cells(cell_ids):
            if execution_id != running and execution_id != self._store.shown_execution(cell_id):
                self.forget(execution_id)
