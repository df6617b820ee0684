"""The executions of a host and their progress: decides which events follow from which message.

Nothing here waits, reads a clock or sends anything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtimed.errors import ProtocolError
from runtimed.execution.jupyter_messages import (
    OUTPUT_TYPES,
    Origin,
    Store,
    comm_body,
    events_of,
    failure_of_reply,
    pager_of_reply,
    payload_of_reply,
    summary_of_reply,
    user_expressions_of_reply,
)
from runtimed.execution.widgets import COMM_TYPES, Widgets
from runtimed.host.variables import Results
from runtimed.host.wire import KernelMessage
from runtimed.protocol.events import Comm, CommsMissed, Display, Event, Failed, Finished, Started, Stream
from runtimed.protocol.host_operations import Execute

__all__ = ["EXITS", "Execution", "Executions"]

logger = logging.getLogger(__name__)

EXITS: Final = "The kernel exits, as the code asked; a fresh one takes its place, without this one's variables.\n"


@dataclass(slots=True, eq=False)
class Execution:
    """One execution that has not finished.

    Attributes:
        request: The request.
        sent: Whether it was sent to the kernel; else it waits for the kernel to be ready.
        busy_at: When the kernel reported `busy` for it, on the event loop's clock.
        begun_at: When its execute_input arrived, which not every kernel sends.
        started: Whether a Started event was made.
        count: Its execution count, once known.
        reply: Content of its execute_reply.
        idle: Whether the kernel reported `idle` for it.
        failed: Whether a Failed event was made.
        input_parent: Header of the input_request that waits for an answer.
        interrupt: Whether an interrupt waits for it to begin.
        interrupted: Whether it was interrupted.
    """

    request: Execute
    sent: bool = False
    busy_at: float | None = None
    begun_at: float | None = None
    started: bool = False
    count: int | None = None
    reply: Mapping[str, Any] | None = None
    idle: bool = False
    failed: bool = False
    input_parent: dict[str, Any] | None = None
    interrupt: bool = False
    interrupted: bool = False

    @property
    def id(self) -> str:
        """The execution's id, and the id of its message to the kernel."""
        return self.request.execution_id

    @property
    def is_complete(self) -> bool:
        """Whether all messages that end it have arrived."""
        return self.idle and self.reply is not None


