"""The warm pool: spare kernels and browsers for the next start, made in the background, never given to two sessions.

A spare is a host with its process, as every kernel and browser has one. It lives as long as its connection to this
daemon. So it needs no entry in any database, and a killed daemon leaves none behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from runtimed.daemon.hosting.launcher import Launcher, Place
from runtimed.daemon.hosting.link import HostConnection
from runtimed.errors import ConnectionLost, RuntimedError, StorageError
from runtimed.host.bootstrap import HostBootstrap
from runtimed.host.memory import available_memory
from runtimed.ids import HostEpoch, new_host_epoch
from runtimed.protocol.host_operations import HostBecome, HostBecomeBrowser, HostWarm
from runtimed.settings import Settings

__all__ = ["FAMILIES", "NewHost", "Pool", "SpareHost", "SpareKind"]

logger = logging.getLogger(__name__)

FAMILIES: Final = {
    "uv": ("uv",),
    "conda": ("conda",),
    "current": ("current", "python"),
    "browser": ("browser",),
}
"""Name prefix → counter in the pool's status."""

REST: Final = 1.0
"""Seconds from a start to the making of spares: what a client waits for comes first."""

MEMORY_REST: Final = 60.0
"""Seconds without spares after memory was short, as ending them freed some."""

PATIENCE: Final = 60.0
"""Seconds within which a spare must be warm."""

HAND_OVER_DEADLINE: Final = 2.0
"""Seconds within which a spare must confirm that it is a session's; then another host is started."""

END_DEADLINE: Final = 10.0
"""Seconds within which a spare must end; then it is killed.

As many as the hosts of sessions have. One that is killed while it ends leaves what it owned to its guard, and a
Chromium that dies a moment later has created its folder anew.
"""


