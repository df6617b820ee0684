"""What clients ask about browser sessions. The daemon passes most of it on to the session's host.

Each operation's docstring gives its reply.
"""

from __future__ import annotations

from typing import Any

import msgspec

from runtimed.protocol.bounds import Environment, Minutes, Number
from runtimed.protocol.operation import InRoom, Operation

__all__ = [
    "Act",
    "BrowserOperation",
    "DeleteProfile",
    "GetBrowserAddress",
    "GetCookies",
    "ListProfiles",
    "Observe",
    "OnBrowser",
    "ReadActions",
    "ReadReply",
    "SaveProfile",
    "Scrape",
    "Screenshot",
    "SetCookies",
    "StartBrowser",
]


class OnBrowser(InRoom, frozen=True, kw_only=True):
    """Asked of the daemon, which passes it on to the session's host, with the key by which it is known there.

    What a page holds may be large, and concerns the client alone: such a reply comes as `{piece: bytes, size: int}`,
    the MessagePack of what is said here of it, or the first piece of that; `ReadReply` gives the others, by the
    `reply_id` that is there, too, then.
    """

    kind = "browser"

    key: str = ""


class StartBrowser(InRoom, frozen=True, tag="start_browser"):
    """Start a browser unless the session has one. Reply when it can be used: `{created: bool}`, if this client did.

    Attributes:
        config: The fields of `BrowserConfig`.
        environment: The environment variables of the client.
        timeout_minutes: Idle minutes after which a session that this starts times out; None for never.
        max_duration_minutes: Minutes after which it times out in any case; None for never.
    """

    kind = "browser"
    is_free_form = True

    config: dict[str, Any]
    environment: Environment = msgspec.field(default_factory=dict)
    timeout_minutes: Minutes | None = 3.0
    max_duration_minutes: Minutes | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<StartBrowser notebook_id={self.notebook_id!r}>"


class Observe(OnBrowser, frozen=True, tag="observe"):
    """Look at the active tab, as `Browser.observe` does. Reply: `{observation: fields of Observation}`."""

    scope: str | None = None
    depth: Number | None = None
    interactive_only: bool = False
    max_chars: Number | None = None
    since: str | None = None
    start: str | None = None


class Act(OnBrowser, frozen=True, tag="act"):
    """Perform an action, once for each key. Reply: `{result: fields of ActionResult}`.

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


class Scrape(OnBrowser, frozen=True, tag="scrape"):
    """Read the active tab as Markdown, or as what a schema says. Reply: `{content: ...}`."""

    is_free_form = True

    selector: str | None = None
    only_main_content: bool = True
    links: bool = True
    images: bool = False
    schema: dict[str, Any] | None = None


class Screenshot(OnBrowser, frozen=True, tag="screenshot"):
    """Take a picture of the active tab. Reply: `{data: bytes}`, PNG.

    Attributes:
        target: The fields of a `Target`: only that element; None for the page.
    """

    is_free_form = True

    full_page: bool = False
    target: dict[str, Any] | None = None


class GetCookies(OnBrowser, frozen=True, tag="get_cookies"):
    """Reply: `{cookies: [...]}`, as Playwright has them."""


class SetCookies(OnBrowser, frozen=True, tag="set_cookies"):
    """Set cookies beside those that there are. Reply: `{}`.

    Attributes:
        cookie_file: Absolute path of a file that holds them; None for `cookies`.
    """

    is_free_form = True

    cookies: list[dict[str, Any]]
    cookie_file: str | None = None


class SaveProfile(OnBrowser, frozen=True, tag="save_profile"):
    """Keep a copy of the profile under a name, while it is used. Reply: `{}`."""

    name: str


class ListProfiles(Operation, frozen=True, tag="list_profiles"):
    """Reply: `{names: [str, ...]}`: the named profiles, sorted."""


class DeleteProfile(Operation, frozen=True, tag="delete_profile"):
    """Delete a named profile; raises BrowserError where there is none, or a session stores it again at its end.

    Reply: `{}`.
    """

    name: str


class GetBrowserAddress(OnBrowser, frozen=True, tag="browser_address"):
    """Reply: `{cdp_url: str, viewer_url: str, viewer_page: str, target: str, dialogs: {str: str}, silent: [str]}`.

    The addresses are those of the relay, on loopback, and hold its tokens; `viewer_page` is the path of a file that
    leads to the viewer and that only this user can read; `target` is Chromium's id of the active tab; `dialogs` has the
    tabs that wait in a dialog, each by that id with a sentence that says so; `silent` has a sentence for each tab that
    does not answer, asked where somebody is about to attach.
    """

    attaching: bool = False


class ReadReply(OnBrowser, frozen=True, tag="read_reply"):
    """Read on in a reply of more than a page. Reply: `{piece: bytes}`, at most 1 MiB from `offset`."""

    reply_id: Number
    offset: Number


class ReadActions(InRoom, frozen=True, tag="read_actions"):
    """Read the action log, whatever the session's state. No use of the session.

    Reply: `{events: [[seq, bytes], ...], last: int, more: bool}`: a page of the session's events, of which those that
    are `BrowserLogged` count; with `more`, reading goes on after `last`.
    """

    kind = "browser"
    is_use = False

    after: Number = 0


BrowserOperation = (
    Observe | Act | Scrape | Screenshot | GetCookies | SetCookies | SaveProfile | GetBrowserAddress | ReadReply
)
"""What the daemon passes on to the host of a browser."""