class Executions:
    """All executions of one host.

    Args:
        store: Stores large values. What it raises passes through every method, which has changed nothing then.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cells: dict[str, str] = {}  # all ever seen: none runs twice, and late output finds its cell
        self._latest: str | None = None
        self.results = Results()
        self.open: dict[str, Execution] = {}
        self.widgets = Widgets()
        """Displays of the kernel."""
        self.start_requests: set[str | None] = set()
        """Message ids of the kernel's start, whose outputs belong to no execution."""

    def take(self, request: Execute) -> Execution | None:
        """Accept an execution; None if it was accepted before."""
        if request.execution_id in self._cells:
            return None
        self._cells[request.execution_id] = request.cell_id
        execution = Execution(request)
        self.open[execution.id] = execution
        return execution

    @property
    def running(self) -> Execution | None:
        """The execution that the kernel works on or takes next."""
        return next((execution for execution in self.open.values() if execution.sent), None)

    def heard(self, message: KernelMessage, at: float) -> list[Event]:
        """Return the events of a message on iopub or stdin, `status` excepted."""
        msg_type, parent_id = message["msg_type"], message["parent_id"]
        execution = self.open.get(parent_id)
        if msg_type == "execute_input":
            if execution is None:
                return []
            events = events_of(message, self._origin(execution.id, at), self._store)
            for event in events:
                if isinstance(event, Started):
                    execution.count = event.execution_count
            is_late, execution.started = execution.started, True
            self._latest = execution.id
            return [] if is_late else events
        if msg_type == "input_request":
            if execution is None:
                logger.warning("skipped an input request of the unknown execution %s", parent_id)
                return []
            execution.input_parent = message["header"]
            return [*self._start(execution, at), *events_of(message, self._origin(execution.id, at), self._store)]
        # Threads of ipykernel 7 write under whatever request the kernel served last, a completion's for example. What
        # another client of the kernel executes is no cell's.
        owner = parent_id if parent_id in self._cells or message.get("foreign") is True else self._latest
        if owner not in self._cells:
            owner = None
        if msg_type in COMM_TYPES:
            self.widgets.follow(message, owner)
            return []
        if msg_type not in OUTPUT_TYPES:
            return []
        if msg_type == "execute_result":
            self.results.take(owner, message["content"])
        if msg_type != "update_display_data" and self.widgets.captures(parent_id):
            self.widgets.capture(message, at, owner)
            return [] if execution is None else self._start(execution, at)
        if owner is None or parent_id in self.start_requests:
            logger.debug("dropped a %s message of %s, which is no execution", msg_type, parent_id)
            return []
        events = [self._shown(event, message) for event in events_of(message, self._origin(owner, at), self._store)]
        if execution is not None:
            events = [*self._start(execution, at), *events]
            execution.failed = execution.failed or any(isinstance(event, Failed) for event in events)
        return events

    def comm(self, message: KernelMessage, at: float) -> Comm | CommsMissed:
        """Return the event of a comm message; `CommsMissed` if the message is too large or malformed."""
        try:
            body = comm_body(message)
        except ProtocolError as exc:
            logger.warning("execution %s: skipped: %s", message["parent_id"], exc)
            return CommsMissed(at=at, count=1, message=exc.message)
        parent_id = message["parent_id"]
        cell_id = self._cells.get(parent_id)
        return Comm(at=at, execution_id=None if cell_id is None else parent_id, cell_id=cell_id, message=body)

    def _shown(self, event: Event, message: KernelMessage) -> Event:
        """Note a display for the widgets, and return the event to send."""
        if not isinstance(event, Display):
            return event
        if event.kind == "update_display_data":
            self.widgets.update_displays(event, message["content"], event.execution_id)
            if event.display_id is None:
                return event
        return self.widgets.show(event)

    def updates(self, at: float) -> list[Event]:
        """Return the events that update the displays of widgets."""
        return self.widgets.updates(lambda execution_id: self._origin(execution_id, at), self._store)

    def finish(self, execution: Execution, at: float, *, exits: bool) -> list[Event]:
        """Close an execution that is complete.

        Args:
            execution: The execution.
            at: Its end.
            exits: Whether the kernel is replaced, because the code asked it to exit.
        """
        reply = execution.reply or {}
        origin = self._origin(execution.id, at)
        events: list[Event] = [*pager_of_reply(reply, origin, self._store), *self.updates(at)]
        is_ok = reply.get("status") == "ok"
        if not is_ok and not execution.failed and reply.get("status") == "error":
            events.append(failure_of_reply(reply, origin))
        payload, notes = payload_of_reply(reply, origin)
        events += notes
        if exits:
            events.append(Stream(at=at, name="stderr", text=EXITS, execution_id=execution.id, cell_id=origin.cell_id))
        count = reply.get("execution_count")
        events.append(
            Finished(
                at=at,
                execution_id=execution.id,
                cell_id=execution.request.cell_id,
                status="ok" if is_ok else "error",
                execution_count=count if isinstance(count, int) and 0 <= count < 2**63 else execution.count,
                message=summary_of_reply(reply),
                payload=payload,
                user_expressions=user_expressions_of_reply(reply),
            )
        )
        events = [*self._start(execution, at), *events]
        del self.open[execution.id]
        return events

    def died(
        self,
        sentence: str,
        stderr: str,
        at: float,
        *,
        only_sent: bool,
        exit_code: int | None = None,
        signal: int | None = None,
    ) -> list[Event]:
        """Close the open executions, whose kernel is gone. Its exit code or signal belongs to those that were sent."""
        self._latest = None  # output of the next kernel's start is not for this one's executions
        events = self.updates(at)
        self.widgets = Widgets()
        lines = (f"KernelDied: {sentence}", *stderr.splitlines())
        evalue = f"{sentence}\n{stderr}" if stderr else sentence
        for execution in list(self.open.values()):
            if only_sent and not execution.sent:
                continue
            where: dict[str, Any] = {"at": at, "execution_id": execution.id, "cell_id": execution.request.cell_id}
            events.append(Failed(ename="KernelDied", evalue=evalue, traceback=lines, **where))
            where |= {"exit_code": exit_code, "signal": signal} if execution.sent else {}
            events.append(Finished(status="died", execution_count=execution.count, message=sentence, **where))
            del self.open[execution.id]
        return events

    def _origin(self, execution_id: str, at: float) -> Origin:
        return Origin(at, execution_id, self._cells[execution_id])

    def _start(self, execution: Execution, at: float) -> list[Event]:
        """Return the Started event of an execution without execute_input: a silent one, or any of some kernels."""
        if execution.started:
            return []
        execution.started = True
        self._latest = execution.id
        return [Started(at=at, execution_id=execution.id, cell_id=execution.request.cell_id)]
