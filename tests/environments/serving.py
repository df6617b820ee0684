"""Channels behind a socket: one that works, and one that takes connections and says nothing."""

import contextlib
import functools
import http.server
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["serve_folder", "silent_server"]


class _Handler(http.server.SimpleHTTPRequestHandler):
    stalls = ""
    seconds: float | None = None

    def do_GET(self) -> None:
        if not self.stalls or not re.search(self.stalls, self.path):
            return super().do_GET()
        size = Path(self.translate_path(self.path)).stat().st_size
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(b"PK")
        self.wfile.flush()
        self.server.stalled.wait(self.seconds)  # type: ignore[attr-defined]  # set below
        if self.seconds is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(Path(self.translate_path(self.path)).read_bytes()[2:])
        return None

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serve_folder(folder: Path, *, stalls: str = "", seconds: float | None = None) -> Iterator[str]:
    """Serve a folder over HTTP; files whose path has `stalls` in it stop after two bytes, for that long or for good."""
    attributes = {"stalls": stalls, "seconds": seconds}
    handler = functools.partial(type("Handler", (_Handler,), attributes), directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.stalled = threading.Event()  # type: ignore[attr-defined]  # for the handlers
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.stalled.set()  # type: ignore[attr-defined]  # as above
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """Take connections and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/channel"
