"""How much a message from outside may hold: types of fields that a decoder enforces. Nothing here decodes one.

Every number, list and map of an operation has one of these types, so that none is NaN, infinite or without an end.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from runtimed.durations import LONGEST

__all__ = [
    "MAX_ITEMS",
    "MAX_NUMBER",
    "Environment",
    "Expressions",
    "Index",
    "Minutes",
    "Number",
    "Page",
    "Seconds",
    "Texts",
]

MAX_NUMBER: Final = 2**53 - 1
"""Largest whole number: JavaScript and SQLite hold it exactly, and it may be counted on."""

MAX_ITEMS: Final = 2**15
"""Most items of one list or map in an operation."""

Index = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Page = Annotated[int, Meta(ge=1, le=2**31)]
Number = Annotated[int, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Seconds = Annotated[float, Meta(ge=0, le=LONGEST)]
Minutes = Annotated[float, Meta(ge=0, le=LONGEST / 60)]
Texts = Annotated[list[str], Meta(max_length=MAX_ITEMS)]
Environment = Annotated[dict[str, str], Meta(max_length=MAX_ITEMS)]
Expressions = Annotated[dict[str, str], Meta(max_length=MAX_ITEMS)]
