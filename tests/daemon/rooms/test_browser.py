"""The life of a browser session: real hosts and real Chromiums, of which one or the other is killed."""

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from runtimed import (
    ActionFailed,
    ActionResult,
    AsyncBrowserSession,
    AsyncClient,
    BrowserError,
    BrowserSession,
    BrowserUnavailable,
    Client,
    InvalidCookieFile,
    Session,
    SessionClosed,
    StaleElement,
)
from runtimed.daemon.serving.daemon import Daemon
from runtimed.errors import NotConnected, SessionError, SessionNotFound
from tests.browser.server import serve
from tests.conftest import command_of, wait_until
from tests.daemon.conftest import Clock, daemon_with_a_clock, look, until

PAGE = "data:text/html,<title>One</title><button onclick='document.title += 1'>More</button>"
ACTIVE = ("active", None)


@pytest.fixture(scope="module")
def shared(shared_daemon: Path) -> Iterator[BrowserSession]:
    """The browser that the tests of this module share unless they end it, or want one of another kind."""
    with BrowserSession("shop", timeout_minutes=None) as session:
        yield session


@pytest.fixture
def shop(shared: BrowserSession) -> BrowserSession:
    """The shared browser, with a single empty tab."""
    if not shared.execute(type="goto", url="about:blank").success:
        shared.execute(type="new_tab", raise_on_failure=True)
    for tab in shared.observe().tabs:
        if not tab.active:
            shared.execute(type="close_tab", tab=tab.id, raise_on_failure=True)
    return shared


def state(session: BrowserSession) -> tuple[str, str | None]:
    status = session.status()
    return status.status, status.close_reason


def host_of(session: BrowserSession) -> psutil.Process:
    pid = session.status().host_pid
    assert pid is not None
    return psutil.Process(pid)


def chromium_of(session: BrowserSession) -> psutil.Process:
    """The browser's own process: Chromium's others, and Playwright's driver, are no parents of Chromiums."""
    children = host_of(session).children(recursive=True)
    found = [child for child in children if any("--user-data-dir" in part for part in command_of(child))]
    return next(child for child in found if child.ppid() not in {each.pid for each in found})


def daemon_process() -> psutil.Process:
    status = Client().status()
    assert status is not None
    return psutil.Process(status.pid)


def test_a_browser_that_is_killed_is_an_error_at_once_starts_again_under_its_id_and_outlives_daemons_but_no_host(
    shared_daemon,
):
    session = BrowserSession("killed", timeout_minutes=10)
    session.start()
    first = session.status()
    killed = chromium_of(session)

    killed.kill()
    killed_at = time.monotonic()
    wait_until(lambda: state(session) == ("error", "died"), "nobody says that the browser died")
    took = time.monotonic() - killed_at
    error = session.status().error
    with pytest.raises(SessionClosed, match=r"(?s)'killed' has no browser: it is error \(died\): .*SIGKILL") as caught:
        session.observe()
    assert caught.value.notebook_id == "killed"
    session.start()

    assert took < 1.0
    assert error is not None
    assert "SIGKILL" in error
    assert state(session) == ACTIVE
    assert session.status().created_at == first.created_at
    assert session.status().host_pid != first.host_pid
    assert session.observe().url == "about:blank"

    session.execute(type="goto", url=PAGE)
    button = next(element for element in session.observe().elements if element.role == "button")
    host, chromium = host_of(session), chromium_of(session)

    daemon_process().kill()
    session.execute(type="click", ref=button.ref, raise_on_failure=True)

    assert session.observe().title == "One1"
    assert (host_of(session).pid, chromium_of(session).pid) == (host.pid, chromium.pid)
    assert state(session) == ACTIVE
    assert session.status().timeout_minutes == 10

    host.kill()
    wait_until(lambda: state(session) == ("error", "host_lost"), "nobody says that the host died")
    wait_until(lambda: not chromium.is_running(), "the browser outlives its host")
    with pytest.raises(SessionClosed, match="The process that owned the browser ended"):
        session.execute(type="reload")
    session.stop()
    assert state(session) == ("error", "host_lost")
    steps = [entry for entry in Client().sessions.log("killed") if entry.action.startswith("session_")]
    assert [(entry.action, entry.detail) for entry in steps] == [
        ("session_error", "host_lost"),
        ("session_started", None),
        ("session_error", "died"),
        ("session_started", None),
    ]


