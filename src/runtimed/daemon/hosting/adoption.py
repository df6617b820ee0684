"""Finds the hosts that an earlier daemon has left, and hands each to the room of its session. Nothing here waits.

Every place of a host is checked. A host that cannot be adopted is reported; what may still be of use is never removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Protocol

from runtimed.daemon.hosting.browser_folders import clear_up_spares
from runtimed.daemon.hosting.launcher import Launcher, Owner, Place
from runtimed.daemon.registry import Registry
from runtimed.errors import RuntimedError, StorageError
from runtimed.ids import SessionId
from runtimed.lifecycle import SessionEvent
from runtimed.settings import Settings
from runtimed.storage.registry_store import SessionRow

__all__ = ["Adopter", "AdoptingRoom", "adopt_hosts"]

logger = logging.getLogger(__name__)


class AdoptingRoom(Protocol):
    """What a room offers for adoption."""

    def take_over(self, row: SessionRow) -> None:
        """Go on with a session of an earlier daemon, whose host may be gone."""

    def adopt(self, place: Place, owner: Owner, *, wanted: bool) -> asyncio.Task[None]:
        """Adopt a host of an earlier daemon.

        Args:
            place: Where the host is.
            owner: The session it belongs to.
            wanted: False if the session has ended: the host is told to end as well.

        Returns:
            A task that ends once the host has answered or is known to be dead.
        """


class Adopter(Protocol):
    """What a daemon offers for adoption."""

    settings: Settings
    launcher: Launcher
    registry: Registry

    def room(self, notebook_id: str) -> AdoptingRoom:
        """Return the room of a session, and open it if it is closed."""

    def report(self, sentence: str) -> None:
        """Report damage, or what is out of reach, to the users."""


def adopt_hosts(daemon: Adopter) -> list[asyncio.Task[None]]:
    """Let the rooms adopt all hosts; on return each such room knows its host.

    A host that cannot be adopted is reported and does not prevent the adoption of the others.

    Returns:
        Tasks that wait for the hosts' answers; see `Hosted.adopt`.
    """
    joining: list[asyncio.Task[None]] = []
    known: set[Place] = set()
    for row in daemon.registry.active():
        if row.host_dir is not None:
            known.add(Place(row.host_dir))
        with _contained(daemon, f"Session {row.session_id!r} cannot be taken over"):
            joining += _adopt_known(daemon, row)
    for place in daemon.launcher.places():
        if place not in known:
            with _contained(daemon, f"The host in {place} is left alone until the next daemon starts"):
                joining += _adopt_unknown(daemon, place)
    asyncio.get_running_loop().run_in_executor(None, clear_up_spares, daemon.settings.browsers_dir, daemon.launcher)
    return joining


@contextlib.contextmanager
def _contained(daemon: Adopter, what: str) -> Iterator[None]:
    """Report any error of the block, and go on.

    Args:
        daemon: This daemon.
        what: What the error means for the host or session, as a sentence without its full stop.
    """
    try:
        yield
    except RuntimedError as exc:
        daemon.report(f"{what}: {exc.message}")
    except Exception as exc:
        logger.exception("%s", what)
        daemon.report(f"{what}: {type(exc).__name__}: {exc}; the daemon's log has the details")


def _adopt_known(daemon: Adopter, row: SessionRow) -> list[asyncio.Task[None]]:
    """Go on with an active session, and adopt its host if it has one.

    Raises:
        RuntimedError: If its room cannot be opened.
    """
    # An open room watches the session's deadlines.
    if row.ephemeral or row.timeout_minutes is not None or row.max_duration_minutes is not None:
        with _contained(daemon, f"The time limits of session {row.session_id!r} are not enforced"):
            _open(daemon, row.session_id).take_over(row)
    if row.kind == "browser" and row.host_dir is None:
        daemon.registry.end(
            SessionId(row.session_id), SessionEvent.HOST_LOST, error="The daemon ended before the browser had a host"
        )
    if row.host_dir is None:
        return []
    owner = Owner(
        notebook_id=row.session_id,
        epoch=row.host_epoch or "",
        kind=row.kind,
        kernel_type=row.kernel_type or "",
        env_source=row.env_source or "",
    )
    return _adopt(daemon, Place(row.host_dir), owner, wanted=True)


def _adopt_unknown(daemon: Adopter, place: Place) -> list[asyncio.Task[None]]:
    """Adopt a host that the registry does not name: an earlier daemon died, or the registry is new.

    Raises:
        StorageError: If the place cannot be read; nothing was removed.
    """
    launcher = daemon.launcher
    owner, is_alive = launcher.find_owner(place), launcher.is_alive(place)
    if not is_alive and not launcher.has_leftovers(place):
        _remove(launcher, place)
        return []
    if launcher.is_spare(place):
        # A spare lives as long as its connection to the daemon that made it, so it is about to end.
        return []
    row = None if owner is None else daemon.registry.find(owner.notebook_id)
    if owner is not None and (row is None or row.host_dir is None):
        return _adopt(daemon, place, owner, wanted=row is None or _is_wanted(row))
    what = "it does not say to which session it belongs" if owner is None else f"{owner.notebook_id!r} has another one"
    if is_alive:
        daemon.report(f"The host in {place} cannot be taken over: {what}. It is left alone")
    else:
        daemon.report(
            f"The events that a host has left in {place} cannot be taken over: {what}. They are kept in "
            f"{launcher.set_aside(place)}"
        )
        _remove(launcher, place)
    return []


def _remove(launcher: Launcher, place: Place) -> None:
    # In a thread: it waits for processes that the host left running.
    asyncio.get_running_loop().run_in_executor(None, launcher.forget, place)


def _is_wanted(row: SessionRow) -> bool:
    """Whether the session needs this host: it is active, or ended only because the host was out of reach."""
    return row.status == "active" or row.close_reason == SessionEvent.HOST_LOST.value


def _adopt(daemon: Adopter, place: Place, owner: Owner, *, wanted: bool) -> list[asyncio.Task[None]]:
    joining: list[asyncio.Task[None]] = []
    with _contained(daemon, f"The host in {place} of session {owner.notebook_id!r} cannot be taken over"):
        joining.append(_open(daemon, owner.notebook_id).adopt(place, owner, wanted=wanted))
    return joining


def _open(daemon: Adopter, notebook_id: str) -> AdoptingRoom:
    """Open a room. A damaged database is set aside, and a new one takes its place.

    Raises:
        RuntimedError: If the room cannot be opened.
    """
    try:
        return daemon.room(notebook_id)
    except StorageError as exc:
        if exc.data.get("set_aside") is None:
            raise
        return daemon.room(notebook_id)