class SpareKind(Protocol):
    """One kind of spare; equal kinds are interchangeable."""

    @property
    def name(self) -> str:
        """Its name in messages. `FAMILIES` has its prefix, up to a colon."""

    @property
    def max_kinds(self) -> int:
        """Largest number of kinds of this type that get spares: those started last."""

    @property
    def max_spares(self) -> int:
        """Largest number of spares of this kind, whatever the settings say."""

    def replaces(self, other: Any) -> bool:
        """Whether no start will need the other kind, of the same type, any more."""

    def bootstrap(self, place: Place, epoch: HostEpoch, settings: Settings, /) -> HostBootstrap:
        """Return what the host of a spare in this place is told.

        Raises:
            RuntimedError, OSError: If that fails.
        """

    def clear_up(self, place: Place, settings: Settings) -> None:
        """Remove what a dead spare has left outside its host's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHost:
    """The host of a session that listens and waits for `Attach`.

    Attributes:
        kind: The kind of spare that can replace it; None if none can.
    """

    place: Place
    epoch: HostEpoch
    pid: int | None
    kind: SpareKind | None


class SpareHost:
    """One spare, from its making until a session takes it or it ends.

    Attributes:
        is_warm: Whether its kernel has imported all that it needs, or its browser can be driven.
        is_unwanted: Whether it was told to end.
        making: The task that makes it.
    """

    def __init__(self, kind: SpareKind, launcher: Launcher, place: Place, epoch: HostEpoch, settings: Settings) -> None:
        self.kind = kind
        self._launcher = launcher
        self._settings = settings
        self.place = place
        self.epoch = epoch
        self.is_warm = False
        self.is_unwanted = False
        self.making: asyncio.Task[None] | None = None
        self._connection = HostConnection(launcher, f"the spare of {kind.name}", place, None)

    @property
    def pid(self) -> int | None:
        """The host's process, once it listens."""
        return self._connection.host_pid

    @property
    def is_usable(self) -> bool:
        """Whether it can be handed over, as far as is known without asking it."""
        return self.is_warm and self._connection.is_open

    async def make(self) -> None:
        """Start the host, and return when it is warm.

        Raises:
            RuntimedError, OSError: If that fails.
        """
        bootstrap = self.kind.bootstrap(self.place, self.epoch, self._settings)
        self._connection.host_pid = await self._launcher.launch(self.place, bootstrap)
        if self.is_unwanted:
            raise ConnectionLost("The spare was dropped before its host listened")
        await self._connection.greet()
        await self._connection.ask(HostWarm())
        self.is_warm = True

    async def become(self, owner: HostBecome | HostBecomeBrowser) -> None:
        """Hand it over; then it waits for `Attach`, as a new host does.

        Raises:
            RuntimedError, TimeoutError: If it cannot be used. It is killed then, since it may take itself for a
                session's; `end` removes what is left of it.
        """
        try:
            async with asyncio.timeout(HAND_OVER_DEADLINE):
                await self._connection.ask(owner)
        except BaseException:
            self._connection.signal(signal.SIGKILL)
            raise
        self._connection.close()

    async def end(self) -> None:
        """End it, whatever it takes itself for, and return when nothing of it is left. Idempotent."""
        self.is_unwanted = True
        self._connection.close()
        if self.making is not None:
            # Its making has deadlines of its own, and a process that is just starting cannot be told yet.
            await asyncio.wait({self.making})
            self._connection.close()
        if not await self._wait_gone():
            logger.warning("%s in %s does not end; it is killed", self._connection.name, self.place)
            self._connection.signal(signal.SIGKILL)
            await self._wait_gone()
        await asyncio.to_thread(self.kind.clear_up, self.place, self._settings)
        await asyncio.to_thread(self._launcher.forget, self.place)

    async def _wait_gone(self) -> bool:
        """Wait until its process has ended, at most END_DEADLINE seconds; return whether it has."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_DEADLINE):
                while self._connection.is_alive():  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.01)
        return not self._connection.is_alive()


@dataclass(slots=True, eq=False)
class _Wanted:
    """A kind that was started recently.

    Attributes:
        kind: The kind.
        from_now: When the next spare of it may be made, on the event loop's clock.
    """

    kind: SpareKind
    from_now: float


class Pool:
    """The spares of this daemon. It makes one only after a start that such a spare could have served."""

    def __init__(self, settings: Settings, launcher: Launcher) -> None:
        self._settings = settings
        self.launcher = launcher
        self._wanted: list[_Wanted] = []  # the latest one first
        self._spares: list[SpareHost] = []
        self._ending: set[asyncio.Task[None]] = set()

    # --- starts of sessions ---

    async def hand_over(
        self, kind: SpareKind, write_down: Callable[[SpareHost], None], owner: HostBecome | HostBecomeBrowser
    ) -> NewHost | None:
        """Give a spare of this kind to a session, for good; None if no spare is usable.

        Args:
            kind: The kind needed.
            write_down: Stores the spare's new owner.
            owner: What the spare is told then.

        Raises:
            OSError, StorageError: If the owner cannot be stored.
        """
        while (spare := self._take(kind)) is not None:
            try:
                # Before the spare is told: if this daemon dies, the next one finds a spare, which ends, or a host with
                # its session's name.
                write_down(spare)
            except (OSError, StorageError):
                self.drop(spare)
                raise
            try:
                await spare.become(owner)
            except (RuntimedError, TimeoutError) as exc:
                logger.warning("a spare of %s cannot be used for session %r: %s", kind.name, owner.notebook_label, exc)
                self.drop(spare)
            else:
                return NewHost(place=spare.place, epoch=spare.epoch, pid=spare.pid, kind=kind)
        return None

    def _take(self, kind: SpareKind) -> SpareHost | None:
        for spare in self._spares:
            if spare.kind == kind and spare.is_usable:
                self._spares.remove(spare)
                return spare
        return None

    def started(self, host: NewHost) -> None:
        """Note that what this host owns has started, so that the next start of its kind finds a spare."""
        kind = host.kind
        if kind is not None and self._settings.pool_size > 0:
            alike = [wanted for wanted in self._wanted if type(wanted.kind) is type(kind)]
            others = [wanted for wanted in self._wanted if wanted not in alike]
            kept = [wanted for wanted in alike if not kind.replaces(wanted.kind)]
            now = asyncio.get_running_loop().time()
            self._wanted = [_Wanted(kind, now + REST), *kept][: kind.max_kinds] + others

    # --- upkeep ---

    def tick(self) -> None:
        """Drop what is gone or too much, and make what is missing; called about every second."""
        if not self._wanted and not self._spares:
            return
        now = asyncio.get_running_loop().time()
        if self._is_memory_short():
            for spare in list(self._spares):
                logger.info("memory is short; the spare of %s ends", spare.kind.name)
                self.drop(spare)
            for wanted in self._wanted:
                wanted.from_now = now + MEMORY_REST
            return
        kinds = {wanted.kind for wanted in self._wanted}
        for spare in list(self._spares):
            if spare.kind not in kinds or (spare.is_warm and not spare.is_usable):
                self.drop(spare)
        for wanted in self._wanted:
            have = sum(spare.kind == wanted.kind for spare in self._spares)
            if have < min(self._settings.pool_size, wanted.kind.max_spares) and now >= wanted.from_now:
                # One at a time: each start takes a whole processor.
                wanted.from_now = now + REST
                self._begin(wanted)

    def _is_memory_short(self) -> bool:
        least = self._settings.pool_min_memory
        return least is not None and available_memory() < least

    def drop(self, spare: SpareHost) -> None:
        """End a spare in the background, whether it is in the pool or was taken out."""
        if spare in self._spares:
            self._spares.remove(spare)
        task = asyncio.get_running_loop().create_task(spare.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def flush(self) -> None:
        """End all spares, and make no more until the next start of a session; return when they have ended."""
        self._wanted.clear()
        for spare in list(self._spares):
            self.drop(spare)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def figures(self) -> dict[str, int]:
        """Count the spares of each family: how many wait, and how many are being made."""
        counts = Counter(
            (spare.kind.name.partition(":")[0], spare.is_warm)
            for spare in self._spares
            if spare.is_usable or not spare.is_warm
        )
        return {
            f"{family}_{name}": sum(counts[member, is_warm] for member in members)
            for family, members in FAMILIES.items()
            for name, is_warm in (("available", True), ("warming", False))
        }

    def _begin(self, wanted: _Wanted) -> None:
        try:
            place = self.launcher.new_place(None)
        except OSError as exc:
            self._give_up(wanted, exc)
            return
        spare = SpareHost(wanted.kind, self.launcher, place, new_host_epoch(), self._settings)
        self._spares.append(spare)
        spare.making = asyncio.get_running_loop().create_task(self._make(spare, wanted))

    async def _make(self, spare: SpareHost, wanted: _Wanted) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await spare.make()
        except (RuntimedError, OSError) as exc:  # TimeoutError is an OSError
            if not spare.is_unwanted:
                self._give_up(wanted, exc)
                self.drop(spare)

    def _give_up(self, wanted: _Wanted, exc: Exception) -> None:
        """Make no more until one of this kind starts again, instead of one failure after the other."""
        logger.warning("no spare of %s can be made: %s", wanted.kind.name, exc)
        if wanted in self._wanted:
            self._wanted.remove(wanted)