def test_an_action_that_was_under_way_when_the_daemon_died_is_performed_once(shop):
    code = """() => {
        document.title = `begun ${window.n = (window.n || 0) + 1}`;
        return new Promise(done => setTimeout(() => done(n), 1500));
    }"""

    async def scenario() -> None:
        async with AsyncBrowserSession("shop") as session, AsyncBrowserSession("shop") as other:
            asked = asyncio.create_task(session.execute(type="evaluate_js", code=code))
            await until(lambda: has_title(other, "begun 1"), "the action does not begin")
            daemon_process().kill()

            assert (await asked).data == 1
            assert (await session.observe()).title == "begun 1"

    asyncio.run(scenario())


async def has_title(session: AsyncBrowserSession, title: str) -> bool:
    return (await session.observe()).title == title


def test_a_stale_ref_fails_at_once_with_the_nearest_element_that_is_there(shop):
    shop.execute(type="goto", url=PAGE)
    (old,) = (element.ref for element in shop.observe().elements if element.role == "button")
    shop.execute(type="reload")
    (new,) = (element.ref for element in shop.observe().elements if element.role == "button")

    with pytest.raises(StaleElement, match=f'{old} .button "More". is no longer .*; the nearest one is {new}') as stale:
        shop.execute(type="click", ref=old, raise_on_failure=True)
    assert isinstance(stale.value, ActionFailed)
    assert (stale.value.ref, stale.value.nearest, stale.value.error) == (old, new, "StaleElement")
    assert not stale.value.result.success
    with pytest.raises(ActionFailed, match="no tab 't9'") as refused:
        shop.execute(type="switch_tab", tab="t9", raise_on_failure=True)
    assert not isinstance(refused.value, StaleElement)


def test_a_dialog_in_the_way_of_a_picture_is_a_browser_error(shop):
    shop.execute(type="evaluate_js", code="alert('first')")
    with pytest.raises(BrowserError, match=r"waits in a dialog \(alert\): 'first'; handle_dialog answers it"):
        shop.screenshot()


def test_what_takes_long_holds_up_nobody_else_and_ends_when_nobody_waits_for_it(shop):
    async def scenario() -> None:
        async with AsyncBrowserSession("shop") as session, AsyncBrowserSession("shop") as other:
            waiting = asyncio.create_task(session.execute(type="wait", seconds=600))
            for client in (session, other):
                async with asyncio.timeout(10):
                    assert (await client.observe()).url == "about:blank"
                    assert (await client.screenshot()).size == (1280, 1080)
            assert not waiting.done()

            waiting.cancel()
            async with asyncio.timeout(10):
                assert (await other.execute(type="evaluate_js", code="'x'.repeat(3_000_000)")).data == "x" * 3_000_000

    asyncio.run(scenario())


def test_a_browser_session_s_time_counts_from_its_last_use_and_its_start_and_its_folder_goes_long_after_its_end(
    own_folder, monkeypatch
):
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "1e12")
    browsers = own_folder / "browsers"

    async def keeps_its_folder(clock: Clock, daemon: Daemon) -> None:
        session = AsyncBrowserSession("shop", timeout_minutes=None)
        await session.start()
        (folder,) = browsers.iterdir()
        clock.now += 31 * 86400
        await look(daemon)
        assert folder.exists()

        await session.stop()
        await look(daemon)
        assert folder.exists()
        clock.now += 31 * 86400
        await look(daemon)
        assert list(browsers.iterdir()) == []

    async def times_out(clock: Clock, daemon: Daemon) -> None:
        session = AsyncBrowserSession("shop", max_duration_minutes=20)
        await session.start()

        async def is_in(*expected: object) -> bool:
            status = await session.status()
            return (status.status, status.close_reason) == expected

        clock.now += 2.9 * 60
        await session.get_cookies()
        clock.now += 2.9 * 60
        daemon.tick()
        assert (await session.status()).status == "active"
        waiting = asyncio.create_task(session.execute(type="wait", seconds=1))
        await until(lambda: daemon.room("shop").hosted.busy, "nothing is asked of the browser")
        clock.now += 4 * 60
        daemon.tick()
        assert (await waiting).success
        clock.now += 3.1 * 60
        await until(lambda: is_in("timed_out", "idle_timeout"), "it does not time out")
        with pytest.raises(SessionClosed, match=r"it is timed_out \(idle_timeout\)"):
            await session.get_cookies()

        await session.start()
        for _ in range(8):
            clock.now += 2.4 * 60
            await session.get_cookies()
        clock.now += 60
        await until(lambda: is_in("timed_out", "max_duration"), "it lasts too long")
        await session.close()

    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            await keeps_its_folder(clock, daemon)
            await times_out(clock, daemon)

    asyncio.run(scenario())


