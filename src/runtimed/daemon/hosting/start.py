"""Gets a host for a session: a spare, or a new one. It decides nothing, and asks no host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from runtimed.daemon.hosting.launcher import Owner, Place
from runtimed.daemon.hosting.pool import NewHost, Pool, SpareHost, SpareKind
from runtimed.errors import StorageError
from runtimed.host.bootstrap import HostBootstrap
from runtimed.ids import HostEpoch, new_host_epoch
from runtimed.protocol.host_operations import HostBecome, HostBecomeBrowser

__all__ = ["HostStarter", "Wanted"]


class Wanted(Protocol):
    """A kernel or a browser that a session is to get."""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for the session's row of the registry, once it has a host."""

    async def spare_kind(self) -> SpareKind | None:
        """Return the kind of spare that can serve it; None if none can."""

    @property
    def takes_spare(self) -> bool:
        """Whether it can take a spare this time."""

    def becoming(self) -> HostBecome | HostBecomeBrowser:
        """Return what a spare that serves it is told."""

    def owner(self, epoch: HostEpoch) -> Owner:
        """Return the owner that the place of its host names."""

    def bootstrap(self, epoch: HostEpoch) -> HostBootstrap:
        """Return what a new host is told.

        Raises:
            RuntimedError, OSError: If there cannot be one.
        """


class HostStarter:
    """Gets hosts for one session.

    Args:
        pool: The spares, and the launcher of new hosts.
        tell_facts: Stores facts in the session's row of the registry; raises StorageError.
    """

    def __init__(self, pool: Pool, tell_facts: Callable[..., None]) -> None:
        self._launcher = pool.launcher
        self._pool = pool
        self._tell_facts = tell_facts

    async def start(self, wanted: Wanted) -> NewHost:
        """Return a host that starts what is wanted.

        Raises:
            HostNotStarted: If it ends or does not answer in time.
            StorageError: If the session's facts cannot be stored.
            OSError, ProtocolError: If it cannot be started.
        """
        kind = await wanted.spare_kind()
        if kind is None or not wanted.takes_spare:
            return await self._start_new(wanted, kind)

        def write_down(spare: SpareHost) -> None:
            self._launcher.name_owner(spare.place, wanted.owner(spare.epoch))
            self._tell(wanted, spare.place, spare.epoch)

        host = await self._pool.hand_over(kind, write_down, wanted.becoming())
        return host or await self._start_new(wanted, kind)

    def is_ready(self, host: NewHost) -> None:
        """Note that what this host owns has started."""
        self._pool.started(host)

    async def _start_new(self, wanted: Wanted, kind: SpareKind | None) -> NewHost:
        epoch = new_host_epoch()
        place = self._launcher.new_place(wanted.owner(epoch))
        try:
            # Before the host exists: if this daemon dies, the next one finds it.
            self._tell(wanted, place, epoch)
        except StorageError:
            await asyncio.to_thread(self._launcher.forget, place)
            raise
        pid = await self._launcher.launch(place, wanted.bootstrap(epoch))
        return NewHost(place=place, epoch=epoch, pid=pid, kind=kind)

    def _tell(self, wanted: Wanted, place: Place, epoch: HostEpoch) -> None:
        self._tell_facts(host_epoch=epoch, host_dir=place, **wanted.facts)
