# Made from async_pages.py by `python -m tests.blocking_face`: edit that one.

"""Iterates over paged lists."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from runtimed.client.calls.pages import Page, Pages
from runtimed.client.flows import Flow

__all__ = ["Items"]

T = TypeVar("T")


class Items(Iterator[T]):
    """The items of a paged list, one after another: the next page is requested once the previous one is used up.

    Items that change between two pages may be missed or come twice. Leaving the loop early leaves nothing open.
    """

    def __init__(self, perform: Callable[[Flow[Page[T]]], Page[T]], pages: Pages[T]) -> None:
        """Create an iterator, without a request.

        Args:
            perform: Makes a call.
            pages: The list.
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
