"""The conversation of host and kernel: executions, interrupts, questions, and the events that follow.

Messages are handled one at a time, in order, in synchronous code. A message whose output cannot be stored, as the disk
is full, stays at the head of the queue, and the kernel waits. Nothing here starts or ends a process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from runtimed.errors import NoKernel, ProtocolError, RuntimedError, StorageError
from runtimed.execution.jupyter_messages import asks_exit
from runtimed.execution.widgets import COMM_TYPES
from runtimed.host.executions import Execution, Executions
from runtimed.host.outbox import Outbox
from runtimed.host.questions import Questions
from runtimed.host.variables import Results
from runtimed.host.wire import KernelMessage, Wire
from runtimed.kernel_launcher.leaving import LEAVE_REPLY, LEAVE_REQUEST
from runtimed.protocol.comms import MAX_COMM, CommBody
from runtimed.protocol.events import Comm
from runtimed.protocol.host_operations import Execute

__all__ = ["Conversation", "ConversationListener"]

logger = logging.getLogger(__name__)

LATE_OUTPUT: Final = 0.02
"""Seconds for outputs that arrive after an `idle` or a prompt although they were sent before (Deno's do, measured)."""
_SETTLED: Final = 0.1
_REPLY_MISSING: Final = 2.0
_REPLY_MISSING_INTERRUPTED: Final = 0.5
_IDLE_MISSING: Final = 5.0
_LATE: Final = 0.1
"""Delay of a timer, in seconds, that shows that this process was stopped or starved and has not read what arrived."""
_RECOVERY: Final = 0.25


class ConversationListener(Protocol):
    """The callbacks of a conversation's owner."""

    def kernel_answered(self) -> None:
        """Check whether the kernel is ready now; see `Conversation.is_proven`."""

    def kernel_works(self, *, busy: bool) -> None:
        """Note that the kernel has begun an execution, or has none left."""

    def kernel_exits(self) -> bool:
        """Note that the kernel's code has requested its exit; return whether another kernel takes its place."""


class Conversation:
    """The conversation with the kernel through all its restarts, one `open` and `close` for each process.

    Args:
        outbox: Takes the events.
        store: Stores large values; may raise StorageError.
        listener: Learns when the kernel is ready, busy or idle.
    """

    def __init__(self, outbox: Outbox, store: Callable[[bytes], str], listener: ConversationListener) -> None:
        self._outbox = outbox
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._executions = Executions(store)
        self._inbox: deque[KernelMessage] = deque()
        self._questions: Questions | None = None
        self._wire: Wire | None = None
        self._send_interrupt: Callable[[], None] | None = None
        self._info: dict[str, Any] | None = None
        self._output_works = False
        self._updating = False
        self._follows_comms = False
        self._heard_at = 0.0
        self.language: str | None = None
        """The kernel's language, once the kernel was ready."""

    # --- beginning and end of a process ---

    def open(self, wire: Wire, send_interrupt: Callable[[], None]) -> None:
        """Start the conversation with a new kernel process.

        Args:
            wire: The channels to it. The owner passes their messages to `receive`.
            send_interrupt: Interrupts it.
        """
        self._wire = wire
        self._send_interrupt = send_interrupt

    def hang_up(self) -> None:
        """Send nothing more: the process is gone, and everything that it left was read."""
        self._wire = self._send_interrupt = None

    def close(
        self,
        sentence: str,
        stderr: str,
        *,
        only_sent: bool,
        exit_code: int | None = None,
        signal: int | None = None,
    ) -> None:
        """End everything that depended on the kernel's process, which is gone.

        Args:
            sentence: Why the process ended.
            stderr: Its last lines on standard error.
            only_sent: Keep the executions that were not sent to the process, for the next one.
            exit_code: Its exit code, if it ended by itself.
            signal: The signal that killed it, unless this host sent it.
        """
        self._inbox.clear()
        for execution in [one for one in self._executions.open.values() if one.is_complete]:
            self._add(self._executions.finish(execution, time.time(), exits=False))
        how = {"exit_code": exit_code, "signal": signal}
        self._add(self._executions.died(sentence, stderr, time.time(), only_sent=only_sent, **how))
        if self._questions is not None:
            self._questions.close(sentence)
            self._questions = None
        self._info = None
        self._updating = False
        self._executions.start_requests.clear()
        self._output_works = False
        self._outbox.flush()

    @property
    def results(self) -> Results:
        """The values of the latest results."""
        return self._executions.results

    @property
    def open_executions(self) -> list[str]:
        """Ids of the executions that were accepted and have not finished."""
        return list(self._executions.open)

    @property
    def is_working(self) -> bool:
        """Whether an unfinished execution was sent to the kernel."""
        return self._executions.running is not None

    # --- the kernel's start ---

    @property
    def has_info(self) -> bool:
        """Whether the kernel has answered `ask_info`."""
        return self._info is not None

    @property
    def is_proven(self) -> bool:
        """Whether the kernel has answered, and its output arrives."""
        return self._info is not None and self._output_works

    def ask_info(self) -> None:
        """Ask for the kernel's info. The `status` of this request, or a welcome, proves the output channel."""
        if self._wire is not None:
            self._executions.start_requests.add(self._wire.send("shell", "kernel_info_request", {}))

    def do_without_status(self) -> None:
        """Treat the output channel as proven."""
        self._output_works = True
        self._listener.kernel_answered()

    def get_ready(self) -> None:
        """Prepare for questions and executions; the kernel is ready."""
        if self._info is None or self._wire is None:
            return
        language = self._info.get("language_info")
        name = language.get("name") if isinstance(language, dict) else None
        self.language = name if isinstance(name, str) else None
        features = self._info.get("supported_features")
        has_subshells = isinstance(features, list) and "kernel subshells" in features
        self._questions = Questions(self._wire, has_subshells=has_subshells)
        if self.language == "python":
            self._executions.start_requests.add(None)  # ipykernel's output before any request

    def send_waiting(self) -> None:
        """Send the executions that were accepted before the kernel was ready."""
        for execution in self._executions.open.values():
            self._send(execution)

    # --- requests of the daemon ---

    def execute(self, request: Execute, *, now: bool) -> None:
        """Accept an execution, and send it now or with `send_waiting`. Idempotent by the execution's id."""
        execution = self._executions.take(request)
        if execution is not None and now:
            self._send(execution)

    def _send(self, execution: Execution) -> None:
        if self._wire is None:
            return
        execution.sent = True
        request = execution.request
        self._wire.send(
            "shell",
            "execute_request",
            {
                "code": request.code,
                "silent": request.silent,
                "store_history": request.store_history and not request.silent,
                "user_expressions": request.user_expressions,
                "allow_stdin": request.stdin,
                "stop_on_error": False,
            },
            msg_id=execution.id,
        )

    def follow_comms(self, *, wanted: bool) -> None:
        """Send the kernel's comm messages to the daemon from now on, or no longer."""
        self._follows_comms = wanted

    def send_comm(self, message: CommBody) -> None:
        """Send a comm message.

        Raises:
            ProtocolError: If its content or metadata is no JSON object.
        """
        content, metadata = _json_object(message.content), _json_object(message.metadata)
        if self._wire is not None:
            self._wire.send(
                "shell",
                message.msg_type,
                content,
                msg_id=message.request_id,
                metadata=metadata,
                buffers=message.buffers,
            )

    def interrupt(self) -> None:
        """Interrupt the running execution; harmless without one."""
        execution = self._executions.running or next(iter(self._executions.open.values()), None)
        if execution is not None:
            execution.interrupt = True
            self._interrupt_when_settled(execution)

    def _interrupt_when_settled(self, execution: Execution) -> None:
        """Interrupt once the kernel certainly runs the user's code; called again when more is known.

        ipykernel ignores the signal until it begins, and IPython's callbacks before the code swallow it (measured).
        """
        if execution.begun_at is not None:
            when = execution.begun_at + _SETTLED
        elif execution.busy_at is not None:
            when = execution.busy_at + 2 * _SETTLED  # a silent execution has no execute_input
        else:
            return
        if when > self._loop.time():
            self._loop.call_at(when, self._interrupt_now, execution)
        else:
            self._interrupt_now(execution)

    def _interrupt_now(self, execution: Execution) -> None:
        is_open = self._executions.open.get(execution.id) is execution and execution.reply is None
        if not execution.interrupt or not is_open or self._send_interrupt is None:
            return
        execution.interrupt, execution.interrupted = False, True
        self._send_interrupt()

    def answer(self, execution_id: str, text: str) -> None:
        """Answer the input request of an execution.

        Raises:
            RuntimedError: If the execution does not wait for input.
        """
        execution = self._executions.open.get(execution_id)
        if execution is None or execution.input_parent is None or self._wire is None:
            raise RuntimedError(f"The execution {execution_id} does not wait for input", execution_id=execution_id)
        parent, execution.input_parent = execution.input_parent, None
        self._wire.send("stdin", "input_reply", {"status": "ok", "value": text}, parent=parent)

    async def ask(self, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask the kernel a question beside the executions; see `Questions.ask`.

        Its info, which it told at its start, is known: that needs no kernel that has time to answer.

        Raises:
            NoKernel: If the kernel is not ready.
        """
        if self._questions is None:
            raise NoKernel("The kernel cannot answer yet: it is starting; ask again when it is ready")
        if msg_type == "kernel_info_request" and self._info is not None:
            return self._info
        return await self._questions.ask(msg_type, content)

    # --- messages of the kernel ---

    def receive(self, messages: list[KernelMessage]) -> None:
        """Handle messages of the kernel."""
        self._inbox.extend(messages)
        self.go_on()

    def go_on(self) -> None:
        """Handle the messages that arrived while the outbox was stuck, as far as it takes their events."""
        while self._inbox and not self._outbox.stuck:
            message = self._inbox[0]
            try:
                self._handle(message)
            except StorageError as exc:
                self._outbox.get_stuck(exc)
                break
            except Exception:
                # A malformed message must not end the host, and with it the kernel.
                logger.exception("skipped a %s message of execution %s", message["msg_type"], message.get("parent_id"))
            self._inbox.popleft()
        self._outbox.flush()

    def _handle(self, message: KernelMessage) -> None:
        match message["channel"]:
            case "iopub":
                self._heard_at = self._loop.time()
                self._handle_iopub(message)
            case "stdin":
                # The prompt uses another socket than the output before it, and may overtake it.
                self._loop.call_later(LATE_OUTPUT, self.receive, [{**message, "channel": "prompt"}])
            case "prompt":
                self._add(self._executions.heard(message, time.time()))
            case "shell" if message["msg_type"] == "execute_reply":
                execution = self._executions.open.get(message["parent_id"])
                if execution is not None and isinstance(message["content"], dict):
                    execution.reply = message["content"]
                    self._check_complete(execution)
                    if not execution.idle:
                        self._when_patience_ends(_IDLE_MISSING, self._miss_idle, execution)
            case "shell" if message["msg_type"] == "kernel_info_reply" and isinstance(message["content"], dict):
                self._info = message["content"]
                self._listener.kernel_answered()
            case "updates":
                self._updating = False
                self._add(self._executions.updates(time.time()))
                self._tell_contents()
            case "finish":
                execution = self._executions.open.get(message["parent_id"])
                if execution is not None and execution.is_complete:
                    self._finish(execution)
            case _ if self._questions is not None:
                self._questions.answered(message)

    def _handle_iopub(self, message: KernelMessage) -> None:
        msg_type = message["msg_type"]
        if msg_type == "status":
            content = message["content"]
            state = content.get("execution_state") if isinstance(content, dict) else None
            self._handle_status(state, message["parent_id"])
        elif msg_type == "iopub_welcome":
            self._output_works = True
            self._listener.kernel_answered()
        elif msg_type == LEAVE_REQUEST:
            if self._wire is not None:
                self._wire.send("control", LEAVE_REPLY, {})
        else:
            self._add(self._executions.heard(message, time.time()))
            if self._follows_comms and msg_type in COMM_TYPES:
                self._tell_comm(message)
            self._update_later()
            execution = self._executions.open.get(message["parent_id"])
            if execution is not None and msg_type == "execute_input":
                execution.begun_at = self._loop.time()
                if execution.interrupt:
                    self._interrupt_when_settled(execution)

    def _tell_comm(self, message: KernelMessage) -> None:
        # The events before it go first.
        self._outbox.flush()
        self._outbox.tell_comm(self._executions.comm(message, time.time()))

    def _tell_contents(self) -> None:
        """Tell frontends what Output widgets contain: the host captures their output, and the kernel is busy."""
        news = self._executions.widgets.news_for_frontends()
        if self._follows_comms:
            self._outbox.flush()
            for content in map(json.dumps, news):
                if len(content) <= MAX_COMM:  # the kernel tells of a larger one at the end
                    body = CommBody(msg_type="comm_msg", content=content)
                    self._outbox.tell_comm(Comm(at=time.time(), message=body))

    def _handle_status(self, state: object, parent_id: str | None) -> None:
        if parent_id is not None and parent_id in self._executions.start_requests:
            self._output_works = True
            self._listener.kernel_answered()
            return
        execution = self._executions.open.get(parent_id or "")
        if execution is None:
            return
        if state == "busy":
            self._listener.kernel_works(busy=True)
            execution.busy_at = self._loop.time()
            if execution.interrupt:
                self._interrupt_when_settled(execution)
        elif state == "idle":
            execution.idle = True
            self._check_complete(execution)
            if execution.reply is None:
                patience = _REPLY_MISSING_INTERRUPTED if execution.interrupted else _REPLY_MISSING
                self._when_patience_ends(patience, self._miss_reply, execution)

    def _update_later(self) -> None:
        """Update the displays of widgets after a delay, which combines all changes until then."""
        due_in = self._executions.widgets.due_in
        if due_in is not None and not self._updating:
            self._updating = True
            self._loop.call_later(due_in, self.receive, [{"channel": "updates", "msg_type": "updates"}])

    # --- the end of an execution ---

    def _check_complete(self, execution: Execution) -> None:
        if not execution.is_complete:
            return
        if self.language == "python":
            self._finish(execution)
        else:
            self._loop.call_later(LATE_OUTPUT, self._enqueue_finish, execution)

    def _enqueue_finish(self, execution: Execution) -> None:
        """Finish in turn: behind what has arrived meanwhile, and again later if the disk is full."""
        self.receive([{"channel": "finish", "msg_type": "finish", "parent_id": execution.id}])

    def _finish(self, execution: Execution) -> None:
        # First: executions that the daemon has queued behind it are for the next kernel.
        exits = asks_exit(execution.reply or {}) and self._listener.kernel_exits()
        self._add(self._executions.finish(execution, time.time(), exits=exits))
        if self._wire is not None:
            for content in self._executions.widgets.news_for_kernel():
                self._wire.send("shell", "comm_msg", content)
        if not self._executions.open:
            self._listener.kernel_works(busy=False)

    def _miss_reply(self, execution: Execution) -> None:
        """End an execution without a reply: an interrupt that hits ipykernel's own code swallows it."""
        if execution.reply is not None or self._executions.open.get(execution.id) is not execution:
            return
        logger.warning("execution %s has ended without a reply", execution.id)
        if execution.interrupted:
            execution.reply = {"status": "error", "ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
        else:
            evalue = "The kernel ended the execution without a reply"
            execution.reply = {"status": "error", "ename": "NoReply", "evalue": evalue, "traceback": []}
        self._enqueue_finish(execution)

    def _miss_idle(self, execution: Execution) -> None:
        """End an execution whose `idle` is missing: a stock kernel drops output when its buffer is full."""
        if execution.idle or self._executions.open.get(execution.id) is not execution:
            return
        waits = self._outbox.stuck or self._outbox.crowded or self._inbox
        if waits or self._loop.time() - self._heard_at < _IDLE_MISSING:
            self._when_patience_ends(_IDLE_MISSING, self._miss_idle, execution)
            return
        logger.warning("execution %s has a reply but no `idle`", execution.id)
        execution.idle = True
        self._enqueue_finish(execution)

    def _when_patience_ends(self, seconds: float, miss: Callable[[Execution], None], execution: Execution) -> None:
        """Call `miss` after these seconds, unless this process was stopped or starved and could not read messages."""
        self._loop.call_later(seconds, self._patience_ends, self._loop.time() + seconds, miss, execution)

    def _patience_ends(self, due: float, miss: Callable[[Execution], None], execution: Execution) -> None:
        if self._loop.time() - due > _LATE:
            # The thread in which ZMQ reads has just been resumed, too.
            self._when_patience_ends(_RECOVERY, miss, execution)
            return
        if self._wire is not None:
            self._wire.drain()
        miss(execution)

    def _add(self, events: list[Any]) -> None:
        for event in events:
            self._outbox.add(event)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError(f"a comm message is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ProtocolError(f"a comm message contains JSON objects, not a {type(value).__name__}")
    return value
