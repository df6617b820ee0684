"""Writes for people: sentences and tables, in which no id, label or output can do anything to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtimed.texts import printable

__all__ = ["ago", "complain", "open_console", "print_table", "say", "short_duration"]


def open_console(*, stderr: bool = False) -> Console:
    """Return a console that takes texts as they are: no markup, no emoji names, no highlighting."""
    stream = sys.stderr if stderr else sys.stdout
    # Without a terminal nobody knows a width; a line that is not broken can be searched.
    width = None if stream.isatty() else 4096
    return Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=False, width=width)


def say(text: str) -> None:
    """Print a sentence."""
    sys.stdout.write(printable(text, "\n\t") + "\n")


def complain(text: str) -> None:
    """Print a sentence on standard error."""
    sys.stderr.write(printable(text, "\n\t") + "\n")


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> None:
    """Print a table.

    Args:
        columns: Their titles.
        rows: Their values; a str is made printable, a Text is taken as it is.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else Text(printable(value)) for value in row))
    open_console().print(table)


def ago(moment: datetime) -> str:
    """Say how long ago something was."""
    return f"{short_duration(datetime.now(UTC) - moment)} ago"


def short_duration(duration: timedelta) -> str:
    """Return a duration in its largest fitting unit: `12 s`, `5 min`, `3 h`, `4 d`."""
    seconds = max(0.0, duration.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
