"""The daemon: the registry, the open rooms, the spares, the connected peers, and the deadlines of all sessions.

It answers no requests; the handler that `run` is given does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final

from runtimed.browser.profiles import check_profile_name, list_profiles, remove_profile
from runtimed.daemon.files import MAX_STRANGERS, SPARE_CONNECTIONS, max_rooms
from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.hosting.adoption import adopt_hosts
from runtimed.daemon.hosting.launcher import Launcher, Place
from runtimed.daemon.hosting.local import LocalLauncher
from runtimed.daemon.hosting.pool import Pool
from runtimed.daemon.registry import Registry
from runtimed.daemon.rooms.browser import RoomBrowser
from runtimed.daemon.rooms.room import Room, database_path
from runtimed.daemon.serving.listener import Connected, Listener
from runtimed.daemon.serving.peer import Peer
from runtimed.daemon.trouble import Trouble
from runtimed.daemon.upkeep.autosave import Autosave
from runtimed.daemon.upkeep.deletion import delete_session, finish_deletions
from runtimed.daemon.upkeep.retention import Retention
from runtimed.environments.maker import Environments
from runtimed.environments.prune import Keep, prune
from runtimed.environments.trust import Trust
from runtimed.errors import BrowserError, DaemonUnavailable, SessionError, StorageError
from runtimed.host.memory import find_mechanisms
from runtimed.ids import SessionId, check_session_id
from runtimed.lifecycle import SessionEvent
from runtimed.protocol.browser_operations import ListProfilesReply
from runtimed.protocol.replies import Done
from runtimed.protocol.session_operations import DeleteSessionReply
from runtimed.settings import Settings
from runtimed.storage.aside import list_aside
from runtimed.storage.audit import Actor
from runtimed.storage.blobs import BlobStore
from runtimed.storage.disk import check_room
from runtimed.storage.registry_store import RegistryStore, SessionRow
from runtimed.storage.uploads import BlobUploads
from runtimed.transport.reception import Reception

__all__ = ["Daemon"]

logger = logging.getLogger(__name__)

TICK: Final = 1.0
"""Longest time between two checks of the deadlines, in seconds."""

ADOPTION_DEADLINE: Final = 3.0
"""Seconds that hosts get to answer a new daemon before it serves clients. Slower ones are awaited later."""

MAX_PROBLEMS: Final = 100
"""Number of problems in a status: the newest ones."""

MAX_PROBLEM: Final = 4000
"""Characters of a problem in a status; the log has all of it."""

ROOM_REST: Final = 60.0
"""Seconds without use after which a room is closed."""

FIRST_CLIENT: Final = 10.0
"""Seconds for which a new daemon waits for the client that started it, whatever its idle limit."""

PRUNE_FIRST: Final = 60.0
"""Seconds from a daemon's start to its first check for unused environments."""

PRUNE_EVERY: Final = 6 * 3600.0
"""Seconds between two checks for unused environments."""


def _prune(settings: Settings, now: float) -> None:
    keep = Keep.by_settings(settings)
    try:
        result = prune(settings.environments_dir, keep, now=now)
    except Exception:
        logger.exception("old environments cannot be removed")
        return
    for problem in result.problems:
        logger.warning("%s", problem)
    if result.removed:
        logger.info("removed %d unused environments", len(result.removed))


