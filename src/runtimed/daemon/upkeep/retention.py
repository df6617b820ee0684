"""Deletes old data and unreferenced blobs, in small slices.

`rooms/pruning.py` decides what is too old in a session. Old lifecycle steps are deleted, too, but for the last one of
each session. Documents, cells and sessions are never deleted here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from runtimed.daemon.hosting.browser_folders import remove_old_folders
from runtimed.daemon.hosting.launcher import Launcher, Place
from runtimed.daemon.registry import Registry
from runtimed.daemon.rooms.pruning import has_old
from runtimed.daemon.rooms.room import Room
from runtimed.daemon.upkeep.trusted_time import TrustedTime
from runtimed.errors import ProtocolError, SessionError, StorageError
from runtimed.execution.outputs import blobs_in
from runtimed.ids import SessionId, stored_name
from runtimed.protocol.codec import decode_event
from runtimed.settings import DaemonLimits, Settings
from runtimed.storage.blobs import BlobStore
from runtimed.storage.database import remove_database
from runtimed.storage.session_store import SessionStore

__all__ = ["Retention", "RetentionOwner"]

logger = logging.getLogger(__name__)

FIRST: Final = 60.0
"""Seconds from the daemon's start to the first pass."""

EVERY: Final = 3600.0
"""Seconds between two passes."""

GRACE: Final = 24 * 3600.0
"""Seconds for which an unreferenced blob is kept: the event that refers to it may be in flight from a host."""

SLICE: Final = 0.003
"""Time slice of the steps, in seconds. Then everything else on the event loop has its turn."""

REST: Final = 0.02
"""Seconds between two slices."""

_MAX_SAID: Final = 100


class RetentionOwner(Protocol):
    """What a daemon offers for retention."""

    settings: Settings
    limits: DaemonLimits
    launcher: Launcher
    registry: Registry
    blobs: BlobStore
    sessions_dir: Path

    @property
    def open_ids(self) -> Iterable[SessionId]:
        """Ids of the open rooms; some have no session yet."""

    def open_room(self, notebook_id: SessionId) -> Room | None:
        """Return the room of a session; None if it is not open."""

    def room(self, notebook_id: str) -> Room:
        """Return the room of a session, and open it if it is closed."""

    def stored_of_hosts(self) -> dict[Place, int]:
        """Return place of a session's host → number of its last stored event."""


