"""The queue of a session's executions, sans I/O: events in, instructions out."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from runtimed.ids import ClientId, ExecutionId

__all__ = ["FAILED_BEFORE", "Begin", "Drop", "ExecutionQueue", "Instruction", "Interrupt", "Ticket"]


FAILED_BEFORE: Final = "an execution that the same client queued before it failed"
"""Why an execution is dropped behind a failed one."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """An execution in the queue, and the client that requested it."""

    execution_id: ExecutionId
    client_id: ClientId


@dataclass(frozen=True, slots=True)
class Begin:
    """Send this execution to the kernel."""

    execution_id: ExecutionId


@dataclass(frozen=True, slots=True)
class Drop:
    """This execution was cancelled before it started."""

    execution_id: ExecutionId
    reason: str


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Interrupt the kernel during this execution."""

    execution_id: ExecutionId


Instruction = Begin | Drop | Interrupt


class ExecutionQueue:
    """A FIFO queue: one execution runs at a time, and only while the kernel is ready."""

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
        """The execution that the kernel runs."""
        return self._running.execution_id if self._running else None

    @property
    def waiting(self) -> list[ExecutionId]:
        """The queued executions, in order."""
        return [ticket.execution_id for ticket in self._waiting]

    @property
    def busy(self) -> bool:
        """Whether an execution is running or queued."""
        return self._running is not None or bool(self._waiting)

    def add(self, ticket: Ticket) -> list[Instruction]:
        """Append an execution to the queue."""
        self._waiting.append(ticket)
        return self._next()

    def restore(self, running: Ticket | None, waiting: Iterable[Ticket]) -> list[Instruction]:
        """Replace the content after reconnecting to a running kernel.

        Args:
            running: The execution that the kernel runs.
            waiting: The queued ones, in order. The kernel may have finished some of them already; `finished` removes
                them when their ends are reported.
        """
        self._running, self._waiting, self._ready = running, deque(waiting), True
        return self._next()

    def kernel_ready(self) -> list[Instruction]:
        """Handle that the kernel is ready for executions."""
        self._ready = True
        return self._next()

    def kernel_gone(self, reason: str) -> list[Instruction]:
        """Handle that the kernel ended or is being replaced: the queued executions are dropped.

        The end of the running one is reported separately, with `finished`; whether it failed does not affect what is
        queued from now on, which is for the next kernel.
        """
        self._ready = False
        dropped = self._drop(lambda _ticket: True, reason)
        self._behind_interrupt = None if self._running is None else frozenset()
        return dropped

    def kernel_replaced(self) -> None:
        """Handle that the kernel's own code ends it for the next kernel: the queue waits for that one."""
        self._ready = False

    def finished(self, execution_id: ExecutionId, *, success: bool) -> list[Instruction]:
        """Handle the end of an execution. A failure drops the later executions of the same client only.

        Executions that were queued after the request for an interrupt stay, since their client expected the failure.
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
                FAILED_BEFORE,
            )
        return [*dropped, *self._next()]

    def interrupting(self) -> None:
        """Handle the request for an interrupt of the running execution."""
        if self._running is not None and self._behind_interrupt is None:
            self._behind_interrupt = frozenset(self.waiting)

    def cancel(self, execution_id: ExecutionId, reason: str) -> list[Instruction]:
        """Cancel an execution, for this reason. An unknown one is ignored."""
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
