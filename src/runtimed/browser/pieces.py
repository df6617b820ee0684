"""Takes a piece of a large page's outline, in a time that does not grow with the page.

Playwright's snapshot walks through all of a page. In the world of its own scripts `survey.js` lets that walk pass over
what is before the piece and behind it; Playwright makes the rest as ever. The piece stands so in the whole outline if
each element of which a part was passed over has its line there. It has if it has one now, and enough below that nothing
more in it would change that line; where it has not, more is taken, and at last the whole.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from runtimed.browser import views
from runtimed.browser.outline import Line

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

__all__ = ["LARGE", "Cut", "Level", "Piece", "Place", "Taken", "lines_of", "place_of", "same_part", "take"]

LARGE: Final = 3_000
"""Number of elements from which a page's outline is taken in pieces; a smaller page takes no longer as a whole."""
_BESIDE: Final = (32, 256, 2048)
"""Elements that are taken beside a piece, in each of its ancestors: first few, and more if those do not suffice."""

_RAW_REF: Final = re.compile(r"(f\d+)?(e\d+)")
_keys = itertools.count(1)


class Piece(msgspec.Struct, frozen=True):
    """A request for a piece of a large page.

    Attributes:
        start: The ref of its first element; None for the beginning of the page.
        elements: Its approximate number of elements.
    """

    start: str | None
    elements: int


class Place(msgspec.Struct, frozen=True):
    """The place of a piece in the outline.

    Attributes:
        start: The ref of its first element; None for the beginning of the outline.
        until: The ref of the element behind it; None if it goes to the end.
        shown: Number of elements that were taken from its beginning on.
        rest: Number of the page's elements behind those.
    """

    start: str | None
    until: str | None
    shown: int
    rest: int

    def estimate(self, length: int) -> int:
        """Estimate the characters of the outline behind the piece.

        Args:
            length: Characters of the piece.
        """
        return 0 if self.until is None else max(1, round(length * self.rest / max(1, self.shown)))


class Level(msgspec.Struct, frozen=True):
    """An element whose content a snapshot skipped in part.

    Attributes:
        ref: Its ref; empty if it has none.
        after: Whether the end was skipped.
    """

    ref: str
    after: bool


class Cut(msgspec.Struct, frozen=True):
    """What a snapshot skipped.

    Attributes:
        levels: The elements whose content it skipped in part, the innermost first.
        shown: Number of elements from the beginning of the piece on that it did not skip.
        rest: Number of the page's elements behind those.
    """

    levels: Sequence[Level]
    shown: int
    rest: int


class Taken(msgspec.Struct, frozen=True):
    """The result of a snapshot of a piece.

    Attributes:
        lines: Its lines.
        place: Where the piece is; None if it turned out to be everything.
        key: Its key in `survey.js`.
    """

    lines: list[Line]
    place: Place | None
    key: str


async def take(
    part: Page | Locator,
    wanted: Piece,
    start: str | None,
    snapshot: Callable[[Locator], Awaitable[list[Line]]],
    number: Callable[[str], str],
) -> Taken | None:
    """Take a piece; None if only the whole outline determines it.

    Args:
        part: The page, or the observed part of it.
        wanted: The request.
        start: Playwright's ref of the first element; None for the beginning.
        snapshot: Takes a snapshot.
        number: Prefix of a frame → number of its document in our refs.

    Raises:
        PlaywrightError: If the page is gone.
    """
    for beside in _BESIDE:
        key = f"piece{next(_keys)}"
        lines = await snapshot(part.locator(f"runtimed=piece {key} {start or '-'} {wanted.elements} {beside}"))
        answer = await part.locator(f"runtimed=cut {key}").text_content(timeout=0)
        cut = msgspec.json.decode(answer or "", type=Cut)
        if not cut.levels:
            return Taken(lines, None, key)
        matches = [(level, _RAW_REF.fullmatch(level.ref)) for level in cut.levels]
        levels = [Level(number(match[1] or "") + match[2] if match else "", level.after) for level, match in matches]
        place = place_of(lines, msgspec.structs.replace(cut, levels=levels), wanted.start)
        if place is not None:
            return Taken(lines, place, key)
    return None


def place_of(lines: Sequence[Line], cut: Cut, start: str | None) -> Place | None:
    """Return the place of a piece; None if more must be taken to match the whole outline.

    Args:
        lines: The lines of the snapshot.
        cut: What it skipped.
        start: The ref of the first element; None for the beginning of the outline.
    """
    places = {line.ref: place for place, line in enumerate(lines) if line.ref is not None}
    begin = 0 if start is None else places.get(start)
    inner = next((level.ref for level in cut.levels if level.after), None)
    until = None
    for level in cut.levels:
        place = places.get(level.ref)
        if begin is None or place is None:
            return None
        below = _children(lines, place)
        # More content does not change the line of a generic with two children, nor that of others with more than a
        # text.
        if len(below) < 2 and (lines[place].role == "generic" or all(lines[at].role == "text" for at in below)):
            return None
        if level.ref == inner:
            last = next((at for at in reversed(below) if lines[at].ref is not None), 0)
            if last <= begin:
                return None
            until = lines[last].ref
    return Place(start, until, cut.shown, cut.rest)


def lines_of(lines: Sequence[Line], place: Place) -> list[Line]:
    """Return the lines of a piece, and those of its ancestors.

    Args:
        lines: The lines of its snapshot.
        place: Where it is.
    """
    if place.until is not None:
        lines = list(itertools.takewhile(lambda line: line.ref != place.until, lines))
    found = views.beginning(lines, place.start) if place.start is not None else None
    return list(lines) if found is None else [*found[0], *found[1]]


def same_part(lines: Sequence[Line], piece: Sequence[Line], place: Place) -> list[Line]:
    """Return the part of a later outline that corresponds to a piece, up to the element that was behind it.

    Args:
        lines: The later outline, complete.
        piece: The lines of the piece.
        place: Where it was.
    """
    shown = views.beginning(piece, place.start) if place.start is not None else None
    refs = {line.ref for line in (piece if shown is None else shown[1]) if line.ref is not None}
    there = [at for at, line in enumerate(lines) if line.ref in refs]
    if not there:
        return []
    end = len(lines)
    if place.until is not None:
        # If that element is gone, too, the part ends behind the last one that still exists.
        ends = (at for at in range(there[-1] + 1, end) if lines[at].level <= lines[there[-1]].level)
        end = next((at for at, line in enumerate(lines) if line.ref == place.until), next(ends, end))
    if place.start is None:
        return list(lines[:end])
    found = views.beginning(lines[:end], lines[there[0]].ref or "")
    return [] if found is None else [*found[0], *found[1]]


def _children(lines: Sequence[Line], place: int) -> list[int]:
    """Return the indexes of the lines one level below a line, without its properties."""
    found = []
    for at in range(place + 1, len(lines)):
        if lines[at].level <= lines[place].level:
            break
        if lines[at].level == lines[place].level + 1 and lines[at].role:
            found.append(at)
    return found
