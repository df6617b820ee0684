"""Output for people: sentences and tables, in which no id, label or output can control the terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtimed.texts import printable

__all__ = ["ago", "complain", "confirm", "open_console", "print_table", "say", "short_duration"]


NARROWEST: Final = 12
"""Least width of a table's column, in characters."""

_GENERATED: Final = re.compile(r"((?:cell|execution|agent-session|browser-session)-[0-9a-f]{8})-[0-9a-f-]{27}")


def open_console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts unchanged: no markup, no emoji names, no highlighting."""
    stream = sys.stderr if stderr else sys.stdout
    # Without a terminal the width is unknown; a line that is not broken can be searched.
    width = None if stream.isatty() else 4096
    return Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=False, width=width)


def say(text: str) -> None:
    """Print a sentence."""
    sys.stdout.write(printable(text, "\n\t") + "\n")


def complain(text: str) -> None:
    """Print a sentence on standard error."""
    sys.stderr.write(printable(text, "\n\t") + "\n")


def confirm(question: str, *, yes: bool) -> bool:
    """Ask a person; without a terminal, print that nobody agreed.

    Args:
        question: What a `y` agrees to.
        yes: Whether the answer was given on the command line.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        complain(f"{question} There is no terminal to ask in; --yes answers beforehand")
        return False
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str | Text]], ids: Collection[str] = ()) -> None:
    """Print a table. If it does not fit the terminal, shorten generated ids, or print a list of records.

    Args:
        columns: Their titles.
        rows: Their values; a str is made printable, a Text is printed unchanged.
        ids: The columns with ids, which are never broken.
    """
    console = open_console()
    titles = list(columns)
    texts = [[value if isinstance(value, Text) else Text(printable(value)) for value in row] for row in rows]
    at = {number for number, title in enumerate(titles) if title in ids}
    if not _fits(console.width, titles, texts, at):
        # Every command accepts a prefix of an id.
        texts = [[_shortened(text) if n in at else text for n, text in enumerate(row)] for row in texts]
    if not _fits(console.width, titles, texts, at):
        for row in texts:
            for title, text in zip(titles, row, strict=True):
                if text.plain:
                    console.print(Text(f"{title or '#'} ", style="bold").append_text(text), soft_wrap=True)
            console.print()
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(titles):
        table.add_column(title, overflow="fold", no_wrap=number in at)
    for row in texts:
        table.add_row(*row)
    console.print(table)


def _fits(width: int, titles: list[str], rows: list[list[Text]], ids: Collection[int]) -> bool:
    """Whether a table fits without breaking an id, or making another column too narrow to read."""
    needed = 0
    for number, title in enumerate(titles):
        widest = max((row[number].cell_len for row in rows), default=0)
        needed += 2 + max(len(title), widest if number in ids else min(widest, NARROWEST))
    return needed <= width


def _shortened(text: Text) -> Text:
    found = _GENERATED.fullmatch(text.plain)
    return Text(found[1]) if found else text


def ago(moment: datetime) -> str:
    """Describe how long ago something was."""
    return f"{short_duration(datetime.now(UTC) - moment)} ago"


def short_duration(duration: timedelta) -> str:
    """Return a duration in its largest fitting unit: `12 s`, `5 min`, `3 h`, `4 d`."""
    seconds = max(0.0, duration.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
