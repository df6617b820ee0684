"""What both faces of a browser session have in common: what to start, under which id, and whether this did."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from runtimed.browser.config_check import check_config
from runtimed.client.attached import ATTEMPTS, AsyncAttached, check_can_attach, check_page_answers, not_found
from runtimed.client.browser_options import read_credentials, read_geolocation, read_headers, read_proxy, read_scale
from runtimed.client.calls import Notebook
from runtimed.client.calls.browser import Begun
from runtimed.client.handle import session_duration
from runtimed.client.identity import Identity
from runtimed.errors import BrowserError, NotConnected, SessionError
from runtimed.ids import ClientId, NotebookId, check_notebook_id, new_browser_session_id
from runtimed.models import SessionStatus
from runtimed.pages import BrowserConfig
from runtimed.protocol.browser_operations import GetBrowserAddressReply
from runtimed.protocol.client_operations import Join

if TYPE_CHECKING:
    import playwright.async_api

__all__ = ["BrowserHandle", "open_viewer"]

logger = logging.getLogger(__name__)


class BrowserHandle:
    """A name for a browser session, or a wish for one. Nothing here opens a socket but Playwright's driver."""

    _async_attached: AsyncAttached | None = None

    def __init__(
        self,
        session_id: str | None = None,
        *,
        headless: bool = True,
        timeout_minutes: float | None = 3,
        max_duration_minutes: float | None = None,
        viewport_width: int = 1280,
        viewport_height: int = 1080,
        user_agent: str | None = None,
        cookie_file: str | Path | None = None,
        profile: str | None = None,
        persist_profile: bool = True,
        chrome_args: Sequence[str] = (),
        allowed_domains: Sequence[str] | None = None,
        allow_files: bool = False,
        downloads_dir: str | Path | None = None,
        chromium: str | Path | None = None,
        interactive_viewer: bool = False,
        locale: str | None = None,
        timezone_id: str | None = None,
        geolocation: Mapping[str, float] | None = None,
        permissions: Sequence[str] = (),
        proxy: str | Mapping[str, str] | None = None,
        http_credentials: Mapping[str, str] | tuple[str, str] | None = None,
        ignore_https_errors: bool = False,
        extra_http_headers: Mapping[str, str] | None = None,
        device_scale_factor: float | None = None,
        accept_downloads: bool = True,
        label: str | None = None,
    ) -> None:
        """Name a session, or describe a new one; nothing happens before `start`.

        What is said of the browser counts if this client starts it; one that runs is joined as it is.

        Args:
            session_id: An id that there is already, or that is chosen here; a generated one if None.
            headless: Without a window. With False there is one where the machine has a display, and in any case the
                viewer opens in this user's own browser.
            timeout_minutes: Minutes without use after which the session times out; None for never.
            max_duration_minutes: Minutes after which it times out in any case; None for never.
            viewport_width: Of the page, in CSS pixels.
            viewport_height: Of the page, in CSS pixels.
            user_agent: What the browser calls itself; None for its own words.
            cookie_file: A JSON list of cookies, Playwright's storage state or a cookies.txt: read at the start if it is
                there, written in the same form during use and at the end, whatever the end is. Only cookies are set,
                not the localStorage of a storage state; Chromium keeps none for more than 400 days.
            profile: Name of the profile that it begins with (`save_profile`); None for that of the session's id.
            persist_profile: Whether what the browser leaves in its profile is kept; else it is as it was before.
            chrome_args: More arguments for Chromium.
            allowed_domains: The only hosts that anything may be asked of, subdomains included; None for all.
            allow_files: Whether `file:` addresses may be opened.
            downloads_dir: Where downloads go; None for a folder of the session.
            chromium: The program to start; None for RUNTIMED_CHROMIUM, Playwright's own, or the machine's.
            interactive_viewer: Whether who watches may click and type, too.
            locale: What language and region pages see, such as `de-DE`.
            timezone_id: The time zone that they see, such as `Europe/Berlin`.
            geolocation: Where they are told to be, which they may then ask: `latitude`, `longitude`, and perhaps
                `accuracy` in metres.
            permissions: What they may do without being asked, by Playwright's names, such as `clipboard-read`.
            proxy: Address of a proxy, or a dict with `server` and perhaps `bypass`, `username`, `password`. Not with
                `allowed_domains`.
            http_credentials: `username` and `password` for sites that ask for them, and perhaps the only `origin` that
                gets them; or user and password.
            ignore_https_errors: Whether certificates may be invalid.
            extra_http_headers: Headers sent with each request.
            device_scale_factor: Pixels of the device for one in CSS: pictures are larger by it.
            accept_downloads: Whether there may be downloads; else they are cancelled.
            label: What people call this client: one line of plain text, at most 256 characters.

        Raises:
            SessionError: If the id, the label, a size, a length of time or another option cannot be one.
        """
        self._timeout_minutes = session_duration("timeout_minutes", timeout_minutes, unit=60)
        self._max_duration_minutes = session_duration("max_duration_minutes", max_duration_minutes, unit=60)
        for name, value in (("viewport_width", viewport_width), ("viewport_height", viewport_height)):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000:
                raise SessionError(f"{name} must be a number of pixels from 1 to 10000, not {value!r}")
        self._config = BrowserConfig(
            headless=headless,
            viewport_width=viewport_width,
            viewport_height=viewport_height,
            user_agent=user_agent,
            cookie_file=_absolute(cookie_file),
            profile=profile,
            persist_profile=persist_profile,
            chrome_args=_texts("chrome_args", chrome_args),
            allowed_domains=None if allowed_domains is None else _texts("allowed_domains", allowed_domains),
            allow_files=allow_files,
            downloads_dir=_absolute(downloads_dir),
            chromium=None if chromium is None else str(chromium),
            interactive_viewer=interactive_viewer,
            locale=locale,
            timezone_id=timezone_id,
            geolocation=read_geolocation(geolocation),
            permissions=_texts("permissions", permissions),
            ignore_https_errors=ignore_https_errors,
            extra_http_headers=read_headers(extra_http_headers),
            device_scale_factor=read_scale(device_scale_factor),
            accept_downloads=accept_downloads,
            http_credentials=read_credentials(http_credentials),
            **read_proxy(proxy),
        )
        try:
            check_config(self._config)
        except BrowserError as exc:
            raise SessionError(exc.message, **exc.data) from None
        self._identity = Identity(label)
        self._made_at = datetime.now(UTC)
        self._notebook: Notebook | None = None
        self._created = False
        self._is_new: bool | None = None
        self._block_ends_it = False
        if session_id is not None:
            self._name(check_notebook_id(session_id))

    def _name(self, session_id: NotebookId) -> Notebook:
        """Let this be the session's id from now on."""
        self._notebook = Notebook(session_id)
        self._connect(Join(notebook_id=session_id))
        return self._notebook

    def _connect(self, join: Join) -> None:
        """Make what the face needs, before anything is asked of the session."""
        raise NotImplementedError

    @property
    def session_id(self) -> NotebookId | None:
        """The session's id; None before `start` if it is to be generated."""
        return None if self._notebook is None else self._notebook.id

    @property
    def is_new(self) -> bool | None:
        """Whether nobody had used the session's id before this client started it, as where one is mistyped.

        None before `start`.
        """
        return self._is_new

    @property
    def client_id(self) -> ClientId:
        """The id of this client, generated with the handle."""
        return self._identity.client_id

    def _began(self, begun: Begun) -> bool:
        """Take note of what a start has begun; return whether the viewer is to be shown."""
        self._is_new = begun.is_new
        if begun.is_new:
            logger.info("the browser session %r is new: nobody has used this id before", self.session_id)
        is_first = begun.created and not self._created
        self._created = self._created or begun.created
        return is_first and not self._config.headless

    def _named(self) -> Notebook:
        """Return the session's name, given now if it has none."""
        return self._notebook or self._name(new_browser_session_id())

    def _known(self) -> Notebook:
        """Return the session's name.

        Raises:
            NotConnected: If it has none yet.
        """
        if self._notebook is None:
            raise NotConnected("This browser session is not started: call start(), or use it in a `with` block")
        return self._notebook

    def _not_started(self) -> SessionStatus:
        return SessionStatus(
            session_id=self.session_id or "",
            kind="browser",
            status="not_started",
            close_reason=None,
            created_at=self._made_at,
            closed_at=None,
            last_accessed_at=self._made_at,
            timeout_minutes=self._timeout_minutes,
            max_duration_minutes=self._max_duration_minutes,
            duration=timedelta(0),
            peers=0,
            label=self._identity.label,
            error=None,
            host_pid=None,
        )

    async def _active_page(self, ask: Callable[[bool], Awaitable[GetBrowserAddressReply]]) -> playwright.async_api.Page:
        """Return Playwright's page of the active tab for asyncio.

        Args:
            ask: Gives the reply to `GetBrowserAddress`, told whether Playwright is about to attach.
        """
        for _ in range(ATTEMPTS):
            if self._async_attached is not None and not self._async_attached.is_usable:
                former, self._async_attached = self._async_attached, None
                await former.close()
            address = await ask(self._async_attached is None)
            if self._async_attached is None:
                check_can_attach(address)
                attached = AsyncAttached()
                await attached.attach(address.cdp_url)
                self._async_attached = attached
            page = await self._async_attached.find(address.target)
            if page is not None:
                check_page_answers(page, address)
                if await self._async_attached.catch_up(page, answers=address.target not in address.dialogs):
                    return page
        raise not_found()


def open_viewer(address: GetBrowserAddressReply) -> None:
    """Open the viewer in this user's own browser; where none opens, print its address.

    Args:
        address: See `calls.browser.browser_address`.
    """
    import webbrowser  # noqa: PLC0415  # looks for browsers, which few need

    # Elsewhere it would find a browser of the terminal, and take it over.
    has_display = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    # What it is given stands on a command line, which every user of the machine reads: no place for the token.
    if not (has_display and webbrowser.open(Path(address.viewer_page).as_uri())):
        print(f"Watch the browser at {address.viewer_url}", flush=True)  # noqa: T201  # for the person who asked to see it


def _absolute(path: str | Path | None) -> str | None:
    """Return a path as the host needs it, which works elsewhere."""
    return None if path is None else str(Path(path).expanduser().absolute())


def _texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise SessionError(f"{name} must be a list of texts, not {values!r}")
    return tuple(values)
