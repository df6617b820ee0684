"""Reads a session for its clients: cells, executions, action log and audit log. Nothing here writes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from runtimed.daemon.rooms.cell_pages import REPLY_BUDGET, content_size, fixed_size
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.reading import read_page
from runtimed.document.cells import CellRecord
from runtimed.errors import ExecutionNotFound, StorageError
from runtimed.execution.programs import is_program
from runtimed.ids import ExecutionId, SessionId
from runtimed.models import Attribution, ExecutionSummary
from runtimed.protocol.document_operations import GetCellsReply, StoredCell
from runtimed.protocol.replies import EventPage
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.session_store import SessionStore

__all__ = ["RoomContents"]

PAGE_CELLS: Final = 1000
"""Largest number of cells in one reply. Reading them takes 16 ms, for which everybody else waits."""

FOUND: Final = 100
"""Largest number of executions in one reply."""


class _Shown(NamedTuple):
    """A cell of a page.

    Attributes:
        content: Whether its source and metadata are in the page.
        events: Encoded events of its latest execution.
        more: The number after which there are more events; None if there are none.
    """

    record: CellRecord
    content: bool
    events: list[bytes]
    more: int | None


class RoomContents:
    """Reads one session."""

    def __init__(
        self,
        notebook_id: SessionId,
        store: SessionStore,
        log: EventLog,
        document: SharedDocument,
        keep_days: float | None,
    ) -> None:
        self._notebook_id = notebook_id
        self._store = store
        self._log = log
        self._document = document
        self._keep_days = keep_days

    def stored_cell(self, record: CellRecord, *, outputs: bool) -> StoredCell:
        """Return a cell with at most REPLY_BUDGET bytes of events, but at least one event."""
        fits = content_size(record) <= REPLY_BUDGET
        shown = self._shown(record, outputs=outputs, content=fits, budget=REPLY_BUDGET)
        (cell,) = self._stored([shown], with_last_edits=True)
        return cell

    def stored_cells(self, start: int, *, outputs: bool, content: bool = True) -> GetCellsReply:
        """Return cells from an index on, until the page is full."""
        page: list[_Shown] = []
        left = REPLY_BUDGET
        for index, record in enumerate(self._document.content.cells(start), start):
            size = content_size(record) if content else 0
            # Content larger than a page is left out; see `content_page`.
            left -= fixed_size(record) + (size if size <= REPLY_BUDGET else 0)
            if page and (left <= 0 or len(page) == PAGE_CELLS):
                return GetCellsReply(cells=self._stored(page, with_last_edits=content), next=index)
            shown = self._shown(record, outputs=outputs, content=content and size <= REPLY_BUDGET, budget=max(left, 1))
            left -= sum(map(len, shown.events))
            page.append(shown)
        return GetCellsReply(cells=self._stored(page, with_last_edits=content))

    def _shown(self, record: CellRecord, *, outputs: bool, content: bool, budget: int) -> _Shown:
        """Return a cell with at most `budget` bytes of events, but at least one event."""
        if not outputs or record.execution_id is None:
            return _Shown(record, content, [], None)
        reader = self._log.reader(record.execution_id, after=0)
        page, is_all = read_page(reader, budget)
        return _Shown(record, content, [body for _seq, body in page], None if is_all else reader.cursor)

    def _stored(self, cells: Sequence[_Shown], *, with_last_edits: bool) -> list[StoredCell]:
        edits = self._store.last_edits([cell.record.id for cell in cells]) if with_last_edits else {}
        return [
            StoredCell(
                id=record.id,
                cell_type=record.cell_type,
                source=record.source if content else None,
                execution_count=record.execution_count,
                execution_id=record.execution_id,
                metadata=dict(record.metadata) if content else None,
                position=record.position,
                last_edit=_attribution(*edits[record.id]) if record.id in edits else None,
                events=events,
                more=more,
            )
            for record, content, events, more in cells
        ]

    def check_execution(self, execution_id: str) -> None:
        """Check that this session has an execution.

        Raises:
            ExecutionNotFound: If it has none with this id.
        """
        row = self._store.execution(ExecutionId(execution_id))
        if row is None:
            days = self._keep_days
            kept = "" if days is None else f"; those that no cell shows are kept for {days:g} days"
            raise ExecutionNotFound(
                f"Session {self._notebook_id!r} has no execution {execution_id!r}{kept}", execution_id=execution_id
            )

    def find_executions(self, prefix: str | None) -> list[ExecutionSummary]:
        """Return the executions whose ids have a prefix, or the unfinished ones for None; see `FindExecutions`."""
        rows = self._store.unfinished_executions() if prefix is None else self._store.find_executions(prefix, FOUND)
        found = []
        for row in rows:
            actor = self._store.actor(row.author)
            found.append(
                ExecutionSummary(
                    execution_id=row.execution_id,
                    cell_id=row.cell_id,
                    status=row.status,
                    program=is_program(row.source),
                    queued_at=_in_utc(row.queued_at),
                    started_at=None if row.started_at is None else _in_utc(row.started_at),
                    ended_at=None if row.ended_at is None else _in_utc(row.ended_at),
                    client_id=actor.client_id,
                    label=actor.label,
                    uid=actor.uid,
                    pid=actor.pid,
                )
            )
        return found

    def actions(self, after: int) -> EventPage:
        """Return a page of the action log."""
        page = self._log.read(after, max_bytes=REPLY_BUDGET)
        last = page[-1][0] if page else after
        return EventPage(events=page, last=last, more=last < self._log.last)

    def audit(self) -> Generator[AuditRow, None, None]:
        """Yield the audit entries about the work in this session, newest first; see `SessionStore.audit`."""
        return self._store.audit()

    def check_complete_after(self, seq: int) -> None:
        """Check that no event after this one was deleted: a client that continues from here would miss it.

        Args:
            seq: Number of the event; 0 stands for all that exist, and always passes.

        Raises:
            StorageError: If one was deleted.
        """
        if 0 < seq < self._store.last_deleted_event:
            raise StorageError(
                f"Session {self._notebook_id!r} has deleted old events after number {seq}, the last one that this "
                "client saw, so the client has missed some. Read the cells, and subscribe again",
                notebook_id=self._notebook_id,
                after=seq,
            )


def _in_utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _attribution(actor: Actor, at: float) -> Attribution:
    return Attribution(at=_in_utc(at), client_id=actor.client_id, label=actor.label, uid=actor.uid, pid=actor.pid)