class Retention:
    """Goes through all sessions from time to time, in slices between which the daemon serves."""

    def __init__(self, daemon: RetentionOwner, clock: Callable[[], float], steady: Callable[[], float]) -> None:
        """Create it; the first pass comes later.

        Args:
            clock: Returns the Unix time.
            steady: Returns seconds of a clock that cannot be set.
        """
        self._daemon = daemon
        self._clock = clock
        self._steady = steady
        self._time = TrustedTime(daemon.settings.data_dir / "time.json")
        self._next = clock() + FIRST
        self._task: asyncio.Task[None] | None = None
        self._said: set[str] = set()
        self._closed = False

    def tick(self, now: float) -> None:
        """Start a pass if one is due."""
        self.trusted_now(now)
        # A clock that was set back must not delay the pass by years.
        self._next = min(self._next, now + EVERY)
        if self._task is None and not self._closed and now >= self._next:
            self._next = now + EVERY
            self._task = asyncio.get_running_loop().create_task(self._look())
            self._task.add_done_callback(self._looked)

    def look_soon(self) -> None:
        """Start a pass at the next tick: something was deleted, and its blobs may be unreferenced now."""
        self._next = self._clock()

    async def looked(self) -> None:
        """Wait for the end of the pass in progress, if there is one."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def trusted_now(self, now: float) -> float:
        """Return the time by which ages are measured; see `TrustedTime`."""
        return self._time.look(now, self._steady())

    def close(self) -> None:
        """Stop. Idempotent."""
        if not self._closed:
            self._time.save()
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the pass over old data failed", exc_info=error)

    async def _look(self) -> None:
        now = self.trusted_now(self._clock())
        self._time.save()
        moment = now - GRACE
        keep_days = self._daemon.limits.keep_days
        before = None if keep_days is None else now - 86400 * keep_days
        # In this order: references move from a spool into the session's database, never back.
        unused = await asyncio.to_thread(self._old_blobs, moment)
        if unused:
            stored = self._daemon.stored_of_hosts()
            unused -= await self._referred(asyncio.to_thread(self._spooled_blobs, stored), unused)
        names = {stored_name(session_id): session_id for session_id in self._daemon.registry.ids()}
        for path in await asyncio.to_thread(self._session_files, "*.db"):
            unused -= await self._referred(self._look_into(path, names.get(path.stem), before), unused)
            await asyncio.sleep(0)
        if before is not None:
            self._prune_history(before)
            await remove_old_folders(self._daemon.settings.browsers_dir, names, self._daemon.registry, before)
        # Last, as a database may have been set aside just now.
        for path in await asyncio.to_thread(self._session_files, "*.damaged-*"):
            self._say(f"no blob is removed while {path} is there: it was set aside, and may refer to any")
            unused.clear()
        steps = self._remove(unused, moment)
        while not _slice(steps):  # noqa: ASYNC110  # this is what takes the time
            await asyncio.sleep(REST)

    async def _referred(self, look: Awaitable[set[str]], unused: set[str]) -> set[str]:
        """Return the blobs that are referred to; all blobs if that is unknown."""
        try:
            return await look
        except (StorageError, SessionError) as exc:
            self._say(f"no blob is removed, as not all references can be read: {exc}")
            return set(unused)

    def _prune_history(self, before: float) -> None:
        try:
            self._daemon.registry.prune_history(before)
        except StorageError as exc:
            logger.info("old lifecycle steps stay until the next pass: %s", exc)

    def _say(self, sentence: str) -> None:
        """Log a sentence once, or rarely if there are many."""
        if sentence not in self._said:
            if len(self._said) >= _MAX_SAID:
                self._said.clear()
            self._said.add(sentence)
            logger.warning("%s", sentence)

    # --- sessions ---

    def _session_files(self, pattern: str) -> list[Path]:
        return sorted(self._daemon.sessions_dir.glob(pattern))

    async def _look_into(self, path: Path, session_id: SessionId | None, before: float | None) -> set[str]:
        """Delete what is too old in one session; return the blobs to which it refers.

        Raises:
            StorageError: If its database cannot be read.
            SessionError: If its room must be opened, and too many are open.
        """
        if session_id is None:
            session_id = next((one for one in self._daemon.open_ids if stored_name(one) == path.stem), None)
        room = None if session_id is None else self._daemon.open_room(session_id)
        if session_id is None and path.with_name(f"{path.name}-wal").exists() and _is_removed(path):
            return set()
        if room is None and session_id is not None and path.with_name(f"{path.name}-wal").exists():
            # A daemon died while it had it open; opening it replays the WAL.
            room = self._daemon.room(session_id)
        while room is not None and room.flow.is_held:
            # Another thread uses its database; requests for it wait, too.
            await asyncio.sleep(REST)
            room = self._daemon.open_room(room.notebook_id)
        if room is not None:
            referred, is_due = room.blobs(), True
        else:
            referred, is_due = await asyncio.to_thread(_glance, path, session_id, before)
        if before is not None and is_due and session_id is not None:
            try:
                await self._delete_old(session_id, before)
            except (SessionError, StorageError) as exc:
                logger.info("session %r keeps old data until the next pass: %s", session_id, exc)
        return referred

    async def _delete_old(self, session_id: SessionId, before: float) -> None:
        room = self._daemon.room(session_id)
        with contextlib.closing(room.delete_old(before)) as steps:
            while self._daemon.open_room(session_id) is room and not self._closed:
                if not room.flow.is_held and _slice(steps):
                    return
                await asyncio.sleep(REST)

    # --- blobs ---

    def _old_blobs(self, moment: float) -> set[str]:
        """Return the blobs that may be removed if nothing refers to them. Runs in a thread."""
        found: set[str] = set()
        try:
            for sha256 in self._daemon.blobs.older_than(moment):
                if self._closed:
                    break
                found.add(sha256)
        except StorageError as exc:
            self._say(f"no blob is removed: {exc}")
            return set()
        return found

    def _spooled_blobs(self, stored: Mapping[Place, int]) -> set[str]:
        """Return the blobs to which events refer that hosts have not handed over. Runs in a thread.

        Args:
            stored: Place of a host → number of its last stored event.

        Raises:
            StorageError: If the events cannot be read now.
        """
        found: set[str] = set()
        try:
            for body in self._daemon.launcher.kept_events(stored):
                if b"sha256" in body:
                    found.update(blob.sha256 for blob in blobs_in(decode_event(body)))
        except ProtocolError as exc:
            raise StorageError(f"the events that hosts have not handed over cannot be read now: {exc}") from exc
        return found

    def _remove(self, unused: set[str], moment: float) -> Generator[None, None, None]:
        removed = 0
        for sha256 in unused:
            try:
                removed += self._daemon.blobs.remove_unused(sha256, moment)
            except StorageError as exc:
                self._say(exc.message)
            yield
        if removed:
            logger.info("removed %d unreferenced blobs", removed)


def _is_removed(path: Path) -> bool:
    """Replay the WAL of a database that belongs to no session, and remove the database if it is empty.

    A dead daemon leaves one behind for each client that had joined a session without starting it.

    Raises:
        StorageError: If it cannot be opened.
    """
    with SessionStore(path) as store:
        empty = store.is_empty
    if empty:
        remove_database(path)
    return empty


def _glance(path: Path, session_id: SessionId | None, before: float | None) -> tuple[set[str], bool]:
    """Return the blobs to which a closed session refers, and whether it has anything too old.

    Runs in a thread. It neither waits nor blocks: a client can open the session meanwhile.

    Raises:
        StorageError: If its database cannot be read, or is in use.
    """
    try:
        as_it_was = _state(path)
        with SessionStore(path, session_id or "", read_only=True) as store:
            found = store.blobs(), before is not None and has_old(store, before)
        if _state(path) == as_it_was:
            return found
    except OSError as exc:
        raise StorageError(f"{path} cannot be read: {exc}", path=str(path)) from exc
    raise StorageError(f"{path} is in use; the next pass reads it", path=str(path))


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def _slice(steps: Generator[None, None, None]) -> bool:
    """Do steps for one time slice; return whether all are done."""
    end = time.perf_counter() + SLICE
    while time.perf_counter() < end:
        try:
            next(steps)
        except StopIteration:
            return True
    return False
