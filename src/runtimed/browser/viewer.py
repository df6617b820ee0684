"""The viewer: live frames, tabs, dialogs and the action log; interactive on request."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from playwright.async_api import Error as PlaywrightError
from tornado.iostream import StreamClosedError

from runtimed.actions import Action, GoBack, GoForward, Goto, HandleDialog, Reload, SwitchTab, parse_action
from runtimed.browser.action_log import ActionLog
from runtimed.browser.gate import Gate, Guarded
from runtimed.browser.lifespan import Lifespan
from runtimed.browser.screencast import Frame, Screencast
from runtimed.browser.tabs import Tabs
from runtimed.errors import BrowserError, InvalidAction
from runtimed.lifecycle import SessionState, close_reason, step
from runtimed.pages import ActionResult, LogEntry
from runtimed.texts import client_name

__all__ = ["Act", "TakePart", "Viewer", "write_door"]

_QUEUE: Final = 500
"""Log entries in the queue of one watcher; a slower one misses the oldest. Of frames only the newest waits."""

_LOOK: Final = 1.0
"""Seconds between two checks of what nothing reports, such as the session's remaining time."""

_VIEWER: Final = "viewer"
"""The author of watchers' actions in the log."""

_INPUTS: Final = {
    "mouse": "Input.dispatchMouseEvent",
    "key": "Input.dispatchKeyEvent",
    "text": "Input.insertText",
}


_OFFERED = Goto | GoBack | GoForward | Reload | SwitchTab | HandleDialog
"""The actions of the page's own buttons. Everything else is done with mouse and keyboard."""


class Act(Protocol):
    """Performs an action."""

    def __call__(self, action: Action, *, client_id: str, label: str) -> Coroutine[Any, Any, ActionResult]:
        """See `Browser.execute`."""


@dataclass(frozen=True, slots=True)
class TakePart:
    """What watchers may do in an interactive viewer.

    Attributes:
        act: Performs an action; see `Browser.execute`.
        used: Called when the session is used.
    """

    act: Act
    used: Callable[[], None]


class Viewer:
    """Serves any number of watchers.

    Args:
        tabs: The tabs.
        cast: Their pictures.
        log: The action log.
        lifespan: The session, and its limits.
        take_part: What watchers may do; None if they only watch.
    """

    def __init__(
        self, tabs: Tabs, cast: Screencast, log: ActionLog, lifespan: Lifespan, take_part: TakePart | None
    ) -> None:
        self._tabs = tabs
        self._cast = cast
        self._log = log
        self._lifespan = lifespan
        self._take_part = take_part
        self._acting: set[asyncio.Task[ActionResult]] = set()

    def pages(self) -> dict[str, tuple[type[Guarded], dict[str, Any]]]:
        """See `ViewerPages`."""
        arguments = {"viewer": self}
        return {
            "/": (_Page, arguments),
            "/events": (_Events, arguments),
            "/act": (_Action, arguments),
            "/input": (_Input, arguments),
        }

    @property
    def take_part(self) -> TakePart | None:
        """What watchers may do; None if they only watch."""
        return self._take_part

    async def show(self, write: Callable[[str, Any], None], flush: Callable[[], Awaitable[None]]) -> None:
        """Send a watcher the present state and all changes, until this is cancelled.

        Args:
            write: Takes an event with its name; an empty name for a keep-alive.
            flush: Waits until the watcher has taken what was written.
        """
        entries: asyncio.Queue[LogEntry] = asyncio.Queue(_QUEUE)
        news = asyncio.Event()
        frame: list[Frame | None] = [self._cast.latest]

        def on_frame(new: Frame) -> None:
            frame[0] = new
            news.set()

        def on_entry(entry: LogEntry) -> None:
            if entry.image is not None:
                return
            if entries.full():
                entries.get_nowait()
            entries.put_nowait(entry)
            news.set()

        end = self._cast.listen(on_frame)
        self._log.listeners.append(on_entry)
        self._tabs.hearers.append(news.set)
        try:
            for entry in list(self._log.recent):
                on_entry(entry)
            shown: dict[str, Any] = {}
            while True:
                news.clear()
                for name, value in (
                    ("tabs", self._strip()),
                    ("session", self._session()),
                    ("dialog", self._dialog()),
                ):
                    if name not in shown or value != shown[name]:
                        shown[name] = value
                        write(name, value)
                while not entries.empty():
                    write("log", _shown(entries.get_nowait()))
                picture, frame[0] = frame[0], None
                if picture is not None:
                    write("frame", _drawn(picture))
                await flush()
                try:
                    async with asyncio.timeout(_LOOK):
                        await news.wait()
                except TimeoutError:
                    write("", None)  # fails when the watcher is gone
        except asyncio.CancelledError:
            write("over", self._over())  # the watcher, or the session, which is the one that matters
            raise
        finally:
            end()
            self._log.listeners.remove(on_entry)
            self._tabs.hearers.remove(news.set)

    def _session(self) -> dict[str, Any]:
        deadline = self._lifespan.deadline()
        return {
            "id": self._lifespan.session_id,
            "ends_at": None if deadline is None else round(deadline[0], 3),
            "why": None if deadline is None else deadline[1].value,
        }

    def _strip(self) -> list[dict[str, Any]]:
        """Return the tabs, with the kind of the dialog that each waits in."""
        waiting = {tab.id: tab.dialog.kind for tab in self._tabs.all if tab.dialog is not None}
        return [{**msgspec.to_builtins(tab), "dialog": waiting.get(tab.id)} for tab in self._tabs.listed()]

    def _over(self) -> dict[str, Any]:
        now = time.time()
        event = self._lifespan.ended_by(now)
        state = step(SessionState.ACTIVE, event)
        assert state is not None  # noqa: S101  # each of these events ends a session
        first_sentence = (self._lifespan.died or "").partition(". ")[0]  # Chromium's last lines follow
        return {"at": now, "status": state.value, "close_reason": close_reason(event), "error": first_sentence}

    def _dialog(self) -> dict[str, Any] | None:
        tab = self._tabs.latest
        return None if tab is None or tab.dialog is None else {"tab": tab.id, **msgspec.to_builtins(tab.dialog)}

    async def act(self, take_part: TakePart, action: Action) -> ActionResult:
        """Perform an action of a watcher; it goes on if the watcher leaves."""
        task = asyncio.create_task(take_part.act(action, client_id=_VIEWER, label=_VIEWER))
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        take_part.used()
        result = await asyncio.shield(task)
        take_part.used()
        return result

    async def send(self, take_part: TakePart, inputs: list[tuple[str, dict[str, Any]]]) -> None:
        """Forward a watcher's mouse and keyboard input, one after the other.

        Args:
            take_part: What watchers may do.
            inputs: Methods of Chromium's protocol and their parameters.
        """
        take_part.used()
        tab = self._tabs.latest
        with contextlib.suppress(PlaywrightError, BrowserError):  # the tab is gone, or a dialog is open
            if tab is not None and tab.cdp is not None:
                for method, data in inputs:
                    await tab.run(tab.cdp.send(method, data))


