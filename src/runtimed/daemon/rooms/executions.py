"""The executions of a session: queued, sent to the host, ended; each step is committed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

from msgspec.structs import replace

from runtimed.daemon.rooms.display_updates import DisplayUpdates
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.queued_cells import QueuedCells
from runtimed.document.checks import check_cell_id, check_execution, check_new_id, check_source
from runtimed.errors import InvalidArgument, InvalidCell, StorageError
from runtimed.execution import programs
from runtimed.execution.queue import FAILED_BEFORE, Begin, Drop, ExecutionQueue, Instruction, Interrupt, Ticket
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from runtimed.models import AuditAction, QueuedExecution
from runtimed.protocol.events import Display, Event, Failed, Finished, InputRequested, Queued, Started, Stream
from runtimed.protocol.execution_operations import MAX_QUEUE, Enqueue, GetQueueReply, WatchReply
from runtimed.protocol.host_operations import Execute, HostInterrupt
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.session_store import SessionStore

__all__ = ["BroughtOutput", "Executions", "TellHost"]

logger = logging.getLogger(__name__)

MAX_FIRST_LINE: Final = 100
"""Largest part of a source's first line in a `GetQueue` reply, in characters."""

SLICE: Final = 100
"""Largest number of executions that are cancelled in one turn of the session."""


BroughtOutput = Stream | Display | Failed
"""An output of an execution that ended elsewhere."""


class TellHost(Protocol):
    """Sends an operation to the host, or drops it if the host is not connected."""

    def __call__(self, operation: Execute | HostInterrupt, /) -> None:
        """Send it."""


