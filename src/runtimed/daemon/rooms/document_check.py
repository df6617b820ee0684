"""Decides about a document that is in doubt: a process of its own loads it, while requests for its session wait.

Nothing is set aside but what that process has found damaged; see `verifying`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from runtimed.daemon.flow import Flow
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.verifying import Finding, Judgement, verify
from runtimed.document.restoring import decode_restored, encode_pair
from runtimed.document.stored import StoredRow, encode_stored
from runtimed.errors import SessionError, StorageError
from runtimed.ids import SessionId
from runtimed.storage.aside import databases_aside, document_aside, forget_document, note_document, shown_code
from runtimed.storage.session_store import SessionStore

__all__ = ["DocumentCheck"]

logger = logging.getLogger(__name__)

RETRY: Final = 5.0
"""Seconds after which a document that could not be verified is tried again, when somebody asks for it."""

ATTEMPTS: Final = 3
"""How often restoring begins anew because the present document was edited meanwhile."""


class DocumentCheck:
    """The checks of one session's document, one at a time."""

    def __init__(
        self, notebook_id: SessionId, path: Path, store: SessionStore, flow: Flow, report: Callable[[str], None]
    ) -> None:
        self._notebook_id = notebook_id
        self._path = path
        self._store = store
        self._flow = flow
        self._report = report
        self._task: asyncio.Task[None] | None = None
        self._ended_at = -RETRY
        self._restoring = 0
        self._clear_notes()

    @property
    def is_running(self) -> bool:
        """Whether requests for the session wait for a finding."""
        return self._task is not None

    @property
    def is_busy(self) -> bool:
        """Whether anything goes on here that needs the database."""
        return self._task is not None or self._restoring > 0

    def close(self) -> None:
        """Check nothing any more. Closing twice is harmless."""
        if self._task is not None:
            self._task.cancel()

    def begin(self, document: SharedDocument) -> None:
        """Begin a check, unless one runs or has just ended."""
        if self._task is None and time.monotonic() - self._ended_at >= RETRY:
            self._flow.hold()
            self._task = asyncio.get_running_loop().create_task(self._run(document))

    async def _run(self, document: SharedDocument) -> None:
        try:
            rows = document.stored_rows()
            finding = await verify("load", encode_stored(rows), ballast=_own_memory()) if rows else _NOTHING
            self._act(document, finding)
        except (StorageError, OSError) as exc:
            document.not_verified(str(exc))
            logger.error("the notebook of session %r is not verified: %s", self._notebook_id, exc)  # noqa: TRY400
        finally:
            self._ended_at = time.monotonic()
            self._task = None
            self._flow.release()

    def _act(self, document: SharedDocument, finding: Finding) -> None:
        match finding.judgement:
            case Judgement.HEALTHY:
                document.found_healthy()
                logger.info("a process of its own has loaded the notebook of session %r", self._notebook_id)
            case Judgement.UNKNOWN:
                document.not_verified(finding.reason)
                self._report(f"The notebook of session {self._notebook_id!r} cannot be read now: {finding.reason}")
            case Judgement.DAMAGED:
                # The note comes first: dying in between leaves one too many, which the next opening of it removes.
                note_document(self._path, self._notebook_id, finding.reason, time.time())
                document.found_damaged(finding.reason)
                logger.error("the notebook of session %r was set aside: %s", self._notebook_id, finding.reason)

    def _clear_notes(self) -> None:
        """Let the note beside the database say what is in it."""
        there = self._store.set_aside_at()
        try:
            if not there:
                forget_document(self._path)
            elif document_aside(self._path) is None:
                note_document(self._path, self._notebook_id, "an earlier daemon did so, and left no reason", there[-1])
        except (StorageError, OSError) as exc:
            logger.warning("session %r: %s", self._notebook_id, exc)

    async def restore(self, document: SharedDocument) -> int:
        """Bring back every document that was set aside and is whole, and return how many cells that gave.

        Raises:
            SessionError: If there is none.
            StorageError: If one cannot be brought back; it is kept as it is, and the present document, too.
        """
        if not self._store.set_aside_at():
            raise self._nothing_to_restore()
        if self._task is not None:
            await asyncio.wait({self._task})
        document.acknowledge()
        cells = 0
        self._restoring += 1
        self._flow.hold()
        try:
            # The latest first: each puts its cells before those that are there.
            for at in reversed(self._store.set_aside_at()):
                cells += await self._restore_one(document, at)
        finally:
            self._restoring -= 1
            self._flow.release()
            if not self._store.is_closed:
                self._clear_notes()
        return cells

    def _nothing_to_restore(self) -> SessionError:
        kept = databases_aside(self._path)
        if not kept:
            text = f"Nothing of the notebook of session {self._notebook_id!r} was set aside"
        else:
            text = (
                f"The whole database of session {self._notebook_id!r} was found damaged and is kept as {kept[-1]}; it "
                "cannot be brought back, and the session goes on with an empty notebook. "
                f"{shown_code(kept[-1])}; copy what you need into new cells"
            )
        return SessionError(text, notebook_id=self._notebook_id)

    async def _restore_one(self, document: SharedDocument, at: float) -> int:
        aside = [StoredRow(*row) for row in self._store.document_set_aside(at)]
        for _ in range(ATTEMPTS):
            heads = document.load().heads
            present = document.stored_rows()
            finding = await verify("restore", encode_pair(aside, present), ballast=_own_memory())
            if finding.judgement is not Judgement.HEALTHY:
                raise StorageError(
                    f"The notebook of session {self._notebook_id!r} that was set aside cannot be brought back: "
                    f"{finding.reason}. It is kept as it is",
                    notebook_id=self._notebook_id,
                )
            if document.load().heads == heads:
                restored = decode_restored(finding.answer)
                document.restore(at, restored)
                logger.info("%d cells of session %r were brought back", len(restored.cells), self._notebook_id)
                return len(restored.cells)
        raise StorageError(
            f"The notebook of session {self._notebook_id!r} is edited all the time; nothing was brought back",
            notebook_id=self._notebook_id,
        )


_NOTHING: Final = Finding(Judgement.HEALTHY)


def _own_memory() -> int:
    return int(psutil.Process().memory_info().rss)
