"""Hosts on this machine: children of this process, each with a folder that names its session and holds its socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from runtimed.daemon.hosting import folder as folders
from runtimed.daemon.hosting.launcher import HostNotStarted, Owner, Place
from runtimed.errors import StorageError
from runtimed.host.bootstrap import PACKAGES, HostBootstrap, encode_bootstrap
from runtimed.host.group import end_group
from runtimed.host.memory import clear_leftovers
from runtimed.protocol.connection import Side
from runtimed.settings import Settings
from runtimed.storage.blobs import BlobStore
from runtimed.storage.spool import Spool
from runtimed.storage.spool_files import segments_of
from runtimed.texts import printable
from runtimed.transport.channel import Channel, ChannelHandler
from runtimed.transport.sockets import make_private_folder, peer_credentials
from runtimed.transport.unix import connect

__all__ = ["LocalLauncher", "reap_hosts", "remove_host_folder"]

START_DEADLINE: Final = 30.0
"""Seconds within which a host's process must listen."""

FIND_DEADLINE: Final = 0.1
"""Seconds within which a host must accept a connection."""

MAX_SPOOL: Final = 64 * 2**20
"""Size in bytes above which a host's spool is not read for references to blobs until the host has handed it over."""

_children: set[subprocess.Popen[bytes]] = set()

S = TypeVar("S", bound=Side[Any])


class LocalLauncher:
    """See `Launcher`. A place is the path of the host's folder.

    Raises:
        DaemonUnavailable: If the folder of hosts cannot be created, or is not private.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.blobs: BlobStore | None = None
        make_private_folder(settings.hosts_dir)

    def new_place(self, owner: Owner | None) -> Place:
        """See `Launcher`."""
        return Place(str(folders.new_host_folder(self._settings.hosts_dir, owner)))

    def name_owner(self, place: Place, owner: Owner) -> None:
        """See `Launcher`."""
        folders.name_owner(Path(place), owner)

    async def launch(self, place: Place, bootstrap: HostBootstrap) -> int:
        """See `Launcher`.

        The host's lock is held before the host exists, so that the next daemon does not take a starting host for dead.
        """
        reap_hosts()
        folder = Path(place)
        lock = Spool.lock(folder)
        try:
            frame = encode_bootstrap(msgspec.structs.replace(bootstrap, folder=place, lock=lock, **self.surroundings()))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(folder / "host.err", flags, 0o600), "wb") as errors:
                process = subprocess.Popen(  # noqa: ASYNC220  # takes 1 ms; nothing waits on it
                    [sys.executable, "-P", "-m", bootstrap.module],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd="/",
                    start_new_session=True,
                    pass_fds=(lock,),
                )
        finally:
            os.close(lock)
        _children.add(process)
        try:
            async with asyncio.timeout(START_DEADLINE):
                said = await asyncio.to_thread(_hand_over, process, frame)
        except TimeoutError:
            process.kill()
            said = b""
        if said != b"ready\n":
            last_lines = printable((folder / "host.err").read_text(errors="replace")[-2000:], "\n")
            shutil.rmtree(folder, ignore_errors=True)
            raise HostNotStarted(
                f"The host process did not start: {last_lines.strip() or 'it said nothing'}", stderr=last_lines
            )
        return process.pid

    def surroundings(self) -> dict[str, str]:
        """Return what a host is told of its daemon; see `HostBootstrap`."""
        settings = self._settings
        return {
            "data_dir": str(settings.data_dir),
            "socket_path": str(settings.socket_path),
            "blobs_dir": str(settings.data_dir / "blobs"),
        }

    async def connect(self, place: Place, side: S, handler: Callable[[Channel[S]], ChannelHandler[Any]]) -> Channel[S]:
        """See `Launcher`."""
        return await connect(Path(place) / "host.sock", side, handler)

    async def find_pid(self, place: Place) -> int | None:
        """See `Launcher`: the operating system knows who listens."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            try:
                async with asyncio.timeout(FIND_DEADLINE):
                    await asyncio.get_running_loop().sock_connect(sock, str(Path(place) / "host.sock"))
                return peer_credentials(sock).pid or None
            except OSError:  # TimeoutError is one
                return None

    def is_alive(self, place: Place) -> bool:
        """See `Launcher`: the operating system releases the host's lock at its end."""
        return Spool.is_alive(Path(place))

    def runs(self, place: Place, pid: int) -> bool:  # noqa: ARG002  # all are here
        """See `Launcher`."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def signal(self, place: Place, pid: int, number: int) -> None:
        """See `Launcher`: while the host holds its lock, no other process has its number."""
        if self.is_alive(place):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def packages_dir(self, place: Place) -> Path:
        """See `Launcher`."""
        return Path(place) / PACKAGES

    async def leftovers(
        self, place: Place, after: int, problem: Callable[[str], None]
    ) -> AsyncGenerator[tuple[int, bytes]]:
        """See `Launcher`."""
        with contextlib.closing(folders.leftovers(Path(place), after, self._settings.data_dir, problem)) as events:
            for event in events:
                yield event

    def forget(self, place: Place) -> None:
        """See `Launcher`."""
        remove_host_folder(Path(place))

    def reap(self) -> int:
        """See `Launcher`."""
        return reap_hosts()

    def places(self) -> list[Place]:
        """See `Launcher`."""
        return [Place(str(folder)) for folder in sorted(self._settings.hosts_dir.iterdir()) if folder.is_dir()]

    def find_owner(self, place: Place) -> Owner | None:
        """See `Launcher`."""
        return folders.find_owner(Path(place))

    def is_spare(self, place: Place) -> bool:
        """See `Launcher`."""
        return folders.is_spare(Path(place))

    def has_leftovers(self, place: Place) -> bool:
        """See `Launcher`."""
        return bool(segments_of(Path(place)))

    def set_aside(self, place: Place) -> str:
        """See `Launcher`."""
        return str(folders.set_spool_aside(Path(place), self._settings.data_dir))

    def kept_events(self, stored: Mapping[Place, int]) -> Iterator[bytes]:
        """See `Launcher`."""
        try:
            for folder in self._settings.hosts_dir.iterdir():
                size = sum(path.stat().st_size for path in folder.glob("*.events"))
                if size > MAX_SPOOL:
                    raise StorageError(f"the host in {folder} has {size:,} bytes left to hand over")
                # Living hosts too; they may delete what was stored while this reads.
                for _n, body in Spool.read_dead(folder, stored.get(Place(str(folder)), 0)):
                    yield body
        except OSError as exc:
            raise StorageError(f"the spools in {self._settings.hosts_dir} cannot be read now: {exc}") from exc


def reap_hosts() -> int:
    """Collect the exit codes of hosts that ended, to leave no zombies; return how many of this process's still run."""
    _children.difference_update([child for child in _children if child.poll() is not None])
    return len(_children)


def remove_host_folder(folder: Path) -> None:
    """End and remove everything that a dead host has left. The next daemon removes what this one cannot.

    Waits some seconds at most for what still runs in its kernel's cgroup.
    """
    end_group(folder)
    if clear_leftovers(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _hand_over(process: subprocess.Popen[bytes], bootstrap: bytes) -> bytes:
    assert process.stdin is not None  # noqa: S101  # both are pipes, see `launch`
    assert process.stdout is not None  # noqa: S101
    with process.stdout, contextlib.suppress(BrokenPipeError):
        with process.stdin:
            process.stdin.write(bootstrap)
        return process.stdout.readline()
    return b""
