"""Validates and parses durations that users give. Nothing here waits."""

from __future__ import annotations

import math
import reprlib
from numbers import Real
from typing import Final, cast

from runtimed.errors import InvalidArgument

__all__ = ["DEFAULT_TIMEOUT", "LONGEST", "check_duration", "read_duration"]

DEFAULT_TIMEOUT: Final = 60.0
"""Default of `timeout_secs` in scripts, in seconds. The magics have no limit, since a person can interrupt them. A
timeout ends the waiting, never the execution."""

LONGEST: Final = 100 * 365.25 * 86_400
"""Longest duration, in seconds; longer ones count as infinite, since the system's clocks do not accept them."""


def check_duration(name: str, value: object, *, unit: float = 1.0) -> float | None:
    """Return a duration in its unit; None for no limit, which is None, infinity, or longer than LONGEST.

    Args:
        name: Its name in the error.
        value: The user's value.
        unit: Seconds in its unit, such as 60 for minutes.

    Raises:
        InvalidArgument: If it is not a number, NaN, or negative.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not cast("float", value) >= 0:
        raise InvalidArgument(
            f"{name} must be a number, not negative, or None for no limit; not {reprlib.repr(value)}", argument=name
        )
    return float(value) if cast("float", value) < LONGEST / unit else None


def read_duration(text: str, unit: str = "seconds") -> float:
    """Parse a duration; infinity for no limit, which is `none`, `inf`, or a number that is too large.

    Args:
        text: The user's input.
        unit: Name of its unit in the error.

    Raises:
        ValueError: If `check_duration` refuses it; the message says what to write.
    """
    try:
        value = check_duration(unit, None if text.lower() == "none" else float(text))
    except ValueError:
        raise ValueError(f"must be a number of {unit}, not negative, or `none` for no limit; not {text!r}") from None
    return math.inf if value is None else value
