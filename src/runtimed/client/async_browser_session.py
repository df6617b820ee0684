"""`AsyncBrowserSession`: a browser session for asyncio. Every operation is defined in `calls.browser`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from runtimed.actions import Target
from runtimed.client import calls
from runtimed.client.async_browser_handle import AsyncBrowserHandle
from runtimed.client.browser_handle import open_viewer
from runtimed.client.handle import documented
from runtimed.errors import DaemonUnavailable, RuntimedError, SessionNotFound
from runtimed.models import Image, SessionStatus
from runtimed.pages import ActionResult, ConsoleMessage, DownloadedFile, LogEntry, Observation, PageRequest

__all__ = ["AsyncBrowserSession"]


@documented
class AsyncBrowserSession(AsyncBrowserHandle):
    """A live browser, a real Chromium, that several clients may drive and watch, joined by its id.

    The constructor has no effect; `start` starts the session, or joins a running one. As a context manager it stops a
    session that the block started, and only leaves any other. Only `stop()` and its timeouts end a browser session.

    Example:
        >>> async with AsyncBrowserSession(timeout_minutes=10) as session:
        ...     await session.execute(type="goto", url="https://example.com")
        ...     print(await session.observe())
    """

    # --- life ---

    async def start(self) -> None:
        """See `calls.browser.start_browser`."""
        notebook = self._named()
        flow = calls.browser.start_browser(notebook, self._config, self._timeout_minutes, self._max_duration_minutes)
        if self._began(await self._perform(flow)):
            await self.open_viewer()

    async def stop(self) -> None:
        """End the session for everybody: its cookies are saved, and its browser ends; its action log stays.

        Idempotent.
        """
        await self._let_go()
        if self._notebook is not None:
            await self._apart(calls.stop(self._notebook))
            self._created = False
            self._connection.close()

    async def close(self) -> None:
        """Leave the session, and end this client's own driver process; the session lives on. Idempotent."""
        await self._let_go()
        if self._notebook is not None:
            self._connection.close()

    async def status(self) -> SessionStatus:
        """Return the session's status, `not_started` before its start. The call does not count as use."""
        if self._notebook is None:
            return self._not_started()
        try:
            return await self._apart(calls.get_session(self._notebook))
        except SessionNotFound:
            return self._not_started()

    async def __aenter__(self) -> AsyncBrowserSession:
        was_created = self._created
        try:
            await self.start()
        except BaseException:
            # It may have begun to start.
            await self._leave(failed=True)
            raise
        self._block_ends_it = self._created and not was_created
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._let_go()
        finally:
            if self._block_ends_it:
                await self._leave(failed=exc_type is not None)
            else:
                await self.close()

    async def _leave(self, *, failed: bool) -> None:
        """End the session if this client started it, and close the handle."""
        try:
            await self._apart(calls.leave(self._known(), failed=failed), start_daemon=False)
            self._created = False
        except DaemonUnavailable:
            # A client that ended the daemon ended the session, or wants its browser to live on.
            return
        except RuntimedError:
            # The block's own error is the one to raise; without one, this is.
            if not failed:
                raise
        finally:
            await self.close()

    # --- where it is ---

    async def cdp_url(self) -> str:
        """Return the address at which DevTools clients reach this browser.

        It is on this machine's loopback, and contains a token that gives full control of the browser. Traffic through
        it counts as use of the session. Playwright can attach only while no page waits in a dialog; else its
        `connect_over_cdp` waits for the answer, up to its timeout. If a client without a handler for dialogs wants
        something of a page in a dialog, such as its title, the dialog is dismissed after 5 seconds.

        Raises:
            SessionClosed: If the session has no browser.
        """
        address = await self._address()
        return address.cdp_url

    async def viewer_url(self) -> str:
        """The address of a page that shows the browser live, with its tabs and its action log; see `cdp_url`."""
        address = await self._address()
        return address.viewer_url

    async def open_viewer(self) -> None:
        """Open the viewer in this user's own browser. If none opens, print the address.

        Raises:
            SessionClosed: If the session has no browser.
        """
        open_viewer(await self._address())

    # --- operations ---

    async def observe(
        self,
        scope: str | None = None,
        depth: int | None = None,
        interactive_only: bool = False,
        max_chars: int | None = None,
        since: Observation | str | None = None,
        start: str | None = None,
    ) -> Observation:
        """See `calls.browser.observe`."""
        return await self._perform(
            calls.browser.observe(self._known(), scope, depth, interactive_only, max_chars, since, start)
        )

    async def execute(
        self,
        action: object = None,
        /,
        *,
        type: str | None = None,  # noqa: A002  # see calls.browser
        raise_on_failure: bool = False,
        **fields: Any,
    ) -> ActionResult:
        """See `calls.browser.execute`."""
        return await self._perform(
            calls.browser.execute(self._known(), action, type=type, raise_on_failure=raise_on_failure, **fields)
        )

    async def scrape(
        self,
        selector: str | None = None,
        only_main_content: bool = True,
        links: bool = True,
        images: bool = False,
        schema: Any = None,
    ) -> Any:
        """See `calls.browser.scrape`."""
        return await self._perform(
            calls.browser.scrape(self._known(), selector, only_main_content, links, images, schema)
        )

    async def screenshot(
        self, target: Target | Mapping[str, Any] | str | None = None, full_page: bool = False
    ) -> Image:
        """See `calls.browser.screenshot`."""
        return await self._perform(calls.browser.screenshot(self._known(), target, full_page))

    async def get_cookies(self) -> list[dict[str, Any]]:
        """See `calls.browser.get_cookies`."""
        return await self._perform(calls.browser.get_cookies(self._known()))

    async def set_cookies(
        self, cookies: Sequence[Mapping[str, Any]] | None = None, cookie_file: str | Path | None = None
    ) -> None:
        """See `calls.browser.set_cookies`."""
        await self._perform(calls.browser.set_cookies(self._known(), cookies, cookie_file))

    async def save_profile(self, name: str) -> None:
        """See `calls.browser.save_profile`."""
        await self._perform(calls.browser.save_profile(self._known(), name))

    async def read_actions(self, pictures: bool = False) -> list[LogEntry]:
        """See `calls.browser.read_actions`."""
        return await self._apart(calls.browser.read_actions(self._known(), pictures))

    async def read_runs(self) -> list[calls.browser.Run]:
        """See `calls.browser.read_runs`."""
        return await self._apart(calls.browser.read_runs(self._known()))

    async def console(
        self,
        level: str | Sequence[str] | None = None,
        text: str | None = None,
        tab: str | None = None,
        since: datetime | None = None,
        limit: int = 1000,
    ) -> list[ConsoleMessage]:
        """See `calls.browser.console`."""
        return await self._apart(calls.browser.console(self._known(), level, text, tab, since, limit))

    async def requests(
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
        return await self._apart(
            calls.browser.requests(self._known(), url, method, status, resource_type, failed, tab, since, limit)
        )

    async def downloads(self) -> list[DownloadedFile]:
        """See `calls.browser.downloads`."""
        return await self._apart(calls.browser.downloads(self._known()))
