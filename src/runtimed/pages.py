"""The values of a browser session, frozen: its configuration, observations, results and log entries.

They travel as MessagePack. Nothing here does I/O.
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
        headless: Without a window. With False there is one where the machine has a display.
        viewport_width: In CSS pixels.
        viewport_height: In CSS pixels.
        user_agent: What the browser calls itself; None for its own words.
        cookie_file: Absolute path of a cookie file, read at the start and written during use and at the end.
        profile: Name of the profile that it begins with; None for an empty one.
        persist_profile: Whether the profile is saved: under that name, or for the next start of the same session.
        profiles_dir: Absolute path of the folder of named profiles; needed where one is named.
        chrome_args: More arguments for Chromium.
        allowed_domains: The only hosts that may be reached, their subdomains included; None for all.
        allow_files: Whether `file:` addresses may be opened.
        downloads_dir: Absolute path of the folder for downloads; None for one in the session's own folder.
        chromium: The program to start; None for the one that `find_chromium` finds.
        interactive_viewer: Whether viewers may also click and type.
        locale: Language and region, such as `de-DE`; None for Chromium's own.
        timezone_id: Such as `Europe/Berlin`; None for the client's.
        geolocation: Latitude and longitude in degrees, accuracy in metres; None for none.
        permissions: What pages may do without a question, by Playwright's names.
        proxy_server: Address of a proxy; None for what the environment says.
        proxy_bypass: Hosts that are reached without it, separated by commas.
        proxy_login: User and password for it.
        http_credentials: User and password for sites that ask, and the only origin that gets them; None for any.
        ignore_https_errors: Whether invalid certificates are accepted.
        extra_http_headers: Sent with each request.
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
    """A dialog that a page shows. The page is blocked until it is answered (`handle_dialog`)."""

    kind: Literal["alert", "confirm", "prompt", "beforeunload"]
    message: str
    default: str = ""

    def __str__(self) -> str:
        default = f" (default {self.default!r})" if self.default else ""
        return f"Dialog ({self.kind}): {self.message}{default}"


class Tab(msgspec.Struct, frozen=True, kw_only=True):
    """A tab.

    Attributes:
        id: Stable, and never given to another tab of the session.
        active: Whether actions and observations concern this one.
        dialog: The dialog that blocks its page.
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
    """The scroll position of a page, in CSS pixels: what is above, the view's height, the page's height."""

    x: int
    y: int
    view_width: int
    view_height: int
    page_width: int
    page_height: int


class Element(msgspec.Struct, frozen=True, gc=False):
    """An element of an observation.

    Attributes:
        ref: Names it in actions as long as it is on the page with that role and name, for every client of the session.
        role: As a screen reader announces it.
        name: As a screen reader announces it; empty if it has none.
        selector: Finds exactly this element on the page as it was observed, and on later visits of it; None if no
            selector does.
    """

    ref: str
    role: str
    name: str
    selector: str | None


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What a page holds, as a screen reader would tell it. `str()` is its text, with a head that says where it is.

    Attributes:
        id: For `observe(since=…)`.
        tree: The outline of the page with refs, iframes and shadow DOM included; or the difference to an earlier one.
        since: The id of the observation that `tree` is the difference to; None if it is the whole.
        omitted: How many characters of the outline `max_chars` left out; about how many where a page
            of 3,000 elements or more was looked at in part.
        next: The ref at which the outline continues, for `observe(start=…)`; None if nothing was left out.
        dialog: A dialog that is open: the outline is then empty, as the page stands still.
        elements: Those in `tree` that have a ref and a role.
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
        success: Whether the page did what was asked.
        message: What happened, in a sentence.
        error: The reason of a failure: the name of an error of `runtimed`, `Timeout` or `Refused`; None on success.
        data: What the action gives, of its own shape.
        started_at: In UTC.
        ended_at: In UTC.
        page_changed: Whether the page was seen to change meanwhile: its content, its address, its tabs, a dialog.
        detail: More about a failure, by name.
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
    """One thing that happened in a browser session.

    Attributes:
        n: Its number, from 1.
        at: When, in UTC.
        kind: What: something asked for (`action`), a picture of the page, what the page said (`console`, `network`) or
            did (`tab`, `dialog`, `download`), or that entries were left out (`omitted`).
        tab: Where.
        client_id: Who asked for the action; None for what nobody asked for.
        label: What that client calls itself; None if nobody named it.
        text: It in a line.
        data: It in full, secrets masked; for an action `action`, `selector`, `element` (role and name), `success`,
            `error`, `seconds`.
        action: For a picture, the number of the action that it belongs to.
        moment: For a picture, whether it was taken before or after that action.
        image: JPEG.
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
    """A line of a page's console, or an uncaught error.

    Attributes:
        at: When, in UTC.
        tab: The id of the tab; None if that is not known.
        level: `log`, `info`, `warning`, `error`, `debug` and so on; `uncaught` for an error that nothing caught.
        text: What.
        source: Address and line of the script; empty if that is not known.
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
    """A request of a page, and its answer.

    Attributes:
        at: When the answer came, or the request failed, in UTC.
        tab: The id of the tab; None if that is not known.
        method: `GET`, `POST` and so on.
        url: Its address.
        status: The answer's status; None if there was none.
        error: Why there was none, as Chromium says it (`net::ERR_ABORTED`); None if there was one.
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
        """Whether there was no answer, or one that reports an error (400 and above)."""
        return self.status is None or self.status >= 400

    def __str__(self) -> str:
        return f"{self.status or self.error} {self.method} {self.url}"


class DownloadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A download that has ended.

    Attributes:
        at: When it ended, in UTC.
        path: Absolute path of the file; None if the download failed or was cancelled.
        suggested_filename: What the page calls it.
        url: Where it came from.
        size: In bytes.
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
