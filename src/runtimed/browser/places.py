"""Distinguishes twins: elements of one role and name, which a selector finds only by their order.

Pure functions over the answers of `survey.js`; nothing here talks to a browser.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from runtimed.actions import Place

__all__ = ["Placed", "difference", "is_by_order"]

_BY_ORDER: Final = re.compile(r">> *nth=|:nth-|:(?:first|last|only)-")


class Placed(msgspec.Struct, frozen=True):
    """The place of an element among its twins.

    Attributes:
        twins: Their number, itself included.
        near: Name or heading of the part of the page around it; empty if there is none.
        near_it: How many of them have the same.
        text: Text of the largest part of the page that contains it alone; empty if `near` identifies it.
        with_text: How many of them have the same text, too.
    """

    twins: int
    near: str
    near_it: int
    text: str
    with_text: int

    def noted(self) -> Place:
        """Return as much as identifies the element."""
        if self.twins == 1:
            return Place(1)
        return Place(1, self.near) if self.near_it == 1 else Place(self.with_text, self.near, self.text)

    def compared(self, with_: Place) -> Place:
        """Return the same fields of this element as were noted of another."""
        if with_.near is None:
            return Place(self.twins)
        if with_.text is None:
            return Place(self.near_it, self.near)
        return Place(self.with_text, self.near, self.text)


def is_by_order(selector: str) -> bool:
    """Whether a selector counts elements, so that on a changed page it may find another one."""
    return _BY_ORDER.search(selector) is not None


def difference(was: Place, now: Placed, what: str) -> str | None:
    """Return a sentence that says why an element may not be the noted one; None if it certainly is.

    Args:
        was: The noted place.
        now: The present place.
        what: The element's name in messages.
    """
    seen = now.compared(was)
    if seen == was:
        return None
    if seen.near != was.near:
        return f"the {what} {_beside(now.near)}, which was {_beside(was.near or '')}"
    if seen.text and was.text and seen.text != was.text:
        return f'the {what} in "{_short(seen.text)}", which was in "{_short(was.text)}"'
    if seen.count == was.count:
        return f"the only {what} there, where there were several"
    return f"a {what} of which there are {seen.count} there instead of {was.count}"


def _beside(name: str) -> str:
    return f'in "{_short(name)}"' if name else "below no heading"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
