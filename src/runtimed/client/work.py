"""Performs a plain function: the blocking face waits for it as for everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["work"]

P = ParamSpec("P")
T = TypeVar("T")


def work(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function, and return what it returns."""
    return function(*args, **kwargs)
