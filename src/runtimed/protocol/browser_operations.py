"""What clients ask about browser sessions. The daemon passes most of it on to the session's host."""

from __future__ import annotations

from typing import Any, Generic

import msgspec

from runtimed.pages import ActionResult, Observation
from runtimed.protocol.bounds import Environment, Minutes, Number
from runtimed.protocol.operation import InRoom, Operation, ReplyBody, ReplyT_co
from runtimed.protocol.replies import Done, EventPage, InPieces

__all__ = [
    "Act",
    "BrowserOperation",
    "DeleteProfile",
    "GetBrowserAddress",
    "GetBrowserAddressReply",
    "GetCookies",
    "ListProfiles",
    "ListProfilesReply",
    "Observe",
    "OnBrowser",
    "Piece",
    "ReadActions",
    "ReadReply",
    "SaveProfile",
    "Scrape",
    "Screenshot",
    "SetCookies",
    "StartBrowser",
    "StartBrowserReply",
]


class OnBrowser(InRoom[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """Asked of the daemon, which passes it on to the session's host, with the key by which it is known there."""

    kind = "browser"

    key: str = ""


class StartBrowserReply(ReplyBody, frozen=True):
    """What was begun.

    Attributes:
        created: Whether this client did it.
        new: Whether nobody has used the session's id before.
    """

    created: bool
    new: bool


class StartBrowser(InRoom[StartBrowserReply], frozen=True, tag="start_browser"):
    """Start a browser unless the session has one. The reply comes when it can be used.

    Attributes:
        config: The fields of `BrowserConfig`.
        environment: The environment variables of the client.
        timeout_minutes: Idle minutes after which a session that this starts times out; None for never.
        max_duration_minutes: Minutes after which it times out in any case; None for never.
    """

    kind = "browser"
    is_free_form = True
    raw_texts = frozenset({"environment"})

    config: dict[str, Any]
    environment: Environment = msgspec.field(default_factory=dict)
    timeout_minutes: Minutes | None = 3.0
    max_duration_minutes: Minutes | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<StartBrowser notebook_id={self.notebook_id!r}>"


class Observe(OnBrowser[InPieces[Observation]], frozen=True, tag="observe"):
    """Look at the active tab, as `Browser.observe` does."""

    scope: str | None = None
    depth: Number | None = None
    interactive_only: bool = False
    max_chars: Number | None = None
    since: str | None = None
    start: str | None = None


class Act(OnBrowser[InPieces[ActionResult]], frozen=True, tag="act"):
    """Perform an action, once for each key.

    Attributes:
        client_id: Who asks for it; the daemon says so to the host.
        label: What that client calls itself; likewise.
    """

    is_free_form = True

    action: dict[str, Any]
    client_id: str = ""
    label: str | None = None

    def __repr__(self) -> str:
        """Leave the action out: it may hold a secret."""
        return f"<Act notebook_id={self.notebook_id!r} {self.action.get('type')}>"


class Scrape(OnBrowser[InPieces[Any]], frozen=True, tag="scrape"):
    """Read the active tab as Markdown, or as what a schema says."""

    is_free_form = True

    selector: str | None = None
    only_main_content: bool = True
    links: bool = True
    images: bool = False
    schema: dict[str, Any] | None = None


class Screenshot(OnBrowser[InPieces[bytes]], frozen=True, tag="screenshot"):
    """Take a picture of the active tab, as PNG.

    Attributes:
        target: The fields of a `Target`: only that element; None for the page.
    """

    is_free_form = True

    full_page: bool = False
    target: dict[str, Any] | None = None


class GetCookies(OnBrowser[InPieces[list[dict[str, Any]]]], frozen=True, tag="get_cookies"):
    """Read all cookies, as Playwright has them."""


class SetCookies(OnBrowser[Done], frozen=True, tag="set_cookies"):
    """Set cookies beside those that there are.

    Attributes:
        cookie_file: Absolute path of a file that holds them; None for `cookies`.
    """

    is_free_form = True
    raw_texts = frozenset({"cookie_file"})

    cookies: list[dict[str, Any]]
    cookie_file: str | None = None


class SaveProfile(OnBrowser[Done], frozen=True, tag="save_profile"):
    """Keep a copy of the profile under a name, while it is used."""

    name: str


class ListProfilesReply(ReplyBody, frozen=True):
    """The named profiles, sorted."""

    names: list[str]


class ListProfiles(Operation[ListProfilesReply], frozen=True, tag="list_profiles"):
    """List the named profiles."""


class DeleteProfile(Operation[Done], frozen=True, tag="delete_profile"):
    """Delete a named profile; raises BrowserError where there is none, or a session stores it again at its end."""

    name: str


class GetBrowserAddressReply(ReplyBody, frozen=True):
    """The addresses of a browser's relay, on loopback, which hold its tokens, and what its tabs wait for.

    Attributes:
        viewer_page: Path of a file that leads to the viewer and that only this user can read.
        target: Chromium's id of the active tab.
        dialogs: The tabs that wait in a dialog, each by that id with a sentence that says so.
        silent: A sentence for each tab that does not answer, asked where somebody is about to attach.
    """

    cdp_url: str
    viewer_url: str
    viewer_page: str
    target: str
    dialogs: dict[str, str]
    silent: list[str]


class GetBrowserAddress(OnBrowser[GetBrowserAddressReply], frozen=True, tag="browser_address"):
    """Find out how the browser can be reached."""

    attaching: bool = False


class Piece(ReplyBody, frozen=True):
    """At most 1 MiB of a reply."""

    piece: bytes


class ReadReply(OnBrowser[Piece], frozen=True, tag="read_reply"):
    """Read on, from `offset`, in a reply of more than a page."""

    reply_id: Number
    offset: Number


class ReadActions(InRoom[EventPage], frozen=True, tag="read_actions"):
    """Read the action log, whatever the session's state. No use of the session.

    A page has all of the session's events; those that are `BrowserLogged` count.
    """

    kind = "browser"
    is_use = False

    after: Number = 0


BrowserOperation = (
    Observe | Act | Scrape | Screenshot | GetCookies | SetCookies | SaveProfile | GetBrowserAddress | ReadReply
)
"""What the daemon passes on to the host of a browser."""
