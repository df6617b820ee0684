"""Gets a host for the browser of a session: a spare one, or a new one. It asks no host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from runtimed.browser.bootstrap import BrowserBootstrap
from runtimed.browser.kinds import Kind, kind_of
from runtimed.daemon.hosting.browser_folders import clear_up_spare, has_folder, make_folder, make_spare_folder
from runtimed.daemon.hosting.folder import Owner, name_owner, new_session_folder
from runtimed.daemon.hosting.link import spawn_host
from runtimed.daemon.hosting.pool import NewHost, Pool, SpareHost
from runtimed.ids import HostEpoch, NotebookId, new_host_epoch, stored_name
from runtimed.pages import BrowserConfig
from runtimed.protocol.browser_operations import StartBrowser
from runtimed.protocol.host_operations import HostBecomeBrowser
from runtimed.settings import Settings
from runtimed.storage.spool import Spool
from runtimed.transport.sockets import make_private_folder

__all__ = ["BrowserStarter", "SpareBrowser"]


@dataclass(frozen=True, slots=True)
class SpareBrowser:
    """A kind of spare browser, as the pool needs it; see `SpareKind`. One waits at most: it takes much memory."""

    kind: Kind
    max_kinds: ClassVar[int] = 1
    max_spares: ClassVar[int] = 1
    name: ClassVar[str] = "browser"

    def replaces(self, other: SpareBrowser) -> bool:
        """See `SpareKind`."""
        return self.kind.replaces(other.kind)

    async def spawn(self, folder: Path, epoch: HostEpoch, settings: Settings) -> int:
        """See `SpareKind`."""
        return await _spawn(
            settings,
            folder,
            epoch,
            label="spare",
            environment=dict(self.kind.variables),
            config=msgspec.to_builtins(self.kind.config),
            session_dir=make_spare_folder(settings.browsers_dir, folder),
            spare=True,
        )

    def clear_up(self, folder: Path, settings: Settings) -> None:
        """See `SpareKind`."""
        clear_up_spare(settings.browsers_dir, folder)


class BrowserStarter:
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

    async def start(self, request: StartBrowser) -> NewHost:
        """Return a host whose browser starts.

        Raises:
            KernelStartFailed: If it ends or says nothing in time.
            StorageError: If there is no room for it.
            OSError, ProtocolError: If that is not possible.
        """
        make_private_folder(self._settings.profiles_dir)
        config = {**request.config, "profiles_dir": str(self._settings.profiles_dir)}
        kind = await asyncio.to_thread(_kind_of, config, request.environment)
        folder = self._settings.browsers_dir / stored_name(self._notebook_id)
        # What a session has left in a folder of its own it finds again.
        if kind is None or has_folder(folder):
            return await self._start_new(request, config, kind)

        def write_down(spare: SpareHost) -> None:
            name_owner(spare.folder, self._owner(spare.epoch))
            self._tell(spare.folder, spare.epoch)

        owner = HostBecomeBrowser(
            config=config,
            environment=request.environment,
            session_dir=str(folder),
            notebook_label=self._notebook_id,
            timeout_minutes=request.timeout_minutes,
            max_duration_minutes=request.max_duration_minutes,
        )
        host = await self._pool.hand_over(kind, write_down, owner)
        return host or await self._start_new(request, config, kind)

    def is_ready(self, host: NewHost) -> None:
        """The browser of this host has started."""
        self._pool.started(host)

    async def _start_new(self, request: StartBrowser, config: dict[str, Any], kind: SpareBrowser | None) -> NewHost:
        epoch = new_host_epoch()
        folder = new_session_folder(
            self._settings.hosts_dir, self._owner(epoch), lambda folder: self._tell(folder, epoch)
        )
        pid = await _spawn(
            self._settings,
            folder,
            epoch,
            label=self._notebook_id,
            environment=request.environment,
            config=config,
            session_dir=make_folder(self._settings.browsers_dir / stored_name(self._notebook_id)),
            timeout_minutes=request.timeout_minutes,
            max_duration_minutes=request.max_duration_minutes,
        )
        return NewHost(folder=folder, epoch=epoch, pid=pid, kind=kind)

    def _tell(self, folder: Path, epoch: HostEpoch) -> None:
        self._tell_facts(host_epoch=epoch, host_dir=str(folder))

    def _owner(self, epoch: HostEpoch) -> Owner:
        return Owner(notebook_id=self._notebook_id, epoch=epoch, kind="browser", kernel_type="", env_source="")


def _kind_of(config: Mapping[str, Any], environment: Mapping[str, str]) -> SpareBrowser | None:
    try:
        kind = kind_of(msgspec.convert(config, BrowserConfig), environment)
    except msgspec.ValidationError:  # the host says what is wrong with it
        return None
    return None if kind is None else SpareBrowser(kind)


async def _spawn(
    settings: Settings,
    folder: Path,
    epoch: HostEpoch,
    *,
    label: str,
    environment: dict[str, str],
    config: dict[str, Any],
    session_dir: Path,
    spare: bool = False,
    timeout_minutes: float | None = None,
    max_duration_minutes: float | None = None,
) -> int:
    return await spawn_host(
        BrowserBootstrap(
            folder=str(folder),
            epoch=epoch,
            data_dir=str(settings.data_dir),
            socket_path=str(settings.socket_path),
            blobs_dir=str(settings.data_dir / "blobs"),
            notebook_label=label,
            environment=environment,
            config=config,
            session_dir=str(session_dir),
            spare=spare,
            timeout_minutes=timeout_minutes,
            max_duration_minutes=max_duration_minutes,
            lock=Spool.lock(folder),
        ),
        "runtimed.browser",
    )
