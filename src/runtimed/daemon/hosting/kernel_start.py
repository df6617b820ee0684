"""Gets a host for the kernel of a session: a spare one, or a new one. It decides no environment, and asks no host."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec

from runtimed.daemon.hosting.folder import Owner, name_owner, new_session_folder
from runtimed.daemon.hosting.link import spawn_host
from runtimed.daemon.hosting.pool import NewHost, Pool, SpareHost
from runtimed.environments.kinds import Kind, kind_of
from runtimed.environments.maker import Prepared
from runtimed.host.bootstrap import Bootstrap
from runtimed.ids import HostEpoch, NotebookId, new_host_epoch
from runtimed.protocol.client_operations import StartKernel
from runtimed.protocol.codec import pack
from runtimed.protocol.host_operations import HostBecome
from runtimed.settings import Settings
from runtimed.storage.spool import Spool

__all__ = ["HostStarter", "KernelWanted", "SpareKernel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelWanted:
    """A kernel that was decided on.

    Attributes:
        request: How it was asked for.
        kernel_type: What it is.
        env_source: Where its environment comes from.
        prepared: The environment that was made for it; None for one that is there without us.
    """

    request: StartKernel
    kernel_type: str
    env_source: str
    prepared: Prepared | None

    @property
    def interpreter(self) -> str:
        """Its Python, or the client's."""
        return self.request.interpreter if self.prepared is None else self.prepared.interpreter

    @property
    def environment(self) -> dict[str, str]:
        """Its environment variables."""
        return self.request.environment if self.prepared is None else self.prepared.environment

    @property
    def marker(self) -> str:
        """The file of its environment that its users lock; empty for an environment that is not ours."""
        return "" if self.prepared is None else self.prepared.marker


@dataclass(frozen=True, slots=True)
class SpareKernel:
    """A kind of spare kernel, as the pool needs it; see `SpareKind`."""

    kind: Kind
    max_kinds: ClassVar[int] = 2
    max_spares: ClassVar[int] = sys.maxsize

    @property
    def name(self) -> str:
        """See `SpareKind`."""
        return self.kind.source

    def replaces(self, other: SpareKernel) -> bool:
        """See `SpareKind`."""
        return self.kind.replaces(other.kind)

    async def spawn(self, folder: Path, epoch: HostEpoch, settings: Settings) -> int:
        """See `SpareKind`."""
        kind = self.kind
        return await spawn_host(
            Bootstrap(
                folder=str(folder),
                epoch=epoch,
                data_dir=str(settings.data_dir),
                socket_path=str(settings.socket_path),
                blobs_dir=str(settings.data_dir / "blobs"),
                kernel_type="python",
                env_source=kind.source,
                interpreter=kind.interpreter,
                marker=kind.marker,
                environment=dict(kind.variables),
                cwd="/",
                notebook_label="spare",
                max_memory=kind.max_memory,
                spare=True,
                lock=Spool.lock(folder),
            )
        )

    def clear_up(self, folder: Path, settings: Settings) -> None:
        """See `SpareKind`: a kernel leaves nothing elsewhere."""


class HostStarter:
    """Gets hosts for one session.

    Args:
        notebook_id: The session.
        settings: The daemon's.
        pool: Has the spares.
        tell_facts: Takes facts for the session's row in the registry; raises StorageError.
    """

    def __init__(
        self, notebook_id: NotebookId, settings: Settings, pool: Pool, tell_facts: Callable[..., None]
    ) -> None:
        self._notebook_id = notebook_id
        self._settings = settings
        self._pool = pool
        self._tell_facts = tell_facts

    async def start(self, wanted: KernelWanted) -> NewHost:
        """Return a host whose kernel starts.

        Raises:
            KernelStartFailed: If it ends or says nothing in time.
            StorageError: If there is no room for it.
            OSError, ProtocolError: If that is not possible.
        """
        kind = await asyncio.to_thread(
            kind_of,
            wanted.env_source,
            wanted.interpreter,
            wanted.marker,
            wanted.environment,
            self._settings.limits.max_kernel_memory,
        )
        if kind is None:
            return await self._start_new(wanted, None)

        def write_down(spare: SpareHost) -> None:
            name_owner(spare.folder, self._owner(wanted, spare.epoch))
            self._tell(wanted, spare.folder, spare.epoch)

        owner = HostBecome(
            kernel_type=wanted.kernel_type,
            env_source=wanted.env_source,
            request=pack(msgspec.to_builtins(wanted.request)),
            environment=wanted.environment,
            cwd=wanted.request.cwd,
            notebook_label=self._notebook_id,
            inherited=wanted.request.inherited,
        )
        spare_kind = SpareKernel(kind)
        return await self._pool.hand_over(spare_kind, write_down, owner) or await self._start_new(wanted, spare_kind)

    def is_ready(self, host: NewHost) -> None:
        """The kernel of this host has started."""
        self._pool.started(host)

    async def _start_new(self, wanted: KernelWanted, kind: SpareKernel | None) -> NewHost:
        epoch = new_host_epoch()
        folder = new_session_folder(
            self._settings.hosts_dir, self._owner(wanted, epoch), lambda folder: self._tell(wanted, folder, epoch)
        )
        pid = await spawn_host(
            Bootstrap(
                folder=str(folder),
                epoch=epoch,
                data_dir=str(self._settings.data_dir),
                socket_path=str(self._settings.socket_path),
                blobs_dir=str(self._settings.data_dir / "blobs"),
                kernel_type=wanted.kernel_type,
                env_source=wanted.env_source,
                interpreter=wanted.interpreter,
                environment=wanted.environment,
                marker=wanted.marker,
                request=pack(msgspec.to_builtins(wanted.request)),
                cwd=wanted.request.cwd,
                notebook_label=self._notebook_id,
                inherited=wanted.request.inherited,
                max_memory=self._settings.limits.max_kernel_memory,
                lock=Spool.lock(folder),
            )
        )
        return NewHost(folder=folder, epoch=epoch, pid=pid, kind=kind)

    def _owner(self, wanted: KernelWanted, epoch: HostEpoch) -> Owner:
        return Owner(
            notebook_id=self._notebook_id, epoch=epoch, kernel_type=wanted.kernel_type, env_source=wanted.env_source
        )

    def _tell(self, wanted: KernelWanted, folder: Path, epoch: HostEpoch) -> None:
        self._tell_facts(
            host_epoch=epoch, host_dir=str(folder), kernel_type=wanted.kernel_type, env_source=wanted.env_source
        )
