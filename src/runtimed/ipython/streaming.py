"""Follows a remote execution: shows its outputs live, asks its questions, and forwards interrupts."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import getpass
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from runtimed.client import Execution, Past, Session, still_asks
from runtimed.display import OutputStream, readable_size, running_shell, show_note
from runtimed.errors import RuntimedError
from runtimed.ids import stored_name
from runtimed.ipython.ending import is_hung_up, is_terminal, kernel_is_ending
from runtimed.models import ExecutionResult
from runtimed.progress import ProgressLine
from runtimed.protocol.events import Clear, Display, Event, Failed, Finished, InputRequested, Queued, Stream

__all__ = ["Live", "RunsAlready", "Wanted", "can_answer", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An execution to queue; the attributes are those of `Session.submit`."""

    cell_id: str
    code: str | None
    execution_id: str
    stdin: bool
    unless_queued: bool
    kernel_type: str
    env_source: str
    notebook_path: Path | None

    def submit(
        self, session: Session, *, timeout: float | None = None, progress: ProgressLine | None = None
    ) -> Execution:
        """Queue it.

        Raises:
            RunsAlready: If nothing was queued, because it runs or waits already.
        """
        execution = session.submit(**dataclasses.asdict(self), timeout_secs=timeout, progress=progress)
        if execution.id != self.execution_id:
            raise RunsAlready(execution)
        return execution


class RunsAlready(Exception):
    """Nothing was queued: this code of this cell runs or waits already.

    Attributes:
        execution: Its execution.
    """

    def __init__(self, execution: Execution) -> None:
        super().__init__(execution.id)
        self.execution = execution


_AT_ONCE: Final = 0.05
"""Seconds to wait for a kernel that is being started, by what leaves its execution behind."""


def can_answer(shell: Any) -> bool:
    """Whether a person can answer `input()` in this shell."""
    kernel = getattr(shell, "kernel", None)
    # A terminal can; without a person there, its `input()` raises EOFError, which is an answer, too.
    return kernel is None or bool(getattr(kernel, "_allow_stdin", False))


