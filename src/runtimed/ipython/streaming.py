"""Follows a remote execution and shows its outputs live, answers its questions, and passes interrupts on."""

from __future__ import annotations

import builtins
import contextlib
import getpass
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import msgspec

from runtimed.client import calls
from runtimed.client.calls.pages import following
from runtimed.client.flows import Ask, Flow, Follow
from runtimed.client.questions import END_OF_INPUT, still_asks
from runtimed.client.session import Session
from runtimed.display import OutputStream, readable_size, running_shell, show_note
from runtimed.errors import CellNotFound, RuntimedError
from runtimed.execution.outputs import OutputFold, blobs_in, to_public
from runtimed.ids import ExecutionId, stored_name
from runtimed.ipython.ending import is_hung_up, is_terminal, kernel_is_ending
from runtimed.models import ExecutionResult
from runtimed.progress import ProgressLine
from runtimed.protocol.client_operations import CancelExecution, Enqueue, GetCell, Input, ReadEvents, StartKernel, Watch
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import (
    Clear,
    Display,
    EnvProgress,
    Event,
    Failed,
    Finished,
    InputRequested,
    Queued,
    Stream,
)

__all__ = ["Live", "Past", "can_answer", "enqueue", "execution_of", "replay", "start"]


def can_answer(shell: Any) -> bool:
    """Whether somebody sits in front of this shell who can answer `input()`."""
    kernel = getattr(shell, "kernel", None)
    # A terminal can; without a person there, its `input()` raises EOFError, which is an answer, too.
    return kernel is None or bool(getattr(kernel, "_allow_stdin", False))


