"""A room: one session as this daemon serves it, with its document, its log, its kernel and the peers in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final, Literal

from runtimed.daemon.kernel import KernelListener, RoomKernel
from runtimed.daemon.log import EventLog
from runtimed.daemon.registry import Registry
from runtimed.daemon.shared_document import SharedDocument
from runtimed.document.notebook import CellRecord
from runtimed.environments.maker import Environments
from runtimed.errors import RuntimedError, StorageError
from runtimed.ids import ClientId, ExecutionId, NotebookId, stored_name
from runtimed.lifecycle import Activity, Limits, SessionEvent, next_deadline
from runtimed.protocol.codec import pack, unpack
from runtimed.protocol.operations import Join, StartKernel
from runtimed.settings import Settings
from runtimed.storage.registry_store import SessionRow
from runtimed.storage.session_store import SessionStore

__all__ = ["Room"]

logger = logging.getLogger(__name__)

REPLY_BUDGET: Final = 4 * 2**20
"""Bytes of sources and events after which a reply about cells ends; the rest is asked for again."""

INPUT_PATIENCE: Final = 30.0
"""Seconds that a cell which asks for input waits for its client to come back."""


class Room(KernelListener):
    """One session. Sync methods decide and commit; the few that wait for a kernel are coroutines."""

    def __init__(
        self,
        notebook_id: NotebookId,
        settings: Settings,
        registry: Registry,
        environments: Environments,
        clock: Callable[[], float],
    ) -> None:
        self.notebook_id = notebook_id
        self._registry = registry
        self._clock = clock
        self._path = settings.data_dir / "sessions" / f"{stored_name(notebook_id)}.db"
        self._store = SessionStore(self._path)
        self.log = EventLog(self._store)
        self.document = SharedDocument(notebook_id, self._store, self.log, clock)
        self.kernel = RoomKernel(notebook_id, settings, self._store, self.log, self.document, environments, self, clock)
        self._peers: dict[Hashable, tuple[ClientId, Join]] = {}
        self._left_at = clock()
        self._unanswered_since: float | None = None

    # --- peers ---

    @property
    def peers(self) -> int:
        """How many clients are here; one with several connections counts once."""
        return len({client_id for client_id, _join in self._peers.values()})

    def join(self, connection: Hashable, client_id: ClientId, request: Join) -> None:
        """A client is here as long as this connection lasts."""
        self._peers[connection] = client_id, request

    def leave(self, connection: Hashable) -> None:
        """A connection is gone; one that was never here changes nothing."""
        if self._peers.pop(connection, None) is not None:
            self._left_at = self._clock()

    # --- life ---

    def activate(self, client_id: ClientId) -> None:
        """Make the session active, as the client asked for it when it joined."""
        join = next((join for client, join in self._peers.values() if client == client_id), None)
        if join is None:
            join = Join(notebook_id=self.notebook_id)
        self._registry.start(
            self.notebook_id,
            creator=client_id,
            label=join.label,
            limits=Limits(
                timeout_minutes=join.timeout_minutes,
                max_duration_minutes=join.max_duration_minutes,
                ephemeral=join.ephemeral,
                keep_alive=join.keep_alive,
            ),
        )

    def begin(self, client_id: ClientId) -> None:
        """A document that is written to for the first time makes a session; an ended session stays ended."""
        if self._registry.find(self.notebook_id) is None:
            self.activate(client_id)

    async def start_kernel(self, request: StartKernel, client_id: ClientId) -> dict[str, Any]:
        """Start a kernel unless one runs; see `RoomKernel.start`."""
        self.activate(client_id)
        started = await self.kernel.start(request)
        return {
            "kernel_type": self.kernel.kernel_type,
            "env_source": self.kernel.env_source,
            "started": started,
        }

    async def stop(self, event: SessionEvent) -> None:
        """End the session. The step is committed first, then the kernel goes."""
        self._registry.end(self.notebook_id, event)
        await self.kernel.shutdown()

    def deadline(self) -> tuple[float, SessionEvent] | None:
        """Return when the session ends by itself, and why; None for never."""
        row = self._registry.find(self.notebook_id)
        if row is None or row.status != "active":
            return None
        limits = Limits(
            timeout_minutes=row.timeout_minutes,
            max_duration_minutes=row.max_duration_minutes,
            ephemeral=row.ephemeral,
            keep_alive=row.keep_alive,
        )
        activity = Activity(
            started_at=row.started_at,
            used_at=row.last_accessed_at,
            peers=self.peers,
            left_at=max(self._left_at, row.started_at),
            busy=self.kernel.busy,
        )
        return next_deadline(limits, activity)

    def interrupt_unanswered(self) -> None:
        """Interrupt a cell that has waited too long for input from a client that is gone: nobody else can give it."""
        asking = self.kernel.executions.asking
        if asking is None or any(client_id == asking.client_id for client_id, _join in self._peers.values()):
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = self._clock()
        elif self._clock() - self._unanswered_since > INPUT_PATIENCE:
            self._unanswered_since = None
            self.kernel.executions.cancel(asking.execution_id)

    def kernel_facts(self, **fields: Any) -> None:
        """See `KernelListener`."""
        self._registry.update(self.notebook_id, **fields)

    def kernel_used(self) -> None:
        """See `KernelListener`."""
        self._registry.touch(self.notebook_id)

    def kernel_lost(self, why: Literal["died", "host_lost"], error: str) -> None:
        """See `KernelListener`."""
        self._registry.end(self.notebook_id, SessionEvent(why), error=error)

    async def adopt(self, row: SessionRow) -> None:
        """Take over from an earlier daemon."""
        try:
            self.document.load()
        except StorageError:
            # It is set aside now; the kernel goes on with an empty document.
            logger.exception("the document of session %r cannot be loaded", self.notebook_id)
            self.document.load()
        await self.kernel.adopt(row)

    @property
    def in_use(self) -> bool:
        """Whether closing it would be noticed."""
        return bool(self._peers) or self.kernel.exists or self.kernel.busy

    def close(self) -> None:
        """Let go of the kernel and of the files. Closing twice is harmless."""
        self.kernel.close()
        empty = self._store.last_seq == 0 and self._registry.find(self.notebook_id) is None
        self._store.close()
        if empty:
            _remove(self._path)

    # --- reading ---

    def cell_as_map(self, record: CellRecord, *, outputs: bool, budget: int = REPLY_BUDGET) -> dict[str, Any]:
        """Return a cell as `GetCell` describes it, with at most `budget` bytes of events, one at least."""
        events: list[bytes] = []
        more: int | None = None
        if outputs and record.execution_id is not None:
            page = self.log.read(0, execution_id=record.execution_id, max_bytes=budget)
            events = [body for _seq, body in page]
            if page and self.log.read(page[-1][0], execution_id=record.execution_id, max_bytes=1):
                more = page[-1][0]
        return {
            "id": record.id,
            "cell_type": record.cell_type,
            "source": record.source,
            "execution_count": record.execution_count,
            "execution_id": record.execution_id,
            "metadata": dict(record.metadata),
            "position": record.position,
            "events": events,
            "more": more,
        }

    def cells_as_maps(self, start: int, *, outputs: bool) -> tuple[list[dict[str, Any]], int | None]:
        """Return cells from an index on until a page is full, and the index of the next one, None at the end."""
        page: list[dict[str, Any]] = []
        left = REPLY_BUDGET
        records = self.document.content.cells()
        for index in range(start, len(records)):
            record = records[index]
            left -= len(record.source)
            if left <= 0 and page:
                return page, index
            cell = self.cell_as_map(record, outputs=outputs, budget=max(left, 1))
            left -= sum(map(len, cell["events"]))
            page.append(cell)
        return page, None

    def execution(self, execution_id: str) -> dict[str, Any]:
        """Return the state of an execution.

        Raises:
            RuntimedError: If this session has none of this id.
        """
        row = self._store.execution(ExecutionId(execution_id))
        if row is None:
            raise RuntimedError(
                f"Session {self.notebook_id!r} has no execution {execution_id!r}", execution_id=execution_id
            )
        return {"status": row.status, "cell_id": row.cell_id}

    # --- resent requests ---

    def reply_to(self, client_id: ClientId, request_id: int) -> dict[str, Any] | None:
        """Return the reply to an edit that was made already and whose reply got lost, None if it was not made."""
        reply = self._store.find_request(client_id, request_id)
        return None if reply is None else unpack(reply)

    def remember(self, client_id: ClientId, request_id: int, reply: dict[str, Any]) -> None:
        """Note the reply to an edit, in the transaction that makes it."""
        self._store.remember_request(client_id, request_id, pack(reply))


def _remove(database: Path) -> None:
    for path in (database, database.with_name(database.name + "-wal")):
        path.unlink(missing_ok=True)
