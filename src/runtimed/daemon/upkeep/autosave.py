"""Saves sessions into their notebook files, and has outside edits of the files merged, also when no client is there.

A process of its own reads and writes the files, as a client of this daemon: a hanging file system holds up nobody, and
a large notebook becomes JSON beside the event loop. The daemon decides when. If the process dies, another one begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import msgspec

from runtimed.daemon.registry import Registry
from runtimed.ids import SessionId
from runtimed.notebook_file.keeping import (
    Command,
    Keep,
    Leave,
    Report,
    Saved,
    SaveFile,
    Schedule,
    Seen,
    decoded,
    encoded,
)

__all__ = ["Autosave"]

logger = logging.getLogger(__name__)

KEEPER: Final = (sys.executable, "-P", "-m", "runtimed.autosave")
"""Command of the process that keeps the files."""

AT_ONCE: Final = 10.0
"""Seconds that a flush may take: who ends or deletes a session, or the daemon, waits for the last saves."""

MAX_BACKOFF: Final = 60.0
"""Longest time before another process is started, in seconds. The first time is one second, and then twice as many."""

KILL_DEADLINE: Final = 2.0
"""Seconds within which a killed process is gone."""

MAX_LINE: Final = 2**20
"""Longest line of a process, in bytes."""


@dataclass(slots=True)
class _Kept:
    """The file of one session.

    Attributes:
        path: Its real path.
        schedule: When it is due.
        problem: Why it was not saved the last time; until it is saved.
        notice: What is to say of the last outside edit.
        logged: What was said last.
    """

    path: str
    schedule: Schedule = field(default_factory=Schedule)
    problem: str | None = None
    notice: str | None = None
    logged: str | None = None


class Autosave:
    """The files of all sessions that are active or in use.

    Args:
        registry: Knows which session has which file.
        clock: Unix time in seconds.
        is_written: Whether an editor that is here writes a session's file itself.
        enabled: Whether to keep any files.
    """

    def __init__(
        self,
        registry: Registry,
        clock: Callable[[], float],
        is_written: Callable[[SessionId, str], bool],
        *,
        enabled: bool,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._is_written = is_written
        self._is_enabled = enabled
        self._is_finished = False
        self._kept: dict[SessionId, _Kept] = {}
        self._lost: dict[SessionId, str] = {}  # the path that became another one's, by the session that had it
        self._process: Process | None = None
        self._work: asyncio.Task[None] | None = None
        self._backoff = 1.0
        self._start_at = 0.0
        self._progress = asyncio.Event()

    def begin(self) -> None:
        """Keep the files of the active sessions. Whether an earlier daemon has saved them is unknown."""
        for session_id, path in self._registry.files_of_active():
            self._keep(session_id, path)
            self.changed(session_id)

    def set_file(self, session_id: SessionId, path: str, record: str | None) -> None:
        """Store what a session knows of its file, and keep it; see `Registry.set_file`."""
        former = self._registry.owner_of_file(path)
        self._registry.set_file(session_id, path, record)
        for other in [one for one, kept in self._kept.items() if kept.path == path and one != session_id]:
            self.forget(other)
        if record is None:
            self.forget(session_id)
            return
        self._lost.pop(session_id, None)
        if former is not None and former != session_id:
            self._lost[former] = path
        if session_id not in self._kept or self._kept[session_id].path != path:
            self._keep(session_id, path)
            self.changed(session_id)  # it may have more than the file that it was opened with

    def opened(self, session_id: SessionId) -> None:
        """Keep the file of a session that is opened, if it has one."""
        if session_id not in self._kept and (record := self._registry.file(session_id)) is not None:
            self._keep(session_id, record.path)

    def changed(self, session_id: SessionId) -> None:
        """Note that something has changed that a session's file shows."""
        if (kept := self._kept.get(session_id)) is not None:
            kept.schedule.changed(self._clock())

    def forget(self, session_id: SessionId) -> None:
        """Keep the file of a session no more. Idempotent."""
        self._lost.pop(session_id, None)
        if self._kept.pop(session_id, None) is not None:
            self._tell(Leave(session_id=session_id))

    def notice(self, session_id: SessionId) -> str | None:
        """Return what there is to say of a session's file; None if it and the session agree, or will soon."""
        kept = self._kept.get(session_id)
        if kept is None:
            return self._loss(session_id)
        problem = None if self._is_written(session_id, kept.path) else kept.problem
        return problem or kept.notice

    def tick(self, now: float, in_use: Callable[[SessionId], bool]) -> float:
        """Do what is due; return the seconds until the next call.

        Args:
            now: Unix time in seconds.
            in_use: Whether a session is open.
        """
        if self._is_finished:
            return math.inf
        for session_id, kept in list(self._kept.items()):
            row = self._registry.find(session_id)
            is_over = (row is None or row.status != "active") and not in_use(session_id)
            if is_over and (kept.schedule.is_saved or kept.problem is not None):
                self.forget(session_id)
        if not self._kept:
            self._release()
        elif now >= self._start_at:
            self._start()
        for session_id in self._unsaved():
            due = self._kept[session_id].schedule.due_at
            if due is not None and due <= now:
                self._save(session_id)
        later = (self._kept[session_id].schedule.due_at for session_id in self._unsaved())
        return min((max(0.0, due - now) for due in later if due is not None), default=math.inf)

    async def flush(self, session_ids: Collection[SessionId]) -> None:
        """Save what is not saved yet of some sessions, as far as it succeeds in `AT_ONCE` seconds. Idempotent.

        Each is tried once. What fails is tried again later.
        """
        waiting, told = [one for one in self._unsaved() if one in session_ids], set[SessionId]()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AT_ONCE):
                while waiting:
                    if self._work is None:
                        await asyncio.sleep(self._start_at - self._clock())
                        self._start()
                    for session_id in waiting:
                        kept = self._kept.get(session_id)
                        if kept is not None and self._process is not None and kept.schedule.due_at is not None:
                            self._save(session_id)
                            told.add(session_id)
                    self._progress.clear()
                    await self._progress.wait()
                    waiting = [one for one in waiting if self._is_awaited(one, one in told)]

    async def finish(self) -> None:
        """Save what is not saved yet, as `flush` does, and nothing later. Idempotent."""
        if not self._is_finished:
            self._is_finished = True
            await self.flush(self._kept.keys())

    async def close(self) -> None:
        """Let the process end. Idempotent."""
        self._release()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    def _loss(self, session_id: SessionId) -> str | None:
        """Return the sentence for a session whose file is another one's now."""
        path = self._lost.get(session_id)
        owner = None if path is None else self._registry.owner_of_file(path)
        if owner is None:
            return None
        return f"{path} is the file of the session {owner!r} now: join that one, or save this one to another path"

    def _keep(self, session_id: SessionId, path: str) -> None:
        if not self._is_enabled:
            return
        self._kept[session_id] = _Kept(path)
        self._tell(Keep(session_id=session_id, path=path))

    def _unsaved(self) -> list[SessionId]:
        """Return the sessions that are to be saved, now or later."""
        return [
            session_id
            for session_id, kept in self._kept.items()
            if not kept.schedule.is_saved and not self._is_written(session_id, kept.path)
        ]

    def _is_awaited(self, session_id: SessionId, told: bool) -> bool:
        """Whether a flush waits for a session, which it has told the process to save, or not yet."""
        kept = self._kept.get(session_id)
        return kept is not None and (kept.schedule.is_saving if told else not kept.schedule.is_saved)

    def _save(self, session_id: SessionId) -> None:
        if self._process is not None:
            self._kept[session_id].schedule.begin()
            self._tell(SaveFile(session_id=session_id))

    # --- the process ---

    def _tell(self, command: Command) -> None:
        stdin = None if self._process is None else self._process.stdin
        if stdin is not None and not stdin.is_closing():  # uvloop raises when the process has just died
            stdin.write(encoded(command))

    def _start(self) -> None:
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._run())

    def _release(self) -> None:
        """Let the process end, as its standard input does."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process = None

    async def _run(self) -> None:
        """Run one process to its end."""
        began = self._clock()
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *KEEPER, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=MAX_LINE, cwd="/", start_new_session=True
            )
            said = asyncio.get_running_loop().create_task(_log(process.stderr))  # type: ignore[arg-type]  # a pipe
            for session_id, kept in self._kept.items():
                self._tell(Keep(session_id=session_id, path=kept.path))
            self._progress.set()
            try:
                while line := await process.stdout.readline():  # type: ignore[union-attr]  # it is a pipe
                    self._take(decoded(line))
            finally:
                said.cancel()
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                with contextlib.suppress(TimeoutError):  # one that hangs in a file system cannot be killed
                    await asyncio.wait_for(process.wait(), KILL_DEADLINE)
        except (OSError, ValueError, msgspec.MsgspecError) as exc:
            logger.error("the process that keeps notebook files failed: %s", exc)  # noqa: TRY400
            self._fail(began)
        else:
            if self._process is not None:
                logger.error("the process that keeps notebook files died")
                self._fail(began)
        finally:
            self._work = None
            self._ended()

    def _take(self, report: Command | Report) -> None:
        kept = self._kept.get(report.session_id)
        now = self._clock()
        if kept is None:
            return
        match report:
            case Saved(took=took, problem=None):
                kept.problem = None
                kept.schedule.end(now, took)
            case Saved(took=took, problem=problem):
                kept.problem = problem
                kept.schedule.fail(now, took)
            case Seen(notice=notice):
                kept.notice = notice
                kept.schedule.retry()  # perhaps the file kept itself from being saved
        said = self.notice(report.session_id)
        if said is not None and said != kept.logged:
            logger.warning("session %r: %s", report.session_id, said)
        kept.logged = said
        self._progress.set()

    def _fail(self, began: float) -> None:
        """Let the next process wait: twice as long as the one before if that did not live long."""
        now = self._clock()
        self._backoff = 1.0 if now - began > MAX_BACKOFF else min(2 * self._backoff, MAX_BACKOFF)
        self._start_at = now + self._backoff

    def _ended(self) -> None:
        now, self._process = self._clock(), None
        for kept in self._kept.values():
            if kept.schedule.is_saving:
                kept.schedule.fail(now, 0.0)
        self._progress.set()


async def _log(errors: asyncio.StreamReader) -> None:
    """Write what the process says of its own mistakes into the daemon's log."""
    while line := await errors.readline():
        logger.error("%s", line.decode(errors="replace").rstrip())