class Live:
    """One execution, shown while it runs.

    Attributes:
        finished: Its last event, once it has come.
    """

    def __init__(
        self, session: Session, execution_id: str, *, silent: bool = False, progress: ProgressLine | None = None
    ) -> None:
        """Show nothing yet.

        Args:
            session: A joined session.
            execution_id: The execution.
            silent: Whether to show nothing at all.
            progress: Shows how the environment of a kernel is made; None shows nothing of it.
        """
        self._session = session
        self._execution_id = execution_id
        self._stream = None if silent else _output_stream(session)
        self._progress = progress
        self._interrupts = 0
        self._accepted = False
        self._asking = False
        self._deciding = False
        self._ending = False
        self._behind = ""
        self._waiting: ProgressLine | None = None
        self.finished: Finished | None = None

    def run(
        self, operation: Enqueue, kernel: Callable[[], StartKernel], timeout: float | None, waiting: str = ""
    ) -> ExecutionResult:
        """Execute, show everything, and return what it gave; start a kernel if none runs.

        The first Ctrl-C interrupts the execution, or takes it from the queue, and the following goes on until it has
        ended; a second one leaves. What ends this process, or the kernel that it is, leaves the execution as it is.

        Args:
            operation: What to execute.
            kernel: Gives what to start if no kernel runs.
            timeout: Seconds after which ExecutionTimeout comes; None for never.
            waiting: What it waits for, shown until it begins: `behind …`.

        Raises:
            AlreadyQueued: If it is not to be queued; nothing was shown.
        """
        self._behind = waiting
        flow = calls.execute(
            self._session._notebook,
            operation,
            timeout_secs=timeout,
            on_event=self.take,
            kernel=kernel,
            on_start=None if self._progress is None else self._progress.announce,
        )
        try:
            with self._taking_interrupts():
                return self._session._perform(flow)
        except calls.AlreadyQueued:
            if self._progress is not None:
                self._progress.close()
            raise
        except KeyboardInterrupt:
            if self._accepted:
                raise
            if self._ending:
                self._queue_alone(operation)
                raise self._left() from None
            # The request may have been on its way.
            with contextlib.suppress(RuntimedError):
                self._cancel()
            raise KeyboardInterrupt(
                "the cell was given up; a kernel that is being started for it goes on starting: `%runtimed` shows it, "
                "`%runtimed stop` ends it with its session"
            ) from None
        finally:
            self._close_waiting()

    def attach(self, timeout: float | None, *, is_asking: bool) -> ExecutionResult:
        """Show what an execution that was queued before has given, then the rest live, and return all of it.

        Interrupts do what they do in `run`.

        Args:
            timeout: Seconds after which ExecutionTimeout comes; None for never.
            is_asking: Whether its code waits for a line of input, which is asked for here then.
        """
        self._accepted = True
        with self._taking_interrupts():
            past = self.show_past(whole=True)
            if is_asking and past.question is not None:
                self.take(past.question)
            operation = Watch(
                notebook_id=self._session.notebook_id, execution_id=self._execution_id, after=past.seen, whole=True
            )
            flow = calls.execute(
                self._session._notebook, operation, timeout_secs=timeout, on_event=self.take, fold=past.fold
            )
            return self._session._perform(flow)

    def show_past(self, *, whole: bool) -> Past:
        """Show what an execution has given so far, as it looks now.

        Args:
            whole: Whether to show also what is beyond the daemon's limit.
        """
        past = self._session._perform(_read_past(self._session.notebook_id, self._execution_id, whole=whole))
        self.finished = past.finished
        if self._stream is not None:
            values = self._session._perform(calls.fetch_blobs(self._session._notebook, past.fold.missing_blobs))
            outputs = past.fold.outputs_with(values)
            past.outputs = len(outputs)
            for output in outputs:
                self._stream.show(output)
        return past

    @contextlib.contextmanager
    def _taking_interrupts(self) -> Iterator[None]:
        """Take interrupts in this block; an execution that is accepted goes on if they end the block."""
        try:
            with _interrupts_to(self._on_interrupt):
                yield
        except KeyboardInterrupt:
            if self._accepted:
                raise self._left() from None
            raise

    def _left(self) -> KeyboardInterrupt:
        if self._ending:
            return KeyboardInterrupt(f"this kernel ends; execution {self._execution_id} goes on without it")
        return KeyboardInterrupt(
            f"left execution {self._execution_id}, which goes on; `%runtimed interrupt` interrupts it"
        )

    def _queue_alone(self, operation: Enqueue) -> None:
        """Queue what was not accepted yet, because its kernel is being started: it runs without us."""
        with contextlib.suppress(RuntimedError):
            self._session._apart(_ask(msgspec.structs.replace(operation, watch=False)))

    def take(self, event: Event) -> None:
        """Show what one event brings."""
        if isinstance(event, EnvProgress):
            if self._progress is not None:
                self._progress.show(event.message, event.done, event.total)
            return
        if self._progress is not None:
            self._progress.close()
        self._accepted = True
        if isinstance(event, Queued):
            self._show_waiting()
        else:
            self._close_waiting()
        match event:
            case Stream() | Display() | Failed():
                self._show(event)
            case Clear() if self._stream is not None:
                self._stream.clear(wait=event.wait)
            case InputRequested():
                self._answer(event)
            case Finished():
                self.finished = event
            case _:
                pass

    def _show_waiting(self) -> None:
        if self._behind and self._stream is not None:
            self._waiting = ProgressLine(running_shell())
            self._waiting.show(f"Waiting {self._behind}")

    def _close_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.close(f"Waited {self._behind}")
            self._waiting = None

    def _show(self, event: Stream | Display | Failed) -> None:
        stream = self._stream
        if stream is not None:
            stream.attempt(lambda: self._show_in(event, stream))

    def _show_in(self, event: Stream | Display | Failed, stream: OutputStream) -> None:
        blobs = blobs_in(event)
        # The session's own connection is in the middle of the exchange that brought this event.
        values = self._session._apart(calls.fetch_blobs(self._session._notebook, blobs)) if blobs else {}
        public = to_public(event, values)
        if public is None or public.output is None:
            return
        if isinstance(event, Display) and event.kind == "update_display_data":
            stream.update(public.output)
        else:
            stream.show(public.output)

    def _answer(self, event: InputRequested) -> None:
        if self._interrupts and not still_asks(self._session, self._execution_id):
            return
        ask = getpass.getpass if event.password else builtins.input
        was_terminal = is_terminal()
        self._asking = True
        if self._stream is not None:
            self._stream.leave_line()
        try:
            text = ask(event.prompt)
        except KeyboardInterrupt:
            if self._ending:
                raise
            self._cancel()
            return
        except Exception as exc:  # noqa: BLE001  # whatever reads lines here may be anybody's, and raise anything
            if is_hung_up(was_terminal=was_terminal):
                self._ending = True
                raise KeyboardInterrupt from None
            if not isinstance(exc, EOFError):
                show_note(f"[the question {event.prompt!r} could not be asked here: {type(exc).__name__}: {exc}]")
            text = END_OF_INPUT
        finally:
            self._asking = False
        operation = Input(notebook_id=self._session.notebook_id, execution_id=self._execution_id, text=text)
        # Somebody else may have interrupted it meanwhile; how it ends, the next events say.
        with contextlib.suppress(RuntimedError):
            self._session._apart(_ask(operation))

    def _on_interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """Pass an interrupt on without leaving the exchange: no event is lost, and none is shown twice."""
        if self._deciding:
            return
        self._deciding = True
        try:
            self._ending = kernel_is_ending(running_shell())
        finally:
            self._deciding = False
        if self._ending:
            raise KeyboardInterrupt
        self._interrupts += 1
        if self._interrupts > 1 or not self._accepted or self._asking:
            raise KeyboardInterrupt
        try:
            self._cancel()
        except RuntimedError:
            raise KeyboardInterrupt from None

    def _cancel(self) -> None:
        # Not `interrupt`, which would hit somebody else's cell while this one is queued.
        self._session._apart(
            _ask(CancelExecution(notebook_id=self._session.notebook_id, execution_id=self._execution_id))
        )


