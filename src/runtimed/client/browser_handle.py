"""What both faces of a browser session share: its options, its id, and whether this client started it."""

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
from runtimed.ids import ClientId, SessionId, check_session_id, new_browser_session_id
from runtimed.models import SessionStatus
from runtimed.pages import BrowserConfig
from runtimed.protocol.browser_operations import GetBrowserAddressReply
from runtimed.protocol.session_operations import Join

if TYPE_CHECKING:
    import playwright.async_api

__all__ = ["BrowserHandle", "open_viewer"]

logger = logging.getLogger(__name__)


class BrowserHandle:
    """A name for a browser session, or a description of a new one.

    Nothing here opens a socket but Playwright's driver.
    """

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
        """Name a session, or describe a new one, without any effect before `start`.

        The options apply if this client starts the browser; a running one is joined unchanged.

        Args:
            session_id: The id of an existing session, or of a new one; None for a generated id.
            headless: Whether there is no window. With False there is one if the machine has a display, and in any case
                the viewer opens in this user's own browser.
            timeout_minutes: Minutes without use after which the session times out; None for never.
            max_duration_minutes: Minutes after which it times out in any case; None for never.
            viewport_width: Width of pages, in CSS pixels.
            viewport_height: Height of pages, in CSS pixels.
            user_agent: The browser's User-Agent; None for its own.
            cookie_file: A JSON list of cookies, Playwright's storage state or a cookies.txt: read at the start if it
                exists, and written in the same form during use and at the end, whatever the end is. Only cookies are
                set, not the localStorage of a storage state. Chromium limits their lifetime to 400 days.
            profile: Name of the profile to start with (`save_profile`); None for that of the session's id.
            persist_profile: Whether the browser's changes to its profile are kept.
            chrome_args: More arguments for Chromium.
            allowed_domains: The only hosts that can be reached, subdomains included; None for all.
            allow_files: Whether `file:` addresses may be opened.
            downloads_dir: Folder for downloads; None for a folder of the session.
            chromium: The program to start; None for RUNTIMED_CHROMIUM, Playwright's own, or the machine's.
            interactive_viewer: Whether watchers may click and type, too.
            locale: Language and region that pages see, such as `de-DE`.
            timezone_id: Time zone that they see, such as `Europe/Berlin`.
            geolocation: Position that they see, and may then ask for: `latitude`, `longitude`, and perhaps `accuracy`
                in metres.
            permissions: Permissions without a question, by Playwright's names, such as `clipboard-read`.
            proxy: Address of a proxy, or a dict with `server` and perhaps `bypass`, `username`, `password`. Not with
                `allowed_domains`.
            http_credentials: `username` and `password` for sites that ask for them, and perhaps the only `origin` that
                gets them; or user and password.
            ignore_https_errors: Whether certificates may be invalid.
            extra_http_headers: Headers of each request.
            device_scale_factor: Device pixels per CSS pixel: pictures are larger by this factor.
            accept_downloads: Whether downloads are allowed; else they are cancelled.
            label: This client's name for people: one line of plain text, at most 256 characters.

        Raises:
            SessionError: If the id, the label, a size, a duration or another option is invalid.
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
            self._name(check_session_id(session_id))

    def _name(self, session_id: SessionId) -> Notebook:
        """Set the session's id."""
        self._notebook = Notebook(session_id)
        self._connect(Join(notebook_id=session_id))
        return self._notebook

    def _connect(self, join: Join) -> None:
        """Create what the face needs, before any request to the session."""
        raise NotImplementedError

    @property
    def session_id(self) -> SessionId | None:
        """The session's id; None before `start` if it is to be generated."""
        return None if self._notebook is None else self._notebook.id

    @property
    def is_new(self) -> bool | None:
        """Whether the session's id was never used before this client started it, as if it is mistyped.

        None before `start`.
        """
        return self._is_new

    @property
    def client_id(self) -> ClientId:
        """The id of this client, generated with the handle."""
        return self._identity.client_id

    def _began(self, begun: Begun) -> bool:
        """Note the outcome of a start; return whether the viewer is to be shown."""
        self._is_new = begun.is_new
        if begun.is_new:
            logger.info("the browser session %r is new: this id was never used before", self.session_id)
        is_first = begun.created and not self._created
        self._created = self._created or begun.created
        return is_first and not self._config.headless

    def _named(self) -> Notebook:
        """Return the session's name, and choose one if it has none."""
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
            ask: Returns the reply to `GetBrowserAddress`, given whether Playwright is about to attach.
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
    """Open the viewer in this user's own browser. If none opens, print the address.

    Args:
        address: See `calls.browser.browser_address`.
    """
    import webbrowser  # noqa: PLC0415  # looks for browsers, which few need

    # Without a display it would find a browser for the terminal, which takes the terminal over.
    has_display = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    # Every user of the machine can read the browser's command line: no place for the token.
    if not (has_display and webbrowser.open(Path(address.viewer_page).as_uri())):
        print(f"Watch the browser at {address.viewer_url}", flush=True)  # noqa: T201  # for the person who asked to see it


def _absolute(path: str | Path | None) -> str | None:
    """Return an absolute path, since the host has another working directory."""
    return None if path is None else str(Path(path).expanduser().absolute())


def _texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise SessionError(f"{name} must be a list of texts, not {values!r}")
    return tuple(values)
