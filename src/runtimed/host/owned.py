"""What a host owns, as the host sees it: it runs, it is ended, and it may be nobody's yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol

__all__ = ["Owned"]


class Owned(Protocol):
    """A kernel, or a browser."""

    @property
    def is_spare(self) -> bool:
        """Whether it is nobody's yet; then it says nothing to anybody."""

    @property
    def owned(self) -> asyncio.Event:
        """Set when a spare has become a session's."""

    @property
    def label(self) -> str:
        """What names its session in the log."""

    @property
    def dead(self) -> asyncio.Event:
        """Set when it is dead for good, and has been said to be."""

    async def run(self) -> None:
        """Start it; return when it is dead for good."""

    def stop(self, reason: str | None = None, *, expected: bool = True) -> Awaitable[object]:
        """End it for good, politely.

        Args:
            reason: Why; None if nobody needs to know.
            expected: Whether its session wanted that.

        Returns:
            To be awaited: done when it is dead. Harmless when it was already.
        """

    def kill(self) -> None:
        """End it for good, at once."""

    def storage_changed(self) -> None:
        """The outbox is stuck or crowded, or no longer is."""
