"""Lengths of time that users give: what each may be, and the default. Nothing here waits."""

from __future__ import annotations

import math
from numbers import Real
from typing import Final, cast

__all__ = ["DEFAULT_TIMEOUT", "LONGEST", "check_duration", "read_duration"]

DEFAULT_TIMEOUT: Final = 60.0
"""Seconds for which scripts wait for an execution unless they say otherwise. The magics wait without a limit: a person
can interrupt. In both, a timeout ends the waiting, never the execution."""

LONGEST: Final = 100 * 365.25 * 86_400
"""Seconds above which a length of time is without end; the clocks of operating systems take no larger ones."""


def check_duration(name: str, value: object, *, unit: float = 1.0) -> float | None:
    """Return a length of time, in the unit in which it was given; None if it is without end: None, infinite, or longer
    than LONGEST.

    Args:
        name: What users call it.
        value: What a user gave.
        unit: Seconds in one unit: 60 for minutes.

    Raises:
        ValueError: If it is no number, not a number (NaN), or negative. The sentence names it.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not cast("float", value) >= 0:
        raise ValueError(f"{name} must be a number, not negative, or None for no limit; not {value!r}")
    return float(value) if cast("float", value) < LONGEST / unit else None


def read_duration(text: str, unit: str = "seconds") -> float:
    """Return a length of time from what a user typed, infinite if it is without end: `none`, `inf`, or far too long.

    Args:
        text: What a user typed.
        unit: What it counts.

    Raises:
        ValueError: If it is nothing that `check_duration` takes. The sentence says what to write.
    """
    try:
        value = check_duration(unit, None if text.lower() == "none" else float(text))
    except ValueError:
        raise ValueError(f"must be a number of {unit}, not negative, or `none` for no limit; not {text!r}") from None
    return math.inf if value is None else value
