"""Access control of the relay's port: clients with a token, up to a limit. See `Relay`."""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import Any, Final

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import RequestHandler, stream_request_body

__all__ = ["Gate", "GateServer", "Guarded"]

logger = logging.getLogger(__name__)

_MAX_STRANGERS: Final = 100
"""Largest number of connections without a token. One more evicts the oldest of them."""

_MAX_GUESTS: Final = 200
"""Largest number of requests in flight with a token; more are refused: a WebSocket needs two sockets."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Gate:
    """Counts connections without a token, and requests with one."""

    def __init__(self) -> None:
        self._strangers: dict[IOStream, None] = {}  # the oldest first
        self._guests: set[Guarded] = set()

    def arrive(self, stream: IOStream) -> None:
        """Register a new connection."""
        if len(self._strangers) >= _MAX_STRANGERS:
            # A client with a token shows it at once, so the newest connections are evicted last.
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.close()
        self._strangers[stream] = None

    def part(self, stream: IOStream | None) -> None:
        """Note that a connection has ended, or speaks another protocol now."""
        if stream is not None:
            self._strangers.pop(stream, None)

    def admit(self, guest: Guarded, stream: IOStream) -> bool:
        """Count a request with a valid token; return False if there are too many."""
        if len(self._guests) >= _MAX_GUESTS:
            return False
        self.part(stream)
        self._guests.add(guest)
        return True

    def see_off(self, guest: Guarded) -> None:
        """Note that a request is answered, or its client has gone. Idempotent."""
        self._guests.discard(guest)

    async def clear(self) -> None:
        """End the answers in progress."""
        guests = list(self._guests)
        await asyncio.gather(*(guest.end() for guest in guests))


class GateServer(HTTPServer):
    """An HTTP server that reports its connections to its gate."""

    gate: Gate

    def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        """See `TCPServer`."""
        self.gate.arrive(stream)
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        """See `HTTPServerConnectionDelegate`."""
        self.gate.part(server_conn.stream)
        super().on_close(server_conn)


@stream_request_body
class Guarded(RequestHandler):
    """Answers requests whose path begins with a token; only then the body is read.

    Subclasses define `answer`, which is cancelled when the client has gone: a live stream has no other end.
    """

    def initialize(self, gate: Gate, token: str | None) -> None:
        """Called by tornado.

        Args:
            gate: Counts the requests.
            token: The token that gives access; None for none.
        """
        self.gate = gate
        self.token = token
        self.content = bytearray()
        self._answering: asyncio.Task[None] | None = None

    async def answer(self) -> None:
        """Answer; `path_kwargs` has the parts of the path, `content` the body."""
        raise NotImplementedError

    def refuse(self, status: int, why: str) -> None:
        """Answer with a sentence."""
        self.set_status(status)
        self.give("text/plain", f"{why}\n".encode())

    def give(self, kind: str, content: bytes) -> None:
        """Answer with content of this media type."""
        self.set_header("Content-Type", kind)
        self.finish(content)

    def prepare(self) -> None:
        """Called by tornado, before the body is read."""
        if self.request.host.rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            # A foreign page whose host name resolves to this address sends its own name.
            self.refuse(403, "ask 127.0.0.1")
        elif self.token is None or not hmac.compare_digest(self.path_kwargs["token"].encode(), self.token.encode()):
            self.refuse(404, "nothing here")
        elif not self.gate.admit(self, self.request.connection.stream):  # type: ignore[union-attr]  # it has one
            self.refuse(503, "too many connections")

    def data_received(self, chunk: bytes) -> None:
        """Called by tornado."""
        self.content += chunk

    async def get(self, **_parts: str) -> None:
        """Called by tornado."""
        self._answering = asyncio.create_task(self.answer())
        try:
            await asyncio.wait({self._answering})
            if not self._answering.cancelled():
                self._answering.result()
        finally:
            self.gate.see_off(self)

    post = get

    async def end(self) -> None:
        """End the answer in progress."""
        self.on_connection_close()
        if self._answering is not None:
            await asyncio.wait({self._answering})

    def on_finish(self) -> None:
        """Called by tornado, after the answer."""
        self.gate.see_off(self)

    def on_connection_close(self) -> None:
        """Called by tornado: the client has gone."""
        super().on_connection_close()
        self.gate.see_off(self)
        if self._answering is not None:
            self._answering.cancel()

    def set_default_headers(self) -> None:
        """Called by tornado."""
        self.clear_header("Server")
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def compute_etag(self) -> None:
        """Called by tornado: nothing of this is cached."""

    def write_error(self, status_code: int, **_options: Any) -> None:
        """Called by tornado."""
        self.refuse(status_code, self._reason)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Called by tornado, whose own line would contain the token."""
        if self.get_status() >= 500 or not hasattr(value, "status_code"):
            logger.error("a request to the relay failed", exc_info=(typ, value, tb))
