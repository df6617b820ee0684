"""Gets a host for the kernel of a session: a spare one, or a new one. It decides no environment, and asks no host."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from runtimed.daemon.host_folder import Owner, name_owner, new_host_folder
from runtimed.daemon.host_link import spawn_host
from runtimed.daemon.pool import Pool, SpareHost
from runtimed.environments.kinds import Kind, kind_of
from runtimed.environments.maker import Prepared
from runtimed.errors import RuntimedError, StorageError
from runtimed.host.bootstrap import Bootstrap
from runtimed.ids import HostEpoch, NotebookId, new_host_epoch
from runtimed.protocol.codec import pack
from runtimed.protocol.operations import HostBecome, StartKernel
from runtimed.settings import Settings
from runtimed.storage.spool import Spool

__all__ = ["HostStarter", "KernelWanted", "NewHost"]

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHost:
    """A host that belongs to the session by now, listens, and waits for somebody to attach himself.

    Attributes:
        kind: What a spare must be to take its place; None if none can.
    """

    folder: Path
    epoch: HostEpoch
    pid: int | None
    kind: Kind | None


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
        while kind is not None and (spare := self._pool.take(kind)) is not None:
            if await self._hand_over(spare, wanted):
                return NewHost(folder=spare.folder, epoch=spare.epoch, pid=spare.pid, kind=kind)
        return await self._start_new(wanted, kind)

    def is_ready(self, host: NewHost) -> None:
        """The kernel of this host has started."""
        if host.kind is not None:
            self._pool.started(host.kind)

    async def _hand_over(self, spare: SpareHost, wanted: KernelWanted) -> bool:
        """Give a spare to the session; False if it cannot be used.

        Raises:
            OSError, StorageError: If it cannot be written down.
        """
        try:
            # Before it is told: so a daemon that starts after this one died finds a spare, which ends, or a host with
            # its session's name.
            name_owner(spare.folder, self._owner(wanted, spare.epoch))
            self._tell(wanted, spare.folder, spare.epoch)
        except (OSError, StorageError):
            self._pool.drop(spare)
            raise
        try:
            await spare.become(
                HostBecome(
                    kernel_type=wanted.kernel_type,
                    env_source=wanted.env_source,
                    request=pack(msgspec.to_builtins(wanted.request)),
                    environment=wanted.environment,
                    cwd=wanted.request.cwd,
                    notebook_label=self._notebook_id,
                )
            )
        except (RuntimedError, TimeoutError) as exc:
            logger.warning("a spare kernel cannot be used for session %r: %s", self._notebook_id, exc)
            self._pool.drop(spare)
            return False
        return True

    async def _start_new(self, wanted: KernelWanted, kind: Kind | None) -> NewHost:
        epoch = new_host_epoch()
        folder = new_host_folder(self._settings.hosts_dir, self._owner(wanted, epoch))
        # Written before there is a host, so that a daemon that starts after this one died finds it.
        try:
            self._tell(wanted, folder, epoch)
        except StorageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
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
