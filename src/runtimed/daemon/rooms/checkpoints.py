"""Moves what a session has stored from the write-ahead log into its database, in a thread.

A checkpoint waits for the disk: 20 to 100 ms, several times a second while a kernel floods. On the event loop it would
hold up everybody; so it is this session's bulk alone that waits, and requests for this session.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Final

from runtimed.daemon.flow import Flow
from runtimed.errors import StorageError
from runtimed.storage.session_store import SessionStore

__all__ = ["Checkpoints"]

logger = logging.getLogger(__name__)

RETRY: Final = 5.0
"""Seconds after a checkpoint that failed, on a full disk for example, before the next attempt."""


class Checkpoints:
    """The checkpoints of one session's database, one at a time."""

    def __init__(self, store: SessionStore, flow: Flow) -> None:
        self._store = store
        self._flow = flow
        self._busy = False

    def look(self) -> None:
        """Begin a checkpoint soon if it is time for one; call this after a commit."""
        if not self._busy and self._store.wal_is_long:
            self._busy = True
            self._flow.hold()
            # Whoever has just committed may want to read or write a little more.
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        if self._store.is_closed:
            return
        loop, work = asyncio.get_running_loop(), self._store.begin_checkpoint()

        def run() -> None:
            error: StorageError | None = None
            try:
                work()
            except StorageError as exc:
                error = exc
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                loop.call_soon_threadsafe(self._end, error)

        try:
            # No pool: were all its threads taken, whoever needs the database would wait for them.
            threading.Thread(target=run, name="checkpoint").start()
        except RuntimeError as exc:
            logger.warning("no thread for a checkpoint: %s", exc)
            run()

    def _end(self, error: StorageError | None) -> None:
        self._flow.release()
        if error is None:
            self._busy = False
        else:
            logger.error("the log of the database grows until it can be emptied: %s", error)
            asyncio.get_running_loop().call_later(RETRY, self._allow)

    def _allow(self) -> None:
        self._busy = False
