"""`runtimed run FILE.py`: the file becomes a new cell of a session, its output comes as the code writes it."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from runtimed.cli.as_json import jsonable, print_json
from runtimed.cli.console import complain
from runtimed.cli.exits import Exit
from runtimed.client.calls import kernel_request
from runtimed.client.flows import Flow, Follow, OnEvent
from runtimed.client.session import Session
from runtimed.errors import RuntimedError
from runtimed.ids import CellId, ExecutionId, NotebookId
from runtimed.models import ExecutionEvent, ExecutionResult, Output
from runtimed.progress import ProgressLine
from runtimed.protocol.events import EnvProgress, Event
from runtimed.protocol.operations import StartKernel

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Run a file, or standard input, in a session."""
    try:
        source = _read(arguments.file)
    except (OSError, UnicodeDecodeError, SyntaxError) as exc:
        complain(f"Cannot read {arguments.file}: {getattr(exc, 'strerror', None) or exc}")
        return Exit.USAGE
    with Session(arguments.session, label="runtimed run") as session:
        # Before the kernel starts: the code may say what it needs (PEP 723).
        cell_id = session.create_cell(source)
        _start_kernel(session)
        # Before the cell is queued, so that nothing is missed.
        events = session.subscribe([cell_id])
        with _ctrl_c(session) as ctrl_c:
            execution_id = ctrl_c.queue(cell_id)
            own = (event for event in events if event.execution_id == execution_id)
            succeeded = _follow(own, quiet=arguments.json)
            if arguments.json:
                _print_result(session.notebook_id, session.wait(execution_id, None))
    if ctrl_c.happened:
        return Exit.INTERRUPTED
    return Exit.OK if succeeded else Exit.FAILED


def _start_kernel(session: Session) -> None:
    with ProgressLine() as line:

        def show(event: Event) -> None:
            if isinstance(event, EnvProgress):
                line.show(event.message, event.done, event.total)

        session._perform(_follow_start(kernel_request(session._notebook), show))


def _follow_start(request: StartKernel, on_event: OnEvent) -> Flow[None]:
    yield Follow(request, on_event)


def _read(name: str) -> str:
    """Read a source in the encoding that it declares, as Python does.

    Source: PEP 263.
    """
    content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    return importlib.util.decode_source(content)


class _CtrlC:
    """Hands the first Ctrl-C to the code that runs elsewhere; the second one ends the waiting here.

    Attributes:
        happened: Whether there was one.
    """

    def __init__(self, session: Session) -> None:
        self.happened = False
        self._session = session
        self._execution_id: ExecutionId | None = None

    def queue(self, cell_id: CellId) -> ExecutionId:
        """Queue the cell that a Ctrl-C is meant for."""
        # A signal between the request and its answer would leave code running of which nobody here knows.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._execution_id = self._session.queue_cell(cell_id)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return self._execution_id

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.happened or self._execution_id is None:
            raise KeyboardInterrupt
        self.happened = True
        try:
            # From the queue or from the kernel: never somebody else's cell that runs before this one.
            self._session.cancel(self._execution_id)
        except RuntimedError as exc:
            complain(f"Cannot interrupt the code: {exc.message}")
            raise KeyboardInterrupt from exc


@contextlib.contextmanager
def _ctrl_c(session: Session) -> Iterator[_CtrlC]:
    handler = _CtrlC(session)
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield handler
    finally:
        signal.signal(signal.SIGINT, before)


def _follow(events: Iterator[ExecutionEvent], *, quiet: bool) -> bool:
    """Write outputs as they come, until the execution ends; return whether it ended well."""
    explained = quiet
    for event in events:
        if event.output is not None:
            explained = explained or event.output.output_type == "error"
            if not quiet:
                _write(event.output)
        if event.event_type == "done":
            return True
        if event.event_type == "error":
            if not explained:
                complain(event.error_message or "The code did not end well")
            return False
    return False


def _write(output: Output) -> None:
    """Write one output: text as it came, a value as its plain text, a traceback with colours for a terminal."""
    stream = sys.stderr if output.output_type == "error" or output.name == "stderr" else sys.stdout
    text = str(output)
    if output.output_type == "error" and output.traceback and stream.isatty() and "NO_COLOR" not in os.environ:
        text = "\n".join(output.traceback)
    stream.write(text if output.output_type == "stream" else f"{text}\n")
    stream.flush()


def _print_result(session_id: NotebookId, result: ExecutionResult) -> None:
    print_json(
        {
            "session_id": session_id,
            **jsonable(result),
            "stdout": result.stdout,
            "stderr": result.stderr,
            "error": result.error,
        }
    )
