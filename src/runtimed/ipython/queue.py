"""The queue of a session, and its description for people."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runtimed.client import Session
from runtimed.models import QueuedExecution
from runtimed.texts import printable

__all__ = ["Queue", "age", "described", "has_source", "read_queue", "state_of_execution"]


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue of a session.

    Attributes:
        executions: The running one, and behind it the waiting ones.
    """

    executions: tuple[QueuedExecution, ...]

    def of_cell(self, cell_id: str) -> QueuedExecution | None:
        """Return the latest execution of a cell that has not ended; None if there is none."""
        return next((entry for entry in reversed(self.executions) if entry.cell_id == cell_id), None)

    def find(self, execution_id: str) -> QueuedExecution | None:
        """Return an execution; None if it has ended."""
        return next((entry for entry in self.executions if entry.execution_id == execution_id), None)

    def behind(self) -> str:
        """Return a text that says for whom a new execution would wait; empty if it would not."""
        if not self.executions:
            return ""
        others = len(self.executions) - 1
        more = "" if not others else f", and {others} more" if others > 1 else ", and one more"
        return f"behind {described(self.executions[0])}{more}"


def read_queue(session: Session) -> Queue:
    """Return the present queue of a session."""
    return Queue(tuple(session.get_queue()))


def has_source(entry: QueuedExecution, source: str) -> bool:
    """Whether an execution is one of exactly this code."""
    return entry.sha256 == hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def described(entry: QueuedExecution) -> str:
    """Describe an execution: `"train()" of report.ipynb, running for 40 s`."""
    return printable(f'"{entry.source}" of {entry.label or "another client"}, {state_of_execution(entry)}')


def state_of_execution(entry: QueuedExecution) -> str:
    """Describe the progress of an execution: `running for 40 s`."""
    now = datetime.now(UTC)
    if entry.is_asking:
        return f"waiting for input, started {age(now - (entry.started_at or entry.queued_at))} ago"
    if entry.status == "running":
        return f"running for {age(now - (entry.started_at or entry.queued_at))}"
    return f"queued for {age(now - entry.queued_at)}"


def age(duration: timedelta) -> str:
    """Return a duration in its largest unit: `40 s`, `3 h`."""
    seconds = max(0, int(duration.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
