"""`BrowserSession`: the blocking face of a browser session. Every operation is defined in `calls.browser`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from runtimed.actions import Target
from runtimed.client import calls
from runtimed.client.attached import ATTEMPTS, Attached, check_can_attach, check_page_answers, not_found
from runtimed.client.blocking import Connection
from runtimed.client.browser_handle import BrowserHandle, open_viewer
from runtimed.client.connections import Connections
from runtimed.client.flows import Flow
from runtimed.client.handle import documented
from runtimed.errors import DaemonUnavailable, RuntimedError, SessionError, SessionNotFound
from runtimed.models import Image, SessionStatus
from runtimed.pages import ActionResult, ConsoleMessage, DownloadedFile, LogEntry, Observation, PageRequest
from runtimed.protocol.operations import Join
from runtimed.texts import printable

if TYPE_CHECKING:
    import playwright.async_api
    import playwright.sync_api

__all__ = ["BrowserSession"]

T = TypeVar("T")


@documented
class BrowserSession(BrowserHandle):
    """A live browser, a real Chromium, that several clients may drive and watch, joined by its id.

    The constructor touches nothing; `start` starts it, or joins it if it runs. As a context manager it stops a session
    that the block started, and only leaves any other. A session that nobody stops ends by its timeouts.

    Example:
        >>> with BrowserSession(timeout_minutes=10) as session:
        ...     session.execute(type="goto", url="https://example.com")
        ...     print(session.observe())
    """

    def _connect(self, join: Join) -> None:
        # After a SessionError there is nothing to be joined.
        self._connections = Connections(self._identity, join, dropped_after=(SessionError,))

    _attached: Attached | None = None

    def __repr__(self) -> str:
        return f"BrowserSession(id={printable(self.session_id or 'None')}{', new' if self.is_new else ''})"

    # --- life ---

    def start(self) -> None:
        """See `calls.browser.start_browser`."""
        notebook = self._named()
        flow = calls.browser.start_browser(notebook, self._config, self._timeout_minutes, self._max_duration_minutes)
        if self._began(self._perform(flow)):
            self.open_viewer()

    def stop(self) -> None:
        """End the session for everybody: its cookies are saved, and its browser ends; its action log stays.

        Stopping twice, or a session that never started, is harmless.
        """
        self._let_go()
        if self._notebook is not None:
            self._apart(calls.stop(self._notebook))
            self._created = False
            self._connections.close()

    def close(self) -> None:
        """Leave the session, and end this client's own driver process; the session lives on. Harmless twice."""
        self._let_go()
        if self._notebook is not None:
            self._connections.close()

    def status(self) -> SessionStatus:
        """Return the session's state, `not_started` before there is one. Asking is no use of the session."""
        if self._notebook is None:
            return self._not_started()
        try:
            return self._apart(calls.get_session(self._notebook))
        except SessionNotFound:
            return self._not_started()

    def __enter__(self) -> BrowserSession:
        was_created = self._created
        try:
            self.start()
        except BaseException:
            # It may have begun to start.
            self._leave(failed=True)
            raise
        self._block_ends_it = self._created and not was_created
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._let_go()
        finally:
            if self._block_ends_it:
                self._leave(failed=exc_type is not None)
            else:
                self.close()

    def _leave(self, *, failed: bool) -> None:
        """End the session if this client started it, and close the handle."""
        try:
            self._apart(calls.leave(self._known(), failed=failed), start_daemon=False)
            self._created = False
        except DaemonUnavailable:
            # Whoever ended the daemon ended the session, or wants its browser to live on.
            return
        except RuntimedError:
            # The error that ends the block is the one to see; without one, this is.
            if not failed:
                raise
        finally:
            self.close()

    # --- Playwright ---

    @property
    def page(self) -> playwright.sync_api.Page:
        """Playwright's page of the active tab, live: what other clients do shows here, too.

        Each time that of the tab which is active then, as after a click that opened one; keep it in a variable to go on
        with the same one. A dialog that an action opened waits for `handle_dialog`; one that is open when something is
        wanted of a page in a variable is dismissed after 5 seconds, unless the page has a handler for dialogs.

        Raises:
            BrowserError: If the active tab waits in a dialog, or any tab where this client has no page yet; with a
                handler for dialogs (`page.on("dialog", …)`) the page is returned all the same. If this client has no
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
                self._attached = Attached(address["cdp_url"])
            page = self._attached.find(address["target"])
            if page is not None:
                check_page_answers(page, address)
                if self._attached.catch_up(page, answers=address["target"] not in address["dialogs"]):
                    return page
        raise not_found()

    async def async_page(self) -> playwright.async_api.Page:
        """Return Playwright's page of the active tab for asyncio, in notebooks for example; see `page`."""
        return await self._active_page(lambda attaching: asyncio.to_thread(self._address, attaching=attaching))

    def _let_go(self) -> None:
        """End this client's own driver processes."""
        attached, self._attached = self._attached, None
        in_loop, self._async_attached = self._async_attached, None
        if in_loop is not None:
            in_loop.close_soon()
        if attached is not None:
            attached.close()

    def cdp_url(self) -> str:
        """Return the address at which tools that speak the Chrome DevTools Protocol reach this browser.

        It is on this machine's loopback, and holds a token: who has it has the browser. What goes through it counts as
        use of the session.
        Playwright attaches itself there only while no page waits in a dialog; else its `connect_over_cdp` waits for
        the answer, up to its timeout. A page in a dialog that a client wants something of, such as its title, has the
        dialog dismissed after 5 seconds if that client has no handler for dialogs.

        Raises:
            SessionClosed: If the session has no browser.
        """
        return str(self._address()["cdp_url"])

    @property
    def viewer_url(self) -> str:
        """The address of a page that shows the browser live, with its tabs and its action log; see `cdp_url`."""
        return str(self._address()["viewer_url"])

    def open_viewer(self) -> None:
        """Open the viewer in this user's own browser; where none opens, print its address.

        Raises:
            SessionClosed: If the session has no browser.
        """
        open_viewer(self._address())

    def _address(self, *, attaching: bool = False) -> dict[str, Any]:
        return self._perform(calls.browser.browser_address(self._known(), attaching=attaching))

    # --- operations ---

    def observe(
        self,
        scope: str | None = None,
        depth: int | None = None,
        interactive_only: bool = False,
        max_chars: int | None = None,
        since: Observation | str | None = None,
        start: str | None = None,
    ) -> Observation:
        """See `calls.browser.observe`."""
        return self._perform(
            calls.browser.observe(self._known(), scope, depth, interactive_only, max_chars, since, start)
        )

    def execute(
        self,
        action: object = None,
        /,
        *,
        type: str | None = None,  # noqa: A002  # see calls.browser
        raise_on_failure: bool = False,
        **fields: Any,
    ) -> ActionResult:
        """See `calls.browser.execute`."""
        return self._perform(
            calls.browser.execute(self._known(), action, type=type, raise_on_failure=raise_on_failure, **fields)
        )

    def scrape(
        self,
        selector: str | None = None,
        only_main_content: bool = True,
        links: bool = True,
        images: bool = False,
        schema: Any = None,
    ) -> Any:
        """See `calls.browser.scrape`."""
        return self._perform(calls.browser.scrape(self._known(), selector, only_main_content, links, images, schema))

    def screenshot(self, target: Target | Mapping[str, Any] | str | None = None, full_page: bool = False) -> Image:
        """See `calls.browser.screenshot`."""
        return self._perform(calls.browser.screenshot(self._known(), target, full_page))

    def get_cookies(self) -> list[dict[str, Any]]:
        """See `calls.browser.get_cookies`."""
        return self._perform(calls.browser.get_cookies(self._known()))

    def set_cookies(
        self, cookies: Sequence[Mapping[str, Any]] | None = None, cookie_file: str | Path | None = None
    ) -> None:
        """See `calls.browser.set_cookies`."""
        self._perform(calls.browser.set_cookies(self._known(), cookies, cookie_file))

    def save_profile(self, name: str) -> None:
        """See `calls.browser.save_profile`."""
        self._perform(calls.browser.save_profile(self._known(), name))

    def read_actions(self, pictures: bool = False) -> list[LogEntry]:
        """See `calls.browser.read_actions`."""
        return self._apart(calls.browser.read_actions(self._known(), pictures))

    def console(
        self,
        level: str | Sequence[str] | None = None,
        text: str | None = None,
        tab: str | None = None,
        since: datetime | None = None,
        limit: int = 1000,
    ) -> list[ConsoleMessage]:
        """See `calls.browser.console`."""
        return self._apart(calls.browser.console(self._known(), level, text, tab, since, limit))

    def requests(
        self,
        url: str | None = None,
        method: str | None = None,
        status: int | None = None,
        resource_type: str | None = None,
        failed: bool = False,
        tab: str | None = None,
        since: datetime | None = None,
        limit: int = 1000,
    ) -> list[PageRequest]:
        """See `calls.browser.requests`."""
        return self._apart(
            calls.browser.requests(self._known(), url, method, status, resource_type, failed, tab, since, limit)
        )

    def downloads(self) -> list[DownloadedFile]:
        """See `calls.browser.downloads`."""
        return self._apart(calls.browser.downloads(self._known()))

    # --- how a call is made ---

    def _perform(self, flow: Flow[T]) -> T:
        self._connections.open()
        return self._connections.perform(flow)

    def _apart(self, flow: Flow[T], *, start_daemon: bool = True) -> T:
        """Use a short connection, so that it works while another call waits, and after the end."""
        connection = Connection(self._identity, start_daemon=start_daemon)
        connection.open()
        try:
            return connection.perform(flow)
        finally:
            connection.close()
