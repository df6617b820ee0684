# Made from async_pages.py by `python -m tests.blocking_face`: edit that one.

"""Iterates over what comes in pages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from runtimed.client.calls.pages import Page, Pages
from runtimed.client.flows import Flow

__all__ = ["Items"]

T = TypeVar("T")


class Items(Iterator[T]):
    """The items of something long, one after another: the next page is asked for when the one before is used up.

    What changes between two pages may be missed or come twice. Leaving the loop early leaves nothing open.
    """

    def __init__(self, perform: Callable[[Flow[Page[T]]], Page[T]], pages: Pages[T]) -> None:
        """Ask for nothing yet.

        Args:
            perform: Makes a call.
            pages: What to read.
        """
        self._perform = perform
        self._pages = pages
        self._items: deque[T] = deque()
        self._next: int | None = pages.start

    def __next__(self) -> T:
        while not self._items:
            if self._next is None:
                raise StopIteration
            page = self._perform(self._pages.page(self._next))
            self._items.extend(page.items)
            self._next = page.next
        return self._items.popleft()
