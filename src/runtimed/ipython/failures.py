"""Short errors of the magics. Nothing here does I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from runtimed.errors import RuntimedError
from runtimed.models import ExecutionResult
from runtimed.texts import printable

__all__ = ["CellFailed", "cell_failed", "short_errors"]

MAX_EVALUE = 200
"""Longest text of a remote exception that is repeated, in characters."""


class CellFailed(RuntimedError):
    """The remote cell failed, was cancelled or lost its kernel (attribute `result`).

    Its outputs show what happened; this stops what would have run next.
    """


def cell_failed(notebook_id: str, result: ExecutionResult, message: str | None) -> CellFailed:
    """Return the exception for a failed result.

    Args:
        notebook_id: The session.
        result: The result.
        message: The message of its last event, for a result without an error output.
    """
    reason = message or "it was cancelled"
    if result.error is not None:
        evalue = (result.error.evalue or "").partition("\n")[0]
        evalue = evalue if len(evalue) <= MAX_EVALUE else f"{evalue[:MAX_EVALUE]}…"
        reason = f"{result.error.ename}: {evalue}" if evalue else str(result.error.ename)
    return CellFailed(printable(f"{reason} (cell {result.cell_id} of session {notebook_id})"), result=result)


@contextlib.contextmanager
def short_errors() -> Iterator[None]:
    """Let IPython show exceptions of the block as one line: the frames of this package do not help users."""
    try:
        yield
    except (RuntimedError, KeyboardInterrupt) as exc:
        line = printable(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__, "\n\t")
        # IPython asks an exception for its own rendering, its instance included.
        vars(exc)["_render_traceback_"] = lambda: [line]
        raise
