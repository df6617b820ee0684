"""Bounded types for the fields of operations, which the decoder enforces. Nothing here decodes a message.

Every number, list and map of an operation has one of these types, so none is NaN, infinite or unbounded.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from runtimed.durations import LONGEST

__all__ = [
    "MAX_ITEMS",
    "MAX_NUMBER",
    "Bodies",
    "Entries",
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
"""Largest integer: exact in JavaScript and SQLite, with room to increment it."""

MAX_ITEMS: Final = 2**15
"""Largest number of items in a list or map of an operation."""

Index = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Page = Annotated[int, Meta(ge=1, le=2**31)]
Number = Annotated[int, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Seconds = Annotated[float, Meta(ge=0, le=LONGEST)]
Minutes = Annotated[float, Meta(ge=0, le=LONGEST / 60)]
Bodies = Annotated[list[bytes], Meta(max_length=MAX_ITEMS)]
Texts = Annotated[list[str], Meta(max_length=MAX_ITEMS)]
Environment = Annotated[dict[str, str], Meta(max_length=MAX_ITEMS)]
Expressions = Annotated[dict[str, str], Meta(max_length=MAX_ITEMS)]
Entries = Annotated[dict[str, str], Meta(max_length=MAX_ITEMS)]