class Executions:
    """The running execution and the queue behind it.

    Attributes:
        asking: The execution that waits for input, and the client that should answer; None if none waits.
    """

    def __init__(
        self,
        notebook_id: SessionId,
        store: SessionStore,
        log: EventLog,
        document: SharedDocument,
        tell_host: TellHost,
        clock: Callable[[], float],
    ) -> None:
        self._notebook_id = notebook_id
        self._store = store
        self._log = log
        self._document = document
        self._tell_host = tell_host
        self._clock = clock
        self._queue = ExecutionQueue()
        self._cells = QueuedCells(notebook_id, store, log, document)
        self._displays = DisplayUpdates(store, log, document)
        self._has_dropped = True  # perhaps, by an earlier daemon
        self._ends_dropped = False
        self.asking: Ticket | None = None

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits to run."""
        return self._queue.busy

    @property
    def waiting(self) -> bool:
        """Whether anything waits behind what runs."""
        return bool(self._queue.waiting)

    def enqueue(self, request: Enqueue, source: str, actor: Actor) -> None:
        """Queue an execution. On return it is committed, and the kernel may have begun it.

        Args:
            request: The client's request.
            source: The code, as `source_of` returned it.
            actor: The client.
        """
        client_id, execution_id, now = actor.client_id, ExecutionId(request.execution_id), self._clock()
        with self._log.transaction():
            self._store.add_execution(
                execution_id=execution_id,
                cell_id=CellId(request.cell_id),
                author=client_id,
                source=programs.join(source, request.program),
                queued_at=now,
                stdin=request.stdin,
                silent=request.silent,
                store_history=request.store_history,
                stop_on_error=request.stop_on_error,
                user_expressions=json.dumps(request.user_expressions),
            )
            self._note("execution_queued", actor, execution_id, CellId(request.cell_id))
            self._log.append(Queued(at=now, execution_id=execution_id, cell_id=request.cell_id, author=client_id))
        # The kernel works while the cell is written.
        if request.unless_failed is not None and self._has_failed(ExecutionId(request.unless_failed)):
            self._follow([Drop(execution_id, FAILED_BEFORE)])
        else:
            self._follow(self._queue.add(Ticket(execution_id, client_id)))
        if request.store_history and not request.silent:
            self._cells.add(request, actor)

    def _has_failed(self, execution_id: ExecutionId) -> bool:
        """Whether an execution has ended so that those behind it were cancelled."""
        row = self._store.execution(execution_id)
        return row is not None and row.stop_on_error and row.status in ("error", "cancelled", "died")

    def now(self) -> float:
        """Return the Unix time."""
        return self._clock()

    def bring(
        self,
        execution_id: ExecutionId,
        cell_id: CellId,
        source: str,
        first: int,
        outputs: Sequence[BroughtOutput],
        actor: Actor,
    ) -> int:
        """Add outputs of an execution that ended elsewhere; see `end_brought`. In a transaction.

        Until it has all of them it counts as cancelled, and no cell shows it.

        Args:
            execution_id: Its id.
            cell_id: Its cell.
            source: The code that ran, as far as it is known.
            first: Number of the first of these outputs. They change nothing unless they continue the stored ones.
            outputs: The outputs.
            actor: The client that brings it.

        Returns:
            Number of its outputs that are stored.

        Raises:
            StorageError: If it cannot be stored.
        """
        if first == 0:
            self._add_brought(execution_id, cell_id, source, "cancelled", actor)
        row = self._store.execution(execution_id)
        stored = self._store.count_events(execution_id)
        if row is not None and row.status == "cancelled" and stored == first:
            self._append_brought(execution_id, cell_id, outputs)
            stored += len(outputs)
        return stored

    def end_brought(
        self,
        execution_id: ExecutionId,
        cell_id: CellId,
        source: str,
        count: int | None,
        status: Literal["ok", "error"],
        brought: int,
        outputs: Sequence[BroughtOutput],
        actor: Actor,
    ) -> None:
        """Add an execution that ended elsewhere, or the last outputs of one that `bring` began. In a transaction.

        Args:
            execution_id: Its id. One that is complete is not changed.
            cell_id: Its cell.
            source: The code that ran, as far as it is known.
            count: The kernel's number of it.
            status: How it ended.
            brought: Number of its outputs that `bring` has added.
            outputs: Those behind them.
            actor: The client that brings it.

        Raises:
            InvalidCell: If some of the outputs before are missing.
            StorageError: If it cannot be stored.
        """
        if brought or not self._add_brought(execution_id, cell_id, source, status, actor):
            row = self._store.execution(execution_id)
            if row is not None and row.status != "cancelled":
                return
            if row is None or self._store.count_events(execution_id) != brought:
                raise InvalidCell(f"Outputs of the cell {cell_id} are missing: open the file again", cell_id=cell_id)
        self._append_brought(execution_id, cell_id, outputs)
        now = self._clock()
        self._store.update_execution(execution_id, status=status, ended_at=now, execution_count=count)
        self._log.append(
            Finished(at=now, execution_id=execution_id, cell_id=cell_id, status=status, execution_count=count)
        )

    def _add_brought(
        self,
        execution_id: ExecutionId,
        cell_id: CellId,
        source: str,
        status: Literal["ok", "error", "cancelled"],
        actor: Actor,
    ) -> bool:
        """Add an execution without outputs; return whether it is new."""
        now, author = self._clock(), actor.client_id
        is_new = self._store.add_execution(execution_id, cell_id, author, source, queued_at=now, status=status)
        if is_new and status == "cancelled":
            self._store.update_execution(execution_id, ended_at=now)
        return is_new

    def _append_brought(self, execution_id: ExecutionId, cell_id: CellId, outputs: Iterable[BroughtOutput]) -> None:
        now = self._clock()
        for output in outputs:
            self._log.append(replace(output, at=now, execution_id=execution_id, cell_id=cell_id))

    def is_known(self, request: Enqueue) -> bool:
        """Whether this execution was queued already, however it ended.

        Raises:
            InvalidArgument: If its id is that of an execution of another cell, or of other code. A request without code
                asks for whatever code it has.
        """
        row = self._store.execution(ExecutionId(request.execution_id))
        if row is None:
            return False
        what = None
        if request.cell_id != row.cell_id:
            what = f"for the cell {row.cell_id!r}"
        elif request.source is not None and programs.join(request.source, request.program) != row.source:
            what = "with other code"
        if what is not None:
            raise InvalidArgument(
                f"The execution {request.execution_id!r} was queued {what}; give this one an id of its own",
                argument="execution_id",
                execution_id=request.execution_id,
                cell_id=row.cell_id,
            )
        return True

    def queued_already(self, request: Enqueue) -> ExecutionId | None:
        """Return the unfinished execution that a request with `unless_queued` duplicates; None if it is to be queued.

        Raises:
            CellNotFound, InvalidCell: If the cell cannot be executed.
        """
        if not request.unless_queued or self.is_known(request):
            return None
        rows = self._store.unfinished_executions()
        latest = next((row for row in reversed(rows) if row.cell_id == request.cell_id), None)
        if latest is None or latest.source != programs.join(self.source_of(request), request.program):
            return None
        return latest.execution_id

    def source_of(self, request: Enqueue) -> str:
        """Return the code that a request would execute.

        Raises:
            CellNotFound, InvalidCell: If the cell cannot be executed.
        """
        check_cell_id(request.cell_id)
        check_execution(request.execution_id, None)
        check_new_id(request.execution_id, "An execution id")
        if request.source is not None:
            check_source(request.source)
            record = self._document.content.cell(CellId(request.cell_id))
            if record is None:
                check_new_id(request.cell_id, "A cell id")
                return request.source
        record = self._document.cell(request.cell_id)
        if record.cell_type != "code":
            raise InvalidCell(
                f"Cell {request.cell_id} is a {record.cell_type} cell; only code cells can be executed. Change it with "
                "set_cell_type",
                cell_id=request.cell_id,
            )
        return record.source if request.source is None else request.source

    def interrupting(self) -> None:
        """Note that the kernel is being interrupted."""
        self._queue.interrupting()

    @contextlib.contextmanager
    def _queue_as_stored(self) -> Iterator[None]:
        """Commit the consequences of a change of the queue as one transaction. On failure restore the queue."""
        before = self._queue.copy()
        try:
            with self._log.transaction():
                yield
        except StorageError:
            self._queue = before
            raise

    def cancel(self, execution_id: str, actor: Actor | None = None) -> None:
        """Remove an execution from the queue, or interrupt it if it runs. Harmless if it has ended or is unknown.

        Args:
            execution_id: The execution.
            actor: The client that cancels; None for the daemon itself.

        Raises:
            StorageError: If its end cannot be stored; then it stays in the queue.
        """
        row = self._store.execution(ExecutionId(execution_id))
        if row is not None:
            with self._queue_as_stored():
                instructions = self._queue.cancel(row.execution_id, _who_cancelled(actor, row.author))
                if instructions:
                    self._note("execution_cancelled", actor, row.execution_id, row.cell_id)
                self._follow(instructions)

    def _note(self, action: AuditAction, actor: Actor | None, execution_id: ExecutionId, cell_id: CellId) -> None:
        now = self._clock()
        self._store.note(
            AuditRow(at=now, until=now, action=action, actor=actor, cell_id=cell_id, execution_id=execution_id)
        )

    def is_unfinished(self, execution_id: ExecutionId) -> bool:
        """Whether an execution runs, or waits."""
        row = self._store.execution(execution_id)
        return row is not None and row.status in ("queued", "running")

    def outcome(self, execution_id: str) -> WatchReply | None:
        """Return the final reply about an execution; None before its end."""
        row = self._store.execution(ExecutionId(execution_id))
        if row is None or row.status in ("queued", "running"):
            return None
        return WatchReply(status=row.status, cell_id=row.cell_id)

    def queue(self) -> GetQueueReply:
        """Return the running and the waiting executions, in order."""
        found = []
        for row in self._store.unfinished_executions()[:MAX_QUEUE]:
            runs = row.execution_id == self._queue.running
            found.append(
                QueuedExecution(
                    execution_id=row.execution_id,
                    cell_id=row.cell_id,
                    source=_first_line(row.source),
                    sha256=hashlib.sha256(row.source.encode("utf-8", "surrogatepass")).hexdigest(),
                    status="running" if runs else "queued",
                    is_asking=self.asking is not None and self.asking.execution_id == row.execution_id,
                    queued_at=datetime.fromtimestamp(row.queued_at, UTC),
                    started_at=None if row.started_at is None else datetime.fromtimestamp(row.started_at, UTC),
                    client_id=row.author,
                    label=self._store.actor(row.author).label,
                )
            )
        return GetQueueReply(executions=found)

    @property
    def displays(self) -> int:
        """Number of remembered displays: those that the running kernel can update."""
        return self._displays.count

    def forget(self, execution_id: str) -> None:
        """Forget the displays of an execution that was deleted: it gets no more updates."""
        self._displays.forget(execution_id)

    # --- the kernel's life ---

    def kernel_ready(self) -> None:
        """Send executions to the kernel from now on."""
        self._follow(self._queue.kernel_ready())

    def kernel_started(self) -> None:
        """Forget the displays of the previous kernel."""
        self._displays.forget_all()

    def kernel_ending(self, reason: str) -> None:
        """Cancel the executions that wait for this kernel; its host reports the end of the running one."""
        with self._queue_as_stored():
            self._follow(self._queue.kernel_gone(reason))

    def kernel_replaced(self) -> None:
        """Keep the waiting executions for the kernel that replaces this one, which exits by its own code."""
        self._queue.kernel_replaced()

    def restore(self) -> None:
        """Queue the unfinished executions of an earlier daemon, before the host has answered.

        The first one counts as running until the host says otherwise. If the daemon died between queueing an execution
        and writing its cell, the cell is written now, or once the notebook can be read.
        """
        self._cells.restore()
        tickets = self._unfinished()
        self._queue.restore(tickets[0] if tickets else None, tickets[1:])

    def kernel_gone(self, reason: str, waiting: str = "the kernel ended") -> None:
        """End all executions: the kernel is gone.

        Args:
            reason: Why the running one ended.
            waiting: Why the waiting ones never begin.
        """
        with self._queue_as_stored():
            running = self._queue.running
            if running is not None and self.outcome(running) is None:
                self._finish(running, "died", reason)
            self._follow(self._queue.kernel_gone(waiting))
            self._displays.forget_all()
        self._queue = ExecutionQueue()
        self._log.forget_sizes()

    def resume(self, accepted: Iterable[str]) -> None:
        """Synchronise the queue with a host that was just connected.

        Args:
            accepted: The executions that the host has accepted and not finished.
        """
        tickets = self._unfinished()
        # An execution that the host lacks was in flight when the connection broke, or has ended, as the host's next
        # events will say. Sending it again is idempotent: a host runs an id once.
        running = next((ticket for ticket in tickets if ticket.execution_id in accepted), None)
        self._follow(self._queue.restore(running, [ticket for ticket in tickets if ticket is not running]))

    def _unfinished(self) -> list[Ticket]:
        return [Ticket(row.execution_id, ClientId(row.author)) for row in self._store.unfinished_executions()]

    # --- reports of the host ---

    def take(self, event: Event) -> None:
        """Apply an event of the host that was just stored."""
        if self.asking is not None and event.execution_id == self.asking.execution_id:
            self.asking = None
        match event:
            case InputRequested(execution_id=str() as execution_id):
                row = self._store.execution(ExecutionId(execution_id))
                if row is not None:
                    self.asking = Ticket(row.execution_id, ClientId(row.author))
            case Started(execution_id=str() as execution_id, cell_id=str() as cell_id):
                self._store.update_execution(
                    ExecutionId(execution_id),
                    status="running",
                    started_at=event.at,
                    execution_count=event.execution_count,
                )
                self._write_count(CellId(cell_id), ExecutionId(execution_id), event.execution_count)
            case Finished(execution_id=str() as execution_id):
                # While it ran, its cell may have got another execution, or been deleted.
                self._document.reshown.add(CellId(event.cell_id or ""))
                self._store.update_execution(ExecutionId(execution_id), status=event.status, ended_at=event.at)
                row = self._store.execution(ExecutionId(execution_id))
                goes_on = event.status == "ok" or (row is not None and not row.stop_on_error)
                self._follow(self._queue.finished(ExecutionId(execution_id), success=goes_on))
            case Display(display_id=str() as display_id):
                self._displays.take(event, display_id, self._queue.running)
            case _:
                pass

    def _write_count(self, cell_id: CellId, execution_id: ExecutionId, count: int | None) -> None:
        record = self._document.content.cell(cell_id)
        row = self._store.execution(execution_id)
        if record is None or row is None or record.execution_id != execution_id or count is None:
            return
        self._document.set_execution(cell_id, execution_id, count, author=ClientId(row.author))

    def tidy(self) -> None:
        """Do what is due, or possible again.

        Raises:
            StorageError: See `QueuedCells.write`.
        """
        self._cells.write()
        if self._has_dropped:
            self._end_dropped_soon()
        if self._document.reshown and not self._log.flow.is_held:
            self._displays.forget_unshown(self._document.reshown, self._queue.running)
            self._document.reshown.clear()

    # --- instructions of the queue ---

    def _follow(self, instructions: Sequence[Instruction]) -> None:
        drops = [instruction for instruction in instructions if isinstance(instruction, Drop)]
        if len(drops) > SLICE:
            self._drop_all(drops)
            instructions = [instruction for instruction in instructions if not isinstance(instruction, Drop)]
        for instruction in instructions:
            match instruction:
                case Begin(execution_id):
                    row = self._store.execution(execution_id)
                    if row is not None:
                        code = programs.code_to_execute(row.source)
                        self._tell_host(
                            Execute(
                                execution_id=execution_id,
                                cell_id=row.cell_id,
                                code=code,
                                stdin=row.stdin,
                                silent=row.silent,
                                store_history=row.store_history,
                                user_expressions=json.loads(row.user_expressions),
                            )
                        )
                case Drop(execution_id, reason):
                    self._finish(execution_id, "cancelled", f"Cancelled: {reason}")
                case Interrupt():
                    self._tell_host(HostInterrupt())

    def _drop_all(self, drops: Sequence[Drop]) -> None:
        """Commit the cancellation of all of these; later turns publish their events."""
        last = self._store.execution(drops[-1].execution_id)
        if last is not None:
            # The queue drops all waiting executions, or those of one client up to a place.
            author = last.author if self._queue.waiting else None
            self._store.drop_executions(last.execution_id, author, self._queue.running, drops[-1].reason)
            self._has_dropped = True
            self._end_dropped_soon()

    def _end_dropped_soon(self) -> None:
        if not self._ends_dropped:
            self._ends_dropped = True
            self._log.flow.later(self._end_dropped)

    def _end_dropped(self) -> None:
        self._ends_dropped = False
        if self._store.is_closed:
            return
        try:
            with self._log.transaction():
                dropped = self._store.next_dropped(SLICE)
                for row, reason in dropped:
                    self._finish(row.execution_id, "cancelled", f"Cancelled: {reason}")
        except StorageError as exc:
            logger.warning("session %r: cancelled executions are ended later: %s", self._notebook_id, exc)
            return
        self._has_dropped = bool(dropped)
        if dropped:
            self._end_dropped_soon()

    def _finish(self, execution_id: ExecutionId, status: Literal["cancelled", "died"], message: str) -> None:
        """End an execution whose end the host will not report."""
        row = self._store.execution(execution_id)
        if row is None:
            return
        now = self._clock()
        with self._log.transaction():
            if status == "died":
                self._log.append(
                    Failed(
                        at=now,
                        execution_id=execution_id,
                        cell_id=row.cell_id,
                        ename="KernelDied",
                        evalue=message,
                        traceback=(f"KernelDied: {message}",),
                    )
                )
            self._log.append(
                Finished(at=now, execution_id=execution_id, cell_id=row.cell_id, status=status, message=message)
            )
            self._store.update_execution(execution_id, status=status, ended_at=now)


def _who_cancelled(actor: Actor | None, author: str) -> str:
    if actor is None:
        return "the daemon cancelled it"
    if actor.client_id == author:
        return "the client that queued it cancelled it"
    return f"{'another client' if actor.label is None else repr(actor.label)} cancelled it"


def _first_line(source: str) -> str:
    first, _, rest = source.strip().partition("\n")
    return f"{first[:MAX_FIRST_LINE]} …" if rest or len(first) > MAX_FIRST_LINE else first
