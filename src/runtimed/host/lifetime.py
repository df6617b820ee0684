"""The life of a host: its parts, what it does when its daemon is gone, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runtimed.errors import RuntimedError
from runtimed.host.blobs import HostBlobs
from runtimed.host.bootstrap import HostBootstrap
from runtimed.host.guard import Guard
from runtimed.host.log_file import tidy_log
from runtimed.host.outbox import Outbox
from runtimed.host.owned import Owned
from runtimed.host.server import HostServer
from runtimed.protocol.codec import MAX_FRAME
from runtimed.settings import Settings, read_settings
from runtimed.storage.spool import Spool
from runtimed.texts import LineFormatter
from runtimed.transport.autostart import ensure_daemon
from runtimed.transport.reception import Reception
from runtimed.transport.unix import serve

__all__ = ["Parts", "label_log", "live"]

logger = logging.getLogger(__name__)

MAX_STRANGERS: Final = 16
"""Largest number of connections without a greeting. One more evicts the oldest of them."""

FIRST_DAEMON: Final = 10.0
"""Seconds after its start within which the daemon should attach."""
BACK_OFF: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between attempts to start a daemon; the last one repeats."""
FOLDER_CHECK: Final = 5.0
"""Seconds between two checks that the host's folder exists and its log is short."""
FAREWELL: Final = 1.0
"""Seconds for sending the last frames."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a host gives to what it owns.

    Attributes:
        outbox: Takes its events.
        blobs: Stores large values.
        guard: Kills its processes when the host dies.
        tasks: Runs requests that take time.
        daemon_changed: To be called when a daemon attaches or is lost.
    """

    outbox: Outbox
    blobs: HostBlobs
    guard: Guard
    tasks: asyncio.TaskGroup
    daemon_changed: Callable[[], None]


Begin = Callable[[Parts], tuple[Owned, HostServer]]


def label_log(label: str) -> None:
    """Put the session's name into every line of the log from now on."""
    label = repr(label[:80]).replace("%", "%%")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(LineFormatter(f"%(asctime)s {label} %(levelname)s %(name)s: %(message)s"))


async def live(bootstrap: HostBootstrap, begin: Begin, ready: Callable[[], None]) -> None:
    """Own something from its start to its end, and until a daemon has stored its events.

    Args:
        bootstrap: The host's configuration.
        begin: Makes what is owned, not started yet, and what serves the connections to it.
        ready: Called when the host's socket listens, before what it owns is started.

    Raises:
        RuntimedError: If the host cannot begin.
    """
    folder = Path(bootstrap.folder)
    with Spool(folder, bootstrap.lock) as spool, contextlib.closing(Guard(folder)) as guard:
        try:
            async with asyncio.TaskGroup() as tasks:
                host = _Host(bootstrap, begin, spool, guard, tasks)
                async with _listening(folder / "host.sock", host.server):
                    ready()
                    await host.run()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
    if host.owned.is_spare:
        # It never belonged to a session: it left nothing to read, and perhaps nobody cleans up.
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def _listening(path: Path, server: HostServer) -> AsyncIterator[None]:
    listener = await serve(path, server.new_side, server.accept, Reception(MAX_STRANGERS, MAX_FRAME))
    try:
        yield
    finally:
        listener.close()
        _unlink(path)
        server.close()
        # Not wait_closed(): a daemon that does not read must not keep a host alive.
        await asyncio.sleep(0)