def test_a_browser_that_cannot_start_says_what_to_do(shared_daemon, monkeypatch):
    monkeypatch.setenv("RUNTIMED_CHROMIUM", "/nowhere/chromium")
    session = BrowserSession()
    sentence = "RUNTIMED_CHROMIUM names '/nowhere/chromium', which is no program"
    with pytest.raises(BrowserUnavailable, match=sentence), session:
        pytest.fail("it has started")
    assert state(session) == ("error", "died")
    session.stop()
    assert state(session) == ("error", "died")


def test_what_a_browser_cannot_be_started_with_is_named(shop, tmp_path):
    file = tmp_path / "cookies.txt"
    file.write_text("# Netscape HTTP Cookie File\nexample.com\tFALSE\t/\n")
    with pytest.raises(InvalidCookieFile, match="line 2 has 3 fields") as caught, BrowserSession(cookie_file=file):
        pytest.fail("it has started")
    assert (caught.value.path, caught.value.line) == (str(file), 2)
    with pytest.raises(SessionError, match="chrome_args cannot have"):
        BrowserSession(allowed_domains=[], chrome_args=["--proxy-server=x"])

    file.write_text("example.com\tFALSE\t/\tFALSE\t0\ta\t1\n")
    shop.set_cookies(cookie_file=file)
    assert [(one["name"], one["domain"]) for one in shop.get_cookies()] == [("a", "example.com")]
    with pytest.raises(InvalidCookieFile, match="There is no cookie file"):
        shop.set_cookies(cookie_file=tmp_path / "none")
    with pytest.raises(BrowserError, match="either cookies or cookie_file"):
        shop.set_cookies()
    one = {"name": "a", "value": "1", "domain": "example.com"}
    refusals: list[tuple[Any, str]] = [
        (one, "cookies are a list of objects, as get_cookies returns them; a single one is a list of one"),
        ("a=b", "cookies are a list of objects, as get_cookies returns them; not str"),
        (1, "cookies are a list of objects, as get_cookies returns them; not int"),
        ([one, "a=b"], "cookie 2 is no object"),
        ([{**one, "value": b"1"}], "cookie 1: value is no text"),
    ]
    for given, says in refusals:
        with pytest.raises(BrowserError) as refused:
            shop.set_cookies(given)
        assert refused.value.message == says


def test_profiles_are_listed_and_deleted(shared_daemon):
    client = Client()
    assert client.profiles.list() == []
    with BrowserSession(profile="work") as session:
        session.execute(type="goto", url="data:text/html,x")
        session.save_profile("copy")
        with pytest.raises(BrowserError) as refused:
            client.profiles.delete("work")
        assert refused.value.message == (
            f"Session {session.session_id!r} uses the profile 'work', and stores it again at its end: stop it first"
        )
        assert refused.value.session_id == session.session_id
        daemon_process().kill()
        assert state(session) == ACTIVE
        with pytest.raises(BrowserError, match="uses the profile 'work'"):
            client.profiles.delete("work")
    assert client.profiles.list() == ["copy", "work"]
    client.profiles.delete("work")

    async def scenario():
        profiles = AsyncClient().profiles
        with pytest.raises(BrowserError, match="There is no profile 'work'; there are: copy"):
            await profiles.delete("work")
        await profiles.delete("copy")
        return await profiles.list()

    with BrowserSession(profile="copy", persist_profile=False):  # it stores none
        assert asyncio.run(scenario()) == []


