"""How the host of a browser is started, a session's or a spare's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from runtimed.browser.bootstrap import BrowserBootstrap
from runtimed.browser.kinds import Kind, kind_of
from runtimed.daemon.hosting.browser_folders import clear_up_spare, has_folder, make_folder, make_spare_folder
from runtimed.daemon.hosting.launcher import Owner, Place
from runtimed.ids import HostEpoch, SessionId, stored_name
from runtimed.pages import BrowserConfig
from runtimed.protocol.browser_operations import StartBrowser
from runtimed.protocol.host_operations import HostBecomeBrowser
from runtimed.settings import Settings
from runtimed.transport.sockets import make_private_folder

__all__ = ["BrowserWanted", "SpareBrowser"]


@dataclass(frozen=True, slots=True)
class SpareBrowser:
    """A kind of spare browser, as the pool needs it; see `SpareKind`. At most one waits, as it takes much memory."""

    kind: Kind
    max_kinds: ClassVar[int] = 1
    max_spares: ClassVar[int] = 1
    name: ClassVar[str] = "browser"

    def replaces(self, other: SpareBrowser) -> bool:
        """See `SpareKind`."""
        return self.kind.replaces(other.kind)

    def bootstrap(self, place: Place, epoch: HostEpoch, settings: Settings) -> BrowserBootstrap:
        """See `SpareKind`."""
        return BrowserBootstrap(
            epoch=epoch,
            notebook_label="spare",
            environment=dict(self.kind.variables),
            config=msgspec.to_builtins(self.kind.config),
            session_dir=str(make_spare_folder(settings.browsers_dir, place)),
            spare=True,
        )

    def clear_up(self, place: Place, settings: Settings) -> None:
        """See `SpareKind`."""
        clear_up_spare(settings.browsers_dir, place)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserWanted:
    """A browser to be started.

    Attributes:
        notebook_id: The session.
        settings: The daemon's settings.
        request: The client's request.
    """

    notebook_id: SessionId
    settings: Settings
    request: StartBrowser

    @property
    def facts(self) -> dict[str, Any]:
        """See `Wanted`: the registry knows only a browser's host."""
        return {}

    @property
    def config(self) -> dict[str, Any]:
        """Fields of its `BrowserConfig`."""
        return {**self.request.config, "profiles_dir": str(self.settings.profiles_dir)}

    @property
    def folder(self) -> Path:
        """The session's own folder."""
        return self.settings.browsers_dir / stored_name(self.notebook_id)

    async def spare_kind(self) -> SpareBrowser | None:
        """See `Wanted`."""
        return await asyncio.to_thread(_kind_of, self.config, self.request.environment)

    @property
    def takes_spare(self) -> bool:
        """See `Wanted`: a session with a folder of its own continues in it."""
        return not has_folder(self.folder)

    def becoming(self) -> HostBecomeBrowser:
        """See `Wanted`."""
        return HostBecomeBrowser(
            config=self.config,
            environment=self.request.environment,
            session_dir=str(self.folder),
            notebook_label=self.notebook_id,
            timeout_minutes=self.request.timeout_minutes,
            max_duration_minutes=self.request.max_duration_minutes,
        )

    def owner(self, epoch: HostEpoch) -> Owner:
        """See `Wanted`."""
        return Owner(notebook_id=self.notebook_id, epoch=epoch, kind="browser", kernel_type="", env_source="")

    def bootstrap(self, epoch: HostEpoch) -> BrowserBootstrap:
        """See `Wanted`."""
        make_private_folder(self.settings.profiles_dir)
        return BrowserBootstrap(
            epoch=epoch,
            notebook_label=self.notebook_id,
            environment=self.request.environment,
            config=self.config,
            session_dir=str(make_folder(self.folder)),
            timeout_minutes=self.request.timeout_minutes,
            max_duration_minutes=self.request.max_duration_minutes,
        )


def _kind_of(config: Mapping[str, Any], environment: Mapping[str, str]) -> SpareBrowser | None:
    try:
        kind = kind_of(msgspec.convert(config, BrowserConfig), environment)
    except msgspec.ValidationError:  # the host says what is wrong with it
        return None
    return None if kind is None else SpareBrowser(kind)