class Live:
    """One execution, shown while it runs.

    Attributes:
        finished: Its last event, once it has come.
    """

    def __init__(self, session: Session, execution_id: str, *, silent: bool = False) -> None:
        """Create it; nothing is shown yet.

        Args:
            session: A joined session.
            execution_id: The execution.
            silent: Whether to show nothing at all.
        """
        self._session = session
        self._execution_id = execution_id
        self._stream = None if silent else _output_stream(session)
        self._interrupts = 0
        self._accepted = False
        self._asking = False
        self._deciding = False
        self._ending = False
        self._behind = ""
        self._waiting: ProgressLine | None = None
        self.finished: Finished | None = None

    def run(
        self, wanted: Wanted, timeout: float | None, waiting: str = "", progress: ProgressLine | None = None
    ) -> ExecutionResult:
        """Execute, show everything, and return the result; start a kernel if none runs.

        The first Ctrl-C interrupts the execution, or removes it from the queue, and the following goes on until it has
        ended; a second one leaves. The end of this process, or of the kernel that it is, leaves the execution
        unchanged.

        Args:
            wanted: The execution.
            timeout: Seconds after which ExecutionTimeout is raised; None for never.
            waiting: What it waits for, shown until it begins: `behind …`.
            progress: Shows how the environment of a kernel is made; None shows nothing.

        Raises:
            RunsAlready: If it runs or waits already; nothing was shown.
        """
        self._behind = waiting
        begun = time.monotonic()
        try:
            with self._taking_interrupts():
                execution = wanted.submit(self._session, timeout=timeout, progress=progress)
                self._accepted = True
                if progress is not None:
                    progress.close()
                left = None if timeout is None else max(0.05, timeout - (time.monotonic() - begun))
                return self._follow(execution, left)
        except KeyboardInterrupt:
            if self._accepted:
                raise
            if self._ending:
                self._queue_alone(wanted)
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

    def attach(self, execution: Execution, timeout: float | None, *, is_asking: bool) -> ExecutionResult:
        """Show the past outputs of a queued execution, then the others live, and return all of them.

        Interrupts do what they do in `run`.

        Args:
            execution: The execution.
            timeout: Seconds after which ExecutionTimeout is raised; None for never.
            is_asking: Whether its code waits for a line of input, which is then asked for here.
        """
        self._accepted = True
        with self._taking_interrupts():
            past = self.show_past(execution, whole=True)
            if is_asking and past.question is not None:
                self.take(execution, past.question)
            return self._follow(execution, timeout, after=past)

    def _follow(self, execution: Execution, timeout: float | None, after: Past | None = None) -> ExecutionResult:
        return execution.follow(lambda event: self.take(execution, event), after=after, timeout_secs=timeout)

    def show_past(self, execution: Execution, *, whole: bool) -> Past:
        """Show the outputs of an execution so far, in their present state.

        Args:
            execution: The execution.
            whole: Whether to show the outputs beyond the daemon's limit, too.
        """
        past = execution.past(whole=whole, outputs=self._stream is not None)
        self.finished = past.finished
        if self._stream is not None:
            for output in past.outputs:
                self._stream.show(output)
        return past

    @contextlib.contextmanager
    def _taking_interrupts(self) -> Iterator[None]:
        """Handle interrupts in this block; an accepted execution goes on if they end the block."""
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

    def _queue_alone(self, wanted: Wanted) -> None:
        """Queue what was not accepted yet, because its kernel is being started: it runs without this shell."""
        with contextlib.suppress(RuntimedError, RunsAlready):
            wanted.submit(self._session, timeout=_AT_ONCE)

    def take(self, execution: Execution, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Queued):
            self._show_waiting()
        else:
            self._close_waiting()
        match event:
            case Stream() | Display() | Failed():
                self._show(execution, event)
            case Clear() if self._stream is not None:
                self._stream.clear(wait=event.wait)
            case InputRequested():
                self._answer(execution, event)
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

    def _show(self, execution: Execution, event: Stream | Display | Failed) -> None:
        stream = self._stream
        if stream is not None:
            stream.attempt(lambda: self._show_in(execution, event, stream))

    def _show_in(self, execution: Execution, event: Stream | Display | Failed, stream: OutputStream) -> None:
        public = execution.public(event)
        if public is None or public.output is None:
            return
        if isinstance(event, Display) and event.kind == "update_display_data":
            stream.update(public.output)
        else:
            stream.show(public.output)

    def _answer(self, execution: Execution, event: InputRequested) -> None:
        if self._interrupts and not still_asks(self._session, self._execution_id):
            return
        ask = getpass.getpass if event.password else builtins.input
        was_terminal = is_terminal()
        self._asking = True
        if self._stream is not None:
            self._stream.leave_line()
        try:
            text: str | None = ask(event.prompt)
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
            text = None
        finally:
            self._asking = False
        # Another client may have interrupted it meanwhile; the next events say how it ends.
        with contextlib.suppress(RuntimedError):
            execution.answer(text)

    def _on_interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """Forward an interrupt without leaving the exchange: no event is lost, and none is shown twice."""
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
        # Not `interrupt`, which would hit another client's cell while this one is queued.
        self._session.cancel(self._execution_id)


def replay(session: Session, execution_id: str) -> bool:
    """Show the outputs of an execution, and the others live if it still runs.

    An interrupt ends the following, and leaves the execution unchanged.

    Returns:
        Whether there was anything to show.
    """
    execution = session.execution(execution_id)
    live = Live(session, execution_id)
    past = live.show_past(execution, whole=False)
    if past.finished is not None:
        if past.fold.omitted is not None:
            size = readable_size(past.fold.omitted.size)
            show_note(f"[{size} of output are left out here; `Session.read_outputs` reads them]")
        return bool(past.outputs)

    def watch(event: Event) -> None:
        # Its questions are for the client that started it.
        if not isinstance(event, InputRequested):
            live.take(execution, event)

    execution.follow(watch, after=past, keep=False)
    return True


def _output_stream(session: Session) -> OutputStream:
    return OutputStream(f"runtimed-{stored_name(session.notebook_id)[:12]}-")


@contextlib.contextmanager
def _interrupts_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Send Ctrl-C to a handler in this block; if the handler is not Python's, or not this thread's, change nothing."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous in (None, signal.SIG_IGN):
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
