"""The blocking part of a browser handle: how it makes a call, and Playwright's page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from runtimed.client import calls
from runtimed.client.apart import apart
from runtimed.client.attached import ATTEMPTS, Attached, check_can_attach, check_page_answers, not_found
from runtimed.client.browser_handle import BrowserHandle
from runtimed.client.connections import Connections
from runtimed.client.flows import Flow
from runtimed.errors import SessionError
from runtimed.protocol.browser_operations import GetBrowserAddressReply
from runtimed.protocol.session_operations import Join
from runtimed.texts import printable

if TYPE_CHECKING:
    import playwright.async_api
    import playwright.sync_api

__all__ = ["BlockingBrowserHandle"]

T = TypeVar("T")


class BlockingBrowserHandle(BrowserHandle):
    """A name for a browser session, and its connections, one for each call that waits."""

    _attached: Attached | None = None

    def _connect(self, join: Join) -> None:
        # After a SessionError there is no session to join.
        self._connection = Connections(self._identity, join, dropped_after=(SessionError,))

    def __repr__(self) -> str:
        return f"BrowserSession(id={printable(self.session_id or 'None')}{', new' if self.is_new else ''})"

    @property
    def page(self) -> playwright.sync_api.Page:
        """Playwright's page of the active tab, live: what other clients do shows here, too.

        Each access gives the page of the tab that is active then, for example after a click that opened one; keep it in
        a variable to continue with the same one. A dialog that an action opened waits for `handle_dialog`. One that is
        open when a page in a variable is asked for something is dismissed after 5 seconds, unless the page has a
        handler for dialogs.

        Raises:
            BrowserError: If the active tab waits in a dialog, or any tab while this client has no page yet; with a
                handler for dialogs (`page.on("dialog", …)`) the page is returned nevertheless. If this client has no
                page yet and a tab does not answer. Also in a running event loop, as in a notebook: use
                `await session.async_page()`.
            BrowserUnavailable: If Playwright is not installed here.
            SessionClosed: If the session has no browser.
        """
        for _ in range(ATTEMPTS):
            if self._attached is not None and not self._attached.is_connected:
                self._attached.close()
                self._attached = None
            if self._attached is not None:
                self._attached.check_thread()
            address = self._address(attaching=self._attached is None)
            if self._attached is None:
                check_can_attach(address)
                self._attached = Attached(address.cdp_url)
            page = self._attached.find(address.target)
            if page is not None:
                check_page_answers(page, address)
                if self._attached.catch_up(page, answers=address.target not in address.dialogs):
                    return page
        raise not_found()

    async def async_page(self) -> playwright.async_api.Page:
        """Return Playwright's page of the active tab for asyncio, for example in notebooks; see `page`."""
        return await self._active_page(lambda attaching: asyncio.to_thread(self._address, attaching=attaching))

    def _address(self, *, attaching: bool = False) -> GetBrowserAddressReply:
        return self._perform(calls.browser.browser_address(self._known(), attaching=attaching))

    def _let_go(self) -> None:
        """End this client's own driver processes."""
        attached, self._attached = self._attached, None
        in_loop, self._async_attached = self._async_attached, None
        if in_loop is not None:
            in_loop.close_soon()
        if attached is not None:
            attached.close()

    def _perform(self, flow: Flow[T]) -> T:
        self._connection.open()
        return self._connection.perform(flow)

    def _apart(self, flow: Flow[T], *, start_daemon: bool = True) -> T:
        """Use a short connection, so that it works while another call waits, and after the end."""
        return apart(self._identity, flow, start_daemon=start_daemon)
