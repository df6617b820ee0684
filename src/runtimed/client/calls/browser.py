"""The operations of a browser session."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from runtimed.actions import DropFiles, Target, UploadFile, parse_action, parse_target
from runtimed.client.calls.notebook import Notebook
from runtimed.client.calls.pages import Page, Pages, read_blob, read_rest
from runtimed.client.flows import Flow, ask
from runtimed.errors import ActionFailed, BrowserError, InvalidAction, StaleElement
from runtimed.models import Image
from runtimed.pages import (
    ActionResult,
    BrowserConfig,
    ConsoleMessage,
    DownloadedFile,
    LogEntry,
    Observation,
    PageRequest,
)
from runtimed.protocol import browser_operations as ops
from runtimed.protocol.codec import decode_event, read_pieces
from runtimed.protocol.events import BrowserLogged, BrowserState, Event
from runtimed.protocol.replies import InPieces
from runtimed.protocol.session_operations import GetSession

T = TypeVar("T")

__all__ = [
    "Begun",
    "Run",
    "browser_address",
    "console",
    "delete_profile",
    "downloads",
    "execute",
    "get_cookies",
    "iter_profiles",
    "list_profiles",
    "observe",
    "read_actions",
    "read_runs",
    "requests",
    "save_profile",
    "scrape",
    "screenshot",
    "set_cookies",
    "start_browser",
]


class Begun(NamedTuple):
    """The outcome of starting a browser session.

    Attributes:
        created: Whether this client started the session; else it joined it.
        is_new: Whether the session's id was never used before.
    """

    created: bool
    is_new: bool


class Run(NamedTuple):
    """The work between two starts of a session.

    Attributes:
        config: Its configuration; see `runtimed.browser.recorded`.
        actions: The log entries of the actions.
    """

    config: dict[str, Any]
    actions: list[LogEntry]


def start_browser(
    notebook: Notebook, config: BrowserConfig, timeout_minutes: float | None, max_duration_minutes: float | None
) -> Flow[Begun]:
    """Start the session's browser, or join a running one, whatever its configuration.

    The browser gets this process's environment variables: its display, its proxy, its RUNTIMED_CHROMIUM.

    Returns:
        Whether this client created the session, and whether it is new.

    Raises:
        BrowserUnavailable: If there is no Chromium, or it does not start.
        InvalidCookieFile: If `cookie_file` contains something else than cookies.
        BrowserError: If another option is invalid, such as the folder for downloads.
        SessionError: If the id is that of a kernel session.
    """
    request = ops.StartBrowser(
        notebook_id=notebook.id,
        config=msgspec.to_builtins(config),
        environment=dict(os.environ),
        timeout_minutes=timeout_minutes,
        max_duration_minutes=max_duration_minutes,
    )
    reply = yield from ask(request)
    return Begun(created=reply.created, is_new=reply.new)


def observe(
    notebook: Notebook,
    scope: str | None = None,
    depth: int | None = None,
    interactive_only: bool = False,
    max_chars: int | None = None,
    since: Observation | str | None = None,
    start: str | None = None,
) -> Flow[Observation]:
    """Return the active tab as a screen reader sees it: its outline with iframes and shadow DOM, and refs for actions.

    A ref means the same for every client of the session, as long as the element is on the page. An element whose role
    or name has changed gets a new ref: `StaleElement.nearest` of the former one.

    Args:
        scope: Only this part of the page: a ref, or a selector.
        depth: Number of levels of the outline; None for all.
        interactive_only: Only elements that can be operated.
        max_chars: Largest size of the outline in characters; `omitted` says how much was cut, and `next` where it goes
            on.
        since: An earlier observation, or its id: the outline has only the differences from it. It is complete if that
            one was of another tab, or is forgotten (`Observation.since` is None).
        start: The outline begins at the element of this ref, below its ancestors: `next` of the page before.

    Raises:
        StaleElement: If `scope` or `start` is a ref of an element that is gone.
        BrowserError: If this outline does not show `start`, or `since` is given, too; if `since` is no observation of
            this browser, or `depth` or `max_chars` is below 1.
        SessionClosed: If the session has no browser.
    """
    earlier = since.id if isinstance(since, Observation) else since
    return (
        yield from _whole(
            notebook,
            ops.Observe(
                notebook_id=notebook.id,
                scope=scope,
                depth=depth,
                interactive_only=interactive_only,
                max_chars=max_chars,
                since=earlier,
                start=start,
            ),
        )
    )


def execute(
    notebook: Notebook,
    action: object = None,
    /,
    *,
    type: str | None = None,  # noqa: A002  # the name that users write
    raise_on_failure: bool = False,
    **fields: Any,
) -> Flow[ActionResult]:
    """Perform an action, such as `execute(type="click", role="button", name="Save")`; see `runtimed.actions`.

    In each tab the actions of all clients are performed one after the other.

    Args:
        action: An object of `runtimed.actions`, or a dict of its `type` and fields.
        type: The action's name, if it is not in `action`.
        raise_on_failure: Whether an action that the page refuses raises; else its result says so.
        fields: The action's fields.

    Raises:
        InvalidAction: If there is no such action or field, or a value is invalid. It is a TypeError, too.
        ActionFailed: With `raise_on_failure`, if the page refuses the action; `result` is the result. It is a
            StaleElement if the action names a ref whose element is gone; `nearest` is one that exists.
        SessionClosed: If the session has no browser.
    """
    parsed = parse_action(action, type, fields)
    if isinstance(parsed, UploadFile | DropFiles):
        # The host works elsewhere.
        paths = tuple(str(Path(path).expanduser().absolute()) for path in parsed.files)
        parsed = msgspec.structs.replace(parsed, path=paths)
    result = yield from _whole(notebook, ops.Act(notebook_id=notebook.id, action=msgspec.to_builtins(parsed)))
    if raise_on_failure and not result.success:
        kind = StaleElement if result.error == StaleElement.__name__ else ActionFailed
        raise kind(result.message, result=result, error=result.error, **result.detail)
    return result


def scrape(
    notebook: Notebook,
    selector: str | None = None,
    only_main_content: bool = True,
    links: bool = True,
    images: bool = False,
    schema: Any = None,
) -> Flow[Any]:
    """Read the active tab, with all its frames, as Markdown or as structured data. No model takes part.

    Args:
        selector: Only this part of the page: all matches; with a schema that reads one thing, the first match.
        only_main_content: Whether to leave out navigation, headers and footers around the content.
        links: Whether links keep their addresses.
        images: Whether pictures are included, by their addresses.
        schema: What to read: a pydantic model, or a JSON schema. A field names its `selector`, or `role` with `name`,
            inside the element around it (`:scope` is that element), and perhaps the `attribute`. Numbers are read by
            the conventions of the page's language, or of the field's `locale`; `pick` (`first`, `last`, `price`) says
            which of several is meant. A boolean without yes or no in its text says whether its element is shown.

    Returns:
        Markdown; with a pydantic model an instance of it, with a JSON schema the data that it describes.

    Raises:
        InvalidAction: If the schema is invalid.
        BrowserError: If the selector finds nothing, the schema has an unsupported key or type, or a value is missing,
            ambiguous or outside of its limits (attribute `path`).
        SessionClosed: If the session has no browser.
    """
    described = schema
    if schema is not None and not isinstance(schema, Mapping):
        if not hasattr(schema, "model_json_schema"):
            raise InvalidAction(f"schema is a pydantic model, or a JSON schema as a dict; not {schema!r}")
        described = schema.model_json_schema()
    content = yield from _whole(
        notebook,
        ops.Scrape(
            notebook_id=notebook.id,
            selector=selector,
            only_main_content=only_main_content,
            links=links,
            images=images,
            schema=None if described is None else dict(described),
        ),
    )
    return content if described is schema else schema.model_validate(content)


def screenshot(
    notebook: Notebook, target: Target | Mapping[str, Any] | str | None = None, full_page: bool = False
) -> Flow[Image]:
    """Take a picture of the active tab, or of an element, which is scrolled into view.

    Args:
        target: Only this element: a ref, a selector, or a `Target` or dict that names it by role and name.
        full_page: Whether the picture shows the whole page, not only the view.

    Raises:
        InvalidAction: If `target` names no element, or both are given.
        BrowserError: If the page shows no such element, or several.
        StaleElement: If `target` is a ref of an element that is gone.
        SessionClosed: If the session has no browser.
    """
    named = None if target is None else msgspec.to_builtins(parse_target(target))
    if named is not None and full_page:
        raise InvalidAction("A picture is of an element or of the full page: give target= or full_page=True")
    data = yield from _whole(notebook, ops.Screenshot(notebook_id=notebook.id, full_page=full_page, target=named))
    return Image(data=data)


def get_cookies(notebook: Notebook) -> Flow[list[dict[str, Any]]]:
    """Return all cookies of the browser, each with `name`, `value`, `domain`, `path`, `expires`, `httpOnly` and so on.

    Raises:
        SessionClosed: If the session has no browser.
    """
    return (yield from _whole(notebook, ops.GetCookies(notebook_id=notebook.id)))


def set_cookies(
    notebook: Notebook, cookies: Sequence[Mapping[str, Any]] | None = None, cookie_file: str | Path | None = None
) -> Flow[None]:
    """Set cookies. One of the same name, domain and path is replaced; an expired one removes it.

    Chromium limits their lifetime to 400 days.

    Args:
        cookies: As `get_cookies` returns them, or as other tools write them (`expirationDate`, `expiry`, `hostOnly`,
            `no_restriction`).
        cookie_file: A file with cookies instead: a JSON list, Playwright's storage state, or cookies.txt. Only the
            cookies of a storage state are set, not its localStorage.

    Raises:
        BrowserError: If one is no valid cookie, or Chromium does not keep it unchanged; none is set then.
        InvalidCookieFile: If the file does not exist, or contains something else.
        SessionClosed: If the session has no browser.
    """
    if (cookies is None) == (cookie_file is None):
        raise BrowserError("set_cookies takes either cookies or cookie_file")
    plain = [] if cookies is None else _plain_cookies(cookies)
    file = None if cookie_file is None else str(Path(cookie_file).expanduser().absolute())  # the host works elsewhere
    yield from ask(ops.SetCookies(notebook_id=notebook.id, cookies=plain, cookie_file=file))


def _plain_cookies(cookies: object) -> list[dict[str, Any]]:
    if isinstance(cookies, Mapping | str | bytes) or not isinstance(cookies, Iterable):
        what = "a single one is a list of one" if isinstance(cookies, Mapping) else f"not {type(cookies).__name__}"
        raise BrowserError(f"cookies are a list of objects, as get_cookies returns them; {what}")
    plain = []
    for place, cookie in enumerate(cookies, 1):
        if not isinstance(cookie, Mapping):
            raise BrowserError(f"cookie {place} is no object", cookie=place)
        plain.append(dict(cookie))
    return plain


def save_profile(notebook: Notebook, name: str) -> Flow[None]:
    """Store a copy of the browser's profile (cookies, localStorage, IndexedDB) under a name, during use.

    Args:
        name: For `BrowserSession(profile=name)`; an existing profile of this name is replaced.

    Raises:
        BrowserError: If the name is invalid.
        SessionClosed: If the session has no browser.
    """
    yield from ask(ops.SaveProfile(notebook_id=notebook.id, name=name))


def list_profiles() -> Flow[list[str]]:
    """Return the names of all profiles, sorted."""
    return (yield from ask(ops.ListProfiles())).names


def iter_profiles() -> Pages[str]:
    """Iterate over the names of all profiles, sorted."""

    def read(_at: int) -> Flow[Page[str]]:
        return Page((yield from list_profiles()), None)

    return Pages(read)


def delete_profile(name: str) -> Flow[None]:
    """Delete a profile by its name.

    Raises:
        BrowserError: If there is none, or a running session would store it again at its end.
    """
    yield from ask(ops.DeleteProfile(name=name))


def browser_address(notebook: Notebook, *, attaching: bool = False) -> Flow[ops.GetBrowserAddressReply]:
    """Return the addresses of a session and of its active tab, and the open dialogs; see `GetBrowserAddress`."""
    return (yield from ask(ops.GetBrowserAddress(notebook_id=notebook.id, attaching=attaching)))


def read_actions(notebook: Notebook, pictures: bool = False) -> Flow[list[LogEntry]]:
    """Return the action log: the actions with their results, what pages said and did, and pictures.

    It stays readable after the session's end. Secrets are masked in it.

    Args:
        pictures: Whether entries of pictures contain them.

    Raises:
        SessionNotFound: If the session was never started.
        StorageError: With `pictures`, if one of them is damaged.
    """
    yield from ask(GetSession(notebook_id=notebook.id))
    entries: list[LogEntry] = []
    for event in (yield from _events(notebook).all()):
        if isinstance(event, BrowserLogged):
            entry = msgspec.convert(event.entry, LogEntry)
            if pictures and event.image is not None:
                image = yield from read_blob(notebook, event.image.sha256, event.image.size)
                entry = msgspec.structs.replace(entry, image=image)
            entries.append(entry)
    return entries


def _events(notebook: Notebook) -> Pages[Event]:
    def read(after: int) -> Flow[Page[Event]]:
        page = yield from ask(ops.ReadActions(notebook_id=notebook.id, after=after))
        events = [decode_event(body) for _seq, body in page.events]
        return Page(events, page.last if page.more else None)

    return Pages(read)


def read_runs(notebook: Notebook) -> Flow[list[Run]]:
    """Return the work in the session, by its starts.

    Raises:
        SessionNotFound: If the session was never started.
    """
    yield from ask(GetSession(notebook_id=notebook.id))
    runs: list[Run] = []
    for event in (yield from _events(notebook).all()):
        if isinstance(event, BrowserState) and event.status == "starting":
            runs.append(Run(event.config, []))
        elif isinstance(event, BrowserLogged) and event.entry["kind"] == "action":
            runs = runs or [Run({}, [])]  # old events were deleted
            runs[-1].actions.append(msgspec.convert(event.entry, LogEntry))
    return runs


def console(
    notebook: Notebook,
    level: str | Sequence[str] | None = None,
    text: str | None = None,
    tab: str | None = None,
    since: datetime | None = None,
    limit: int = 1000,
) -> Flow[list[ConsoleMessage]]:
    """Return what pages wrote to their consoles, and uncaught errors, newest last.

    It stays readable after the session's end. The log of a page that writes endlessly is rate-limited; the action log
    (`read_actions`) says how much was dropped.

    Args:
        level: Only this level, or these: `log`, `warning`, `error`, `uncaught` and so on.
        text: Only messages that contain this text.
        tab: Only messages of this tab.
        since: Only messages after this time, for example the `started_at` of an action's result.
        limit: Largest number of messages; the newest are returned.

    Raises:
        BrowserError: If `limit` is no number from 1, or `since` has no time zone.
        SessionNotFound: If the session was never started.
    """
    levels = (level,) if isinstance(level, str) else level

    def fitting(entry: LogEntry) -> bool:
        return (
            (levels is None or entry.data["type"] in levels)
            and (text is None or text in entry.text)
            and (tab is None or entry.tab == tab)
        )

    return [
        ConsoleMessage(
            at=entry.at,
            tab=entry.tab,
            level=entry.data["type"],
            text=entry.text.partition(": ")[2],
            source=entry.data.get("source", ""),
        )
        for entry in (yield from _newest(notebook, "console", fitting, since, limit))
    ]


def requests(
    notebook: Notebook,
    url: str | None = None,
    method: str | None = None,
    status: int | None = None,
    resource_type: str | None = None,
    failed: bool = False,
    tab: str | None = None,
    since: datetime | None = None,
    limit: int = 1000,
) -> Flow[list[PageRequest]]:
    """Return the finished requests of pages with their responses, newest last.

    It stays readable after the session's end. The log of a page that sends requests endlessly is rate-limited; the
    action log (`read_actions`) says how much was dropped.

    Args:
        url: Only addresses that contain this text; with a `*`, only those that match it as a whole.
        method: Only this method.
        status: Only this status.
        resource_type: Only this type, such as `document` or `fetch`.
        failed: Only requests without a response, or with an error status (400 and above).
        tab: Only requests of this tab.
        since: Only requests after this time, for example the `started_at` of an action's result.
        limit: Largest number of requests; the newest are returned.

    Raises:
        BrowserError: If `limit` is no number from 1, or `since` has no time zone.
        SessionNotFound: If the session was never started.
    """

    def fitting(entry: LogEntry) -> bool:
        asked = _request_of(entry)
        return (
            (url is None or (fnmatchcase(asked.url, url) if "*" in url else url in asked.url))
            and (method is None or asked.method == method.upper())
            and (status is None or asked.status == status)
            and (resource_type is None or asked.resource_type == resource_type)
            and (asked.failed or not failed)
            and (tab is None or asked.tab == tab)
        )

    return [_request_of(entry) for entry in (yield from _newest(notebook, "network", fitting, since, limit))]


def downloads(notebook: Notebook) -> Flow[list[DownloadedFile]]:
    """Return the finished downloads, newest last; those that failed or were cancelled have no `path`.

    It stays readable after the session's end.

    Raises:
        SessionNotFound: If the session was never started.
    """
    entries = yield from _newest(notebook, "download", lambda _entry: True, None, None)
    return [
        DownloadedFile(
            at=entry.at,
            path=entry.data.get("path"),
            suggested_filename=entry.data["suggested_filename"],
            url=entry.data["url"],
            size=entry.data["size"],
        )
        for entry in entries
    ]


def _request_of(entry: LogEntry) -> PageRequest:
    data = entry.data
    return PageRequest(
        at=entry.at,
        tab=entry.tab,
        method=data.get("method", ""),
        url=data["url"],
        status=data.get("status"),
        error=data.get("error"),
        resource_type=data.get("type", ""),
    )


def _newest(
    notebook: Notebook, kind: str, fitting: Callable[[LogEntry], bool], since: datetime | None, limit: int | None
) -> Flow[list[LogEntry]]:
    """Return the newest entries of a kind that match."""
    if limit is not None and (isinstance(limit, bool) or limit < 1):
        raise BrowserError(f"limit must be a number from 1, not {limit!r}")
    if since is not None and since.tzinfo is None:
        raise BrowserError(f"since must have a time zone, as datetime.now(UTC) has one: {since!r} has none")
    found: deque[LogEntry] = deque(maxlen=limit)
    yield from ask(GetSession(notebook_id=notebook.id))

    def take(event: Event) -> None:
        if isinstance(event, BrowserLogged) and event.entry["kind"] == kind:
            entry = msgspec.convert(event.entry, LogEntry)
            if (since is None or entry.at > since) and fitting(entry):
                found.append(entry)

    yield from _events(notebook).each(take)
    return list(found)


def _whole(notebook: Notebook, operation: ops.OnBrowser[InPieces[T]]) -> Flow[T]:
    """Ask the browser for bytes, in one piece or several."""
    reply = yield from ask(operation)
    data = reply.piece
    if len(data) < reply.size and reply.reply_id is not None:
        data = yield from read_rest(notebook, reply.reply_id, data, reply.size)
    return read_pieces(operation, data)
