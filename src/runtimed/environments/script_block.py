"""Finds blocks of metadata in the source of a script (PEP 723). Nothing here interprets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["SCRIPT", "flaw_in", "script_blocks"]

SCRIPT: Final = "# /// script"
"""The line that begins the block that says what a script needs."""

_BEGINS: Final = re.compile(r"# /// ([a-zA-Z0-9-]+)")
_ENDS: Final = "# ///"


def script_blocks(source: str) -> Iterator[tuple[str, str]]:
    """Yield the type and the content of each block of metadata in a source.

    In a run of comment lines the block goes from the first line that begins one to the last one that ends one. Lines
    may end as they do for Python, and the text may begin with a byte order mark. In one pass: the reference's regular
    expression takes minutes for a cell with thousands of beginnings and no end.

    Source: PEP 723, "Specification".
    """
    name, content, complete = "", "", 0
    for line in [*_lines(source), ""]:
        if not _is_comment(line):
            if complete:
                yield name, content[:complete]
            name, content, complete = "", "", 0
        elif not name:
            begin = _BEGINS.fullmatch(line)
            name = "" if begin is None else begin[1]
        else:
            complete = len(content) if line == _ENDS else complete
            content += f"{line}\n"


def flaw_in(source: str) -> str | None:
    """Return the flaw of an intended but invalid script block; None if there is a valid one, or none is intended."""
    opened, flaw = 0, ""
    for number, line in enumerate([*_lines(source), ""], 1):
        bare = line.rstrip()
        if not opened:
            opened = number if bare == SCRIPT else 0
            flaw = _must_be(number, line, bare) if opened and bare != line else ""
        elif line == _ENDS:
            if flaw:
                break
            opened = 0
        elif bare == _ENDS:
            flaw = flaw or _must_be(number, line, bare)
        elif not _is_comment(line):
            break
    if not opened:
        return None
    return flaw or f"what line {opened} begins must end with a line {_ENDS!r}, and each line up to that begin with '# '"


def _must_be(number: int, line: str, exact: str) -> str:
    return f"line {number} is {line!r} and must be {exact!r}"


def _lines(source: str) -> list[str]:
    return source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _is_comment(line: str) -> bool:
    return line == "#" or line.startswith("# ")
