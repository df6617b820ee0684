"""The public values of a browser session, all immutable: configuration, observations, results, action log entries.

They are sent as MessagePack. Nothing here does I/O.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from runtimed.structs import prepare

__all__ = [
    "ActionResult",
    "BrowserConfig",
    "ConsoleMessage",
    "Dialog",
    "DownloadedFile",
    "Element",
    "LogEntry",
    "Observation",
    "PageRequest",
    "Scroll",
    "Tab",
]


_LONG_URL: Final = 300


class BrowserConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The configuration of a browser.

    Attributes:
        headless: Whether it has no window. With False it has one, if the machine has a display.
        viewport_width: Width of the viewport in CSS pixels.
        viewport_height: Height of the viewport in CSS pixels.
        user_agent: The user agent string; None for Chromium's own.
        cookie_file: Absolute path of a cookie file, read at the start and written during use and at the end.
        profile: Name of the profile to start with; None for an empty one.
        persist_profile: Whether the profile is saved: under that name, or for the next start of the same session.
        profiles_dir: Absolute path of the folder of named profiles; required with `profile`.
        chrome_args: Further command-line arguments of Chromium.
        allowed_domains: The only hosts that pages can reach, their subdomains included; None for all.
        allow_files: Whether `file:` addresses may be opened.
        downloads_dir: Absolute path of the folder for downloads; None for one in the session's own folder.
        chromium: Path of the program; None for the one that `find_chromium` finds.
        interactive_viewer: Whether viewers may also click and type.
        locale: Language and region, such as `de-DE`; None for Chromium's own.
        timezone_id: Time zone, such as `Europe/Berlin`; None for the client's.
        geolocation: Latitude and longitude in degrees, and accuracy in metres; None for none.
        permissions: Permissions that pages get without a prompt, by Playwright's names.
        proxy_server: Address of a proxy; None for the one in the environment variables.
        proxy_bypass: Hosts that are reached without the proxy, separated by commas.
        proxy_login: User and password for the proxy.
        http_credentials: User and password for HTTP authentication, and the only origin that gets them (None: any).
        ignore_https_errors: Whether invalid certificates are accepted.
        extra_http_headers: Headers that are sent with each request.
        device_scale_factor: Device pixels per CSS pixel; None for 1.
        accept_downloads: Whether downloads are accepted.
    """

    headless: bool = True
    viewport_width: int = 1280
    viewport_height: int = 1080
    user_agent: str | None = None
    cookie_file: str | None = None
    profile: str | None = None
    persist_profile: bool = True
    profiles_dir: str | None = None
    chrome_args: tuple[str, ...] = ()
    allowed_domains: tuple[str, ...] | None = None
    allow_files: bool = False
    downloads_dir: str | None = None
    chromium: str | None = None
    interactive_viewer: bool = False
    locale: str | None = None
    timezone_id: str | None = None
    geolocation: tuple[float, float, float] | None = None
    permissions: tuple[str, ...] = ()
    proxy_server: str | None = None
    proxy_bypass: str | None = None
    proxy_login: tuple[str, str] | None = None
    http_credentials: tuple[str, str, str | None] | None = None
    ignore_https_errors: bool = False
    extra_http_headers: tuple[tuple[str, str], ...] = ()
    device_scale_factor: float | None = None
    accept_downloads: bool = True


class Dialog(msgspec.Struct, frozen=True, kw_only=True):
    """A dialog of a page. It blocks the page until it is answered (`handle_dialog`)."""

    kind: Literal["alert", "confirm", "prompt", "beforeunload"]
    message: str
    default: str = ""

    def __str__(self) -> str:
        default = f" (default {self.default!r})" if self.default else ""
        return f"Dialog ({self.kind}): {self.message}{default}"


class Tab(msgspec.Struct, frozen=True, kw_only=True):
    """A tab.

    Attributes:
        id: Stable id, never reused in the session.
        active: Whether actions and observations apply to this tab.
        dialog: The dialog that blocks its page, None if there is none.
    """

    id: str
    url: str
    title: str
    active: bool
    dialog: Dialog | None = None

    def __str__(self) -> str:
        waits = "" if self.active or self.dialog is None else f"; {self.dialog}"
        return f"Tab {self.id}{' (active)' if self.active else ''}: {self.title} {_short(self.url)}{waits}"


class Scroll(msgspec.Struct, frozen=True, kw_only=True):
    """The scroll position of a page, with the sizes of viewport and page, in CSS pixels."""

    x: int
    y: int
    view_width: int
    view_height: int
    page_width: int
    page_height: int


