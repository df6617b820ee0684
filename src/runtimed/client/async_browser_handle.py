"""The asynchronous part of a browser handle: how it makes a call, and Playwright for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from runtimed.client import calls
from runtimed.client.aio import AsyncConnection
from runtimed.client.async_apart import apart
from runtimed.client.browser_handle import BrowserHandle
from runtimed.client.flows import Flow
from runtimed.errors import SessionError
from runtimed.protocol.browser_operations import GetBrowserAddressReply
from runtimed.protocol.session_operations import Join
from runtimed.texts import printable

if TYPE_CHECKING:
    import playwright.async_api

__all__ = ["AsyncBrowserHandle"]

T = TypeVar("T")


class AsyncBrowserHandle(BrowserHandle):
    """A name for a browser session, and a connection to it in each event loop that uses it."""

    _underway = 0

    def _connect(self, join: Join) -> None:
        self._connection = AsyncConnection(self._identity, join)

    def __repr__(self) -> str:
        return f"AsyncBrowserSession(id={printable(self.session_id or 'None')}{', new' if self.is_new else ''})"

    async def async_page(self) -> playwright.async_api.Page:
        """Return Playwright's page of the active tab for asyncio, for example in notebooks; see `page`."""
        return await self._active_page(lambda attaching: self._address(attaching=attaching))

    async def _address(self, *, attaching: bool = False) -> GetBrowserAddressReply:
        return await self._perform(calls.browser.browser_address(self._known(), attaching=attaching))

    async def _let_go(self) -> None:
        """End this client's own driver process."""
        attached, self._async_attached = self._async_attached, None
        if attached is not None:
            await attached.close()

    async def _perform(self, flow: Flow[T]) -> T:
        await self._connection.open()
        self._underway += 1
        try:
            return await self._connection.perform(flow)
        except SessionError:
            if self._underway == 1:
                # There is no session to join.
                self._connection.close()
            raise
        finally:
            self._underway -= 1

    async def _apart(self, flow: Flow[T], *, start_daemon: bool = True) -> T:
        """Use a short connection, so that it works after the end, too."""
        return await apart(self._identity, flow, start_daemon=start_daemon)
