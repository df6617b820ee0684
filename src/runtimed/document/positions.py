"""Positions of cells: fractional index keys, whose text order is that of the cells. Nothing here knows a document.

A key is an integer part, whose first letter encodes its length, and a fraction in base 62. Appending and prepending
increment and decrement the integer part (`a0`, `a1`, …), so keys stay short. Inserting at one place again and again
adds a digit to the fraction every five or six times. There is always a key between two keys.

Source: David Greenspan, "Implementing Fractional Indexing" (2020).
"""

from __future__ import annotations

from typing import Final

__all__ = ["between", "is_position", "spread"]

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The digits in ASCII order, so that comparing keys as text compares them as numbers."""
_VALUE: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_BASE: Final = len(_DIGITS)
_ZERO: Final = "a0"
_SMALLEST: Final = "A" + "0" * 26
"""The smallest integer part. Not a key by itself, because there is no key before it."""


def between(low: str | None, high: str | None) -> str:
    """Return a key strictly between two keys; None is the open end.

    Raises:
        ValueError: If a bound is not a key, or `low` is not below `high`.
    """
    for bound in (low, high):
        if bound is not None and not is_position(bound):
            raise ValueError(f"not a position: {bound!r}")
    if low is None:
        return _ZERO if high is None else _below(high)
    if high is None:
        return _above(low)
    if low >= high:
        raise ValueError(f"{low!r} is not below {high!r}")
    head, head_high = _integer(low), _integer(high)
    if head == head_high:
        return head + _middle(low[len(head) :], high[len(head) :])
    following = _count_up(head)
    if following is not None and following < high:
        return following
    return head + _middle(low[len(head) :], None)


def spread(low: str | None, high: str | None, count: int) -> list[str]:
    """Return `count` ascending keys, all strictly between two keys; None is the open end.

    Raises:
        ValueError: As `between` does.
    """
    if count <= 0:
        return []
    if high is None:
        keys = []
        for _ in range(count):
            low = between(low, None)
            keys.append(low)
        return keys
    if low is None:
        keys = []
        for _ in range(count):
            high = between(None, high)
            keys.append(high)
        return keys[::-1]
    half = count // 2
    key = between(low, high)
    return [*spread(low, key, half), key, *spread(key, high, count - half - 1)]


def is_position(text: str) -> bool:
    """Whether a text is a valid key; a foreign document may hold anything."""
    if not text or not text.isascii() or not text.isalnum() or text[0].isdigit():
        return False
    size = _integer_size(text[0])
    return len(text) >= size and text != _SMALLEST and not (len(text) > size and text[-1] == "0")


def _above(low: str) -> str:
    head = _integer(low)
    following = _count_up(head)
    return following if following is not None else head + _middle(low[len(head) :], None)


def _below(high: str) -> str:
    head = _integer(high)
    if head < high:
        return head if head != _SMALLEST else head + _middle("", high[len(head) :])
    preceding = _count_down(head)
    return preceding if preceding != _SMALLEST else preceding + _middle("", None)


def _integer_size(letter: str) -> int:
    return ord(letter) - ord("a") + 2 if letter >= "a" else ord("Z") - ord(letter) + 2


def _integer(key: str) -> str:
    return key[: _integer_size(key[0])]


def _count_up(head: str) -> str | None:
    """Return the next integer part, None after the largest one."""
    digits = head[1:].rstrip("z")
    zeros = len(head) - 1 - len(digits)
    if digits:
        return head[0] + digits[:-1] + _DIGITS[_VALUE[digits[-1]] + 1] + "0" * zeros
    if head[0] == "Z":
        return _ZERO
    if head[0] == "z":
        return None
    letter = chr(ord(head[0]) + 1)
    return letter + "0" * (_integer_size(letter) - 1)


def _count_down(head: str) -> str:
    """Return the previous integer part; the smallest one has none."""
    digits = head[1:].rstrip("0")
    nines = len(head) - 1 - len(digits)
    if digits:
        return head[0] + digits[:-1] + _DIGITS[_VALUE[digits[-1]] - 1] + "z" * nines
    letter = "Z" if head[0] == "a" else chr(ord(head[0]) - 1)
    return letter + "z" * (_integer_size(letter) - 1)


def _middle(low: str, high: str | None) -> str:
    """Return a fraction between two fractions, none of which ends in 0. A loop, since fractions may grow very long."""
    digits: list[str] = []
    place = 0
    while True:
        floor = _VALUE[low[place]] if place < len(low) else 0
        ceiling = _BASE if high is None else _VALUE[high[place]]
        if ceiling - floor > 1:
            digits.append(_DIGITS[(floor + ceiling + 1) // 2])
            return "".join(digits)
        if ceiling == floor:
            digits.append(_DIGITS[floor])
        elif high is not None and place + 1 < len(high):
            digits.append(_DIGITS[ceiling])
            return "".join(digits)
        else:
            digits.append(_DIGITS[floor])
            high = None
        place += 1