class _Host:
    """The parts of a host, and the decisions about its life."""

    def __init__(
        self, bootstrap: HostBootstrap, begin: Begin, spool: Spool, guard: Guard, tasks: asyncio.TaskGroup
    ) -> None:
        self._folder = Path(bootstrap.folder)
        self._bootstrap = bootstrap
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(spool, self._storage_changed)
        blobs = HostBlobs(self._folder, bootstrap.blobs_dir)
        self.owned, self.server = begin(Parts(self._outbox, blobs, guard, tasks, self._daemon_changed))
        self._tasks = tasks
        self._daemon_news = asyncio.Event()
        self._terminated = asyncio.Event()
        self._folder_is_gone = False

    async def run(self) -> None:
        """Return when what it owns is dead and everything is stored, or when the host is asked to end."""
        self._loop.add_signal_handler(signal.SIGTERM, self._terminated.set)
        # Handled, not ignored: child processes would inherit the ignored signal.
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)
        self._loop.add_signal_handler(signal.SIGHUP, lambda: None)
        works = (self._keep_a_daemon, self._obey_sigterm, self._watch_folder)
        helpers = [self._tasks.create_task(_logged(work)) for work in works]
        logger.info("host %d starts %s", os.getpid(), self.server.epoch)
        try:
            await self.owned.run()
            logger.info("the kernel or browser of host %s has ended", self.server.epoch)
            await self._wait_stored()
        finally:
            for helper in helpers:
                helper.cancel()

    async def _wait_stored(self) -> None:
        """Wait until the daemon has stored everything. A host that is told to end leaves that to its spool."""
        stored = asyncio.ensure_future(self._outbox.wait_empty())
        told = asyncio.ensure_future(self._terminated.wait())
        try:
            await asyncio.wait({stored, told}, return_when=asyncio.FIRST_COMPLETED)
            if not stored.done() and self.server.has_daemon and not self._folder_is_gone:
                await asyncio.wait({stored}, timeout=FAREWELL)
        finally:
            stored.cancel()
            told.cancel()

    def _storage_changed(self) -> None:
        self.owned.storage_changed()

    # --- the daemon ---

    def _daemon_changed(self) -> None:
        self._daemon_news.set()

    async def _keep_a_daemon(self) -> None:
        """Start a daemon when the attached one is gone; the new daemon finds this host by itself.

        A daemon of another machine cannot be started from here, so it is awaited.
        """
        if self.owned.is_spare:
            await self._wait_for_owner()
        if not self._bootstrap.socket_path:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_DAEMON):
                await self._daemon_news.wait()
        if not self.server.has_daemon and not self._daemon_news.is_set():
            self.server.is_lonely = True
        while True:
            attempt = 0
            while self.server.is_lonely and not self.server.has_daemon:
                self._daemon_news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BACK_OFF[min(attempt, len(BACK_OFF) - 1)]):
                        await self._daemon_news.wait()
                        continue
                attempt += 1
                await self._start_daemon()
            self._daemon_news.clear()
            await self._daemon_news.wait()

    async def _wait_for_owner(self) -> None:
        """Return when this spare belongs to a session. Until then it lives as long as its daemon; see `keep`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_DAEMON):
                await self.owned.owned.wait()
        if not self.server.is_kept:
            self.owned.kill()
        await self.owned.owned.wait()
        label_log(self.owned.label)

    async def _start_daemon(self) -> None:
        logger.info("no daemon is attached; starting one unless one answers")
        done: asyncio.Future[None] = self._loop.create_future()

        def tell(error: Exception | None) -> None:
            if error is not None:
                logger.warning("no daemon could be started: %s", error)
            if not done.done():
                done.set_result(None)

        def work() -> None:
            error: Exception | None = None
            try:
                ensure_daemon(_settings(self._bootstrap))
            except (RuntimedError, OSError) as exc:
                error = exc
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                self._loop.call_soon_threadsafe(tell, error)

        # A daemon thread: waiting for the start of a daemon must not keep a host alive.
        threading.Thread(target=work, name="start-daemon", daemon=True).start()
        await done

    # --- reasons to end ---

    async def _obey_sigterm(self) -> None:
        await self._terminated.wait()
        logger.info("SIGTERM came; the host ends")
        await self.owned.stop("The host was terminated", expected=False)

    async def _watch_folder(self) -> None:
        """End when the folder is gone: no daemon can find this host any more, and nothing can be stored."""
        inode = self._folder.stat().st_ino
        while _has_inode(self._folder, inode):  # nothing reports it
            await asyncio.sleep(FOLDER_CHECK)
            tidy_log()
        logger.error("the folder %s of this host is gone; the host ends", self._folder)
        self._folder_is_gone = True
        self.owned.kill()
        await self.owned.dead.wait()
        self._terminated.set()


async def _logged(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a helper; its failure must not end what the host owns."""
    try:
        await work()
    except Exception:
        logger.exception("a part of the host failed")


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _has_inode(folder: Path, inode: int) -> bool:
    try:
        return folder.stat().st_ino == inode
    except FileNotFoundError:
        return False
    except OSError:  # not gone, but out of reach
        return True


def _settings(bootstrap: HostBootstrap) -> Settings:
    names = {"RUNTIMED_DATA_DIR": bootstrap.data_dir, "RUNTIMED_SOCKET_PATH": bootstrap.socket_path}
    return read_settings({**os.environ, **names})
