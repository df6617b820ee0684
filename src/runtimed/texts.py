"""Escapes untrusted texts: for terminals, and for logs in which each record is one line.

Ids, labels and a kernel's last words may hold any Unicode: terminal escapes, line breaks, marks that turn the direction
of writing. Everything that shows or logs them passes them through here. Nothing here does I/O.
"""

from __future__ import annotations

import logging
import re
import signal
from typing import Final

__all__ = ["MAX_LOG_LINE", "LineFormatter", "client_name", "printable", "signal_name", "without_colours"]

MAX_LOG_LINE: Final = 16_384
"""Longest line of a log, in characters; of a longer one the end is left out."""


def printable(text: str, keep: str = "") -> str:
    r"""Return a text in which everything that is not printable is escaped.

    Args:
        text: From anywhere.
        keep: Characters to leave alone, such as `\n`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def client_name(client_id: str, label: str | None) -> str:
    """Return what to call a client: as it calls itself, else by the beginning of its id."""
    return label or f"client {client_id[:8]}"


def signal_name(number: int) -> str:
    """Return the name of a signal: `SIGKILL`; `signal 40` for one without a name, as most real-time signals are."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def without_colours(text: str) -> str:
    """Return a text without terminal colours (ECMA-48, SGR)."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class LineFormatter(logging.Formatter):
    r"""Makes one line of printable text of each record; the lines of a traceback are parted by `\n`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line = printable(super().format(record))
        return line if len(line) <= MAX_LOG_LINE else f"{line[:MAX_LOG_LINE]} …"
