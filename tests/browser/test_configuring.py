"""What pages are made to believe, and where a browser logs in by itself."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runtimed import AsyncBrowserSession, BrowserError, BrowserSession, SessionError
from runtimed.browser.config_check import PERMISSIONS
from runtimed.client.browser_options import read_credentials, read_geolocation, read_headers, read_proxy, read_scale
from tests.browser.conftest import browsing
from tests.browser.server import serve

LOGIN = "Basic " + base64.b64encode(b"ann:correct horse").decode()


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Guarded)
        self.seen: list[tuple[str, bool, str | None, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Guarded(BaseHTTPRequestHandler):
    """Asks who one is: as a site, and as a proxy for every other host."""

    server: _Server

    def do_GET(self) -> None:
        is_proxy = self.path.startswith("http:")
        asked, status, header = ("Proxy-Authenticate", 407, "Proxy-Authorization") if is_proxy else (
            "WWW-Authenticate", 401, "Authorization")  # fmt: skip
        is_known = self.headers.get(header) == LOGIN
        self.server.seen.append((self.path, is_known, self.headers.get("X-Token"), self.headers.get("Accept-Language")))
        body = f"<title>{'In' if is_known else 'Out'}</title>".encode()
        self.send_response(200 if is_known else status)
        if not is_known:
            self.send_header(asked, 'Basic realm="here"')
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def guarded():
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


BELIEVED = """async () => [
  navigator.language, navigator.languages, Intl.DateTimeFormat().resolvedOptions().locale, (1.5).toLocaleString(),
  Intl.DateTimeFormat().resolvedOptions().timeZone, devicePixelRatio, innerWidth,
  (await navigator.permissions.query({ name: 'notifications' })).state,
  await new Promise((done, failed) => navigator.geolocation.getCurrentPosition(
    ({ coords }) => done([coords.latitude, coords.longitude, coords.accuracy]), failed)),
]"""


def test_pages_believe_what_the_session_says_and_sites_and_proxies_get_their_login(run, site, guarded):
    with browsing(
        run,
        viewport_width=500,
        locale="de-DE",
        timezone_id="Asia/Tokyo",
        geolocation=(52.5, 13.4, 10.0),
        permissions=("notifications",),
        device_scale_factor=2.0,
        extra_http_headers=(("X-Token", "t"),),
        accept_downloads=False,
        http_credentials=("ann", "correct horse", guarded.url),
        proxy_login=("ann", "correct horse"),
        proxy_server=guarded.url,
    ) as browser:
        for new in (False, True):
            if new:
                browser.do("new_tab")
            browser.goto(f"{site.url}/plain")
            assert browser.js(BELIEVED) == [
                "de-DE", ["de-DE", "de"], "de-DE", "1,5", "Asia/Tokyo", 2, 500, "granted", [52.5, 13.4, 10],
            ]  # fmt: skip

        assert browser.do("goto", url=f"{guarded.url}/site").data["status"] == 200
        assert browser.observe().title == "In"
        other = browser.execute("goto", url=f"http://localhost:{guarded.server_port}/other")
        assert (other.success, other.error) == (False, "Navigation")
        assert "http_credentials" in other.message
        assert browser.observe().title == "Out"
        assert browser.do("goto", url="http://example.test/proxied").data["status"] == 200
        for path, known in [
            ("/site", [False, True]),
            ("/other", [False]),
            ("http://example.test/proxied", [False, True]),
        ]:
            seen = [one for one in guarded.seen if one[0] == path]
            assert [one[1] for one in seen] == known
            assert {one[2:] for one in seen} == {("t", "de-DE,de;q=0.9")}

        browser.goto(f"{site.url}/form")
        refused = browser.execute("download_file", selector="text=Report")
        assert refused.message.endswith("failed: this session accepts none (accept_downloads)")
        assert list((browser.folder / "downloads").iterdir()) == []
        browser.do("click", selector="text=Report")

        def told():
            return [one.data.get("path") for one in browser.heard.entries if one.kind == "download"]

        browser.until(lambda: len(told()) == 2, "a download that was not accepted is not told")
        assert told() == [None, None]
        assert "correct horse" not in repr(browser.heard.entries)


def test_an_invalid_certificate_is_taken_and_every_permission_given_where_that_was_asked_for(run):
    with (
        serve(tls=True) as safe,
        browsing(run, ignore_https_errors=True, permissions=PERMISSIONS) as trusting,
    ):
        assert trusting.observe().url == "about:blank"
        trusting.goto(f"{safe.url}/plain")
        assert trusting.observe().title == "Plain"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"locale": "Deutsch!"}, "A locale is a language"),
        ({"timezone_id": "Berlin"}, "A timezone_id is one such as 'Europe/Berlin'; not 'Berlin'"),
        (
            {"allowed_domains": ("a.example",), "proxy_server": "http://p:1"},
            "allowed_domains and proxy exclude each other",
        ),
        ({"chrome_args": ("--force-device-scale-factor=2",)}, "use device_scale_factor="),
        ({"chrome_args": ("-remote-debugging-port=1",)}, "use session.cdp_url"),
        ({"chrome_args": ("--remote-allow-origins=*",)}, "use session.cdp_url"),
        ({"chrome_args": ("--headless=old",)}, "use headless="),
        ({"permissions": ("everything",)}, "There is no permission 'everything', only accelerometer, "),
        ({"extra_http_headers": (("A B", "c"),)}, "extra_http_headers holds names of letters.*'A B' is not so"),
    ],
)
def test_what_cannot_be_had_is_refused_where_it_is_asked_for(run, config, says):
    with pytest.raises(BrowserError, match=says), browsing(run, **config):
        pass
    options: dict[str, Any] = {
        name: dict(value) if name.endswith("headers") else value for name, value in config.items()
    }
    if "proxy_server" in options:
        options["proxy"] = options.pop("proxy_server")
    for face in (BrowserSession, AsyncBrowserSession):
        with pytest.raises(SessionError, match=says):
            face(**options)


def test_options_are_read_as_playwright_has_them():
    assert read_geolocation({"latitude": -1, "longitude": 2.5}) == (-1, 2.5, 0)
    assert read_credentials({"username": "a", "password": "b", "origin": "https://x"}) == ("a", "b", "https://x")
    assert read_credentials(("a", "b")) == ("a", "b", None)
    assert read_headers({"A": "b"}) == (("A", "b"),)
    assert read_scale(1.5) == 1.5
    plain = {"proxy_server": "http://host:3128", "proxy_bypass": None, "proxy_login": None}
    assert read_proxy("host:3128") == plain
    assert read_proxy("http://u%40x:p%3A@host:3128") == {**plain, "proxy_login": ("u@x", "p:")}
    assert read_proxy({"server": "socks5://[::1]:1", "bypass": "a,b", "username": "u", "password": "p"}) == {
        "proxy_server": "socks5://[::1]:1", "proxy_bypass": "a,b", "proxy_login": ("u", "p"),
    }  # fmt: skip
    assert read_proxy(None) == {}


@pytest.mark.parametrize(
    ("read", "given"),
    [
        (read_geolocation, {"latitude": 91, "longitude": 0}),
        (read_geolocation, {"lat": 1, "lon": 0}),
        (read_credentials, {"user": "a", "password": "b"}),
        (read_credentials, "ann"),
        (read_headers, {"A": "b\r\nC: d"}),
        (read_scale, 0),
        (read_scale, True),
        (read_proxy, "ftp://host"),
        (read_proxy, "http://host:port"),
        (read_proxy, {"host": "x"}),
    ],
)
def test_options_that_mean_nothing_are_refused(read, given):
    with pytest.raises(SessionError):
        read(given)
