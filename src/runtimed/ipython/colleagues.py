"""Shows what the other clients of a session run, from a thread beside the prompt."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from runtimed.client import Client, Session
from runtimed.display import OutputStream, show_note
from runtimed.errors import ConnectionLost, DaemonUnavailable, NotConnected, RuntimedError
from runtimed.execution.outputs import to_public
from runtimed.ids import ExecutionId, stored_name
from runtimed.models import Output
from runtimed.protocol.events import Display, Event, Failed, Finished, KernelState, Queued, Started, Stream
from runtimed.texts import client_name, printable

__all__ = ["Colleagues"]

logger = logging.getLogger(__name__)

SHOWN_LINES: Final = 20
"""Most lines of a colleague's code that are shown."""

MAX_LINE: Final = 16_384
"""Longest line that is held until it ends, in characters."""

RETRY: Final = 1.0
"""Seconds before the next attempt to follow a session whose daemon does not come back, or that was deleted."""


class Colleagues:
    """The other clients of a session, and the kernel's counter, which all of them use."""

    def __init__(
        self,
        session: Session,
        screen: AbstractContextManager[Any],
        on_code: Callable[[str], object],
        on_count: Callable[[int], object],
    ) -> None:
        """Show nothing yet.

        Args:
            session: A joined session.
            screen: Held while something is printed.
            on_code: Called with the code that a colleague runs.
            on_count: Called with the number of the next execution, whenever it changes.
        """
        self._session = session
        self._screen = screen
        self._on_code = on_code
        self._on_count = on_count
        self._open: dict[str, _Shown | None] = {}
        self._waiting: set[str] = set()
        self._count = 0

    def watch(self) -> None:
        """Show what they run until the session's handle is closed."""
        while True:
            try:
                for event in self._session.raw_events():
                    self._take(event)
            except NotConnected:
                return
            except (ConnectionLost, DaemonUnavailable) as exc:
                logger.info("session %r: what others run is shown again later: %s", self._session.notebook_id, exc)
            time.sleep(RETRY)

    def note(self, count: int) -> None:
        """Take note of an execution's count; a lower one than the latest changes nothing."""
        self._count = max(count, self._count)
        self._on_count(self._count + 1)

    def read_count(self) -> None:
        """Take note of the count of what ran last in the running kernel."""
        with contextlib.suppress(RuntimedError):
            if self._session.status().kernel_pid is None:
                return
            for one in Client().sessions.find_executions(self._session.notebook_id, "")[:1]:
                self.note(self._session.get_cell(one.cell_id, outputs=False).execution_count or 0)

    def _take(self, event: Event) -> None:
        if isinstance(event, KernelState) and event.status in ("starting", "restarting", "dead"):
            self._count = 0
            self._on_count(1)
        elif isinstance(event, Started) and event.execution_count is not None:
            self.note(event.execution_count)
        self._show(event)

    def _show(self, event: Event) -> None:
        execution_id = event.execution_id
        if execution_id is None or event.cell_id is None:  # what belongs to no cell is a frontend's own business
            return
        match event:
            case Queued():
                if event.author == self._session.client_id:
                    self._open[execution_id] = None
                    self._waiting.add(execution_id)
            case Started() | Stream() | Display() | Failed():
                self._waiting.discard(execution_id)
                if execution_id not in self._open:
                    self._open[execution_id] = self._begin(event, execution_id)
                shown = self._open[execution_id]
                if shown is not None:
                    self._print(shown, shown.take(event))
            case Finished():
                self._waiting.discard(execution_id)
                shown = self._open.pop(execution_id, None)
                if shown is not None:
                    self._print(shown, shown.end())
            case _:
                pass

    def _print(self, shown: _Shown, outputs: list[Output]) -> None:
        if outputs:
            with self._printing():
                for output in outputs:
                    shown.stream.show(output)

    @contextlib.contextmanager
    def _printing(self) -> Iterator[None]:
        with self._screen:
            if self._waiting:
                # The line of one's own cell that says whom it waits for.
                sys.stdout.write("\r\x1b[2K")
            yield

    def _begin(self, event: Event, execution_id: str) -> _Shown | None:
        """Show the code of an execution; None for one of this client, which its own cell shows."""
        notebook_id = self._session.notebook_id
        try:
            found = Client().sessions.find_executions(notebook_id, execution_id)
            author = next((one for one in found if one.execution_id == ExecutionId(execution_id)), None)
            source = self._session.get_cell_source(str(event.cell_id))
        except RuntimedError:
            author = source = None
        if author is not None and author.client_id == self._session.client_id:
            return None
        name = "somebody" if author is None else client_name(author.client_id or "", author.label)
        count = event.execution_count if isinstance(event, Started) else None
        with self._printing():
            show_note(_headed(name, count, source or ""))
        if source:
            self._on_code(source)
        return _Shown(f"runtimed-{stored_name(notebook_id)[:12]}-")


class _Shown:
    """The outputs of one execution above a prompt, where only whole lines stay and nothing can be written over."""

    def __init__(self, prefix: str) -> None:
        self.stream = OutputStream(prefix)
        self._begun: dict[str, str] = {}
        self._updates: dict[str, Output] = {}

    def take(self, event: Event) -> list[Output]:
        """Return what is shown now: text once its line ends, an updated display in its last version at the end."""
        public = to_public(event)
        if public is None or public.output is None:
            return []
        if isinstance(event, Stream):
            return self._lines(event)
        if isinstance(event, Display) and event.kind == "update_display_data":
            self._updates[event.display_id or ""] = public.output
            return []
        return [*self._begun_lines(), public.output]

    def end(self) -> list[Output]:
        """Return what is left."""
        return [*self._begun_lines(), *self._updates.values()]

    def _lines(self, event: Stream) -> list[Output]:
        lines, end, begun = (self._begun.pop(event.name, "") + event.text).rpartition("\n")
        text = lines + end
        if len(begun) > MAX_LINE:
            text += begun + "\n"
        elif begun:
            self._begun[event.name] = begun
        return [_text(event.name, text)] if text else []

    def _begun_lines(self) -> list[Output]:
        begun, self._begun = self._begun, {}
        return [_text(name, text + "\n") for name, text in begun.items()]


def _text(name: str, text: str) -> Output:
    return Output(output_type="stream", name=name, text=text)


def _headed(name: str, count: int | None, source: str) -> str:
    """Return code below the name of its author."""
    head = f"{printable(name)} In [{' ' if count is None else count}]: "
    lines = printable(source.rstrip(), "\n\t").split("\n")
    if len(lines) > SHOWN_LINES:
        lines = [*lines[:SHOWN_LINES], f"… and {len(lines) - SHOWN_LINES} more lines"]
    return head + f"\n{' ' * (len(head) - 5)}...: ".join(lines)