class Element(msgspec.Struct, frozen=True, gc=False):
    """An element of an observation.

    Attributes:
        ref: Its name in actions, for every client of the session, as long as the page has it with that role and name.
        role: Its ARIA role, as a screen reader announces it.
        name: Its accessible name; empty if it has none.
        selector: A selector that matches only this element, on the observed page and on later visits; None if there is
            none.
    """

    ref: str
    role: str
    name: str
    selector: str | None


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a page, as a screen reader presents it. `str()` is its text, with a head about the page.

    Attributes:
        id: Id for `observe(since=…)`.
        tree: The outline of the page with refs, iframes and shadow DOM included; or the difference from an earlier one.
        since: Id of the observation that `tree` is the difference from; None for a full outline.
        omitted: Number of characters of the outline beyond `max_chars`; approximate for a page of 3,000 elements or
            more that was read in part.
        next: The ref at which the outline continues, for `observe(start=…)`; None if nothing was left out.
        dialog: The open dialog. It blocks the page, so the outline is empty.
        elements: The elements in `tree` that have a ref and a role.
    """

    id: str
    tab: str
    url: str
    title: str
    tree: str
    tabs: tuple[Tab, ...]
    scroll: Scroll | None = None
    since: str | None = None
    omitted: int = 0
    next: str | None = None
    dialog: Dialog | None = None
    elements: tuple[Element, ...] = ()

    def element(self, ref: str) -> Element | None:
        """Return the element of a ref, None if this observation does not show it."""
        return next((element for element in self.elements if element.ref == ref), None)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # called by IPython
        del cycle
        printer.text(str(self))

    def __str__(self) -> str:
        lines = [f"Page: {self.title}", f"URL: {_short(self.url)}"]
        if len(self.tabs) > 1:
            lines += map(str, self.tabs)
        if self.scroll is not None and self.scroll.page_height > self.scroll.view_height:
            below = self.scroll.page_height - self.scroll.view_height - self.scroll.y
            lines.append(f"Scrolled: {self.scroll.y} px above, {max(below, 0)} px below")
        if self.dialog is not None:
            lines.append(str(self.dialog))
        if self.since is not None:
            lines.append(f"Changes since {self.since}:")
        lines += ["", self.tree or ("(no change)" if self.since is not None else "(nothing)")]
        if self.omitted:
            more = "" if self.next is None else f"go on with start={self.next!r}, "
            lines.append(f"… {self.omitted} more characters; {more}observe a part with scope=, or raise max_chars")
        return "\n".join(lines)


class ActionResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an action.

    Attributes:
        success: Whether the action succeeded.
        message: What happened, in a sentence.
        error: The reason of a failure: the name of an error of `runtimed`, `Timeout` or `Refused`; None on success.
        data: The value that the action returns; its docstring describes it.
        started_at: Start of the action, in UTC.
        ended_at: End of the action, in UTC.
        page_changed: Whether a change was observed meanwhile: of content, address or tabs, or a dialog.
        detail: Details of a failure, by name.
    """

    success: bool
    message: str
    error: str | None = None
    data: Any = None
    started_at: datetime
    ended_at: datetime
    page_changed: bool = False
    detail: dict[str, Any] = {}  # msgspec copies it for each


class LogEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of a browser session's action log.

    Attributes:
        n: Its number, from 1.
        at: Time, in UTC.
        kind: A client's request (`action`), a screenshot (`picture`), a message of the page (`console`, `network`), an
            event of the page (`tab`, `dialog`, `download`), or a gap in the log (`omitted`).
        tab: Id of the tab.
        client_id: The client that requested the action; None for entries without one.
        label: That client's name for people; None if it has none.
        text: Summary in one line.
        data: All details, secrets masked; for an action `action`, `selector`, `element` (role and name), `success`,
            `error`, `seconds`.
        action: For a picture, the number of its action.
        moment: For a picture, whether it was taken before or after the action.
        image: For a picture, the JPEG.
    """

    n: int
    at: datetime
    kind: Literal["action", "picture", "console", "network", "tab", "dialog", "download", "omitted"]
    tab: str | None = None
    client_id: str | None = None
    label: str | None = None
    text: str = ""
    data: dict[str, Any] = {}  # msgspec copies it for each
    action: int | None = None
    moment: Literal["before", "after"] | None = None
    image: bytes | None = None


class ConsoleMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message in a page's console, or an uncaught error.

    Attributes:
        at: Time, in UTC.
        tab: Id of the tab; None if unknown.
        level: `log`, `info`, `warning`, `error`, `debug` and so on; `uncaught` for an uncaught error.
        text: The message.
        source: Address and line of the script; empty if unknown.
    """

    at: datetime
    tab: str | None
    level: str
    text: str
    source: str = ""

    def __str__(self) -> str:
        where = f" ({_short(self.source)})" if self.source else ""
        return f"{self.level}: {self.text}{where}"


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A network request of a page, and its response.

    Attributes:
        at: Time of the response or the failure, in UTC.
        tab: Id of the tab; None if unknown.
        method: `GET`, `POST` and so on.
        url: Its address.
        status: Status code of the response; None if there was none.
        error: Chromium's error if there was no response (`net::ERR_ABORTED`), else None.
        resource_type: `document`, `script`, `fetch`, `image` and so on.
    """

    at: datetime
    tab: str | None
    method: str
    url: str
    status: int | None = None
    error: str | None = None
    resource_type: str = ""

    @property
    def failed(self) -> bool:
        """Whether there was no response, or one with an error status (400 and above)."""
        return self.status is None or self.status >= 400

    def __str__(self) -> str:
        return f"{self.status or self.error} {self.method} {self.url}"


class DownloadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A download that has ended.

    Attributes:
        at: When it ended, in UTC.
        path: Absolute path of the file; None if the download failed or was cancelled.
        suggested_filename: The file name that the page suggests.
        url: Its address.
        size: Size in bytes.
    """

    at: datetime
    path: str | None
    suggested_filename: str
    url: str
    size: int

    def __str__(self) -> str:
        return self.path or f"failed: {self.url}"


prepare(BrowserConfig, Observation, ActionResult, LogEntry)


def _short(url: str) -> str:
    return url if len(url) <= _LONG_URL else f"{url[:_LONG_URL]}…"