class _ForWatchers(Guarded):
    """Answers clients with the viewer's address."""

    def initialize(self, gate: Gate, token: str | None, viewer: Viewer) -> None:  # type: ignore[override]  # tornado's way
        super().initialize(gate, token)
        self.viewer = viewer


class _Page(_ForWatchers):
    async def answer(self) -> None:
        nonce = secrets.token_urlsafe(12)
        page = resources.files("runtimed.browser").joinpath("viewer.html").read_text(encoding="utf-8")
        page = page.replace("NONCE", nonce).replace("INTERACTIVE", json.dumps(self.viewer.take_part is not None))
        self.set_header(
            "Content-Security-Policy",
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        )
        self.give("text/html; charset=utf-8", page.encode())


class _Events(_ForWatchers):
    """Server-sent events, until the watcher goes away."""

    async def answer(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        with contextlib.suppress(StreamClosedError):
            await self.viewer.show(lambda name, value: self.write(_event(name, value)), self.flush)


class _FromWatchers(_ForWatchers):
    """Takes the input of watchers."""

    def prepare(self) -> None:
        super().prepare()
        if not self._finished and self.viewer.take_part is None:
            self.refuse(403, "this viewer only watches")

    async def answer(self) -> None:
        if self.request.method != "POST":
            self.refuse(404, "nothing here")
        elif self.viewer.take_part is not None:
            await self.perform(self.viewer.take_part)

    async def perform(self, take_part: TakePart) -> None:
        raise NotImplementedError


class _Action(_FromWatchers):
    async def perform(self, take_part: TakePart) -> None:
        try:
            action = parse_action(json.loads(self.content))
        except (ValueError, InvalidAction) as exc:
            self.refuse(400, str(exc))
            return
        if not isinstance(action, _OFFERED):
            self.refuse(400, "the viewer does not offer that action")
            return
        result = await self.viewer.act(take_part, action)
        self.give("application/json", json.dumps({"success": result.success, "message": result.message}).encode())


class _Input(_FromWatchers):
    async def perform(self, take_part: TakePart) -> None:
        try:
            inputs = [(_INPUTS[kind], dict(data)) for kind, data in json.loads(self.content)]
        except (ValueError, KeyError, TypeError):
            self.refuse(400, "no input that this understands")
            return
        await self.viewer.send(take_part, inputs)
        self.give("text/plain", b"")


def write_door(file: Path, url: str) -> None:
    """Write a page that leads to the viewer, readable by this user only; it replaces one of an earlier start.

    A program that opens an address in a browser shows the address on a command line, which every user can read. The
    name of a file may be read.

    Args:
        file: Its path, in a private folder.
        url: The viewer's address, with its token.
    """
    address = html.escape(url)
    file.unlink(missing_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(
        f'<!doctype html><meta charset="utf-8"><title>runtimed</title>'
        f'<meta http-equiv="refresh" content="0; url={address}"><a href="{address}">Watch the browser</a>\n',
        encoding="utf-8",
    )


def _drawn(picture: Frame) -> dict[str, Any]:
    return {
        "jpeg": base64.b64encode(picture.image).decode(),
        "width": picture.width,
        "height": picture.height,
        "tab": picture.tab,
    }


def _event(name: str, value: Any) -> bytes:
    if not name:
        return b": still here\n\n"
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


def _shown(entry: LogEntry) -> dict[str, Any]:
    return {
        "n": entry.n,
        "at": entry.at.isoformat(),
        "kind": entry.kind,
        "tab": entry.tab,
        "who": None if entry.client_id is None else client_name(entry.client_id, entry.label),
        "text": entry.text,
        "success": entry.data.get("success"),
        "bad": entry.data.get("type") in ("error", "uncaught")
        or "error" in entry.data
        or entry.data.get("status", 0) >= 400,
    }
