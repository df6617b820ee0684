"""The kernel or browser of a host, as the host sees it: it runs, ends, and may be a spare."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol

__all__ = ["Owned"]


class Owned(Protocol):
    """A kernel, or a browser."""

    @property
    def is_spare(self) -> bool:
        """Whether it belongs to no session yet; then it reports nothing."""

    @property
    def owned(self) -> asyncio.Event:
        """Set once a spare has become a session's."""

    @property
    def label(self) -> str:
        """The session's name in the log."""

    @property
    def dead(self) -> asyncio.Event:
        """Set once it is dead for good, and its end was reported."""

    async def run(self) -> None:
        """Start it; return when it is dead for good."""

    def stop(self, reason: str | None = None, *, expected: bool = True) -> Awaitable[object]:
        """End it for good, gracefully. Idempotent.

        Args:
            reason: Why; None if nobody needs to know.
            expected: Whether its session asked for it.

        Returns:
            An awaitable that is done when it is dead.
        """

    def kill(self) -> None:
        """Kill it for good."""

    def storage_changed(self) -> None:
        """Called when the outbox becomes stuck or crowded, and when it no longer is."""
