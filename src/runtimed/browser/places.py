"""Distinguishes twins: elements of one role and name, which a selector finds only by their order.

Pure functions over what `survey.js` tells; nothing here talks to a browser.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from runtimed.actions import Place

__all__ = ["Placed", "difference", "is_by_order"]

_BY_ORDER: Final = re.compile(r">> *nth=|:nth-|:(?:first|last|only)-")


class Placed(msgspec.Struct, frozen=True):
    """Where an element is among its twins.

    Attributes:
        twins: How many there are, itself included.
        near: The name or the heading of the part of the page in which it is; empty if there is none.
        near_it: How many of them have the same.
        text: That of the largest part of the page in which it is alone; empty where `near` tells it apart.
        with_text: How many of them have the same text, too.
    """

    twins: int
    near: str
    near_it: int
    text: str
    with_text: int

    def noted(self) -> Place:
        """Return as much as tells the element apart."""
        if self.twins == 1:
            return Place(1)
        return Place(1, self.near) if self.near_it == 1 else Place(self.with_text, self.near, self.text)

    def compared(self, with_: Place) -> Place:
        """Return the same of this element as was noted of another."""
        if with_.near is None:
            return Place(self.twins)
        if with_.text is None:
            return Place(self.near_it, self.near)
        return Place(self.with_text, self.near, self.text)


def is_by_order(selector: str) -> bool:
    """Whether a selector counts elements, so that on a changed page it may find another one."""
    return _BY_ORDER.search(selector) is not None


def difference(was: Place, now: Placed, what: str) -> str | None:
    """Return in words why an element is not surely the one that was noted; None if it is.

    Args:
        was: What was noted.
        now: Where the element is.
        what: What to call it.
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
