"""Shows outputs where the code runs now: through IPython's display system, or as plain text without IPython.

Nothing here imports IPython: where no shell runs, none is made.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from runtimed.models import Output

__all__ = [
    "WIDGET_MIME_TYPE",
    "OutputStream",
    "bundle_for_display",
    "readable_size",
    "running_shell",
    "show_note",
    "show_output",
]

WIDGET_MIME_TYPE: Final = "application/vnd.jupyter.widget-view+json"

_FLUSH_INTERVAL: Final = 0.05
"""Shortest time between two flushes of a stream that also flushes itself, in seconds."""


class OutputStream:
    """Shows the outputs of a remote execution live, as they arrive.

    Display ids get a prefix, so that a remote display never replaces a local one that happens to have the same id.
    Give the same prefix to all executions of one session: an update made by a later cell then finds the output
    that an earlier one made, wherever in the notebook that is.
    """

    def __init__(self, prefix: str) -> None:
        """Start without outputs.

        Args:
            prefix: What the local display ids begin with; names the remote session.
        """
        self._prefix = prefix
        self._target: TextIO | None = None
        self._flushed_at = float("-inf")

    def show(self, output: Output) -> None:
        """Show one more output; the text of a stream is the piece that just arrived."""
        if output.output_type == "stream":
            self._show_text(_target(output), output.text or "")
        else:
            _show(output, self._local_id(output))

    def update(self, output: Output) -> None:
        """Replace what is shown under the output's display id, in every place where it is shown.

        A terminal cannot go back: there the new version is printed below. An output without a display id is ignored.
        """
        display_id = self._local_id(output)
        if display_id is not None:
            _publish(output, display_id, update=True)

    def clear(self, *, wait: bool = False) -> None:
        """Take away what the running cell has shown so far; with `wait`, when its next output comes."""
        shell = running_shell()
        if shell is not None:
            shell.display_pub.clear_output(wait)

    def _show_text(self, target: TextIO, text: str) -> None:
        if self._target is not None and self._target is not target:
            self._target.flush()  # else the two streams of a kernel may change their order
        self._target = target
        _write(target, text)
        # ipykernel's streams flush themselves every 0.2 s. Flushing each piece takes 420 µs instead of 16 and makes it
        # a message of its own: 20,000 lines would take 8 s, and overrun readers that hold 1000 messages.
        now = time.monotonic()
        if now - self._flushed_at >= _FLUSH_INTERVAL or not hasattr(target, "flush_interval"):
            target.flush()
            self._flushed_at = now

    def _local_id(self, output: Output) -> str | None:
        return None if output.display_id is None else f"{self._prefix}{output.display_id}"


def show_output(output: Output) -> None:
    """Show one output of the past: notebook, terminal IPython or plain Python."""
    _show(output, None)


def show_note(text: str) -> None:
    """Show a line of our own among outputs."""
    _write(sys.stdout, f"{text}\n")
    sys.stdout.flush()


def bundle_for_display(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a MIME bundle in the form in which Jupyter's display messages carry it.

    Binary values become base64 text. A widget is left out where another representation exists: a widget
    belongs to the kernel that made it, and cannot live in this one. Lone surrogates, which such a message cannot
    carry, become `\\udcxx` escapes.
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


def _show(output: Output, display_id: str | None) -> None:
    match output.output_type:
        case "stream":
            target = _target(output)
            _write(target, output.text or "")
            target.flush()
        case "error":
            _show_error(output)
        case "display_data" | "execute_result":
            _publish(output, display_id)


def _target(output: Output) -> TextIO:
    return sys.stderr if output.name == "stderr" else sys.stdout


def _write(target: TextIO, text: str) -> None:
    target.write(_encodable(text, target.encoding or "utf-8"))


def _encodable(value: Any, encoding: str = "utf-8") -> Any:
    """Return a JSON value in which every text can be encoded; ipykernel loses a message with one that cannot."""
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


def _show_error(output: Output) -> None:
    lines = _encodable(list(output.traceback) or [f"{output.ename}: {output.evalue}"])
    shell = running_shell()
    if shell is None:
        _write(sys.stderr, "\n".join(lines) + "\n")
        sys.stderr.flush()
        return
    # The only way to a real error output. A kernel that does so while it displays the last value of a cell (an
    # ExecutionResult) would report that cell as failed (ipykernel 7.4, do_execute), with a NoneType as its error.
    failed = getattr(shell, "_last_traceback_during_displayhook", None)
    error_type = type(_encodable(output.ename or "Error"), (Exception,), {})
    shell._showtraceback(error_type, _encodable(output.evalue or ""), lines)
    if failed is not None:
        shell._last_traceback_during_displayhook = failed


def _publish(output: Output, display_id: str | None, *, update: bool = False) -> None:
    shell = running_shell()
    if shell is None:
        _write(sys.stdout, f"{output}\n")
        sys.stdout.flush()
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


def _prints(publisher: Any) -> bool:
    """Return True for a terminal's publisher, which prints `text/plain` and shows nothing without it."""
    return bool(
        type(publisher).__module__ == "IPython.core.displaypub" and type(publisher).__name__ == "DisplayPublisher"
    )


def running_shell() -> Any:
    """Return the IPython shell of this process, or None; importing IPython to ask would cost scripts 0.2 s."""
    module = sys.modules.get("IPython.core.getipython")
    return None if module is None else module.get_ipython()
