"""Checkpoints of a session's database: moves the WAL into the database file, in a thread.

A checkpoint waits for the disk: 20 to 100 ms, several times a second while a kernel floods. On the event loop it would
hold up every session. In a thread it holds up only this session's bulk and requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Final

from runtimed.daemon.flow import Flow
from runtimed.errors import StorageError
from runtimed.ids import SessionId
from runtimed.storage.session_store import SessionStore

__all__ = ["Checkpoints"]

logger = logging.getLogger(__name__)

RETRY: Final = 5.0
"""Seconds from a failed checkpoint, on a full disk for example, to the next attempt."""


class Checkpoints:
    """The checkpoints of one session's database, one at a time."""

    def __init__(self, notebook_id: SessionId, store: SessionStore, flow: Flow) -> None:
        self._notebook_id = notebook_id
        self._store = store
        self._flow = flow
        self._busy = False

    def look(self) -> None:
        """Begin a checkpoint soon if the WAL is long; called after each commit."""
        if not self._busy and self._store.wal_is_long:
            self._busy = True
            self._flow.hold()
            # In a later turn: the caller has just committed, and may read or write a little more.
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
            # Not in a pool: while all its threads are taken, requests for the session would wait for one.
            threading.Thread(target=run, name="checkpoint").start()
        except RuntimeError as exc:
            logger.warning("session %r: no thread for a checkpoint, which blocks now: %s", self._notebook_id, exc)
            run()

    def _end(self, error: StorageError | None) -> None:
        self._flow.release()
        if error is None:
            self._busy = False
        else:
            logger.error("session %r: the WAL grows until a checkpoint succeeds: %s", self._notebook_id, error)
            asyncio.get_running_loop().call_later(RETRY, self._allow)

    def _allow(self) -> None:
        self._busy = False
