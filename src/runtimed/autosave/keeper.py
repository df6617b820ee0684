"""Saves sessions into their notebook files when the daemon says so, and merges what others change in the files.

A file is looked at twice a second: that sees every change on every file system, network ones included, which
notifications do not, and costs some microseconds. It is read once it has stayed the same for that time, so that nobody
reads a file that is half written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtimed.client import AsyncSession
from runtimed.client.aio import AsyncConnection
from runtimed.errors import RuntimedError
from runtimed.ids import SessionId
from runtimed.notebook_file.keeping import Keep, Leave, Report, Saved, SaveFile, Seen, decoded
from runtimed.storage.notebook_files import Identity, identity_of, renamed_to

__all__ = ["Keeper"]

logger = logging.getLogger(__name__)

LOOK: Final = 0.5
"""Seconds between two looks at a file."""

_UNKNOWN: Final[Identity] = ()


class _Session(AsyncSession):
    """A handle that does not join its session: it is no peer, and starts no daemon."""

    def _prepare(self) -> None:
        self._connection = AsyncConnection(self._identity, start_daemon=False)

    async def settled(self, path: Path) -> Identity | None:
        """Return which file there is, when nobody is about to write it."""
        async with self._saving():
            return await asyncio.to_thread(identity_of, path)


@dataclass(slots=True)
class _Kept:
    """The file of one session.

    Attributes:
        path: Its real path.
        known: The file that was last read or written; None if there is none.
        is_gone: Whether it is not there any more.
        is_refused: Whether the last save failed. The next one reads the file first: perhaps it misses something there.
        notice: What was said of it.
        turn: Held by who reads or writes it.
        looking: Watches it.
    """

    session_id: SessionId
    path: Path
    known: Identity | None = _UNKNOWN
    is_gone: bool = False
    is_refused: bool = False
    notice: str | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    looking: asyncio.Task[None] | None = None


class Keeper:
    """Keeps the files of any number of sessions.

    Args:
        report: Tells the daemon.
    """

    def __init__(self, report: Callable[[Report], None]) -> None:
        self._report = report
        self._kept: dict[SessionId, _Kept] = {}
        self._saving: set[asyncio.Task[None]] = set()

    def take(self, line: bytes) -> None:
        """Begin to do what the daemon says."""
        match decoded(line):
            case Keep(session_id=session_id, path=path):
                self._leave(session_id)
                self._kept[session_id] = kept = _Kept(session_id, Path(path))
                kept.looking = asyncio.create_task(self._look(kept))
            case Leave(session_id=session_id):
                self._leave(session_id)
            case SaveFile(session_id=session_id) if session_id in self._kept:
                task = asyncio.create_task(self._save(self._kept[session_id]))
                self._saving.add(task)
                task.add_done_callback(self._saving.discard)

    async def close(self) -> None:
        """Leave all files."""
        tasks = [*self._saving, *(kept.looking for kept in self._kept.values() if kept.looking is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _leave(self, session_id: SessionId) -> None:
        kept = self._kept.pop(session_id, None)
        if kept is not None and kept.looking is not None:
            kept.looking.cancel()

    async def _look(self, kept: _Kept) -> None:
        """Merge each change of the file, once it has settled."""
        last: Identity | None = _UNKNOWN
        while True:
            now = await asyncio.to_thread(identity_of, kept.path)
            if now == last and now != kept.known:
                async with kept.turn:
                    await self._merge(kept)
            last = now
            await asyncio.sleep(LOOK)

    async def _save(self, kept: _Kept) -> None:
        began, problem = time.monotonic(), None
        async with kept.turn:
            if kept.is_refused or await asyncio.to_thread(identity_of, kept.path) != kept.known:
                await self._merge(kept)
            if kept.is_gone:
                problem = kept.notice
            else:
                problem = await _said(kept, AsyncSession.save)
                if problem is None:
                    kept.known = await asyncio.to_thread(identity_of, kept.path)
            kept.is_refused = problem is not None and not kept.is_gone
        self._report(Saved(session_id=kept.session_id, took=time.monotonic() - began, problem=problem))

    async def _merge(self, kept: _Kept) -> None:
        """Take what the file has into the session, and note which file that was."""
        former = kept.known

        async def merge(session: _Session) -> str | None:
            kept.known = await session.settled(kept.path)
            gone = await asyncio.to_thread(_gone, kept.path, kept.known, former)
            kept.is_gone = gone is not None
            if gone is not None:
                return gone
            opened = await session.open_notebook(kept.path)
            return ". ".join(opened.differences) or None

        kept.notice = await _said(kept, merge)
        self._report(Seen(session_id=kept.session_id, notice=kept.notice))


async def _said(kept: _Kept, work: Callable[[_Session], Awaitable[object]]) -> str | None:
    """Do something with a session; return what it says, or why it failed, in sentences."""
    session = _Session(kept.session_id, label="autosave")
    try:
        await session.connect()
        said = await work(session)
    except RuntimedError as exc:
        return exc.message
    except Exception as exc:
        logger.exception("%s is not kept", kept.path)
        return f"{kept.path} is not kept: {exc!r}"
    finally:
        await session.close()
    return said if isinstance(said, str) else None


def _gone(path: Path, present: Identity | None, former: Identity | None) -> str | None:
    """Return the sentence for a file that is gone, or a link now; None if it is there."""
    real = Path(os.path.realpath(path))
    if present is not None:
        if real == path:
            return None
        return f"{path} leads to {real} now: open_notebook({str(real)!r}) makes that one the session's file"
    now = None if former is None else renamed_to(path, former)
    if now is not None:
        return f"{path} was renamed to {now.name}: open_notebook({str(now)!r}) makes it the session's file again"
    return f"{path} was deleted or moved: the session has its cells, and save({str(path)!r}) writes them again"
