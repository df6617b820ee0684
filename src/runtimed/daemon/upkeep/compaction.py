"""Compacts a room's document: the daemon's loop goes on between small steps, and another process verifies the result.

The old document stays, in memory and in storage, until a snapshot of the fresh one was loaded by a process of its own
and said the same. Whatever happens before that, this daemon's end included, leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import time
from collections.abc import Generator, Sequence
from typing import Final, TypeVar

from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.verifying import DEADLINE, VERIFIER, run
from runtimed.document.compaction import FINGERPRINT_SIZE, Compaction, fingerprint
from runtimed.errors import StorageError
from runtimed.ids import SessionId

__all__ = ["compact"]

logger = logging.getLogger(__name__)

SLICE: Final = 0.003
"""Seconds of steps after which the loop is left to everybody else."""

REST: Final = 0.01
"""Seconds until the next slice."""

PASSES: Final = 3
"""How often what was edited during the verification is written in slices; each pass has less to write than the one
before, and what the last one leaves is written at once."""

_T = TypeVar("_T")


async def compact(
    notebook_id: SessionId,
    document: SharedDocument,
    *,
    verifier: Sequence[str] = VERIFIER,
    deadline: int = DEADLINE,
) -> bool:
    """Put a document without history in the place of one that has much; it may be edited meanwhile.

    Returns:
        Whether it was done. If not, the log says why.
    """
    attempt = _Attempt(document)
    began, dropped = time.monotonic(), document.changes
    try:
        await attempt.run([*verifier, str(deadline), "snapshot"], deadline)
    except _DroppedError:
        logger.info("session %r was closed while its document was compacted", notebook_id)
        return False
    except StorageError as exc:
        logger.error("the document of session %r keeps its history: %s", notebook_id, exc)  # noqa: TRY400  # a sentence
    except Exception:
        logger.exception("the document of session %r cannot be compacted", notebook_id)
    else:
        logger.info(
            "compacted the document of session %r: %d changes less in %.1f s, the loop was held for %.0f ms at most",
            notebook_id,
            dropped - document.changes,
            time.monotonic() - began,
            attempt.longest * 1e3,
        )
        return True
    document.postpone_compaction()
    return False


class _DroppedError(Exception):
    """The document that was to be replaced is not there any more."""


class _Attempt:
    """One compaction.

    Attributes:
        longest: The longest time that the loop was held, in seconds.
    """

    def __init__(self, document: SharedDocument) -> None:
        self._document = document
        self.longest = 0.0

    async def run(self, verifier: Sequence[str], deadline: float) -> None:
        """Build, verify, replace.

        Raises:
            StorageError: If the fresh document is not verified or cannot be stored; the old one is as it was.
        """
        if self._document.loaded is None:
            raise _DroppedError
        compaction = Compaction(self._document.loaded)
        await self._in_slices(compaction, compaction.catch_up())
        changes = compaction.take_changes()
        expected = await self._in_slices(compaction, fingerprint(compaction.document))
        snapshot = await _verified(changes, expected, verifier, deadline)
        for _ in range(PASSES):
            await self._in_slices(compaction, compaction.catch_up())
        began = time.perf_counter()
        self._document.replace(compaction, snapshot)
        self._note(began)
        await asyncio.sleep(REST)
        began = time.perf_counter()
        del compaction  # With it goes the old document, in one go: 15 ms for 1,000 cells of 130 code points.
        self._note(began)
        await asyncio.to_thread(_give_back_memory)

    async def _in_slices(self, compaction: Compaction, steps: Generator[None, None, _T]) -> _T:
        while True:
            if self._document.loaded is not compaction.source:
                raise _DroppedError
            began = time.perf_counter()
            try:
                while time.perf_counter() - began < SLICE:
                    next(steps)
            except StopIteration as end:
                result: _T = end.value
                return result
            finally:
                self._note(began)
            await asyncio.sleep(REST)

    def _note(self, began: float) -> None:
        self.longest = max(self.longest, time.perf_counter() - began)


def _give_back_memory() -> None:
    """Give the old document's memory back to the system: glibc keeps most of it otherwise (482 MiB; then 36)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # other C libraries give it back by themselves, or cannot
        trim(0)


async def _verified(changes: bytes, expected: bytes, verifier: Sequence[str], deadline: float) -> bytes:
    """Return the snapshot of the document that these changes make, loaded and compared by another process.

    Raises:
        StorageError: If that process fails, takes too long, or finds something else.
    """
    ended = await run(verifier, changes, deadline)
    if ended.code is None:
        raise StorageError(f"a copy without it was not loaded within {deadline} seconds")
    if ended.code:
        raise StorageError(f"the process that loads a copy without it ended with {ended.code}: {ended.words}")
    if ended.answer[:FINGERPRINT_SIZE] != expected:
        raise StorageError("a copy without it says something else when it is loaded")
    return ended.answer[FINGERPRINT_SIZE:]
