"""Reads the events of one execution for one reader, without the outputs beyond the daemon's limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from runtimed.protocol.codec import encode_event, is_clear
from runtimed.protocol.events import Clear, Event, Omitted
from runtimed.storage.session_store import SessionStore

__all__ = ["Entry", "ExecutionReader", "read_page"]

Entry = tuple[int, Event, bytes, int]
"""A committed event: number, event, encoded bytes, and the size of its execution's outputs up to and including it."""

_MAX_PAGE: Final = 2**20


class ExecutionReader:
    """A cursor over the events of one execution.

    An output is omitted if it makes the execution's outputs, since they were last cleared, exceed the limit. So every
    reader sees the same omissions, wherever it begins.

    Attributes:
        execution_id: The execution.
        cursor: Number of the last event that was returned.
    """

    def __init__(
        self, store: SessionStore, execution_id: str, *, after: int, limit: int | None, whole: bool = False
    ) -> None:
        """Begin to read.

        Args:
            store: The store of the events.
            execution_id: The execution.
            after: Number of the last event that the reader has.
            limit: Bytes of outputs above which an `Omitted` event stands for the rest; None for no limit.
            whole: Whether the outputs beyond the limit come behind it.
        """
        self._store = store
        self.execution_id = execution_id
        self._limit = limit
        self._whole = whole
        self._omits = False
        self._omitted_after = 0
        self.cursor = after

    def page(self, max_bytes: int = _MAX_PAGE) -> list[tuple[int, bytes]]:
        """Return the next stored events, as pairs of number and body; empty at the end.

        Raises:
            StorageError: If the next event is damaged.
        """
        if self._omits:
            return self._page_beyond(max_bytes)
        page = self._store.read_events(
            self.cursor, execution_id=self.execution_id, max_bytes=max_bytes, max_output=self._limit
        )
        if page:
            self.cursor = page[-1][0]
            return page
        if self._store.last_event_of_execution(self.execution_id) <= self.cursor:
            return []
        self._begin_to_omit()
        first = self.cursor, self.omission()
        return [first, *self._page_beyond(max_bytes)]

    def live(self, entries: Iterable[Entry]) -> Iterator[tuple[int, bytes]]:
        """Yield the reader's part of events that were just committed. It must have read all earlier ones."""
        for seq, event, body, output in entries:
            if event.execution_id != self.execution_id or seq <= self.cursor:
                continue
            if isinstance(event, Clear):
                if self._omits:
                    yield self.cursor, self.omission(seq - 1)
                self._omits = False
            elif self._limit is not None and output > self._limit:
                if not self._omits:
                    self._begin_to_omit()
                    yield self.cursor, self.omission()
                if not self._whole:
                    continue
            self.cursor = seq
            yield seq, body

    def omission(self, upto: int | None = None) -> bytes:
        """Return the event that reports the omitted outputs.

        It has the number of the event before it: a reader that has it continues from there.

        Args:
            upto: Count the outputs up to this number; None for all.
        """
        before = self._store.output_size(self.execution_id, self._omitted_after)
        size = self._store.output_size(self.execution_id, upto) - before
        return encode_event(
            Omitted(at=0.0, execution_id=self.execution_id, after=self._omitted_after, size=max(size, 1))
        )

    @property
    def omits(self) -> bool:
        """Whether outputs are being omitted."""
        return self._omits

    def _begin_to_omit(self) -> None:
        self._omits = True
        self._omitted_after = self.cursor

    def _page_beyond(self, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return the next page beyond the limit, up to the event that clears the outputs; an omission precedes that."""
        page = self._store.read_events(
            self.cursor, execution_id=self.execution_id, max_bytes=max_bytes, outputs=self._whole
        )
        for i, (seq, body) in enumerate(page):
            if is_clear(body):
                page[i:] = [(page[i - 1][0] if i else self.cursor, self.omission(seq - 1)), (seq, body)]
                self._omits = False
                break
        if page:
            self.cursor = page[-1][0]
        return page


def read_page(reader: ExecutionReader, max_bytes: int) -> tuple[list[tuple[int, bytes]], bool]:
    """Read about `max_bytes` bytes of events for a reply; return them, and whether they are all.

    A reader that begins at this one's cursor continues where this one ends.
    """
    found: list[tuple[int, bytes]] = []
    while max_bytes > 0 and (page := reader.page(max_bytes)):
        found += page
        max_bytes -= sum(len(body) for _seq, body in page)
    return found, max_bytes > 0
