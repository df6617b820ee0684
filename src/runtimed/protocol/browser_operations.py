"""Operations on browser sessions, each with its reply. The daemon forwards most of them to the session's host."""

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
    """An operation that the daemon forwards to the session's host.

    Attributes:
        key: Idempotency key, which the daemon sets for the host.
    """

    kind = "browser"

    key: str = ""


class StartBrowserReply(ReplyBody, frozen=True):
    """The browser can be used.

    Attributes:
        created: Whether this request started it.
        new: Whether the session's id was never used before.
    """

    created: bool
    new: bool


class StartBrowser(InRoom[StartBrowserReply], frozen=True, tag="start_browser"):
    """Start a browser unless the session has one. The reply comes when it can be used.

    Attributes:
        config: The fields of `BrowserConfig`.
        environment: The client's environment variables.
        timeout_minutes: Idle minutes after which the started session times out; None for never.
        max_duration_minutes: Minutes after its start when it times out in any case; None for never.
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
    """Observe the active tab; see `Browser.observe`."""

    scope: str | None = None
    depth: Number | None = None
    interactive_only: bool = False
    max_chars: Number | None = None
    since: str | None = None
    start: str | None = None


class Act(OnBrowser[InPieces[ActionResult]], frozen=True, tag="act"):
    """Perform an action; `key` makes it idempotent.

    Attributes:
        client_id: The requesting client, which the daemon sets for the host.
        label: That client's label, likewise.
    """

    is_free_form = True

    action: dict[str, Any]
    client_id: str = ""
    label: str | None = None

    def __repr__(self) -> str:
        """Leave the action out: it may hold a secret."""
        return f"<Act notebook_id={self.notebook_id!r} {self.action.get('type')}>"


class Scrape(OnBrowser[InPieces[Any]], frozen=True, tag="scrape"):
    """Read the active tab as Markdown, or as data in the form of `schema`."""

    is_free_form = True

    selector: str | None = None
    only_main_content: bool = True
    links: bool = True
    images: bool = False
    schema: dict[str, Any] | None = None


class Screenshot(OnBrowser[InPieces[bytes]], frozen=True, tag="screenshot"):
    """Take a screenshot of the active tab, as PNG.

    Attributes:
        target: The fields of a `Target` for a picture of that element; None for the page.
    """

    is_free_form = True

    full_page: bool = False
    target: dict[str, Any] | None = None


class GetCookies(OnBrowser[InPieces[list[dict[str, Any]]]], frozen=True, tag="get_cookies"):
    """Read all cookies, in Playwright's format."""


class SetCookies(OnBrowser[Done], frozen=True, tag="set_cookies"):
    """Add cookies to the present ones.

    Attributes:
        cookie_file: Absolute path of a file with cookies; None to use `cookies`.
    """

    is_free_form = True
    raw_texts = frozenset({"cookie_file"})

    cookies: list[dict[str, Any]]
    cookie_file: str | None = None


class SaveProfile(OnBrowser[Done], frozen=True, tag="save_profile"):
    """Save a copy of the running browser's profile under a name."""

    name: str


class ListProfilesReply(ReplyBody, frozen=True):
    """The named profiles, sorted."""

    names: list[str]


class ListProfiles(Operation[ListProfilesReply], frozen=True, tag="list_profiles"):
    """List the named profiles."""


class DeleteProfile(Operation[Done], frozen=True, tag="delete_profile"):
    """Delete a named profile. Raises BrowserError if there is none, or an active session will save it at its end."""

    name: str


class GetBrowserAddressReply(ReplyBody, frozen=True):
    """The addresses of a browser's relay on loopback, and the state of its tabs. The addresses contain tokens.

    Attributes:
        viewer_page: Path of a file that opens the viewer, readable only by this user.
        target: Chromium's target id of the active tab.
        dialogs: A sentence for each tab that shows a dialog, by target id.
        silent: A sentence for each tab that does not respond; only with `attaching`.
    """

    cdp_url: str
    viewer_url: str
    viewer_page: str
    target: str
    dialogs: dict[str, str]
    silent: list[str]


class GetBrowserAddress(OnBrowser[GetBrowserAddressReply], frozen=True, tag="browser_address"):
    """Read the addresses of the browser's relay.

    Attributes:
        attaching: Whether the client is about to attach, so that unresponsive tabs are looked for.
    """

    attaching: bool = False


class Piece(ReplyBody, frozen=True):
    """A piece of a reply, at most 1 MiB."""

    piece: bytes


class ReadReply(OnBrowser[Piece], frozen=True, tag="read_reply"):
    """Read the next piece of a large reply, from `offset`; see `InPieces`."""

    reply_id: Number
    offset: Number


class ReadActions(InRoom[EventPage], frozen=True, tag="read_actions"):
    """Read a browser's action log, in any state of the session. Does not count as use.

    A page holds all events of the session; the `BrowserLogged` ones are the entries of the action log.
    """

    kind = "browser"
    is_use = False

    after: Number = 0


BrowserOperation = (
    Observe | Act | Scrape | Screenshot | GetCookies | SetCookies | SaveProfile | GetBrowserAddress | ReadReply
)
"""Operations that the daemon forwards to a browser's host."""
