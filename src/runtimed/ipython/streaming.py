"""Follows a remote execution and shows its outputs live, answers its questions, and passes interrupts on."""

from __future__ import annotations

import builtins
import contextlib
import getpass
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import msgspec

from runtimed.client import calls
from runtimed.client.calls.pages import following
from runtimed.client.flows import Ask, Flow, Follow
from runtimed.client.session import Session
from runtimed.display import OutputStream, readable_size, running_shell, show_note
from runtimed.errors import CellNotFound, NoKernel, RuntimedError
from runtimed.execution.outputs import OutputFold, blobs_in, to_public
from runtimed.ids import ExecutionId, stored_name
from runtimed.ipython.ending import is_hung_up, is_terminal, kernel_is_ending
from runtimed.models import ExecutionResult
from runtimed.progress import ProgressLine
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Clear, Display, EnvProgress, Event, Failed, Finished, InputRequested, Stream
from runtimed.protocol.operations import CancelExecution, Enqueue, GetCell, Input, ReadEvents, StartKernel, Watch

__all__ = ["Live", "can_answer", "enqueue", "replay", "start"]

END_OF_INPUT: Final = "\x04"
"""What ipykernel turns into EOFError when it comes as the answer to `input()`."""


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
        self.finished: Finished | None = None

    def run(self, operation: Enqueue, kernel: StartKernel, timeout: float | None) -> ExecutionResult:
        """Execute, show everything, and return what it gave; start a kernel if none runs.

        The first Ctrl-C interrupts the execution, or takes it from the queue, and the following goes on until it has
        ended; a second one leaves. What ends this process, or the kernel that it is, leaves the execution as it is.

        Args:
            operation: What to execute.
            kernel: What to start if no kernel runs.
            timeout: Seconds after which ExecutionTimeout comes; None for never.
        """
        flow = calls.execute(
            self._session._notebook, operation, timeout_secs=timeout, on_event=self.take, kernel=kernel
        )
        try:
            with _interrupts_to(self._on_interrupt):
                return self._session._perform(flow)
        except KeyboardInterrupt:
            if self._ending:
                self._leave(operation)
                raise KeyboardInterrupt(
                    f"this kernel ends; execution {self._execution_id} goes on without it"
                ) from None
            if self._accepted:
                raise KeyboardInterrupt(
                    f"left execution {self._execution_id}, which goes on; `%runtimed interrupt` interrupts it"
                ) from None
            # The request may have been on its way.
            with contextlib.suppress(RuntimedError):
                self._cancel()
            raise KeyboardInterrupt(
                "the cell was given up; a kernel that is being started for it goes on starting: `%runtimed` shows it, "
                "`%runtimed stop` ends it with its session"
            ) from None

    def _leave(self, operation: Enqueue) -> None:
        """Queue what was not accepted yet, because its kernel is being started: it runs without us."""
        if not self._accepted:
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


def enqueue(operation: Enqueue, kernel: StartKernel, progress: ProgressLine) -> Flow[None]:
    """Queue an execution without waiting for it; start a kernel if none runs.

    Args:
        operation: With `watch` off.
        kernel: What to start if no kernel runs.
        progress: Shows how its environment is made.
    """
    try:
        yield Ask(operation)
    except NoKernel:
        yield from start(kernel, progress)
        yield Ask(operation)


def start(kernel: StartKernel, progress: ProgressLine) -> Flow[None]:
    """Start a kernel, and show how its environment is made."""

    def show(event: Event) -> None:
        if isinstance(event, EnvProgress):
            progress.show(event.message, event.done, event.total)

    yield Follow(kernel, show)


def replay(session: Session, cell_id: str) -> bool:
    """Show the outputs of a cell's latest execution, and the rest of them live if it still runs.

    Returns:
        Whether there was anything to show.

    Raises:
        CellNotFound: If there is no such cell.
    """
    execution_id, fold, seen = session._perform(_past(session, cell_id))
    if execution_id is None:
        return False
    values = session._perform(calls.fetch_blobs(session._notebook, fold.missing_blobs))
    outputs = fold.outputs_with(values)
    stream = _output_stream(session)
    for output in outputs:
        stream.show(output)
    if fold.status is not None:
        if fold.omitted is not None:
            show_note(
                f"[{readable_size(fold.omitted.size)} of output are left out here; `Session.read_outputs` reads them]"
            )
        return bool(outputs)
    live = Live(session, execution_id)

    def watch(event: Event) -> None:
        # Its questions are for the client that started it.
        if not isinstance(event, InputRequested):
            live.take(event)

    operation = Watch(notebook_id=session.notebook_id, execution_id=execution_id, after=seen, whole=True)
    session._perform(calls.execute(session._notebook, operation, timeout_secs=None, on_event=watch))
    return True


def _past(session: Session, cell_id: str) -> Flow[tuple[ExecutionId | None, OutputFold, int]]:
    """Read the events of a cell's latest execution, and the number of the last one."""
    fold, seen = OutputFold(), 0
    cell = (yield Ask(GetCell(notebook_id=session.notebook_id, cell_id=cell_id, outputs=False)))["cell"]
    if cell is None:
        raise CellNotFound(f"Cell not found: {cell_id}", cell_id=cell_id)
    execution_id = cell["execution_id"]
    more = execution_id is not None
    while more:
        page = yield Ask(ReadEvents(notebook_id=session.notebook_id, execution_id=execution_id, after=seen))
        for _seq, body in page["events"]:
            fold.add(decode_event(body))
        more = page["more"]
        seen = following(seen, page["last"]) if more else page["last"]
    return execution_id, fold, seen


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
