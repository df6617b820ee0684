"""Performs a plain function that may take long, without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["work"]

P = ParamSpec("P")
T = TypeVar("T")


async def work(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread, and return what it returns."""
    return await asyncio.to_thread(function, *args, **kwargs)
