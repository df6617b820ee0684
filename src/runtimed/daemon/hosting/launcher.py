"""The interface between the daemon and the machines that hosts run on: starts, connects to and cleans up after hosts.

Only a launcher knows where a host is. Everything else holds a `Place`, which can be stored and given back to it.
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
"""Where a host is, in its launcher's own notation. The registry keeps it while the host lives."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The session that a host belongs to.

    Attributes:
        notebook_id: The session.
        epoch: The host's id; its events are numbered within it.
        kind: What the host owns.
        kernel_type: The kernel that was asked for.
        env_source: Where the kernel's environment comes from.
    """

    notebook_id: str
    epoch: str
    kind: Literal["kernel", "browser"] = "kernel"
    kernel_type: str
    env_source: str


prepare(Owner)


class HostNotStarted(RuntimedError):
    """A host's process ended or did not answer in time. `stderr` has its last lines on standard error."""


class Launcher(Protocol):
    """Starts hosts somewhere, reaches them there, and finds them again after the daemon's death.

    Plain methods are called on the event loop and must not wait. A launcher of another machine answers them from its
    own records on this one.

    Attributes:
        blobs: The store for large values that hosts keep until they are fetched; None if hosts write them into the
            daemon's folder.
    """

    blobs: BlobStore | None

    # --- birth ---

    def new_place(self, owner: Owner | None) -> Place:
        """Reserve a place for a host, so that it can be stored before the host is launched.

        Args:
            owner: The session; None for a spare, which has none yet.

        Raises:
            OSError: If there can be none; nothing is left behind.
        """

    def name_owner(self, place: Place, owner: Owner) -> None:
        """Give a spare an owner, atomically: its place names this owner or none.

        Raises:
            OSError: If that fails.
        """

    async def launch(self, place: Place, bootstrap: HostBootstrap) -> int | None:
        """Start a host in its place; on return it can be reached.

        Args:
            place: One in which nothing was launched yet.
            bootstrap: What the host is told. The launcher fills in what depends on the place.

        Returns:
            Its process id there, if known.

        Raises:
            HostNotStarted: If it ends or does not answer in time; the place is gone.
            OSError, ProtocolError: If it cannot be started.
        """

    # --- life ---

    async def connect(self, place: Place, side: S, handler: Callable[[Channel[S]], ChannelHandler[Any]]) -> Channel[S]:
        """Open a channel to the host.

        Args:
            place: Where the host is.
            side: This end's side of the connection.
            handler: Makes the channel's owner.

        Raises:
            OSError: If no host answers there now.
        """

    async def find_pid(self, place: Place) -> int | None:
        """Return the process that listens there, if it is known. A host of another version does not name it."""

    def is_alive(self, place: Place) -> bool:
        """Whether the host may still do something, as far as is known. False is final."""

    def runs(self, place: Place, pid: int) -> bool:
        """Whether a process beside the host is alive, as far as is known."""

    def signal(self, place: Place, pid: int, number: int) -> None:
        """Send a signal to the host's process. It does not wait for the delivery. Harmless after the host's end."""

    def packages_dir(self, place: Place) -> Path | None:
        """Return the folder for packages added to a running kernel; None if it is out of reach."""

    # --- death ---

    def leftovers(self, place: Place, after: int, problem: Callable[[str], None]) -> AsyncGenerator[tuple[int, bytes]]:
        """Yield the events that a dead host has left, with their numbers. Damaged ones are skipped.

        On arrival of an event the blobs to which it refers are in the daemon's folder.

        Args:
            place: Where the host was.
            after: Number of the last stored event.
            problem: Called with a sentence for each damage, and with one for where the damaged events are kept.

        Raises:
            StorageError: If the events cannot be read, or damaged ones cannot be kept. Nothing was moved; a retry is
                safe.
        """

    def forget(self, place: Place) -> None:
        """End and remove everything that a dead host has left. The next daemon removes what this one cannot.

        Runs in a thread: it may wait for seconds.
        """

    def reap(self) -> int:
        """Collect the exit codes of hosts that ended; return how many of this process's still run."""

    # --- those that are there ---

    def places(self) -> list[Place]:
        """Return the places of hosts, dead ones included that have left something.

        Raises:
            OSError: If they are unknown.
        """

    def find_owner(self, place: Place) -> Owner | None:
        """Return the owner of a host; None if its place names none.

        Raises:
            StorageError: If the name cannot be read.
        """

    def is_spare(self, place: Place) -> bool:
        """Whether a place belongs to a spare."""

    def has_leftovers(self, place: Place) -> bool:
        """Whether a dead host has left events."""

    def set_aside(self, place: Place) -> str:
        """Move the events to where nothing removes them; return that place.

        Raises:
            StorageError: If they cannot be moved.
        """

    def kept_events(self, stored: Mapping[Place, int]) -> Iterator[bytes]:
        """Yield the events that hosts have not handed over and that may refer to blobs of this daemon.

        Args:
            stored: Place of a host → number of its last stored event.

        Raises:
            StorageError: If the events cannot be read now.
        """


def read_owner(launcher: Launcher, place: Place) -> Owner | None:
    """Return the owner of a host; None if its place names none or cannot be read."""
    try:
        return launcher.find_owner(place)
    except StorageError:
        return None


def living_epochs(launcher: Launcher) -> set[str] | None:
    """Return the epochs of all hosts; None if one of them names none."""
    try:
        places = launcher.places()
    except OSError:
        return None
    owners = [read_owner(launcher, place) for place in places if not launcher.is_spare(place)]
    return None if None in owners else {owner.epoch for owner in owners if owner is not None}
