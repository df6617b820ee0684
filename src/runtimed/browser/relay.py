"""The one door to a browser from outside its process: HTTP on loopback, behind tokens that nobody can guess.

One token leads to Chromium's debugging port, which it hides (requests and WebSockets pass through as they are); another
one to the viewer, so that who watches cannot drive. Nothing here understands Chromium's protocol; see `Tunnel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from typing import Final, Protocol

import msgspec

from runtimed.browser.attached_client import AttachedClient, Delivery, SharedBrowser
from runtimed.browser.tunnel import Tunnel

__all__ = ["Doorkeeper", "Relay", "Request", "ViewerPages", "respond"]

logger = logging.getLogger(__name__)

_MAX_HEAD: Final = 32 * 2**10
_MAX_BODY: Final = 64 * 2**10
_HEAD_TIMEOUT: Final = 3.0
"""Seconds that a connection gets to show its token."""
_MAX_STRANGERS: Final = 100
"""Connections that have shown no token yet: where one more comes, the one that has waited longest makes room."""
_BODY_TIMEOUT: Final = 10.0
_LEAVING: Final = 1.0
"""Seconds in which Chromium must notice that a client is gone."""
_MAX_CONNECTIONS: Final = 200
"""Connections with a token; more are refused: each costs two sockets."""
_CHUNK: Final = 2**18
_USED_EVERY: Final = 0.5


class Request(msgspec.Struct, frozen=True):
    """A request, its path without the token."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class ViewerPages(Protocol):
    """Answers those who have the viewer's token."""

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer a request; the connection is closed afterwards."""


class Doorkeeper(Protocol):
    """Whose browser it is."""

    async def admit(self) -> SharedBrowser:
        """A client is about to be let through to Chromium. Return what it shares with the others."""

    def used(self) -> None:
        """A client sends something to Chromium; called at most twice a second."""

    async def left(self, changed: set[str]) -> None:
        """A client is gone, and with it what it had changed by these methods of the protocol."""

    async def deliver(self, delivery: Delivery) -> None:
        """Bring a copy of a download to where a client expects it."""


class Relay:
    """Listens on loopback, as long as it is open.

    Args:
        address: Host and port at which Chromium's debugging port listens.
        path: The path of its browser target.
        viewer: Answers for the viewer.
        keeper: Is told of the clients that drive.
    """

    def __init__(self, address: tuple[str, int], path: str, viewer: ViewerPages, keeper: Doorkeeper) -> None:
        self._address = address
        self._path = path
        self._viewer = viewer
        self._keeper = keeper
        self._last_used = float("-inf")
        self._drive = secrets.token_urlsafe(24)
        self._watch = secrets.token_urlsafe(24)
        self._server: asyncio.Server | None = None
        self._strangers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}  # the oldest first
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def cdp_url(self) -> str:
        """Where Playwright and others attach (`connect_over_cdp`)."""
        return f"ws://127.0.0.1:{self.port}/{self._drive}{self._path}"

    @property
    def viewer_url(self) -> str:
        """Where people watch."""
        return f"http://127.0.0.1:{self.port}/{self._watch}/"

    async def open(self) -> None:
        """Listen, on a port that is free."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_MAX_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End all connections. Harmless twice."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._strangers, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._strangers) >= _MAX_STRANGERS:
            # Who has a token shows it at once, so the last ones to come are the last ones to go.
            oldest = next(iter(self._strangers))
            self._strangers.pop(oldest).transport.abort()
        task = asyncio.create_task(self._serve(reader, writer))
        self._strangers[task] = writer
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task, None)
        self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_TIMEOUT):
                request = await _read_head(reader)
            if request is None:
                await respond(writer, 400, "text/plain", b"no request that this understands\n")
            elif request.headers.get("host", "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
                # A page elsewhere whose name was made to lead here would send its own name.
                await respond(writer, 403, "text/plain", b"ask 127.0.0.1\n")
            else:
                await self._route(request, reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it hung up, or never spoke
        except Exception:
            logger.exception("a connection to the relay failed")
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _route(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, token, rest = [*request.path.split("/", 2), ""][:3]
        watches = hmac.compare_digest(token.encode(), self._watch.encode())
        if not watches and not hmac.compare_digest(token.encode(), self._drive.encode()):
            await respond(writer, 404, "text/plain", b"nothing here\n")
        elif self._is_full():
            await respond(writer, 503, "text/plain", b"too many connections\n")
        else:
            async with asyncio.timeout(_BODY_TIMEOUT):
                body = await reader.readexactly(int(request.headers.get("content-length", "0")))
            inner = msgspec.structs.replace(request, path=f"/{rest}", body=body)
            await (self._show if watches else self._admit_driver)(inner, reader, writer)

    def _is_full(self) -> bool:
        """Count the connection that asks among those with a token, unless there are too many."""
        if len(self._connections) >= _MAX_CONNECTIONS:
            return True
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # it is a coroutine's that asks
        self._strangers.pop(task, None)
        self._connections.add(task)
        return False

    async def _admit_driver(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "origin" in request.headers:
            # Programs send none. A page that got hold of the address must not drive the browser.
            await respond(writer, 403, "text/plain", b"not for pages\n")
        elif request.headers.get("upgrade", "").lower() == "websocket" and request.path.startswith("/devtools/"):
            await self._tunnel(request, reader, writer)
        elif request.method == "GET" and request.path.partition("?")[0].startswith("/json"):
            await self._describe(request, writer)
        else:
            await respond(writer, 404, "text/plain", b"nothing here\n")

    async def _show(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let the viewer answer, until whoever asked has gone: live pictures have no other end."""
        answering = asyncio.create_task(self._viewer.answer(request, writer))
        leaving = asyncio.create_task(_wait_for_end(reader))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await answering
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _tunnel(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let a WebSocket through, handshake and all."""
        shared = await self._keeper.admit()
        inner_reader, inner_writer = await asyncio.open_connection(*self._address, limit=_CHUNK)
        _, _, kind, target, *_ = [*request.path.split("/"), "", "", ""]
        client = AttachedClient(shared, None if kind == "browser" else target)
        try:
            inner_writer.write(_head_of(request, self._address))
            head = await inner_reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            if not head.startswith(b"HTTP/1.1 101 "):
                writer.write(await inner_reader.read(_CHUNK))
                return
            inside, outside = (inner_reader, inner_writer), (reader, writer)
            with contextlib.suppress(OSError):  # it hung up
                await Tunnel(client, outside, inside, self._keeper.deliver, self._note_use).run()
            if client.changed:
                writer.close()
                await _see_off(inner_reader, inner_writer)
                await self._keeper.left(client.changed)
        finally:
            inner_writer.close()

    async def _describe(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer as Chromium does, with our addresses in the place of its own."""
        inner_reader, inner_writer = await asyncio.open_connection(*self._address)
        try:
            inner_writer.write(_head_of(request, self._address))
            head = await inner_reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                0,
            )
            body = await inner_reader.readexactly(length)
        finally:
            inner_writer.close()
        theirs = f"{self._address[0]}:{self._address[1]}/".encode()
        await respond(
            writer,
            200,
            "application/json; charset=UTF-8",
            body.replace(theirs, f"127.0.0.1:{self.port}/{self._drive}/".encode()),
        )

    def _note_use(self) -> None:
        now = time.monotonic()
        if now - self._last_used >= _USED_EVERY:
            self._last_used = now
            self._keeper.used()


async def respond(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes, *headers: str) -> None:
    """Send a whole answer."""
    reason = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 503: "Service Unavailable"}.get(
        status, "Answer"
    )
    head = [
        f"HTTP/1.1 {status} {reason}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        *headers,
        "\r\n",
    ]
    writer.write("\r\n".join(head).encode() + body)
    await writer.drain()


async def _read_head(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[1].startswith("/"):
        return None
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length) > _MAX_BODY:
        return None
    return Request(words[0], words[1], headers)


def _head_of(request: Request, address: tuple[str, int]) -> bytes:
    headers = request.headers | {"host": f"{address[0]}:{address[1]}"}
    # Both ends are on this machine: to compress each message takes longer than to send it.
    headers.pop("sec-websocket-extensions", None)
    lines = [
        f"{request.method} {request.path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
        "\r\n",
    ]
    return "\r\n".join(lines).encode("latin-1")


async def _wait_for_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(_CHUNK):
            pass


async def _see_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hang up on Chromium, and wait until it has noticed."""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write_eof()
        async with asyncio.timeout(_LEAVING):
            await _wait_for_end(reader)
