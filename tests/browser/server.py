"""The site that the browser tests drive: on loopback, with everything that a page can do to a browser."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["DOWNLOAD_SIZE", "HANGS", "PAGES", "Site", "serve"]

FOLDER = Path(__file__).parent / "site"
PAGES = Path(__file__).parent / "pages"
CORPUS = Path(__file__).parent / "markdown"
DOWNLOAD_SIZE = 100 * 10**6
HANGS = "(() => { const asked = new XMLHttpRequest(); asked.open('GET', '/never', false); asked.send(); })();"
"""Code with which a page of the site answers nobody any more, as with `for (;;);`, which takes a whole processor."""


class Site:
    """A running site.

    Attributes:
        url: Its address, without a slash behind it.
        other: The same site under another host name: another origin.
        asked: The paths that were asked for.
    """

    def __init__(self, port: int, scheme: str = "http") -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.other = f"{scheme}://localhost:{port}"
        self.asked: list[str] = []
        self.closing = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.site.asked.append(self.path)
        match path.strip("/").split("/"):
            case ["never"]:
                self.site.closing.wait(60)
                self.close_connection = True
            case ["after", seconds]:
                self.site.closing.wait(float(seconds))
                self._send(b"")
            case ["half"]:
                self._head(200, "text/html", None)
                self.wfile.write(b"<!doctype html><title>Half</title><p>the first half</p>")
                self.wfile.flush()
                self.site.closing.wait(60)
                self.close_connection = True
            case ["late"]:
                self._head(200, "text/html", None)
                self.wfile.write(b"<!doctype html><p>the first half</p>" + b" " * 4096)
                self.wfile.flush()
                self.site.closing.wait(0.5)
                self.wfile.write(b"<title>Late</title><p>the second half</p>")
            case ["loop", *_]:
                self._redirect("/loop/again")
            case ["nothing"]:
                self._head(204, "text/html", 0)
            case ["paper.pdf"]:
                self._send(b"%PDF-1.4\n", "application/pdf")
            case ["moved"]:
                self._redirect(urlsplit(self.path).query)
            case ["leaks.js"]:
                self._send((FOLDER / "leaks.js").read_bytes(), "text/javascript")
            case ["to", "other"]:
                self._redirect(f"{self.site.other}/plain")
            case ["download", "huge.bin"]:
                self._head(200, "application/octet-stream", DOWNLOAD_SIZE, 'attachment; filename="huge.bin"')
                block = b"x" * 10**6
                for _ in range(DOWNLOAD_SIZE // len(block)):
                    self.wfile.write(block)
            case ["download", "evil"]:
                name = 'attachment; filename="../../.ssh/authorized_keys"'
                self._send(b"evil", "application/octet-stream", name)
            case ["download", name]:
                self._send(b"a report\n", "application/octet-stream", f'attachment; filename="{name}"')
            case ["many", count]:
                self._send(_many(int(count)).encode())
            case ["table", rows]:
                self._send(_table(int(rows)).encode())
            case ["list"]:
                self._send(_list(1000).encode())
            case ["tiny"]:
                self._send(b"<!doctype html><title>Tiny</title><nav>Only this</nav>")
            case ["plain"]:
                self._send(b"<!doctype html><title>Plain</title><h1>Plain</h1><a href='/form'>Form</a>")
            case ["cookie"]:
                self._send(b"<!doctype html><title>Cookie</title>", cookie="tasted=yes; Max-Age=3600; Path=/")
            case ["pages", name] if (PAGES / f"{name}.html").is_file():
                self._send((PAGES / f"{name}.html").read_bytes())
            case ["markdown", name] if (CORPUS / f"{name}.html").is_file():
                self._send((CORPUS / f"{name}.html").read_bytes())
            case [name] if (FOLDER / f"{name}.html").is_file():
                page = (FOLDER / f"{name}.html").read_text().replace("OTHER", self.site.other)
                self._send(page.encode())
            case _:
                self._send(b"<!doctype html><title>Nothing</title>", status=404)

    def _send(
        self,
        body: bytes,
        kind: str = "text/html; charset=utf-8",
        disposition: str = "",
        status: int = 200,
        cookie: str = "",
    ) -> None:
        self._head(status, kind, len(body), disposition, cookie)
        self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int | None, disposition: str = "", cookie: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is None:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        if disposition:
            self.send_header("Content-Disposition", disposition)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()

    def _redirect(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser hangs up whenever it likes."""


@contextlib.contextmanager
def serve(*, tls: bool = False) -> Iterator[Site]:
    """Run the site for as long as the block lasts."""
    server = _Server(("127.0.0.1", 0), _Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(FOLDER / "self-signed.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site = Site(server.server_port, "https" if tls else "http")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"site": site})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _many(count: int) -> str:
    rows = "".join(f"<p>Row {n} <button>Press {n}</button></p>" for n in range(count // 2))
    return f"<!doctype html><title>Many</title><h1>Many</h1>{rows}"


def _table(count: int) -> str:
    cells = "<td>{0}</td><td>Person {0}</td><td>p{0}@example.com</td><td>{0},99 €</td><td><button>Edit</button></td>"
    rows = "".join(f"<tr>{cells.format(n)}</tr>" for n in range(count))
    head = "<tr><th>Number</th><th>Name</th><th>Mail</th><th>Sum</th><th>Do</th></tr>"
    return (
        f"<!doctype html><title>Table</title><h1>Orders</h1><table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    )


def _list(count: int) -> str:
    """A page of 2,000 elements as pages are: mostly text, some of it to click."""
    rows = "".join(
        f"<li><p>Entry {n} says something that is worth a line of its own</p>"
        + (f"<a href='/plain?{n}'>More {n}</a>" if n % 5 == 0 else f"<span>Part {n}</span>")
        + "</li>"
        for n in range(count)
    )
    change = "document.querySelector('li').append(' changed')"
    return f'<!doctype html><title>List</title><h1>List</h1><ul>{rows}</ul><button onclick="{change}">Change</button>'
