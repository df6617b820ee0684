"""The seam between the daemon and the machines that hosts run on: what starts a host, reaches it, and buries it.

Only a launcher knows where a host is. Everybody else holds a `Place`, which can be written down and given back to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NewType, Protocol, TypeVar

import msgspec

from runtimed.errors import RuntimedError, StorageError
from runtimed.host.bootstrap import HostBootstrap
from runtimed.protocol.connection import Side
from runtimed.storage.blobs import BlobStore
from runtimed.structs import prepare
from runtimed.transport.channel import Channel, ChannelHandler

__all__ = ["HostNotStarted", "Launcher", "Owner", "Place", "living_epochs", "read_owner"]

S = TypeVar("S", bound=Side[Any])

Place = NewType("Place", str)
"""Where a host is, in its launcher's words; the registry keeps it while the host lives."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """What a host works for.

    Attributes:
        notebook_id: The session.
        epoch: The host's id; its events are numbered within it.
        kind: What it owns.
        kernel_type: What was asked for.
        env_source: Where the kernel's environment comes from.
    """

    notebook_id: str
    epoch: str
    kind: Literal["kernel", "browser"] = "kernel"
    kernel_type: str
    env_source: str


prepare(Owner)


class HostNotStarted(RuntimedError):
    """A host's process ended, or said nothing in time; with its last lines on standard error, as `stderr`."""


class Launcher(Protocol):
    """Starts hosts somewhere, reaches them there, and finds them again after the daemon's death.

    Attributes:
        blobs: Where the large values go of hosts that keep them until they are fetched; None if hosts put them into the
            daemon's folder.
    """

    blobs: BlobStore | None

    # --- birth ---

    def new_place(self, owner: Owner | None) -> Place:
        """Make a place for a host that is about to be launched, so that it can be written down before.

        Args:
            owner: What the host works for; None for a spare, which is nobody's yet.

        Raises:
            OSError: If that is not possible; nothing is left behind.
        """

    def name_owner(self, place: Place, owner: Owner) -> None:
        """Say for what a host works that was a spare; at each instant its place names that, or nobody.

        Raises:
            OSError: If that is not possible.
        """

    async def launch(self, place: Place, bootstrap: HostBootstrap) -> int | None:
        """Start a host in its place; it can be reached when this returns.

        Args:
            place: One that nothing was launched in yet.
            bootstrap: What the host is told. The launcher fills in what depends on the place.

        Returns:
            Its process id there, if that is known.

        Raises:
            HostNotStarted: If it ends or says nothing in time; the place is gone.
            OSError, ProtocolError: If it cannot be started.
        """

    # --- life ---

    async def connect(self, place: Place, side: S, handler: Callable[[Channel[S]], ChannelHandler[Any]]) -> Channel[S]:
        """Open a channel to the host, for a side of a conversation and its owner.

        Raises:
            OSError: If nobody answers there now.
        """

    async def find_pid(self, place: Place) -> int | None:
        """Return the process that listens there, if it is known without its word: one of another version gives none."""

    def is_alive(self, place: Place) -> bool:
        """Whether the host may still do something. False is said only of one that never will."""

    def runs(self, place: Place, pid: int) -> bool:
        """Whether a process beside the host lives."""

    def signal(self, place: Place, pid: int, number: int) -> None:
        """Send a signal to the host's process; harmless after its end."""

    def packages_dir(self, place: Place) -> Path | None:
        """Return the folder for what is added to a running kernel; None if nothing can be put there from here."""

    # --- death ---

    def leftovers(self, place: Place, after: int, problem: Callable[[str], None]) -> AsyncGenerator[tuple[int, bytes]]:
        """Give the events that a dead host has left, by their numbers; where some are damaged, those around them.

        The blobs to which they refer are in the daemon's folder by then.

        Args:
            place: The host's.
            after: Number of the last event that is stored.
            problem: Called with a sentence for each damage, and for where what is damaged is kept.

        Raises:
            StorageError: If they cannot be read, or the damaged ones not be kept; nothing was moved, and it may be
                tried again.
        """

    def forget(self, place: Place) -> None:
        """End and remove all that a dead host has left; what cannot be removed is left to the next daemon.

        Runs in a thread: it may wait some seconds.
        """

    def reap(self) -> int:
        """Collect what the operating system keeps of hosts that ended; return how many of this process's still run."""

    # --- those that are there ---

    def places(self) -> list[Place]:
        """Return where hosts are, or have left something.

        Raises:
            OSError: If that cannot be told.
        """

    def find_owner(self, place: Place) -> Owner | None:
        """Return what a host works for, None if its place does not say so.

        Raises:
            StorageError: If that cannot be read.
        """

    def is_spare(self, place: Place) -> bool:
        """Whether a host is nobody's."""

    def has_leftovers(self, place: Place) -> bool:
        """Whether a dead host has left events."""

    def set_aside(self, place: Place) -> str:
        """Keep the events in a place where nobody removes them, and return where that is.

        Raises:
            StorageError: If that is not possible.
        """

    def kept_events(self, stored: Mapping[Place, int]) -> Iterator[bytes]:
        """Give the events that hosts have not handed over yet and that may refer to blobs of this daemon.

        Args:
            stored: By a host's place, up to where its events are stored.

        Raises:
            StorageError: If that cannot be told now.
        """


def read_owner(launcher: Launcher, place: Place) -> Owner | None:
    """Return what a host works for, None if its place does not say so, or cannot be read."""
    try:
        return launcher.find_owner(place)
    except StorageError:
        return None


def living_epochs(launcher: Launcher) -> set[str] | None:
    """Return the epochs of the hosts that are there; None if one of them does not name its own."""
    try:
        places = launcher.places()
    except OSError:
        return None
    owners = [read_owner(launcher, place) for place in places if not launcher.is_spare(place)]
    return None if None in owners else {owner.epoch for owner in owners if owner is not None}