def enqueue(operation: Enqueue, kernel: Callable[[], StartKernel], progress: ProgressLine) -> Flow[None]:
    """Queue an execution without waiting for it; start a kernel if none runs.

    Args:
        operation: With `watch` off.
        kernel: Gives what to start if no kernel runs.
        progress: Shows how its environment is made.

    Raises:
        AlreadyQueued: If it is not to be queued.
    """
    if (yield from calls.lacks_kernel(operation)):
        yield from start(kernel(), progress)
        yield from calls.send(operation)


def start(kernel: StartKernel, progress: ProgressLine) -> Flow[None]:
    """Start a kernel; show how its environment is made, and say which it is."""

    def show(event: Event) -> None:
        if isinstance(event, EnvProgress):
            progress.show(event.message, event.done, event.total)

    explained = calls.log_start((yield Follow(kernel, show)))
    if explained is None:
        progress.close()
    else:
        progress.announce(explained)


def replay(session: Session, execution_id: str) -> bool:
    """Show the outputs of an execution, and the rest of them live if it still runs.

    An interrupt ends the following, and leaves the execution as it is.

    Returns:
        Whether there was anything to show.
    """
    live = Live(session, execution_id)
    past = live.show_past(whole=False)
    fold = past.fold
    if fold.status is not None:
        if fold.omitted is not None:
            show_note(
                f"[{readable_size(fold.omitted.size)} of output are left out here; `Session.read_outputs` reads them]"
            )
        return past.outputs > 0

    def watch(event: Event) -> None:
        # Its questions are for the client that started it.
        if not isinstance(event, InputRequested):
            live.take(event)

    operation = Watch(notebook_id=session.notebook_id, execution_id=execution_id, after=past.seen, whole=True)
    session._perform(calls.execute(session._notebook, operation, timeout_secs=None, on_event=watch))
    return True


def execution_of(session: Session, cell_id: str) -> ExecutionId | None:
    """Return the latest execution of a cell; None if it has none.

    Raises:
        CellNotFound: If there is no such cell.
    """
    return session._perform(_execution_of(session.notebook_id, cell_id))


def _execution_of(notebook_id: str, cell_id: str) -> Flow[ExecutionId | None]:
    cell = (yield Ask(GetCell(notebook_id=notebook_id, cell_id=cell_id, outputs=False)))["cell"]
    if cell is None:
        raise CellNotFound(f"Cell not found: {cell_id}", cell_id=cell_id)
    return None if cell["execution_id"] is None else ExecutionId(cell["execution_id"])


@dataclass(slots=True)
class Past:
    """What an execution has given so far.

    Attributes:
        fold: Its outputs.
        seen: The number of its latest event.
        outputs: How many of its outputs were shown.
        question: The latest question that it asked.
        finished: Its last event, if it has ended.
    """

    fold: OutputFold
    seen: int = 0
    outputs: int = 0
    question: InputRequested | None = None
    finished: Finished | None = None


def _read_past(notebook_id: str, execution_id: str, *, whole: bool) -> Flow[Past]:
    past, more = Past(OutputFold()), True
    while more:
        page = yield Ask(ReadEvents(notebook_id=notebook_id, execution_id=execution_id, after=past.seen, whole=whole))
        for _seq, body in page["events"]:
            event = decode_event(body)
            past.fold.add(event)
            match event:
                case InputRequested():
                    past.question = event
                case Finished():
                    past.finished = event
                case _:
                    pass
        more = page["more"]
        past.seen = following(past.seen, page["last"]) if more else page["last"]
    return past


def _ask(operation: CancelExecution | Enqueue | Input) -> Flow[None]:
    yield Ask(operation)


def _output_stream(session: Session) -> OutputStream:
    return OutputStream(f"runtimed-{stored_name(session.notebook_id)[:12]}-")


@contextlib.contextmanager
def _interrupts_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give Ctrl-C to a handler in this block; where it is not Python's, or not this thread's, change nothing."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous in (None, signal.SIG_IGN):
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
