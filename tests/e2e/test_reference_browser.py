"""The second reference document, written out: its examples against a local site, with real browsers.

The sections follow the document: creating, details, listing, stopping, complete example, connecting to an existing
session, error handling, best practices, and the lifecycle diagram. `NotteClient` is `Client`, `client.Session` is
`client.BrowserSession`.
"""

import asyncio
import functools
import http.server
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import runtimed
from runtimed import ActionResult, AsyncBrowserSession, AsyncClient, BrowserError, Client, Observation, SessionClosed
from tests.conftest import wait_until

pytestmark = pytest.mark.slow

SITE = Path(__file__).resolve().parents[2] / "notebooks" / "site"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the site that the tutorials visit."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def client(shared_daemon: Path) -> Client:
    return Client()


def python(script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


def test_creating_a_session_that_is_stopped_despite_an_error_and_by_hand_as_often_as_one_likes(
    client: Client, site: str
) -> None:
    session = client.BrowserSession(headless=True, timeout_minutes=10, viewport_width=1920, viewport_height=1080)

    def work() -> None:
        with session:
            assert re.fullmatch("browser-session-[0-9a-f-]{36}", session.session_id or "")

            page = session.page
            page.goto(site)

            assert page.title() == "Mauna Loa Observatory"
            assert page.evaluate("[innerWidth, innerHeight]") == [1920, 1080]
            raise ValueError("Something went wrong!")

    with pytest.raises(ValueError, match="Something went wrong!"):
        work()

    # Session automatically stopped here
    status = session.status()
    assert (status.status, status.close_reason) == ("closed", "error")

    session_id = session.session_id
    session.stop()
    session.stop()

    assert session.session_id == session_id
    assert session.status().status == "closed"
    with pytest.raises(SessionClosed, match=r"closed \(error\)"):
        session.observe()
    with pytest.raises(SessionClosed):
        _ = session.page


def test_details_and_lists_and_other_processes_that_attach_and_connect_by_the_id(client: Client, site: str) -> None:
    assert client.sessions.list(status="active") == []
    with client.BrowserSession(label="shop") as session:
        status = session.status()
        assert status.session_id == session.session_id
        assert (status.kind, status.status, status.closed_at, status.close_reason) == ("browser", "active", None, None)
        assert status.timeout_minutes == 3
        assert isinstance(status.duration, timedelta)
        assert status.created_at <= status.last_accessed_at

        active = client.sessions.list(status="active")
        assert [(one.session_id, one.kind, one.label) for one in active] == [(session.session_id, "browser", "shop")]
        assert session.session_id in [one.session_id for one in client.sessions.list()]
        assert client.sessions.list(kind="kernel") == []

        # Another process attaches its own Playwright to the address, and sees and moves the same page.
        session.execute(type="goto", url=site)
        script = """
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    page = playwright.chromium.connect_over_cdp(sys.argv[1]).contexts[0].pages[0]
    print(page.title())
    page.get_by_role("link", name="Measurements").click()
"""
        before = session.status().last_accessed_at
        with python(script, session.cdp_url()) as other:
            assert other.communicate(timeout=60)[0] == "Mauna Loa Observatory\n"
        assert session.observe().title == "Measurements"
        assert session.status().last_accessed_at > before

        # Another process connects to the session by its id.
        session.execute(type="goto", url=site)
        script = """
import sys
from runtimed import Client
session_id, site = sys.argv[1:]
with Client().BrowserSession(session_id) as session:
    print(session.session_id == session_id, session.status().status)
    page = session.page
    page.goto(f"{site}/data.html")
other = Client().BrowserSession(session_id)
print(other.observe().title)  # without start()
"""
        with python(script, str(session.session_id), site) as other:
            assert other.communicate(timeout=60)[0] == "True active\nMeasurements\n"

        # The other process had joined it, and has only left it.
        assert session.status().status == "active"
        assert session.observe().title == "Measurements"


def test_the_complete_lifecycle_example(
    client: Client, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    cookie = {"name": "visitor", "value": "Grace", "domain": "127.0.0.1", "path": "/", "expires": time.time() + 3600}
    Path("cookies.json").write_text(json.dumps([cookie]))

    with client.BrowserSession(headless=False, timeout_minutes=10, cookie_file="cookies.json") as session:
        assert re.search(r"Watch the browser at http://127\.0\.0\.1:\d+/", capsys.readouterr().out)
        page = session.page
        page.goto(f"{site}/visit.html")
        assert page.evaluate("document.cookie") == "visitor=Grace"
        page.screenshot(path="screenshot.png")
        page.get_by_label("Your name").fill("Ada")
        page.get_by_label("I bring warm clothes").check()
        page.get_by_role("button", name="Book").click()
        assert page.get_by_role("status").inner_text() == "Thank you, Ada: we expect you on Monday."

    # Session automatically stopped here
    status = session.status()
    assert (status.status, status.close_reason) == ("closed", "stopped")
    assert Path("screenshot.png").read_bytes().startswith(b"\x89PNG")
    saved = json.loads(Path("cookies.json").read_text())
    assert [(cookie["name"], cookie["value"]) for cookie in saved] == [("visitor", "Ada")]
    assert Path("cookies.json").stat().st_mode & 0o777 == 0o600


def test_an_interrupt_is_handled_gracefully(client: Client, site: str) -> None:
    script = """
import signal
import sys

from runtimed import Client

def signal_handler(sig, frame):
    print("Interrupt received, cleaning up...")
    sys.exit(0)

signal.signal(signal.SIGINT, signal_handler)
with Client().BrowserSession() as session:
    print(session.session_id, flush=True)
    session.page.goto(sys.argv[1])
    print("working", flush=True)
    session.page.wait_for_timeout(60_000)
"""
    with python(script, site) as process:
        assert process.stdout is not None
        session_id = process.stdout.readline().strip()
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout.read() == "Interrupt received, cleaning up...\n"

    status = client.sessions.get(session_id)
    assert (status.status, status.close_reason) == ("closed", "error")


def test_the_lifecycle_from_not_started_to_timed_out(client: Client, site: str, tmp_path: Path) -> None:
    # 1. create
    session = client.BrowserSession(timeout_minutes=0.05, cookie_file=tmp_path / "cookies.json")
    assert session.session_id is None
    assert session.status().status == "not_started"
    # 2. start
    session.start()
    # 3. active operations
    assert session.status().status == "active"
    assert session.execute(type="goto", url=f"{site}/data.html").success
    observation = session.observe()
    assert isinstance(observation, Observation)
    assert 'heading "Carbon dioxide by decade"' in str(observation)
    assert "| 1980s | 345.3 | 1.61 |" in session.scrape()
    assert session.execute(type="evaluate_js", code="document.cookie = 'a=b'").success
    # 4a. timeout, after three seconds without use
    wait_until(lambda: session.status().status == "timed_out", "it does not time out")
    assert session.status().close_reason == "idle_timeout"
    # 5. cleanup
    wait_until((tmp_path / "cookies.json").exists, "its cookies are not saved")
    wait_until(lambda: session.status().host_pid is None, "its host lives on")
    with pytest.raises(SessionClosed, match="timed_out"):
        session.observe()
    session.stop()
    assert session.status().status == "timed_out"


def test_the_same_with_coroutines(client: Client, site: str) -> None:
    async def scenario() -> None:
        async with AsyncClient().BrowserSession() as session:
            page = await session.async_page()
            await page.goto(site)
            result = await session.execute({"type": "click", "role": "link", "name": "Book a visit"})
            assert isinstance(result, ActionResult)
            assert result.success
            assert await page.title() == "Book a visit"
            assert (await session.viewer_url()).startswith("http://127.0.0.1:")
            assert (await session.screenshot()).size == (1280, 1080)

            blocking = client.BrowserSession(session.session_id)
            with pytest.raises(BrowserError, match=r"use `page = await session\.async_page\(\)`"):
                _ = blocking.page
            assert await (await blocking.async_page()).title() == "Book a visit"
            blocking.close()
            await asyncio.sleep(0)
        assert (await session.status()).status == "closed"

    asyncio.run(scenario())


def test_what_the_document_calls_a_session_is_exported() -> None:
    assert {"BrowserSession", "AsyncBrowserSession", "Secret", "Observation", "ActionResult"} <= set(runtimed.__all__)
    assert runtimed.AsyncBrowserSession is AsyncBrowserSession
