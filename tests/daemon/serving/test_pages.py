"""Playwright's own pages in the processes of clients: `session.page` beside others, and after an interrupt."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import sync_playwright

from runtimed import AsyncBrowserSession, AsyncClient, BrowserError, BrowserSession, Client
from runtimed.protocol.browser_operations import GetBrowserAddressReply
from tests.browser.server import serve
from tests.conftest import command_of, wait_until
from tests.daemon.conftest import until

pytestmark = pytest.mark.slow

ONE, TWO = (f"data:text/html,<title>{title}</title>" for title in ("One", "Two"))

ASKS = "data:text/html,<p></p><button onclick=\"p = document.querySelector('p'); p.append(confirm('sure?') + ' ')\">Ask"


def waits_in(tab: str | None) -> str:
    return f"The page in {tab} waits in a dialog (confirm): 'sure?'; handle_dialog answers it"


@pytest.fixture(scope="module")
def browsers(shared_daemon: Path) -> Iterator[list[BrowserSession]]:
    """Two browsers, which the tests of this module join one after the other."""
    first, second = (BrowserSession(name, timeout_minutes=None) for name in ("first", "second"))
    with first, second:
        yield [first, second]


@pytest.fixture
def names(browsers: list[BrowserSession]) -> tuple[str, str]:
    """The names of two sessions, each with a single empty tab."""
    for session in browsers:
        tabs = session.observe().tabs
        if len(tabs) != 1 or not session.execute(type="goto", url="about:blank").success:
            session.execute(type="new_tab", raise_on_failure=True)
            for tab in tabs:
                session.execute(type="close_tab", tab=tab.id, raise_on_failure=True)
    return "first", "second"


@pytest.fixture
def session(names: tuple[str, str]) -> Iterator[BrowserSession]:
    """One of the two, joined by this test."""
    with BrowserSession(names[0]) as joined:
        yield joined


def drivers() -> list[psutil.Process]:
    """The drivers of this process."""
    return [child for child in psutil.Process().children() if "run-driver" in command_of(child)]


def test_a_thread_uses_the_pages_of_several_sessions_also_after_the_death_of_their_driver(
    names: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with BrowserSession(names[0]) as first:
        first.page.goto(ONE)
        with BrowserSession(names[1]) as second:
            second.page.goto(TWO)

            assert (first.page.title(), second.page.title()) == ("One", "Two")
            [driver] = drivers()
            driver.kill()
            assert (first.page.title(), second.page.title()) == ("One", "Two")
            assert len(drivers()) == 1

        with ThreadPoolExecutor(1) as other:
            with pytest.raises(BrowserError, match="session.page belongs to the thread that asked for it first"):
                other.submit(lambda: first.page).result()
            assert other.submit(first.observe).result().title == "One"

        # What one lets go, another goes on with.
        assert first.page.title() == "One"
        assert len(drivers()) == 1
    assert drivers() == []
    gc.collect()
    assert caplog.messages == []  # what asyncio logs of exceptions that nobody retrieved

    # The next one gets a driver of its own, and an event loop may run here again.
    with BrowserSession(names[1]) as third:
        third.page.goto(ONE)
        assert third.page.title() == "One"
    asyncio.run(asyncio.sleep(0))


def test_who_has_a_playwright_of_his_own_is_told_how_that_one_attaches_itself(session: BrowserSession) -> None:
    with sync_playwright() as playwright:
        with pytest.raises(BrowserError, match=r"^Another sync_playwright\(\) .*connect_over_cdp\(session.cdp"):
            _ = session.page
        own = playwright.chromium.connect_over_cdp(session.cdp_url())
        assert [page.url for page in own.contexts[0].pages] == ["about:blank"]

    async def in_a_loop() -> None:
        with pytest.raises(BrowserError, match=r"running event loop.*await session.async_page"):
            _ = session.page

    asyncio.run(in_a_loop())
    assert session.page.url == "about:blank"


def test_a_page_that_cannot_be_attached_leaves_nothing(
    session: BrowserSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        nowhere = GetBrowserAddressReply(
            cdp_url="ws://127.0.0.1:9/", viewer_url="", viewer_page="", target="", dialogs={}, silent=[]
        )
        patch.setattr(session, "_address", lambda **_: nowhere)
        with pytest.raises(BrowserError, match="cannot attach itself") as raised:
            _ = session.page
    assert "Call log" not in raised.value.message  # it shows the token of the address
    assert drivers() == []
    assert session.page.url == "about:blank"


def test_the_page_is_always_that_of_the_active_tab_and_knows_what_happened_before_it_was_asked_for(
    session: BrowserSession,
) -> None:
    session.page.goto("about:blank")
    session.page.set_content("<title>One</title><button onclick=\"window.open('about:blank')\">Open</button>")
    first, active = session.page, session.observe().tab
    assert session.page is first
    for click in (
        lambda: session.execute(type="click", role="button", name="Open"),
        lambda: session.page.click("button"),
    ):
        click()
        second = session.page
        assert (second is first, second.title()) == (False, "")
        session.execute(type="switch_tab", tab=active)
        assert session.page is first
        session.page.bring_to_front()
        session.execute(type="switch_tab", tab=session.observe().tabs[-1].id)
        assert session.page is second
        session.execute(type="close_tab")
        assert session.page is first
    session.page.close()
    assert session.page.url == "about:blank"

    file = "data:text/html,<a download='{0}.txt' href='data:,{0}'>Save"
    with serve() as site:
        for index in range(2):
            session.execute(type="goto", url=f"{site.url}/plain?{index}", raise_on_failure=True)
            assert session.page.url == f"{site.url}/plain?{index}"
            push = f"history.pushState({{}}, '', '/pushed/{index}')"
            session.execute(type="evaluate_js", code=push, raise_on_failure=True)
            assert session.page.url == f"{site.url}/pushed/{index}"
        for index in range(2):
            session.execute(type="close_tab", raise_on_failure=True)
            assert session.page.url == "about:blank"
            session.execute(type="goto", url=ONE, raise_on_failure=True)
            assert (session.page.url, index, len(session.page.context.pages)) == (ONE, index, 1)

        # What the session downloads is not what the page downloads next.
        session.execute(type="goto", url=file.format("first"), raise_on_failure=True)
        session.execute(type="download_file", selector="a", raise_on_failure=True)
        session.execute(type="goto", url=file.format("second"), raise_on_failure=True)
        page = session.page
        with page.expect_download() as expected:
            page.click("a")
        assert expected.value.suggested_filename == "second.txt"


def test_the_asynchronous_page_is_that_of_the_active_tab_and_knows_what_happened_before_it_was_asked_for(
    names: tuple[str, str],
) -> None:
    async def scenario() -> None:
        async with AsyncBrowserSession(names[0]) as session:
            first = await session.async_page()
            for index in range(2):
                await session.execute(type="goto", url=f"data:text/html,{index}", raise_on_failure=True)
                assert (await session.async_page()).url == f"data:text/html,{index}"
            await first.set_content("<title>One</title><button onclick=\"window.open('about:blank')\">Open</button>")
            await session.execute(type="click", role="button", name="Open")
            second = await session.async_page()
            await session.execute(type="close_tab")

            assert second is not first
            assert await session.async_page() is first

    asyncio.run(scenario())


def test_a_page_is_refused_at_once_while_the_active_tab_waits_in_a_dialog(session: BrowserSession) -> None:
    tab = session.observe().tab
    waits = waits_in(tab)
    session.execute(type="goto", url=ASKS)
    session.execute(type="click", role="button", name="Ask")
    with pytest.raises(BrowserError) as first:
        _ = session.page
    assert drivers() == []  # Playwright would wait for 30 seconds
    session.execute(type="new_tab")
    with pytest.raises(BrowserError) as elsewhere:
        _ = session.page
    session.execute(type="switch_tab", tab=tab)
    session.execute(type="handle_dialog", raise_on_failure=True)
    page = session.page

    session.execute(type="click", role="button", name="Ask")
    with pytest.raises(BrowserError) as again:
        session.page.title()
    session.execute(type="handle_dialog", raise_on_failure=True)
    assert session.page is page
    assert page.inner_text("p") == "true true"

    # A handler of one's own answers; and Playwright, without one, what the page does for it.
    page.once("dialog", lambda dialog: dialog.accept())
    session.execute(type="click", role="button", name="Ask")
    assert session.page.inner_text("p") == "true true true"
    page.click("button")
    for _ in range(12):
        page.evaluate("setTimeout(() => alert('late'))")
        assert session.page.inner_text("p") == "true true true false"

    attaches = "Playwright attaches itself only when no page waits in a dialog. "
    assert [error.value.message for error in (first, elsewhere, again)] == [
        attaches + waits,
        f"{attaches}{waits} in the active tab, so switch_tab comes first",
        waits,
    ]


def test_an_asynchronous_page_is_refused_at_once_while_the_active_tab_waits_in_a_dialog(names: tuple[str, str]) -> None:
    async def scenario() -> tuple[str, list[str]]:
        async with AsyncBrowserSession(names[0]) as session:
            with_loop = Client().BrowserSession(session.session_id)
            said, waits = [], waits_in((await session.observe()).tab)
            await session.execute(type="goto", url=ASKS)
            for _ in range(2):  # before Playwright is attached, and after
                await session.execute(type="click", role="button", name="Ask")
                for face in (session, with_loop):
                    with pytest.raises(BrowserError) as raised:
                        await face.async_page()
                    said.append(raised.value.message)
                await session.execute(type="handle_dialog", raise_on_failure=True)
                pages = [await face.async_page() for face in (session, with_loop)]
            assert [await page.inner_text("p") for page in pages] == ["true true"] * 2
            with_loop.close()
            await until(lambda: len(drivers()) == 1, "its driver is still there")  # a little later, in this loop
            return waits, said

    attaches = "Playwright attaches itself only when no page waits in a dialog. "
    waits, said = asyncio.run(scenario())
    assert said == [attaches + waits, attaches + waits, waits, waits]


def test_a_driver_that_hangs_does_not_hold_up_the_end(shared_daemon: Path) -> None:
    async def scenario() -> None:
        async with AsyncClient().BrowserSession() as session:
            page = await session.async_page()
            await page.goto(ONE)
            [driver] = drivers()
            driver.suspend()
        assert (await session.status()).status == "closed"
        driver.resume()  # what it was told meanwhile ends it
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert others  # which read what it says
        await asyncio.wait_for(asyncio.gather(*others), 30)

    asyncio.run(scenario())
    wait_until(lambda: drivers() == [], "the driver is still there")  # it closes its pipe a moment before it is gone


def test_an_interrupt_in_the_midst_of_the_drivers_messages_does_not_hold_up_the_end(names: tuple[str, str]) -> None:
    # Where asyncio takes up the next step of the task that reads from the driver, the signal takes that step with it.
    script = """
import asyncio
import signal

from runtimed import Client

take_up = asyncio.events.Handle._run

def interrupted(handle):
    if "PipeTransport.run" in repr(getattr(handle._callback, "__self__", None)):
        asyncio.events.Handle._run = take_up
        signal.raise_signal(signal.SIGINT)
    take_up(handle)

signal.signal(signal.SIGINT, signal.default_int_handler)
client = Client()
with client.BrowserSession("first") as other:
    other.page.goto("about:blank")
    try:
        with client.BrowserSession() as session:
            print(session.session_id, flush=True)
            page = session.page
            page.evaluate("setInterval(() => console.log('message'), 20)")
            asyncio.events.Handle._run = interrupted
            page.wait_for_timeout(60_000)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(other.page.evaluate("40 + 2"), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    session_id, *rest = output.decode().split()
    assert (rest, process.returncode) == (["interrupted", "42"], 0), errors.decode()
    status = Client().sessions.get(session_id)
    assert (status.status, status.close_reason) == ("closed", "error")
