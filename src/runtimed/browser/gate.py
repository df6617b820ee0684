"""Who may ask for something at the relay's port: whoever shows a token, as long as there is room. See `Relay`."""

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
"""Connections that have shown no token yet: where one more comes, the one that has waited longest makes room."""

_MAX_GUESTS: Final = 200
"""Requests with a token that are being answered; more are refused: a WebSocket costs two sockets."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Gate:
    """Counts those who have shown no token yet (connections), and those who have (requests)."""

    def __init__(self) -> None:
        self._strangers: dict[IOStream, None] = {}  # the oldest first
        self._guests: set[Guarded] = set()

    def arrive(self, stream: IOStream) -> None:
        """A connection was made."""
        if len(self._strangers) >= _MAX_STRANGERS:
            # Who has a token shows it at once, so the last ones to come are the last ones to go.
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.close()
        self._strangers[stream] = None

    def part(self, stream: IOStream | None) -> None:
        """A connection has ended, or is another protocol's now."""
        if stream is not None:
            self._strangers.pop(stream, None)

    def admit(self, guest: Guarded, stream: IOStream) -> bool:
        """Count a request that has shown its token; False if there are too many."""
        if len(self._guests) >= _MAX_GUESTS:
            return False
        self.part(stream)
        self._guests.add(guest)
        return True

    def see_off(self, guest: Guarded) -> None:
        """A request is answered, or nobody waits for the answer. Idempotent."""
        self._guests.discard(guest)

    async def clear(self) -> None:
        """End the answers that are being given."""
        guests = list(self._guests)
        await asyncio.gather(*(guest.end() for guest in guests))


class GateServer(HTTPServer):
    """An HTTP server that tells its gate who comes and who goes."""

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
    """Answers a request that shows a token as the first part of its path; its body is read only then.

    Subclasses define `answer`, which is cancelled when whoever asked has gone: a live stream has no other end.
    """

    def initialize(self, gate: Gate, token: str | None) -> None:
        """Called by tornado.

        Args:
            gate: Counts the requests.
            token: What gives the right to ask for this; None where nothing does.
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
        """Answer with something of this media type."""
        self.set_header("Content-Type", kind)
        self.finish(content)

    def prepare(self) -> None:
        """Called by tornado, before the body is read."""
        if self.request.host.rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            # A page elsewhere whose name was made to lead here would send its own name.
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
        """Answer no more, whatever was being answered."""
        self.on_connection_close()
        if self._answering is not None:
            await asyncio.wait({self._answering})

    def on_finish(self) -> None:
        """Called by tornado, after the answer."""
        self.gate.see_off(self)

    def on_connection_close(self) -> None:
        """Called by tornado: whoever asked has gone."""
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
        """Called by tornado: nothing of this is kept."""

    def write_error(self, status_code: int, **_options: Any) -> None:
        """Called by tornado."""
        self.refuse(status_code, self._reason)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Called by tornado, whose own line would have the token in it."""
        if self.get_status() >= 500 or not hasattr(value, "status_code"):
            logger.error("a request to the relay failed", exc_info=(typ, value, tb))
