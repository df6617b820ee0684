"""Gets a host for what a session wants: a spare one, or a new one. It decides nothing, and asks no host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from runtimed.daemon.hosting.folder import Owner, name_owner, new_session_folder
from runtimed.daemon.hosting.pool import NewHost, Pool, SpareHost, SpareKind
from runtimed.ids import HostEpoch, new_host_epoch
from runtimed.protocol.host_operations import HostBecome, HostBecomeBrowser

__all__ = ["HostStarter", "Wanted"]


class Wanted(Protocol):
    """A kernel or a browser of a session, decided on."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the session's row in the registry says of it, once it has a host."""

    async def spare_kind(self) -> SpareKind | None:
        """Return what a spare must be to take its place; None if none can."""

    @property
    def takes_spare(self) -> bool:
        """Whether it can take a spare this time."""

    def becoming(self) -> HostBecome | HostBecomeBrowser:
        """Return what a spare is told that takes its place."""

    def owner(self, epoch: HostEpoch) -> Owner:
        """Return what the folder of its host says."""

    async def spawn(self, folder: Path, epoch: HostEpoch) -> int:
        """Start a host of its own in this folder; return its process when it listens.

        Raises:
            HostNotStarted, OSError, ProtocolError: If that fails.
        """


class HostStarter:
    """Gets hosts for one session.

    Args:
        hosts_dir: Where their folders are.
        pool: Has the spares.
        tell_facts: Takes facts for the session's row in the registry; raises StorageError.
    """

    def __init__(self, hosts_dir: Path, pool: Pool, tell_facts: Callable[..., None]) -> None:
        self._hosts_dir = hosts_dir
        self._pool = pool
        self._tell_facts = tell_facts

    async def start(self, wanted: Wanted) -> NewHost:
        """Return a host that starts what is wanted.

        Raises:
            HostNotStarted: If it ends or says nothing in time.
            StorageError: If there is no room for it.
            OSError, ProtocolError: If that is not possible.
        """
        kind = await wanted.spare_kind()
        if kind is None or not wanted.takes_spare:
            return await self._start_new(wanted, kind)

        def write_down(spare: SpareHost) -> None:
            name_owner(spare.folder, wanted.owner(spare.epoch))
            self._tell(wanted, spare.folder, spare.epoch)

        host = await self._pool.hand_over(kind, write_down, wanted.becoming())
        return host or await self._start_new(wanted, kind)

    def is_ready(self, host: NewHost) -> None:
        """What this host owns has started."""
        self._pool.started(host)

    async def _start_new(self, wanted: Wanted, kind: SpareKind | None) -> NewHost:
        epoch = new_host_epoch()
        folder = new_session_folder(
            self._hosts_dir,
            wanted.owner(epoch),
            lambda folder: self._tell(wanted, folder, epoch),
        )
        pid = await wanted.spawn(folder, epoch)
        return NewHost(folder=folder, epoch=epoch, pid=pid, kind=kind)

    def _tell(self, wanted: Wanted, folder: Path, epoch: HostEpoch) -> None:
        self._tell_facts(host_epoch=epoch, host_dir=str(folder), **wanted.facts)