def test_before_its_start_and_after_its_end_a_session_has_a_state_and_no_browser(shared_daemon):
    unnamed = BrowserSession()
    assert unnamed.session_id is None
    status = unnamed.status()
    assert (status.session_id, status.kind, status.status) == ("", "browser", "not_started")
    unnamed.stop()
    with pytest.raises(NotConnected, match="not started"):
        unnamed.observe()
    with pytest.raises(NotConnected, match="not started"):
        _ = unnamed.page

    named = BrowserSession("never")
    named.stop()
    assert (named.status().session_id, state(named)) == ("never", ("not_started", None))
    with pytest.raises(SessionNotFound, match="Browser session 'never' is not started"):
        named.observe()
    named.close()


def test_a_block_ends_the_session_that_it_started_and_leaves_any_other(shared_daemon):
    session = BrowserSession("block")
    assert (session.is_new, repr(session)) == (None, "BrowserSession(id=block)")
    session.start()
    with session:
        session.start()
    with BrowserSession("block") as joined:
        joined.execute(type="goto", url=PAGE)
    assert (session.is_new, repr(session)) == (True, "BrowserSession(id=block, new)")
    assert (joined.is_new, repr(joined)) == (False, "BrowserSession(id=block)")
    assert state(session) == ACTIVE
    assert session.observe().title == "One"

    session.stop()
    with session:
        assert state(session) == ACTIVE
    assert state(session) == ("closed", "stopped")


def test_what_pages_said_asked_for_and_downloaded_can_be_read_and_sifted_also_afterwards(shared_daemon):
    def do(action: str, **fields: Any) -> ActionResult:
        return session.execute(type=action, raise_on_failure=True, **fields)

    with serve() as site, BrowserSession("said") as session:
        page = f"{site.url}/plain"
        do("goto", url=page)
        start = do("evaluate_js", code="document.body.innerHTML = '<a download href=/download/report.txt>Report</a>'")
        (tab,) = (tab.id for tab in session.observe().tabs)
        do("evaluate_js", code="fetch('/no-such').then(() => console.warn('careful'))")
        wait_until(session.console, "the warning is not there")
        do("evaluate_js", code="for (let n = 0; n < 5; n++) console.log(`line ${n}`)")
        do("evaluate_js", code="void setTimeout(() => { throw new Error('oops') })")
        wait_until(lambda: session.console(level="uncaught"), "the error is not there")
        report = do("download_file", role="link", name="Report").data

        assert [str(message) for message in session.console(level=["warning", "uncaught"])] == [
            "warning: careful",
            "uncaught: oops",
        ]
        assert [message.text for message in session.console(text="line", limit=2)] == ["line 3", "line 4"]
        assert {message.tab for message in session.console()} == {tab}
        assert [str(message) for message in session.console(level="error", text="404")][-1] == (
            "error: Failed to load resource: the server responded with a status of 404 (Not Found) "
            f"({site.url}/no-such:1)"
        )
        assert session.console(since=datetime.now(UTC)) == session.console(tab="t9") == []

        (missing,) = session.requests(failed=True, url="no-such")
        assert (missing.method, missing.status, missing.resource_type, missing.tab) == ("GET", 404, "fetch", tab)
        assert session.requests(status=404, since=start.started_at, resource_type="fetch") == [missing]
        assert [str(one) for one in session.requests(url="*/plain", method="get")] == [f"200 GET {page}"]
        assert session.requests(url="/pla*") == []
        for wrong in ({"limit": 0}, {"since": datetime(2026, 1, 1)}):  # that is what is wrong with it
            with pytest.raises(BrowserError, match="must"):
                session.console(**wrong)

        (downloaded,) = session.downloads()
        assert (downloaded.path, downloaded.size, downloaded.url) == (report["path"], 9, report["url"])
        said, asked = session.console(), session.requests()
        session.stop()
        assert (session.console(), session.requests(), session.downloads()) == (said, asked, [downloaded])


def seen_in_viewer(url: str) -> dict[str, Any]:
    """What the viewer shows of a session, which is no use of it."""
    with urllib.request.urlopen(f"{url}events", timeout=20) as stream:
        for line in stream:
            if line == b"event: session\n":
                found: dict[str, Any] = json.loads(next(stream).removeprefix(b"data: "))
                return found
    raise AssertionError("the viewer ended")


