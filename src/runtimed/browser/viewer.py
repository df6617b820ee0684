"""The page on which people watch a browser: live frames, tabs, dialogs, the action log; and take part where asked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from playwright.async_api import Error as PlaywrightError

from runtimed.actions import Action, GoBack, GoForward, Goto, HandleDialog, Reload, SwitchTab, parse_action
from runtimed.browser.action_log import ActionLog
from runtimed.browser.lifespan import Lifespan
from runtimed.browser.relay import Request, respond
from runtimed.browser.screencast import Frame, Screencast
from runtimed.browser.tabs import Tabs
from runtimed.errors import BrowserError, InvalidAction
from runtimed.lifecycle import SessionState, close_reason, step
from runtimed.pages import ActionResult, LogEntry
from runtimed.texts import client_name

__all__ = ["Act", "TakePart", "Viewer", "write_door"]

_QUEUE: Final = 500
"""Log entries that wait for one watcher; a slower one misses the oldest. Of frames only the newest waits."""

_LOOK: Final = 1.0
"""Seconds between two looks at what nobody tells of, such as how long the session lives on."""

_VIEWER: Final = "viewer"
"""Who does what watchers do, as the log names it."""

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
    """Serves watchers, any number of them.

    Args:
        tabs: The tabs.
        cast: Their pictures.
        log: What happens.
        lifespan: Whose browser it is, and for how long.
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

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """See `ViewerPages.answer`."""
        match request.method, request.path:
            case "GET", "/":
                await self._page(writer)
            case "GET", "/events":
                await self._events(writer)
            case "POST", "/input" | "/act":
                if self._take_part is None:
                    await respond(writer, 403, "text/plain", b"this viewer only watches\n")
                elif request.path == "/act":
                    await self._act(self._take_part, request, writer)
                else:
                    await self._input(self._take_part, request, writer)
            case _:
                await respond(writer, 404, "text/plain", b"nothing here\n")

    async def _page(self, writer: asyncio.StreamWriter) -> None:
        nonce = secrets.token_urlsafe(12)
        page = resources.files("runtimed.browser").joinpath("viewer.html").read_text(encoding="utf-8")
        page = page.replace("NONCE", nonce).replace("INTERACTIVE", json.dumps(self._take_part is not None))
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        await respond(writer, 200, "text/html; charset=utf-8", page.encode(), f"Content-Security-Policy: {policy}")

    async def _events(self, writer: asyncio.StreamWriter) -> None:
        """Send server-sent events until the watcher goes away."""
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
            b"Connection: close\r\n\r\n"
        )
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
                        writer.write(_event(name, value))
                while not entries.empty():
                    writer.write(_event("log", _shown(entries.get_nowait())))
                picture, frame[0] = frame[0], None
                if picture is not None:
                    writer.write(
                        _event(
                            "frame",
                            {
                                "jpeg": base64.b64encode(picture.image).decode(),
                                "width": picture.width,
                                "height": picture.height,
                                "tab": picture.tab,
                            },
                        )
                    )
                await writer.drain()
                try:
                    async with asyncio.timeout(_LOOK):
                        await news.wait()
                except TimeoutError:
                    writer.write(b": still here\n\n")  # fails when nobody is there any more
        except asyncio.CancelledError:
            writer.write(_event("over", self._over()))  # the watcher, or the session, which is the one that matters
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
        first_sentence = (self._lifespan.died or "").partition(". ")[0]  # Chromium's last words follow
        return {"at": now, "status": state.value, "close_reason": close_reason(event), "error": first_sentence}

    def _dialog(self) -> dict[str, Any] | None:
        tab = self._tabs.latest
        return None if tab is None or tab.dialog is None else {"tab": tab.id, **msgspec.to_builtins(tab.dialog)}

    async def _act(self, take_part: TakePart, request: Request, writer: asyncio.StreamWriter) -> None:
        """Perform an action of a watcher, and answer with what came of it; it goes on though the watcher leaves."""
        try:
            action = parse_action(json.loads(request.body))
        except (ValueError, InvalidAction) as exc:
            await respond(writer, 400, "text/plain", f"{exc}\n".encode())
            return
        if not isinstance(action, _OFFERED):
            await respond(writer, 400, "text/plain", b"the viewer does not offer that action\n")
            return
        task = asyncio.create_task(take_part.act(action, client_id=_VIEWER, label=_VIEWER))
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        take_part.used()
        result = await asyncio.shield(task)
        take_part.used()
        answer = {"success": result.success, "message": result.message}
        await respond(writer, 200, "application/json", json.dumps(answer).encode())

    async def _input(self, take_part: TakePart, request: Request, writer: asyncio.StreamWriter) -> None:
        """Pass on what a watcher did with mouse and keyboard, one after the other."""
        try:
            inputs = [(_INPUTS[kind], dict(data)) for kind, data in json.loads(request.body)]
        except (ValueError, KeyError, TypeError):
            await respond(writer, 400, "text/plain", b"no input that this understands\n")
            return
        take_part.used()
        tab = self._tabs.latest
        with contextlib.suppress(PlaywrightError, BrowserError):  # the tab is gone, or a dialog is open
            if tab is not None and tab.cdp is not None:
                for method, data in inputs:
                    await tab.run(tab.cdp.send(method, data))
        await respond(writer, 200, "text/plain", b"")


def write_door(file: Path, url: str) -> None:
    """Write a page that leads to the viewer, for this user alone; one of an earlier start is replaced.

    A program that opens an address in a browser shows the address on a command line, where every user reads it. The
    name of a file may be read there.

    Args:
        file: Where, in a folder of this user's.
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


def _event(name: str, value: Any) -> bytes:
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
