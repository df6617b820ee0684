"""Escapes untrusted texts for terminals and for the daemon's log, where each record is one line.

Ids, labels and a kernel's standard error may contain any Unicode: terminal escapes, line breaks, bidirectional control
characters. Everything that shows or logs them escapes them here. Nothing here does I/O.
"""

from __future__ import annotations

import logging
import re
import signal
from typing import Final

__all__ = ["MAX_LOG_LINE", "LineFormatter", "client_name", "printable", "signal_name", "without_colours"]

MAX_LOG_LINE: Final = 16_384
"""Longest line of the log, in characters; a longer one is cut."""


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with all characters escaped that are not printable.

    Args:
        text: Any text.
        keep: Characters that are not escaped, such as `\n`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def client_name(client_id: str, label: str | None) -> str:
    """Return a client's name for people: its label, else the first characters of its id."""
    return label or f"client {client_id[:8]}"


def signal_name(number: int) -> str:
    """Return the name of a signal, such as `SIGKILL`; `signal 40` for one without a name (most real-time signals)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def without_colours(text: str) -> str:
    """Return a text without terminal colours (ECMA-48, SGR)."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class LineFormatter(logging.Formatter):
    r"""Formats each record as one line of printable text; the line breaks of a traceback become `\n`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line = printable(super().format(record))
        return line if len(line) <= MAX_LOG_LINE else f"{line[:MAX_LOG_LINE]} …"