def test_the_viewer_shows_how_long_the_session_lives_on_and_whatever_uses_it_prolongs_that(shared_daemon):
    with BrowserSession("seen", timeout_minutes=10) as session, BrowserSession("seen") as joined:
        url = session.viewer_url
        first = seen_in_viewer(url)
        assert (first["id"], first["why"]) == ("seen", "idle_timeout")
        assert 590 < first["ends_at"] - time.time() < 600
        assert seen_in_viewer(url) == first

        joined.start()
        wait_until(lambda: seen_in_viewer(url)["ends_at"] > first["ends_at"], "to join is no use")
        second = seen_in_viewer(url)
        session.execute(type="goto", url=PAGE)
        assert seen_in_viewer(url)["ends_at"] > second["ends_at"]


def test_the_token_of_a_viewer_that_is_opened_is_on_no_command_line(shared_daemon, tmp_path):
    opener = tmp_path / "opener"
    opener.write_text(f'#!/bin/sh\nprintf %s "$*" > {tmp_path}/line\n')
    opener.chmod(0o700)
    options = "headless=False, timeout_minutes=None, max_duration_minutes=5"
    script = f"from runtimed import BrowserSession; s = BrowserSession('opened', {options}); s.start(); s.close()"
    opened = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "BROWSER": f"{opener} %s"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    with BrowserSession("opened") as session:
        session.start()
        assert seen_in_viewer(session.viewer_url)["why"] == "max_duration"
        line = (tmp_path / "line").read_text()
        (tmp_path / "line").unlink()
        subprocess.run(
            [sys.executable, "-m", "runtimed", "view", "open"],
            env={**os.environ, "BROWSER": f"{opener} %s"},
            timeout=60,
            check=True,
        )
        assert (tmp_path / "line").read_text() == line
        page = Path(urlsplit(line).path)
        assert (opened.stdout, urlsplit(line).scheme) == ("", "file")
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        assert re.findall(r'href="([^"]+)"', page.read_text()) == [session.viewer_url]
        session.stop()
    assert not page.exists()


def test_a_session_is_of_one_kind(shop):
    with Session("notebook") as notebook:
        notebook.create_cell("1")
        browser = BrowserSession("notebook")
        with pytest.raises(SessionError, match="'notebook' is a kernel session; join it with Session"):
            browser.start()
        with pytest.raises(SessionError, match="'notebook' is a kernel session"):
            browser.observe()
        with pytest.raises(SessionError, match="'notebook' is a kernel session"):
            browser.read_actions()
        browser.close()
    for use in (
        lambda s: s.run("1"),
        lambda s: s.create_cell("1"),
        lambda s: s.start_kernel(),
        lambda s: s.get_cells(),
        lambda s: s.interrupt(),
        lambda s: s.trust_environment(),
        lambda s: next(s.history()),
    ):
        with Session("shop") as notebook, pytest.raises(SessionError, match="'shop' is a browser session"):
            use(notebook)
    assert state(shop) == ACTIVE
    sessions = Client().sessions
    every, browsers = (
        {status.session_id for status in listed} for listed in (sessions.list(), sessions.list(kind="browser"))
    )
    assert "shop" in browsers
    assert every - browsers == {"notebook"}


SCRIPT = """
import signal, sys, time
from runtimed import BrowserSession
{handler}
with BrowserSession("interrupted") as session:
    print("ready", flush=True)
    {work}
"""


@pytest.mark.parametrize(
    ("handler", "work", "code"),
    [
        ("", "session.execute(type='wait', seconds=60)", -signal.SIGINT),
        ("signal.signal(signal.SIGINT, lambda *_: sys.exit(7))", "time.sleep(60)", 7),
    ],
)
def test_an_interrupt_in_the_block_ends_the_session_as_failed(shared_daemon, handler, work, code):
    script = SCRIPT.format(handler=handler, work=work)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        chromium = chromium_of(BrowserSession("interrupted"))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == code

    assert state(BrowserSession("interrupted")) == ("closed", "error")
    assert not chromium.is_running()
