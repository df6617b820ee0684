"""The relay: the only access to a browser from outside its process. HTTP on loopback, behind unguessable tokens.

One token gives access to Chromium's debugging port, which the relay hides (WebSockets pass unchanged). Another one
gives access to the viewer, so that watchers cannot drive. Nothing here understands Chromium's protocol; see `Tunnel`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from tornado.httpclient import AsyncHTTPClient
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets
from tornado.tcpclient import TCPClient
from tornado.web import Application

from runtimed.browser.attached_client import AttachedClient, Delivery, SharedBrowser
from runtimed.browser.gate import Gate, GateServer, Guarded
from runtimed.browser.tunnel import CHUNK, Tunnel

__all__ = ["Doorkeeper", "Relay", "ViewerPages"]

_MAX_HEAD: Final = 32 * 2**10
_MAX_BODY: Final = 64 * 2**10
_HEAD_TIMEOUT: Final = 3.0
"""Seconds within which a connection must show its token."""
_BODY_TIMEOUT: Final = 10.0
_USED_EVERY: Final = 0.5


class ViewerPages(Protocol):
    """Answers clients with the viewer's token."""

    def pages(self) -> Mapping[str, tuple[type[Guarded], dict[str, Any]]]:
        """Return path → handler with further arguments of its `initialize`."""


class Doorkeeper(Protocol):
    """Decides about the clients of a browser."""

    async def admit(self) -> SharedBrowser:
        """A client is about to be connected to Chromium. Return the state that it shares with the others."""

    def used(self) -> None:
        """A client sends something to Chromium; called at most twice a second."""

    async def left(self, changed: set[str]) -> None:
        """A client is gone, and with it what it had changed by these methods of the protocol."""

    async def deliver(self, delivery: Delivery) -> None:
        """Copy a download to where a client expects it."""


class Relay:
    """Listens on loopback while it is open.

    Args:
        address: Host and port of Chromium's debugging port.
        path: The path of its browser target.
        viewer: Answers for the viewer.
        keeper: Decides about the clients that drive.
    """

    def __init__(self, address: tuple[str, int], path: str, viewer: ViewerPages, keeper: Doorkeeper) -> None:
        self._address = address
        self._path = path
        self._viewer = viewer
        self._keeper = keeper
        self._last_used = float("-inf")
        self._drive = secrets.token_urlsafe(24)
        self._watch = secrets.token_urlsafe(24)
        self._gate = Gate()
        self._server: GateServer | None = None
        self.port = 0

    @property
    def cdp_url(self) -> str:
        """Address at which Playwright and others attach (`connect_over_cdp`)."""
        return f"ws://127.0.0.1:{self.port}/{self._drive}{self._path}"

    @property
    def viewer_url(self) -> str:
        """Address of the viewer."""
        return f"http://127.0.0.1:{self.port}/{self._watch}/"

    async def open(self) -> None:
        """Listen on a free port."""
        drives = {"gate": self._gate, "token": self._drive}
        watches = {"gate": self._gate, "token": self._watch}
        routes: list[tuple[str, type[Guarded], dict[str, Any]]] = [
            (r"/(?P<token>[^/]*)(?P<path>/devtools/.*)", _DevTools, {**drives, "relay": self}),
            (r"/(?P<token>[^/]*)(?P<path>/json[^?]*)", _Description, {**drives, "relay": self}),
        ]
        for path, (handler, arguments) in self._viewer.pages().items():
            routes.append((rf"/(?P<token>[^/]*){path}", handler, {**watches, **arguments}))
        nothing = {"gate": self._gate, "token": None}
        application = Application(
            routes,
            default_handler_class=Guarded,
            default_handler_args=nothing,
            log_function=lambda _handler: None,  # its line would contain the token
        )
        self._server = GateServer(
            application,
            no_keep_alive=True,
            idle_connection_timeout=_HEAD_TIMEOUT,
            body_timeout=_BODY_TIMEOUT,
            max_header_size=_MAX_HEAD,
            max_body_size=_MAX_BODY,
        )
        self._server.gate = self._gate
        sockets = bind_sockets(0, "127.0.0.1")
        self._server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End all connections. Idempotent."""
        if self._server is not None:
            self._server.stop()
            await self._gate.clear()
            await self._server.close_all_connections()

    async def tunnel(self, asking: _DevTools) -> None:
        """Connect a client's WebSocket to Chromium, handshake included."""
        path = asking.path_kwargs["path"]
        shared = await self._keeper.admit()
        inside = await TCPClient().connect(*self._address)
        _, _, kind, target, *_ = [*path.split("/"), "", "", ""]
        client = AttachedClient(shared, None if kind == "browser" else target)
        try:
            await inside.write(_handshake(asking, self._address))
            head = await inside.read_until(b"\r\n\r\n")
            await self._pass_on(head, client, asking.detach(), inside)
        except StreamClosedError:
            pass  # one of them hung up
        finally:
            inside.close()

    async def _pass_on(self, head: bytes, client: AttachedClient, outside: IOStream, inside: IOStream) -> None:
        try:
            if not head.startswith(b"HTTP/1.1 101 "):
                await outside.write(head + await inside.read_bytes(CHUNK, partial=True))
                return
            outside.set_nodelay(True)
            inside.set_nodelay(True)
            await outside.write(head)
            await Tunnel(client, outside, inside, self._keeper.deliver, self._note_use).run()
            if client.changed:
                await self._keeper.left(client.changed)
        finally:
            outside.close()

    async def describe(self, path: str) -> tuple[int, bytes]:
        """Ask Chromium for its description; return status and answer, with our addresses in place of its own."""
        theirs = f"{self._address[0]}:{self._address[1]}"
        client = AsyncHTTPClient(force_instance=True)
        try:
            response = await client.fetch(f"http://{theirs}{path}", raise_error=False)
        finally:
            client.close()
        return response.code, response.body.replace(
            f"{theirs}/".encode(), f"127.0.0.1:{self.port}/{self._drive}/".encode()
        )

    def _note_use(self) -> None:
        now = time.monotonic()
        if now - self._last_used >= _USED_EVERY:
            self._last_used = now
            self._keeper.used()


class _ForPrograms(Guarded):
    """Answers programs, which send no origin. A page that got the address must not drive the browser."""

    def initialize(self, gate: Gate, token: str | None, relay: Relay) -> None:  # type: ignore[override]  # tornado's way
        super().initialize(gate, token)
        self.relay = relay

    def prepare(self) -> None:
        super().prepare()
        if not self._finished and "Origin" in self.request.headers:
            self.refuse(403, "not for pages")


class _DevTools(_ForPrograms):
    async def answer(self) -> None:
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            await self.relay.tunnel(self)
        else:
            self.refuse(404, "nothing here")


class _Description(_ForPrograms):
    async def answer(self) -> None:
        status, content = await self.relay.describe(self.path_kwargs["path"])
        self.set_status(status)
        self.give("application/json; charset=UTF-8", content)


def _handshake(asking: _DevTools, address: tuple[str, int]) -> bytes:
    """Return the request for a WebSocket as Chromium gets it."""
    headers = asking.request.headers.copy()
    headers["Host"] = f"{address[0]}:{address[1]}"
    # Both ends are on this machine: compressing a message takes longer than sending it.
    headers.pop("Sec-Websocket-Extensions", None)
    lines = [f"GET {asking.path_kwargs['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.get_all())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
