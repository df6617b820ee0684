"""The page on which people watch a browser: live frames, tabs, the action log; and take part where that is asked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
import secrets
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

from runtimed.browser.action_log import ActionLog
from runtimed.browser.relay import Request, respond
from runtimed.browser.screencast import Frame, Screencast
from runtimed.browser.tabs import Tabs
from runtimed.pages import LogEntry
from runtimed.texts import client_name

__all__ = ["Viewer", "write_door"]

_QUEUE: Final = 500
"""Log entries that wait for one watcher; a slower one misses the oldest. Of frames only the newest waits."""

_ALIVE: Final = 15.0
_INPUTS: Final = {
    "mouse": "Input.dispatchMouseEvent",
    "key": "Input.dispatchKeyEvent",
    "text": "Input.insertText",
}


class Viewer:
    """Serves watchers, any number of them.

    Args:
        tabs: The tabs.
        cast: Their pictures.
        log: What happens.
        interactive: Whether watchers may click and type.
    """

    def __init__(self, tabs: Tabs, cast: Screencast, log: ActionLog, *, interactive: bool) -> None:
        self._tabs = tabs
        self._cast = cast
        self._log = log
        self._interactive = interactive

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """See `ViewerPages.answer`."""
        match request.method, request.path:
            case "GET", "/":
                await self._page(writer)
            case "GET", "/events":
                await self._events(writer)
            case "POST", "/input" if self._interactive:
                await self._input(request, writer)
            case "POST", "/input":
                await respond(writer, 403, "text/plain", b"this viewer only watches\n")
            case _:
                await respond(writer, 404, "text/plain", b"nothing here\n")

    async def _page(self, writer: asyncio.StreamWriter) -> None:
        nonce = secrets.token_urlsafe(12)
        page = resources.files("runtimed.browser").joinpath("viewer.html").read_text(encoding="utf-8")
        page = page.replace("NONCE", nonce).replace("INTERACTIVE", json.dumps(self._interactive))
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
            shown: Sequence[Any] | None = None
            while True:
                news.clear()
                tabs = [msgspec.to_builtins(tab) for tab in self._tabs.listed()]
                if tabs != shown:
                    shown = tabs
                    writer.write(_event("tabs", tabs))
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
                    async with asyncio.timeout(_ALIVE):
                        await news.wait()
                except TimeoutError:
                    writer.write(b": still here\n\n")  # fails when nobody is there any more
        finally:
            end()
            self._log.listeners.remove(on_entry)
            self._tabs.hearers.remove(news.set)

    async def _input(self, request: Request, writer: asyncio.StreamWriter) -> None:
        try:
            given = json.loads(request.body)
            method = _INPUTS[given["kind"]]
            data = dict(given["data"])
        except (ValueError, KeyError, TypeError):
            await respond(writer, 400, "text/plain", b"no input that this understands\n")
            return
        tab = self._tabs.latest
        with contextlib.suppress(PlaywrightError):  # the tab is gone, or a dialog is open
            if tab is not None and tab.cdp is not None:
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
    }
