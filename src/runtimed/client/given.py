"""Checks of arguments that a call uses before it makes an operation of them; operations are checked when they are sent.

All errors are `InvalidArgument`, name the argument and say what to give.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence

from runtimed.errors import InvalidArgument

__all__ = ["check_callable", "check_choice", "check_count", "check_text_list"]


def check_text_list(name: str, value: Iterable[str]) -> list[str]:
    """Return the texts of a list, tuple, set or other iterable. A text is refused: its letters are not meant."""
    if isinstance(value, str):
        raise InvalidArgument(f"{name} is a list: give [{reprlib.repr(value)}]", argument=name)
    if isinstance(value, Iterable):
        texts = list(value)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise InvalidArgument(f"{name} is a list of str; not {reprlib.repr(value)}", argument=name)


def check_choice(name: str, value: object, known: Sequence[str], *, is_optional: bool = False) -> None:
    """Refuse what is none of the known words, or None where that is a choice."""
    if (value is None and is_optional) or (isinstance(value, str) and value in known):
        return
    words = [*known, *(["None"] if is_optional else [])]
    raise InvalidArgument(f"{name} is {', '.join(words[:-1])} or {words[-1]}; not {reprlib.repr(value)}", argument=name)


def check_count(name: str, value: int, least: int, most: int | None = None) -> int:
    """Return an int within bounds, both inclusive; None for no upper one."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value and (most is None or value <= most):
        return value
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    raise InvalidArgument(f"{name} is an int, {bounds}; not {reprlib.repr(value)}", argument=name)


def check_callable(name: str, value: object) -> None:
    """Refuse what cannot be called, but for None."""
    if value is not None and not callable(value):
        raise InvalidArgument(f"{name} is a function or None; not {reprlib.repr(value)}", argument=name)
