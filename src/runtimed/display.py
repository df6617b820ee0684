"""Shows outputs in the calling process: through IPython's display system, or as plain text without IPython.

Nothing here imports IPython or creates a shell.
"""

from __future__ import annotations

import base64
import codecs
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol, TextIO

__all__ = [
    "WIDGET_MIME_TYPE",
    "LastDisplay",
    "OutputStream",
    "Shown",
    "bundle_for_display",
    "readable_size",
    "running_shell",
    "show_note",
    "show_output",
]

WIDGET_MIME_TYPE: Final = "application/vnd.jupyter.widget-view+json"

_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]{0,128}m")

_FLUSH_INTERVAL: Final = 0.05
"""Least time between two flushes of a stream that also flushes itself, in seconds."""


class Shown(Protocol):
    """The fields of an output that are shown; see `models.Output`."""

    @property
    def output_type(self) -> Literal["stream", "display_data", "execute_result", "error"]:
        """Determines which of the other fields are set."""

    @property
    def name(self) -> str | None:
        """`stdout` or `stderr`, for a stream."""

    @property
    def text(self) -> str | None:
        """The text of a stream."""

    @property
    def data(self) -> Mapping[str, Any] | None:
        """By MIME type."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """By MIME type or key."""

    @property
    def ename(self) -> str | None:
        """Name of the exception, for an error."""

    @property
    def evalue(self) -> str | None:
        """Its text."""

    @property
    def traceback(self) -> tuple[str, ...]:
        """Its lines."""

    @property
    def display_id(self) -> str | None:
        """The id under which the kernel may update this output later."""


class LastDisplay:
    """The display that was printed last. A terminal can overwrite it with its next version, as for a progress bar."""

    def __init__(self) -> None:
        """Start before anything was printed."""
        self._printed: tuple[str | None, str] = (None, "")

    def printed(self, display_id: str | None, text: str) -> None:
        """Record that a display and a line break were printed; call `forget` before anything else is printed."""
        self._printed = display_id, text

    def forget(self) -> None:
        """Record that something else was printed."""
        self._printed = None, ""

    def make_room(self, display_id: str | None) -> None:
        """Erase the old version of a display before a new one is printed, if it was printed last, on a terminal.

        A version that is higher than the terminal's window stays.
        """
        (before, text), target = self._printed, sys.stdout
        if before is None or before != display_id or not _is_terminal(target):
            return
        columns, lines = shutil.get_terminal_size()
        rows = sum(max(1, -(-_columns_of(line) // columns)) for line in text.split("\n"))
        if rows < lines:
            target.write(f"\r\x1b[{rows}A\x1b[J")


class OutputStream:
    """Shows the outputs of a remote execution as they arrive.

    Display ids get a prefix, so that a remote display never replaces a local one with the same id. Use the same prefix
    for all executions of a session, so that an update from a later cell reaches the output of an earlier one.
    """

    def __init__(self, prefix: str) -> None:
        """Start without outputs.

        Args:
            prefix: Prefix of the local display ids, which identifies the remote session.
        """
        self._prefix = prefix
        self._target: TextIO | None = None
        self._flushed_at = float("-inf")
        self._failure = ""
        self._last = LastDisplay()

    def show(self, output: Shown) -> None:
        """Show another output; the text of a stream is the piece that just arrived."""
        if output.output_type == "stream":
            self._shown(self.attempt(lambda: self._show_text(_target(output), output.text or "")))
        else:
            self._shown(self.attempt(lambda: self._show_display(output, self._local_id(output))))

    def update(self, output: Shown) -> None:
        """Replace every display with the output's display id.

        On a terminal only the display that was printed last can be replaced; for another one, the new version is
        printed below. An output without a display id is ignored.
        """
        display_id = self._local_id(output)
        if display_id is not None:
            self._shown(self.attempt(lambda: self._show_display(output, display_id, update=True)))

    def clear(self, *, wait: bool = False) -> None:
        """Clear the outputs of the running cell; with `wait`, when its next output arrives."""
        shell = running_shell()
        if shell is not None:
            self.attempt(lambda: shell.display_pub.clear_output(wait))

    def attempt(self, step: Callable[[], object]) -> bool:
        """Run a step of showing an output, and show a note if it fails, so that the other outputs are still shown.

        Args:
            step: The step. Consecutive outputs with the same failure get one note.

        Returns:
            Whether it succeeded.
        """
        failure = _failure_of(step)
        if failure and failure != self._failure:
            show_note(failure)
            self._failure = failure
        return not failure

    def _shown(self, successfully: bool) -> None:
        if successfully:
            self._failure = ""

    def leave_line(self) -> None:
        """Record that other text is printed or typed among the outputs."""
        self._last.forget()

    def _show_display(self, output: Shown, display_id: str | None, *, update: bool = False) -> None:
        shell = running_shell()
        prints = shell is not None and _prints(shell.display_pub)
        if update and prints:
            self._last.make_room(display_id)
        self._last.forget()
        if output.data is None:
            _show(output, display_id)
            return
        _publish(output, display_id, update=update)
        if prints:
            self._last.printed(display_id, str(output))

    def _show_text(self, target: TextIO, text: str) -> None:
        self._last.forget()
        if self._target is not None and self._target is not target:
            _flush(self._target)  # keeps the order of the kernel's two streams
        self._target = target
        _write(target, text)
        # ipykernel's streams flush themselves every 0.2 s. Flushing each piece takes 420 µs instead of 16 and makes it
        # a message of its own: 20,000 lines would take 8 s, and overrun readers that hold 1000 messages.
        now = time.monotonic()
        if now - self._flushed_at >= _FLUSH_INTERVAL or not hasattr(target, "flush_interval"):
            _flush(target)
            self._flushed_at = now

    def _local_id(self, output: Shown) -> str | None:
        return None if output.display_id is None else f"{self._prefix}{output.display_id}"


def show_output(output: Shown) -> None:
    """Show a stored output, or a note if that fails, in a notebook, a terminal or plain Python."""
    failure = _failure_of(lambda: _show(output, None))
    if failure:
        show_note(failure)


def show_note(text: str) -> None:
    """Show a line of runtimed's own among the outputs: on standard output, else on standard error, else not at all."""
    if _failure_of(lambda: _write_all(sys.stdout, f"{text}\n")):
        _failure_of(lambda: _write_all(sys.stderr, f"{text}\n"))


