"""The daemon: it owns a data folder and a socket, opens rooms, keeps every session's deadlines, and ends cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from runtimed.daemon.host_link import reap_hosts
from runtimed.daemon.peer import Peer
from runtimed.daemon.registry import Registry
from runtimed.daemon.room import Room
from runtimed.environments.maker import Environments
from runtimed.environments.prune import Keep, prune
from runtimed.errors import DaemonUnavailable, StorageError
from runtimed.ids import NotebookId, check_notebook_id
from runtimed.lifecycle import SessionEvent
from runtimed.settings import Settings
from runtimed.storage.blobs import BlobStore
from runtimed.storage.registry_store import RegistryStore, SessionRow
from runtimed.storage.spool import Spool
from runtimed.transport.aio import Channel, serve
from runtimed.transport.sockets import make_private_folder
from runtimed.version import __version__

__all__ = ["Daemon", "own_data_folder"]

logger = logging.getLogger(__name__)

TICK: Final = 1.0
"""Longest time between two looks at the deadlines, in seconds."""

ENDING_DEADLINE: Final = 20.0
"""Seconds that a new daemon waits for the one before it, which is ending, to let go of the data folder."""

ROOM_REST: Final = 60.0
"""Seconds after which a room that nobody uses is closed."""


PRUNE_FIRST: Final = 60.0
"""Seconds after its start in which a daemon leaves old environments alone."""

PRUNE_EVERY: Final = 6 * 3600.0
"""Seconds between two looks for environments that nobody needs any more."""


@contextlib.contextmanager
def own_data_folder(settings: Settings) -> Iterator[None]:
    """Be the one daemon of a data folder, as long as the block lasts.

    Raises:
        DaemonUnavailable: If another daemon has it.
    """
    make_private_folder(settings.data_dir)
    fd = os.open(settings.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + ENDING_DEADLINE
        while not _locked(fd):
            owner = os.fsdecode(os.pread(fd, 4096, 0)).strip() or "an unknown socket"
            # A daemon of the same socket is one that is just ending: nobody answered there, or this would not start.
            if owner != str(settings.socket_path) or time.monotonic() > deadline:
                raise DaemonUnavailable(
                    f"The data folder {settings.data_dir} belongs to a daemon that listens on {owner}; use that "
                    "socket, or another folder with RUNTIMED_DATA_DIR",
                    data_dir=str(settings.data_dir),
                    socket_path=owner,
                )
            time.sleep(0.01)
        os.ftruncate(fd, 0)
        os.write(fd, os.fsencode(settings.socket_path))
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prune(settings: Settings, now: float) -> None:
    keep = Keep(seconds=settings.env_keep_days * 86400, count=settings.env_max_count, size=settings.env_max_bytes)
    try:
        result = prune(settings.environments_dir, keep, now=now)
    except Exception:
        logger.exception("old environments cannot be removed")
        return
    for problem in result.problems:
        logger.warning("%s", problem)
    if result.removed:
        logger.info("removed %d environments that nobody has used", len(result.removed))


class Daemon:
    """Serves every session of one data folder."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.pid = os.getpid()
        self._clock = clock
        self._started_at = clock()
        self._peers: set[Peer] = set()
        self._rooms: dict[NotebookId, Room] = {}
        self._unused_since: dict[NotebookId, float] = {}
        self._alone_since = clock()
        self._end = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        self._registry_store = RegistryStore(settings.data_dir / "registry.db")
        self.registry = Registry(self._registry_store, clock)
        self.blobs = BlobStore(settings.data_dir / "blobs")
        self._environments = Environments(settings.environments_dir)
        self._prune_at = self._started_at + PRUNE_FIRST

    # --- life ---

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until `request_end`, `ShutdownDaemon`, or nobody has needed the daemon for a while."""
        async with self._listening():
            await self._adopt_sessions()
            on_ready()
            while not self._end.is_set():
                delay = self._tick()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._end.wait()
        await asyncio.gather(*(room.kernel.detach() for room in self._rooms.values()))
        await self._environments.close()
        for peer in list(self._peers):
            peer.channel.close()
        # One turn of the loop lets the channels say that they are closed, before the rooms are.
        await asyncio.sleep(0)
        for room in self._rooms.values():
            room.close()
        self.registry.flush()
        self._registry_store.close()

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        make_private_folder(self.settings.hosts_dir)
        server = await serve(self.settings.socket_path, self._connected)
        try:
            yield
        finally:
            server.close()
            self.settings.socket_path.unlink(missing_ok=True)

    def request_end(self) -> None:
        """End soon; kernels live on for the next daemon. Asking twice is harmless."""
        self._end.set()

    async def shut_down(self, *, keep_kernels: bool) -> dict[str, Any]:
        """End soon, and every session before that unless the kernels are kept."""
        if not keep_kernels:
            await asyncio.gather(
                *(self.end_session(row, SessionEvent.STOPPED) for row in self.registry.active()),
            )
        asyncio.get_running_loop().call_soon(self.request_end)
        return {}

    async def end_session(self, row: SessionRow, event: SessionEvent) -> None:
        """End a session, whether a room is open for it or not."""
        session_id = NotebookId(row.session_id)
        if session_id in self._rooms:
            await self._rooms[session_id].stop(event)
        else:
            self.registry.end(session_id, event)

    async def _adopt_sessions(self) -> None:
        for row in self.registry.active():
            if row.kind == "kernel" and row.host_dir is not None:
                try:
                    await self.room(row.session_id).adopt(row)
                except StorageError:
                    logger.exception("cannot take over session %r", row.session_id)
        known = {row.host_dir for row in self.registry.active()}
        for folder in self.settings.hosts_dir.iterdir():
            if folder.is_dir() and str(folder) not in known:
                self._report_stray_host(folder)

    @staticmethod
    def _report_stray_host(folder: Path) -> None:
        if Spool.is_alive(folder):
            logger.error("the host in %s belongs to no active session; it is left alone", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _tick(self) -> float:
        """Do what is due; return the seconds until the next look."""
        now = self._clock()
        delay = TICK
        for notebook_id, room in list(self._rooms.items()):
            room.interrupt_unanswered()
            deadline = room.deadline()
            if deadline is not None and deadline[0] <= now:
                task = asyncio.get_running_loop().create_task(room.stop(deadline[1]))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
            elif deadline is not None:
                delay = min(delay, deadline[0] - now)
            if room.in_use:
                self._unused_since.pop(notebook_id, None)
            elif deadline is None and now - self._unused_since.setdefault(notebook_id, now) > ROOM_REST:
                del self._rooms[notebook_id], self._unused_since[notebook_id]
                room.close()
        self.registry.flush()
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY
            # A thread that ends with the process: what it leaves half deleted, the next one deletes.
            threading.Thread(target=_prune, args=(self.settings, now), name="prune", daemon=True).start()
        reap_hosts()
        if not self.settings.socket_path.exists():
            logger.error("%s is gone, nobody can reach this daemon any more; it ends", self.settings.socket_path)
            self.request_end()
        if self._peers or self.registry.active():
            self._alone_since = now
        elif now - self._alone_since >= self.settings.idle_exit:
            logger.info("nobody needs this daemon; it ends")
            self.request_end()
        return max(delay, 0.01)

    # --- peers ---

    def _connected(self, channel: Channel) -> Peer:
        peer = Peer(self, channel)
        self._peers.add(peer)
        return peer

    def peer_gone(self, peer: Peer) -> None:
        """A connection is closed."""
        self._peers.discard(peer)

    def room(self, notebook_id: str) -> Room:
        """Return the room of a session, opened if need be.

        Raises:
            SessionError: If the id cannot be one.
            StorageError: If the session's database cannot be opened.
        """
        key = NotebookId(notebook_id)
        if key not in self._rooms:
            self._rooms[key] = Room(
                check_notebook_id(notebook_id), self.settings, self.registry, self._environments, self._clock
            )
        return self._rooms[key]

    # --- what is told of it ---

    def session_as_map(self, row: SessionRow) -> dict[str, Any]:
        """Return what `GetSession` says of a session."""
        room = self._rooms.get(NotebookId(row.session_id))
        active = row.status == "active"
        ended_at = row.closed_at if row.closed_at is not None else self._clock()
        return {
            "session_id": row.session_id,
            "kind": row.kind,
            "status": row.status,
            "close_reason": row.close_reason,
            "created_at": row.created_at,
            "closed_at": row.closed_at,
            "last_accessed_at": row.last_accessed_at,
            "timeout_minutes": row.timeout_minutes,
            "max_duration_minutes": row.max_duration_minutes,
            "duration": ended_at - row.started_at,
            "peers": room.peers if room else 0,
            "label": row.label,
            "error": row.error,
            "host_pid": row.host_pid,
            "kernel_type": row.kernel_type,
            "kernel_status": room.kernel.status if room and active else "not_started",
            "kernel_pid": row.kernel_pid,
            "env_source": row.env_source if active and room and room.kernel.exists else None,
        }

    def status_as_map(self) -> dict[str, Any]:
        """Return what `GetStatus` says of the daemon."""
        return {
            "pid": self.pid,
            "version": __version__,
            "socket_path": str(self.settings.socket_path),
            "data_dir": str(self.settings.data_dir),
            "started_at": self._started_at,
            "sessions": len(self.registry.active()),
            "peers": len(self._peers),
            "pool": {},
            "limits": {"idle_exit_seconds": self.settings.idle_exit},
            "rooms": [
                {
                    "notebook_id": room.notebook_id,
                    "active_peers": room.peers,
                    "has_kernel": room.kernel.exists,
                    "kernel_type": room.kernel.kernel_type,
                    "kernel_status": room.kernel.status,
                    "env_source": room.kernel.env_source,
                }
                for room in self._rooms.values()
            ],
        }
