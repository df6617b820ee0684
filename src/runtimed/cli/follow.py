"""Follows executions for `run`, `exec` and `attach`: writes outputs, answers input requests, forwards Ctrl-C."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

from runtimed.cli.exits import Exit
from runtimed.cli.printing import complain
from runtimed.client import Execution, Session, still_asks
from runtimed.display import LastDisplay
from runtimed.errors import ExecutionTimeout, KernelDied, RuntimedError
from runtimed.models import Output
from runtimed.protocol.events import Display, Event, Failed, Finished, InputRequested, Stream

__all__ = ["Follower", "uninterrupted"]

ANSWER: Final = 2**16
"""Bytes of standard input that go to a program at a time."""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C to the end of this block, in which executions are queued.

    Between a request and its answer it would leave code running that nobody here knows.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Follower:
    """Follows executions of one session, one after the other.

    Attributes:
        session: The session.
        interrupted: Whether there was a Ctrl-C.
    """

    def __init__(self, session: Session, *, program: bool = False, quiet: bool = False, asks: bool = True) -> None:
        """Create it; nothing is followed yet.

        Args:
            session: A joined session.
            program: Whether the executions are programs, whose errors are shown as Python shows them.
            quiet: Whether to write nothing.
            asks: Whether to answer input requests from standard input; else another client answers them.
        """
        self.interrupted = False
        self.session = session
        self._program = program
        self._quiet = quiet
        self._asks = asks
        self._to_cancel: list[Execution] = []
        self._asking = False
        self._last = LastDisplay()
        self._failed: Failed | None = None
        self._finished: Finished | None = None

    @property
    def kernel_died(self) -> bool:
        """Whether the kernel died under the latest followed execution."""
        return self._finished is not None and self._finished.status == "died"

    @contextlib.contextmanager
    def interrupts(self, executions: Sequence[Execution]) -> Iterator[None]:
        """Send the first Ctrl-C of this block to these executions; a second one stops waiting."""
        self._to_cancel = list(executions)
        before = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def follow(self, execution: Execution, timeout: float | None = None) -> int:
        """Write the outputs of an execution, the past ones first, until it ends; return its exit code.

        Args:
            execution: The execution.
            timeout: Seconds after which the wait ends, with Exit.TIMED_OUT.
        """
        self._failed = self._finished = None
        try:
            execution.follow(lambda event: self._take(execution, event), timeout_secs=timeout, keep=False)
        except ExecutionTimeout:
            complain(
                f"It still runs after {timeout:g} s; `runtimed attach {self.session.notebook_id} {execution.id}` "
                "shows how it goes on"
            )
            return Exit.TIMED_OUT
        return self._exit_code()

    def _exit_code(self) -> int:
        if self._finished is None or self._finished.status == "ok":
            return Exit.OK
        failed, finished = self._failed, self._finished
        if self._program and finished.exit_code is not None:
            return finished.exit_code
        if self._program and finished.signal is not None:
            return Exit.KILLED + finished.signal
        if failed is None:
            if not self._quiet:
                complain(finished.message or "The code failed without a message")
            return Exit.INTERRUPTED if self.interrupted else Exit.FAILED
        if self._program and failed.ename == "KeyboardInterrupt":
            return Exit.INTERRUPTED
        if self._program and failed.ename == "SystemExit" and not failed.traceback:
            with contextlib.suppress(ValueError):
                return int(failed.evalue) & 0xFF
        return Exit.FAILED

    def _take(self, execution: Execution, event: Event) -> None:
        match event:
            case Stream() | Display() | Failed():
                if isinstance(event, Failed):
                    self._failed = event
                    if self._program and event.ename == KernelDied.__name__:
                        return  # its death comes next
                if not self._quiet:
                    self._show(execution, event)
            case InputRequested() if self._asks:
                self._answer(execution, event)
            case Finished():
                self._finished = event
                died = event.status == "died" and event.exit_code is None
                if self._program and died and self._failed is not None and not self._quiet:
                    self._show(execution, self._failed)
            case _:
                pass

    def _show(self, execution: Execution, event: Stream | Display | Failed) -> None:
        public = execution.public(event)
        if public is None or public.output is None:
            return
        display_id = event.display_id if isinstance(event, Display) else None
        if isinstance(event, Display) and event.kind == "update_display_data":
            self._last.make_room(display_id)
        _write(public.output, program=self._program)
        self._last.printed(display_id, str(public.output))

    def _answer(self, execution: Execution, event: InputRequested) -> None:
        if self.interrupted and not still_asks(self.session, execution.id):
            return
        self._asking = True
        self._last.forget()
        try:
            text: str | None = getpass.getpass(event.prompt) if event.password else self._read(event.prompt)
        except EOFError:
            text = None
        except KeyboardInterrupt:
            self.interrupted = True
            self._cancel()
            return
        finally:
            self._asking = False
        # Another client may have interrupted it meanwhile; the next events say how it ends.
        with contextlib.suppress(RuntimedError):
            execution.answer(text)

    def _read(self, prompt: str) -> str:
        """Return a line; for a program the available input, its bytes as characters.

        Raises:
            EOFError: At the end of the input.
        """
        if self._program:
            piece = os.read(sys.stdin.fileno(), ANSWER)
            if not piece:
                raise EOFError
            return piece.decode("latin-1")
        sys.stdout.write(prompt)
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.interrupted or self._asking:
            raise KeyboardInterrupt
        self.interrupted = True
        try:
            self._cancel()
        except RuntimedError as exc:
            complain(f"Cannot interrupt the code: {exc.message}")
            raise KeyboardInterrupt from exc

    def _cancel(self) -> None:
        # From the queue or from the kernel, the last first so that none of them begins: never another client's.
        for execution in reversed(self._to_cancel):
            execution.cancel()


def _write(output: Output, *, program: bool) -> None:
    """Write one output: text unchanged, a value as its plain text, a traceback with colours for a terminal."""
    stream = sys.stderr if output.output_type == "error" or output.name == "stderr" else sys.stdout
    text = str(output)
    if output.output_type == "error":
        if program:
            text = "\n".join(output.traceback)
            if not text:  # the program has printed all that it wanted
                return
        elif output.traceback and stream.isatty() and "NO_COLOR" not in os.environ:
            text = "\n".join(output.traceback)
    stream.write(text if output.output_type == "stream" else f"{text}\n")
    stream.flush()
