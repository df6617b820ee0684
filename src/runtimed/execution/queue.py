"""The queue of a session's executions: events in, instructions out. Nothing here waits or does I/O."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runtimed.ids import ClientId, ExecutionId

__all__ = ["Begin", "Drop", "ExecutionQueue", "Instruction", "Interrupt", "Ticket"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """An execution in the queue, and the client that put it there."""

    execution_id: ExecutionId
    client_id: ClientId


@dataclass(frozen=True, slots=True)
class Begin:
    """Hand this execution to the kernel."""

    execution_id: ExecutionId


@dataclass(frozen=True, slots=True)
class Drop:
    """This execution is cancelled; it never began."""

    execution_id: ExecutionId
    reason: str


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Interrupt the kernel, which runs this execution."""

    execution_id: ExecutionId


Instruction = Begin | Drop | Interrupt


class ExecutionQueue:
    """First in, first out; one runs at a time, and only while the kernel is ready."""

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._behind_interrupt: frozenset[ExecutionId] | None = None
        self._ready = False

    def copy(self) -> ExecutionQueue:
        """Return an independent copy of this queue."""
        other = copy.copy(self)
        other._waiting = self._waiting.copy()
        return other

    @property
    def running(self) -> ExecutionId | None:
        """The execution that the kernel has."""
        return self._running.execution_id if self._running else None

    @property
    def waiting(self) -> list[ExecutionId]:
        """The waiting executions, in order."""
        return [ticket.execution_id for ticket in self._waiting]

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return self._running is not None or bool(self._waiting)

    def add(self, ticket: Ticket) -> list[Instruction]:
        """Append an execution."""
        self._waiting.append(ticket)
        return self._next()

    def restore(self, running: Ticket | None, waiting: Iterable[Ticket]) -> list[Instruction]:
        """Replace the content: the kernel, which takes executions, was out of sight meanwhile.

        Args:
            running: What the kernel has.
            waiting: What is behind it, in order. The kernel may have ended the first of these already: when that is
                told, `finished` takes it away.
        """
        self._running, self._waiting, self._ready = running, deque(waiting), True
        return self._next()

    def kernel_ready(self) -> list[Instruction]:
        """The kernel is ready for executions."""
        self._ready = True
        return self._next()

    def kernel_gone(self, reason: str) -> list[Instruction]:
        """The kernel ended or is being replaced: executions that waited for it never begin.

        The running one is not mentioned: whoever saw the kernel end says how it ended. What is queued from now on is
        for the next kernel, however that was.
        """
        self._ready = False
        dropped = self._drop(lambda _ticket: True, reason)
        self._behind_interrupt = None if self._running is None else frozenset()
        return dropped

    def kernel_replaced(self) -> None:
        """The kernel makes room for another by itself: what waits, waits for that."""
        self._ready = False

    def finished(self, execution_id: ExecutionId, *, success: bool) -> list[Instruction]:
        """The running execution ended. A failure drops what the same client queued behind it, and no other client's.

        Executions queued after an interrupt was requested stay: their client expected the failure.
        """
        if self._running is None or self._running.execution_id != execution_id:
            self._waiting = deque(ticket for ticket in self._waiting if ticket.execution_id != execution_id)
            return []
        client, self._running = self._running.client_id, None
        counted, self._behind_interrupt = self._behind_interrupt, None
        dropped = []
        if not success:
            dropped = self._drop(
                lambda ticket: ticket.client_id == client and (counted is None or ticket.execution_id in counted),
                "an execution that the same client queued before it failed",
            )
        return [*dropped, *self._next()]

    def interrupting(self) -> None:
        """An interrupt of the running execution was requested."""
        if self._running is not None and self._behind_interrupt is None:
            self._behind_interrupt = frozenset(self.waiting)

    def cancel(self, execution_id: ExecutionId, reason: str) -> list[Instruction]:
        """Cancel an execution, for this reason; an unknown one is ignored."""
        if self.running == execution_id:
            self.interrupting()
            return [Interrupt(execution_id)]
        return self._drop(lambda ticket: ticket.execution_id == execution_id, reason)

    def _next(self) -> list[Instruction]:
        if not self._ready or self._running is not None or not self._waiting:
            return []
        self._running = self._waiting.popleft()
        return [Begin(self._running.execution_id)]

    def _drop(self, unwanted: Callable[[Ticket], bool], reason: str) -> list[Instruction]:
        dropped = [ticket for ticket in self._waiting if unwanted(ticket)]
        self._waiting = deque(ticket for ticket in self._waiting if not unwanted(ticket))
        return [Drop(ticket.execution_id, reason) for ticket in dropped]
