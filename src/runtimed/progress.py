"""Shows the making of an environment where a person waits for it: one line that changes, gone when it is over.

In a notebook it is one display that is updated; in a terminal one line that is written over; elsewhere nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import secrets
import shutil
import sys
from types import TracebackType
from typing import Any, Final, Protocol, TextIO

from runtimed.texts import printable

__all__ = ["Progress", "ProgressLine", "progress_text"]

_MIB: Final = 2**20


def progress_text(message: str, done: int | None = None, total: int | None = None) -> str:
    """Return one line for people.

    Args:
        message: The step.
        done: Bytes of the downloads so far.
        total: Bytes of the downloads that have begun.
    """
    return f"{message} ({(done or 0) / _MIB:.1f} of {total / _MIB:.1f} MiB)" if total else message


class Progress(Protocol):
    """Hears how a kernel's environment is made."""

    def show(self, message: str, done: int | None = None, total: int | None = None, /) -> None:
        """Hear of a step; the arguments are those of `progress_text`."""

    def announce(self, text: str, /) -> None:
        """Hear which environment the kernel that was started has, and why."""


class ProgressLine:
    """One line that says what is being done; after the `with` block it is gone, or says that it is done."""

    def __init__(self, shell: Any = None, stream: TextIO | None = None) -> None:
        """Show nothing yet.

        Args:
            shell: IPython's shell, where there is one.
            stream: The terminal; standard error if None.
        """
        self._stream = sys.stderr if stream is None else stream
        self._notebook = getattr(shell, "kernel", None) is not None
        self._display_id: str | None = None
        self._shown = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close("" if exc_type is None else "The environment was not made")

    def show(self, message: str, done: int | None = None, total: int | None = None) -> None:
        """Show a step instead of the one before; the arguments are those of `progress_text`."""
        text = progress_text(message, done, total)
        if self._notebook:
            self._publish(f"{text} …")
        else:
            # Never wider than the terminal, where a line that wraps cannot be written over.
            width = shutil.get_terminal_size().columns - 3
            line = "".join(c if c.isprintable() else "?" for c in text)
            self._write(f"\r\x1b[2K{line[:width]} …")
        self._shown = True

    def announce(self, text: str) -> None:
        """Say something that stays, where a person sees it: in the place of the line."""
        self._shown = False
        if self._notebook:
            self._publish(text)
        elif self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{printable(text)}\n")
            self._stream.flush()

    def close(self, last: str = "") -> None:
        """Remove the line. Idempotent.

        Args:
            last: What a notebook, from which nothing can be taken away, shows instead; `The kernel is ready` if empty.
        """
        if not self._shown:
            return
        self._shown = False
        if self._notebook:
            self._publish(last or "The kernel is ready")
        else:
            self._write("\r\x1b[2K")

    # Streams and publishers may be replaced by anybody's, which have less or raise anything: the line is left out then.

    def _write(self, text: str) -> None:
        with contextlib.suppress(Exception):
            if self._stream.isatty():
                self._stream.write(text)
                self._stream.flush()

    def _publish(self, text: str) -> None:
        publish = importlib.import_module("IPython.display").publish_display_data
        update = self._display_id is not None
        self._display_id = self._display_id or f"runtimed-progress-{secrets.token_hex(4)}"
        with contextlib.suppress(Exception):
            publish({"text/plain": text}, transient={"display_id": self._display_id}, update=update)