def _steady() -> float:
    """Return seconds since the boot, sleep included: a clock that cannot be set."""
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class Daemon:
    """Serves every session of one data folder."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = _steady,
        launcher: Callable[[Settings], Launcher] = LocalLauncher,
    ) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.pid = os.getpid()
        self.clock = clock
        self.started_at = clock()
        self.reception = Reception(MAX_STRANGERS)
        self._listener = Listener(settings.socket_path, self.reception)
        self.peers: set[Peer] = set()
        self.rooms: dict[SessionId, Room] = {}
        self._unused_since: dict[SessionId, float] = {}
        # The client that started this daemon may not have connected yet.
        self._alone_since = clock() + max(0.0, FIRST_CLIENT - settings.idle_exit)
        self._end = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        self._writing: asyncio.Task[None] | None = None
        self.problems: deque[str] = deque(maxlen=MAX_PROBLEMS)
        """Sentences that name damage and what is out of reach, the newest last."""
        self.registry_store = self._open_registry()
        self.registry = Registry(self.registry_store, clock, self.limits.max_sessions)
        self.blobs = BlobStore(settings.data_dir / "blobs")
        self.uploads = BlobUploads(self.blobs)
        self._environments = Environments(settings.environments_dir, Trust(settings.data_dir / "trust"))
        self.launcher = launcher(settings)
        self.pool = Pool(settings, self.launcher)
        self._prune_at = self.started_at + PRUNE_FIRST
        self.sessions_dir = settings.data_dir / "sessions"
        self.retention = Retention(self, clock, steady)
        self.autosave = Autosave(self.registry, clock, self._is_written, enabled=settings.autosave)
        self.memory_mechanism = next((mechanism.kind for mechanism in find_mechanisms()), None)
        if self.limits.max_kernel_memory is not None and self.memory_mechanism is None:
            logger.warning("this system cannot limit memory; RUNTIMED_MAX_KERNEL_MEMORY has no effect")
        self.demand = Demand()
        self._trouble = Trouble(self.report)

    # --- life ---

    async def run(self, connected: Connected, on_ready: Callable[[], None]) -> None:
        """Serve until `request_end`, `ShutdownDaemon`, or the idle limit.

        Args:
            connected: Makes the handler of a new connection.
            on_ready: Called once the daemon answers clients.
        """
        with self._trouble.contained("the removal of files of deleted sessions"):
            try:
                finish_deletions(self.settings, self.launcher, self.registry)
            except OSError as exc:
                self.report(f"Not all files of deleted sessions can be removed: {exc}")
        for sentence in self.set_aside():
            logger.error("%s", sentence)
        # Before the first request: a room that does not know its host yet would start a second one.
        joining = adopt_hosts(self)
        await self._listener.open(connected)
        try:
            if joining:
                await asyncio.wait(joining, timeout=ADOPTION_DEADLINE)
            self.autosave.begin()
            on_ready()
            while not self._end.is_set():
                delay = TICK
                with self._trouble.contained("the daemon's periodic check"):
                    delay = self.tick()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._end.wait()
            await self.autosave.finish()
        finally:
            self._listener.close()
        self.retention.close()
        if self._writing is not None:
            self._writing.cancel()
        # Each on its own: a step that fails must not keep the others from ending.
        detaching = {f"leaving session {id_!r} running": room.detach() for id_, room in self.rooms.items()}
        ending = {"ending the spares": self.pool.flush(), "leaving notebook files": self.autosave.close()}
        await _finish_all({**detaching, **ending})
        await self._environments.close()
        self._listener.disconnect()
        # In one turn of the loop the channels report that they are closed, before the rooms close.
        await asyncio.sleep(0)
        for notebook_id, room in self.rooms.items():
            with self._trouble.contained(f"the end of session {notebook_id!r} here"):
                room.close()
        try:
            self.registry.flush()
            self.registry_store.close()
        except StorageError as exc:
            logger.error("the times of the sessions' last use are not stored: %s", exc)  # noqa: TRY400

    def request_end(self) -> None:
        """Request a graceful shutdown; kernels live on for the next daemon. Idempotent."""
        self._end.set()

    async def shut_down(self, actor: Actor | None = None, *, keep_kernels: bool) -> Done:
        """End all sessions unless their kernels are kept, and request a graceful shutdown.

        Args:
            actor: The client that asked; None for the daemon itself.
            keep_kernels: Whether to leave the sessions to the next daemon.
        """
        if not keep_kernels:
            ends = {
                f"ending session {row.session_id!r}": self._stop(row, SessionEvent.STOPPED, actor)
                for row in self.registry.active()
            }
            await _finish_all(ends)
        await self.autosave.finish()  # as a client, which finds no listener later
        # Before the reply: a client that has it may connect again at once, and must find no daemon that ends.
        self._listener.close()
        asyncio.get_running_loop().call_soon(self.request_end)
        return Done()

    def list_profiles(self) -> ListProfilesReply:
        """Return the names of the browsers' profiles."""
        return ListProfilesReply(names=list_profiles(self.settings.profiles_dir))

    async def delete_profile(self, name: str) -> Done:
        """Delete a browser profile by its name.

        Raises:
            BrowserError: If there is none, or a running session would store it again at its end.
        """
        browsers = [
            (room.notebook_id, room.hosted) for room in self.rooms.values() if isinstance(room.hosted, RoomBrowser)
        ]
        for _session_id, browser in browsers:
            await browser.await_adopted()
        users = [session_id for session_id, browser in browsers if browser.kept_profile == check_profile_name(name)]
        if users:
            raise BrowserError(
                f"Session {users[0]!r} uses the profile {name!r}, and stores it again at its end: stop it first",
                profile=name,
                session_id=users[0],
            )
        await asyncio.to_thread(remove_profile, self.settings.profiles_dir, name)
        return Done()

    async def flush_pool(self) -> Done:
        """End the spares."""
        await self.pool.flush()
        return Done()

    async def end_session(self, row: SessionRow, event: SessionEvent, actor: Actor | None = None) -> str | None:
        """End a session, whether its room is open or not, and save its file; see `Room.stop`."""
        waits = await self._stop(row, event, actor)
        await self.autosave.flush([SessionId(row.session_id)])
        return waits

    async def _stop(self, row: SessionRow, event: SessionEvent, actor: Actor | None) -> str | None:
        session_id = SessionId(row.session_id)
        if session_id in self.rooms:
            return await self.rooms[session_id].stop(event, actor)
        self.registry.end(session_id, event, actor)
        return None

    async def delete_session(self, session_id: str, actor: Actor) -> DeleteSessionReply:
        """Save an ended session's file, and delete the session with its data; see `deletion.delete_session`."""
        await self.autosave.flush([SessionId(session_id)])
        deleted = await delete_session(self, session_id, actor)
        if deleted:
            self.autosave.forget(SessionId(session_id))
            self.retention.look_soon()
        return DeleteSessionReply(deleted=deleted)

    def put_out(self, notebook_id: SessionId) -> None:
        """Disconnect the clients of a session's room and close the room. Idempotent."""
        room = self.rooms.get(notebook_id)
        if room is not None:
            for peer in [peer for peer in self.peers if room in peer.rooms]:
                peer.channel.close()
            self._close_room(notebook_id)

    def _open_registry(self) -> RegistryStore:
        """Open the registry, or a new one if it is damaged: ids still find sessions then, and folders hosts."""
        path = self.settings.data_dir / "registry.db"
        try:
            store = RegistryStore(path)
        except StorageError as exc:
            if exc.data.get("set_aside") is None:
                raise
            self.report(f"The list of sessions begins anew: {exc.message}")
            store = RegistryStore(path)
        if store.damaged_wal is not None:
            self.report(
                "The latest changes of the list of sessions are lost; their write-ahead log is kept as "
                f"{store.damaged_wal}"
            )
        store.set_damaged_aside()
        return store

    def report(self, sentence: str) -> None:
        """Report damage, or what is out of reach, in the log and in the daemon's status."""
        logger.error("%s", sentence)
        if len(sentence) > MAX_PROBLEM:
            sentence = f"{sentence[:MAX_PROBLEM]}…"
        if sentence not in self.problems:
            self.problems.append(sentence)

    def tick(self) -> float:
        """Do what is due; return the seconds until the next call."""
        now = self.clock()
        delay = TICK
        for notebook_id, room in list(self.rooms.items()):
            with self._trouble.contained(f"session {notebook_id!r}"):
                room.tidy()
            with self._trouble.contained(f"the time limit of session {notebook_id!r}"):
                delay = min(delay, self._look_at(room, now))
        self._write_next(now)
        with self._trouble.contained("the list of sessions"):
            self.registry.flush()
        with self._trouble.contained("the retention of old data"):
            self.retention.tick(now)
        with self._trouble.contained("the pool of spares"):
            self.pool.tick()
        with self._trouble.contained("the notebook files"):
            delay = min(delay, self.autosave.tick(now, self.rooms.__contains__))
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY
            # A daemon thread: the next process deletes what this one leaves half deleted.
            threading.Thread(
                target=_prune, args=(self.settings, self.retention.trusted_now(now)), name="prune", daemon=True
            ).start()
        self.launcher.reap()
        self._check_in_place()
        if self.peers or self.registry.active():
            self._alone_since = now
        elif now - self._alone_since >= self.settings.idle_exit:
            logger.info("the daemon has been idle for its limit; it ends")
            self.request_end()
        return max(delay, 0.01)

    def _look_at(self, room: Room, now: float) -> float:
        """End a session whose time is up, close an unused room; return the seconds until the next check."""
        deadline = room.deadline()
        if deadline is not None and deadline[0] <= now:
            task = asyncio.get_running_loop().create_task(self._end_by_itself(room, deadline[1]))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        if room.in_use:
            self._unused_since.pop(room.notebook_id, None)
        elif deadline is None and now - self._unused_since.setdefault(room.notebook_id, now) > ROOM_REST:
            self._close_room(room.notebook_id)
        return TICK if deadline is None or deadline[0] <= now else deadline[0] - now

    async def _end_by_itself(self, room: Room, event: SessionEvent) -> None:
        with self._trouble.contained(f"the end of session {room.notebook_id!r}"):
            await room.stop(event)
            await self.autosave.flush([room.notebook_id])

    def _check_in_place(self) -> None:
        """End if the socket or the data folder is gone: clients start another daemon there."""
        if not self._listener.is_in_place:
            logger.error("the socket %s is gone; this daemon ends: no client reaches it", self.settings.socket_path)
            self.request_end()
        elif not self.registry_store.is_in_place:
            logger.error("the data folder %s was removed or moved; this daemon ends", self.settings.data_dir)
            self.request_end()

    def _write_next(self, now: float) -> None:
        """Write the edits of a session into its document; one session at a time, as it takes a processor."""
        if self._writing is not None and not self._writing.done():
            return
        for notebook_id, room in self.rooms.items():
            with self._trouble.contained(f"the document of session {notebook_id!r}"):
                if room.writes_document(now):
                    self._writing = asyncio.get_running_loop().create_task(self._write_document(room, now))
                    return

    async def _write_document(self, room: Room, now: float) -> None:
        with self._trouble.contained(f"the document of session {room.notebook_id!r}"):
            await room.write_document(now)

    # --- peers ---

    def admit(self, peer: Peer) -> None:
        """Register a peer that has greeted.

        Raises:
            DaemonUnavailable: If there are too many connections.
        """
        if len(self.peers) >= self.limits.max_connections + SPARE_CONNECTIONS:
            raise self._too_many_connections()
        self.peers.add(peer)

    def check_may_join(self) -> None:
        """Check that one more connection may join a session.

        Raises:
            DaemonUnavailable: If there are too many connections.
        """
        if len(self.peers) > self.limits.max_connections:
            raise self._too_many_connections()

    def _too_many_connections(self) -> DaemonUnavailable:
        return DaemonUnavailable(
            f"This daemon has {self.limits.max_connections:,} connections, as many as it may have. Close sessions that "
            "are no longer used, or raise the limit: `RUNTIMED_MAX_CONNECTIONS=… runtimed restart`",
            max_connections=self.limits.max_connections,
        )

    def peer_gone(self, peer: Peer) -> None:
        """Forget a peer whose connection has ended."""
        self._listener.forget(peer.channel)
        self.peers.discard(peer)

    def open_room(self, notebook_id: SessionId) -> Room | None:
        """Return the room of a session; None if it is not open."""
        return self.rooms.get(notebook_id)

    @property
    def open_ids(self) -> Iterable[SessionId]:
        """Ids of the open rooms; some have no session yet."""
        return self.rooms

    def stored_of_hosts(self) -> dict[Place, int]:
        """Return place of a session's host → number of its last stored event."""
        return dict(host for room in self.rooms.values() for host in room.hosts)

    def room(self, notebook_id: str) -> Room:
        """Return the room of a session, and open it if it is closed.

        Raises:
            SessionError: If the id is invalid, or too many sessions are in use.
            StorageError: If the session's database cannot be opened.
        """
        key = SessionId(notebook_id)
        if key not in self.rooms:
            check_session_id(notebook_id)
            if len(self.rooms) >= max_rooms(self.limits):
                self._close_unused_room(notebook_id)
            try:
                self._check_room_for(key)
                room = Room(
                    key,
                    self.settings,
                    self.registry,
                    self._environments,
                    self.pool,
                    self.demand,
                    self.clock,
                    self.report,
                    partial(self.autosave.changed, key),
                )
            except StorageError as exc:
                if "free" not in exc.data:
                    self.report(f"Session {notebook_id!r}: {exc.message}")
                raise
            self.rooms[key] = room
            self.autosave.opened(key)
        return self.rooms[key]

    def _check_room_for(self, notebook_id: SessionId) -> None:
        """Check the disk's free space before a session's database is created."""
        path = database_path(self.settings, notebook_id)
        if not path.exists():
            check_room(path)

    def flow_of(self, notebook_id: str | None) -> Flow | None:
        """Return the flow of a session; its room must be open."""
        room = self.rooms.get(SessionId(notebook_id or ""))
        return None if room is None else room.flow

    def _is_written(self, notebook_id: SessionId, path: str) -> bool:
        """Whether an editor that is here writes a session's file itself."""
        room = self.rooms.get(notebook_id)
        return room is not None and room.is_written(path)

    def _close_unused_room(self, wanted: str) -> None:
        """Close the unused room that was opened first, to free a place for another one.

        Raises:
            SessionError: If all rooms are in use.
        """
        for notebook_id, room in list(self.rooms.items()):
            with self._trouble.contained(f"the time limit of session {notebook_id!r}"):
                if not room.in_use and room.deadline() is None:
                    self._close_room(notebook_id)
                    return
        raise SessionError(
            f"Session {wanted!r} cannot be opened: {len(self.rooms):,} sessions are in use, as many as this daemon "
            "can have open. Leave some, or raise RUNTIMED_MAX_SESSIONS",
            notebook_id=wanted,
        )

    def _close_room(self, notebook_id: SessionId) -> None:
        self._unused_since.pop(notebook_id, None)
        self.rooms.pop(notebook_id).close()

    # --- damaged files ---

    def set_aside(self) -> list[str]:
        """Return a sentence for each damaged file that was set aside, without those already reported."""
        return [
            f"{one.found}; {one.advice}"
            for one in list_aside(self.settings.data_dir)
            if not any(one.path.name in sentence for sentence in self.problems)
        ]


async def _finish_all(works: Mapping[str, Coroutine[Any, Any, object]]) -> None:
    """Run all of these at once, and log those that fail.

    Args:
        works: Name of a work in the log → the work.
    """
    results = await asyncio.gather(*works.values(), return_exceptions=True)
    for what, result in zip(works, results, strict=True):
        if isinstance(result, BaseException):
            logger.error("%s failed", what, exc_info=result)
