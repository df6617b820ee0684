"""The named profiles of browser sessions, as a client lists and deletes them."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from runtimed.client import calls

if TYPE_CHECKING:
    from runtimed.client.client import AsyncClient, Client

__all__ = ["AsyncProfiles", "Profiles"]


class Profiles:
    """The named profiles that `save_profile` and `BrowserSession(profile=…)` have left."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> builtins.list[str]:
        """Return their names, sorted; none if no daemon runs."""
        if not self._client.is_running():
            return []
        return self._client._perform(calls.browser.list_profiles())  # two halves of one thing

    def delete(self, name: str) -> None:
        """Delete one.

        Raises:
            BrowserError: If there is none of this name, or a session runs that stores it again at its end (attribute
                `session_id`).
            DaemonUnavailable: If no daemon runs.
        """
        self._client._perform(calls.browser.delete_profile(name))  # as above


class AsyncProfiles:
    """`Profiles` with coroutines."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self) -> builtins.list[str]:
        """Return their names, sorted; none if no daemon runs."""
        if not await self._client.is_running():
            return []
        return await self._client._perform(calls.browser.list_profiles())  # two halves of one thing

    async def delete(self, name: str) -> None:
        """Delete one; raises what `Profiles.delete` raises."""
        await self._client._perform(calls.browser.delete_profile(name))  # as above