def _failure_of(show: Callable[[], object]) -> str:
    """Run `show`; return a note if it fails, an empty text otherwise.

    User code may have replaced streams, publishers and formatters, and these may raise anything.
    """
    try:
        show()
    except Exception as exc:  # noqa: BLE001  # see above; the note says it
        return f"[an output is left out here, as showing it failed: {type(exc).__name__}: {exc}]"
    return ""


def bundle_for_display(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a MIME bundle in the form of Jupyter's display messages.

    Binary values become base64 text. A widget is left out if there is another representation, because it needs the
    kernel that created it. Lone surrogates, which a message cannot contain, become `\\udcxx` escapes.
    """
    bundle = {
        mime: base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else _encodable(value)
        for mime, value in data.items()
    }
    if len(bundle) > 1:
        bundle.pop(WIDGET_MIME_TYPE, None)
    return bundle


def readable_size(size: int) -> str:
    """Return a number of bytes for people: `512 MiB`, `1.5 GiB`."""
    value, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.4g} {units[0]}"


def _show(output: Shown, display_id: str | None) -> None:
    match output.output_type:
        case "stream":
            _write_all(_target(output), output.text or "")
        case "error":
            _show_error(output)
        case "display_data" | "execute_result":
            _publish(output, display_id)


def _target(output: Shown) -> TextIO:
    return sys.stderr if output.name == "stderr" else sys.stdout


def _write(target: TextIO, text: str) -> None:
    target.write(_encodable(text, _encoding(target)))


def _flush(target: TextIO) -> None:
    flush = getattr(target, "flush", None)
    if flush is not None:
        flush()


def _write_all(target: TextIO, text: str) -> None:
    _write(target, text)
    _flush(target)


def _encoding(target: TextIO) -> str:
    """Return the encoding of a stream, which may be any object with a `write` method."""
    name = getattr(target, "encoding", None) or "utf-8"
    try:
        return codecs.lookup(name).name
    except (LookupError, TypeError):
        return "utf-8"


def _encodable(value: Any, encoding: str = "utf-8") -> Any:
    """Return a JSON value with every text encodable, because ipykernel loses a message with one that is not."""
    match value:
        case str():
            if not value.isascii():
                try:
                    value.encode(encoding)
                except UnicodeEncodeError:
                    return value.encode(encoding, "backslashreplace").decode(encoding)
            return value
        case list():
            return [_encodable(item, encoding) for item in value]
        case dict():
            return {_encodable(key, encoding): _encodable(item, encoding) for key, item in value.items()}
        case _:
            return value


def _show_error(output: Shown) -> None:
    lines = _encodable(list(output.traceback) or [f"{output.ename}: {output.evalue}"])
    shell = running_shell()
    if shell is None:
        _write_all(sys.stderr, "\n".join(lines) + "\n")
        return
    # The only way to a real error output. A kernel that does so while it displays the last value of a cell (an
    # ExecutionResult) would report that cell as failed (ipykernel 7.4, do_execute), with a NoneType as its error.
    failed = getattr(shell, "_last_traceback_during_displayhook", None)
    error_type = type(_encodable(output.ename or "Error"), (Exception,), {})
    shell._showtraceback(error_type, _encodable(output.evalue or ""), lines)
    if failed is not None:
        shell._last_traceback_during_displayhook = failed


def _publish(output: Shown, display_id: str | None, *, update: bool = False) -> None:
    shell = running_shell()
    if shell is None:
        _write_all(sys.stdout, f"{output}\n")
        return
    bundle = bundle_for_display(output.data or {})
    if _prints(shell.display_pub):
        bundle.setdefault("text/plain", _encodable(str(output)))
    shell.display_pub.publish(
        data=bundle,
        metadata=_encodable(dict(output.metadata)),
        transient={} if display_id is None else {"display_id": display_id},
        update=update,
    )


def _is_terminal(target: Any) -> bool:
    """Whether a stream, which may be anybody's, leads to a terminal."""
    isatty = getattr(target, "isatty", None)
    return callable(isatty) and bool(isatty())


def _columns_of(line: str) -> int:
    """Return how many columns of a terminal a line takes."""
    plain = _COLOUR.sub("", line).expandtabs()
    return sum(2 if unicodedata.east_asian_width(char) in "FW" else 1 for char in plain)


def _prints(publisher: Any) -> bool:
    """Return True for a terminal's publisher, which prints `text/plain` and shows nothing without it."""
    return bool(
        type(publisher).__module__ == "IPython.core.displaypub" and type(publisher).__name__ == "DisplayPublisher"
    )


def running_shell() -> Any:
    """Return the IPython shell of this process, or None; importing IPython to ask would cost scripts 0.2 s."""
    module = sys.modules.get("IPython.core.getipython")
    return None if module is None else module.get_ipython()
