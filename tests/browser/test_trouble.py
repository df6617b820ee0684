"""Pages that misbehave: dialogs, endless loading, loops of redirects, tabs that vanish, huge downloads."""

import asyncio
import gc
import os
import signal
import time

import psutil
import pytest
from playwright.async_api import Error as PlaywrightError

from runtimed import BrowserError
from runtimed.actions import Click, Goto, HandleDialog, PressKey, Reload
from runtimed.browser import open_tab, perform, reading
from runtimed.browser.driver import start_driver
from runtimed.client.attached import check_can_attach
from runtimed.protocol.browser_operations import GetBrowserAddressReply
from tests.browser.conftest import browsing
from tests.browser.server import DOWNLOAD_SIZE, HANGS, serve
from tests.conftest import command_of


@pytest.fixture
def dialogs(browser, site):
    browser.goto(f"{site.url}/dialogs")
    return browser


def press(browser, name):
    return browser.do("click", role="button", name=name)


def said(browser):
    return browser.js("said.textContent")


def test_a_dialog_is_told_and_everything_else_waits_for_its_answer(dialogs, site):
    opened = press(dialogs, "Alert")

    assert "handle_dialog answers it" in opened.message
    assert opened.page_changed
    seen = dialogs.observe()
    assert (seen.dialog.kind, seen.dialog.message, seen.tree) == ("alert", "watch out", "")
    assert "Dialog (alert): watch out" in str(seen)
    for action in (Click(selector="button"), Goto(site.url), Reload()):
        blocked = dialogs.execute(action)
        assert (blocked.success, blocked.error) == (False, "Dialog")
    assert dialogs.do("handle_dialog").message == "Accepted the alert 'watch out'"
    assert said(dialogs) == "after the alert"
    assert dialogs.execute("handle_dialog").message.endswith("shows no dialog")


def test_who_attaches_is_told_which_tab_does_not_answer(browser, site, monkeypatch):
    hanging = browser.do("new_tab", url=f"{site.url}/plain").data
    browser.js(f"setTimeout(() => {{ {HANGS} }}); 1")
    browser.do("new_tab")
    monkeypatch.setattr(reading, "_PATIENCE", 0.5)
    silent = browser.run(browser.browser.silent())
    browser.do("close_tab", tab=hanging)
    monkeypatch.undo()
    assert browser.run(browser.browser.silent()) == []

    hangs = f"The page in {hanging} has not answered within 0.5 s: it is busy. Wait, or end it with close_tab"
    assert silent == [hangs]
    with pytest.raises(BrowserError) as refused:
        check_can_attach(
            GetBrowserAddressReply(cdp_url="", viewer_url="", viewer_page="", target="x", dialogs={}, silent=silent)
        )
    assert refused.value.message == f"Playwright attaches itself only when every page answers. {hangs}"


def test_confirm_and_prompt_get_their_answers(dialogs):
    answers = []
    for name, answer in [
        ("Confirm", HandleDialog()),
        ("Confirm", HandleDialog(accept=False)),
        ("Prompt", HandleDialog(text="me")),
        ("Prompt", HandleDialog(accept=False)),
    ]:
        press(dialogs, name)
        dialogs.do(answer)
        answers.append(said(dialogs))

    assert answers == ["true", "false", "me", ""]


def test_a_tab_that_opens_with_a_dialog_waits_for_its_answer_and_so_does_the_page_that_opened_it(dialogs):
    first = dialogs.observe().tab
    opens = (
        "document.querySelector('button').onclick = () => { said.textContent = open('about:blank').confirm('new?') }"
    )
    dialogs.js(f"void ({opens})")

    opened = press(dialogs, "Alert")

    assert "waits in a dialog (confirm): 'new?'" in opened.message
    assert dialogs.do("handle_dialog").message == "Accepted the confirm 'new?'"
    dialogs.do("switch_tab", tab=first)
    assert said(dialogs) == "true"


def test_a_storm_of_dialogs_is_answered_one_by_one(dialogs):
    press(dialogs, "Storm")

    messages = [dialogs.do("handle_dialog").message for _ in range(3)]

    assert [message.split(".")[0] for message in messages] == [f"Accepted the alert 'storm {n}'" for n in (1, 2, 3)]
    assert "'storm 2'; handle_dialog answers it" in messages[0]
    assert said(dialogs) == "calm"


def test_a_storm_without_end_ends_with_its_tab(dialogs):
    press(dialogs, "Endless")
    for _ in range(3):
        # It may answer a question between two of them.
        dialogs.until(lambda: dialogs.browser._tabs.latest.dialog, "there is no next dialog")
        assert dialogs.observe().dialog is not None
        dialogs.do("handle_dialog")

    dialogs.do("close_tab")

    assert dialogs.observe().url == "about:blank"


def test_a_page_that_asks_before_it_is_left(dialogs, site):
    press(dialogs, "Guard")

    blocked = dialogs.execute("goto", url=f"{site.url}/plain")

    assert (blocked.error, dialogs.observe().dialog.kind) == ("Dialog", "beforeunload")
    dialogs.do("handle_dialog")
    dialogs.until(lambda: dialogs.addresses() == [f"{site.url}/plain"], "the page is not left")


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        (
            "http://no-such-host.invalid/",
            "Navigation",
            "There is no such host, or no network: net::ERR_NAME_NOT_RESOLVED",
        ),
        ("SITE/loop", "Navigation", "leads on and on, without an end: net::ERR_TOO_MANY_REDIRECTS"),
        ("SITE/never", "Timeout", "did not load in time (Timeout 500ms exceeded). Nothing has come of it"),
        ("SITE/half", "Timeout", "did not load in time (Timeout 500ms exceeded). What has come of it"),
        ("file:///etc/passwd", "Refused", "file: addresses are not opened"),
        ("ftp://example.com/", "Refused", "ftp: addresses are not opened"),
        ("http://[bad", "Refused", "is no address"),
    ],
)
def test_addresses_that_lead_nowhere(browser, site, url, error, says):
    result = browser.execute("goto", url=url.replace("SITE", site.url), timeout=0.5 if error == "Timeout" else 20)

    assert (result.success, result.error) == (False, error)
    assert says in result.message
    browser.goto(f"{site.url}/plain")
    assert browser.observe().title == "Plain"


def test_the_page_before_one_that_never_answers_can_be_used(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.execute("goto", url=f"{site.url}/never", timeout=0.5)

    assert browser.observe().title == "Plain"


def test_what_has_come_of_a_page_that_never_loads_can_be_used(browser, site):
    browser.execute("goto", url=f"{site.url}/half", timeout=0.5)

    assert "the first half" in browser.observe().tree


@pytest.mark.parametrize("code", ["for (;;);", "new Promise(() => {})"])
def test_code_that_never_ends_has_its_time(browser, site, monkeypatch, code):
    monkeypatch.setattr(perform, "_MORE", 600.0)
    hanging = browser.do("new_tab", url=f"{site.url}/plain").data

    result = browser.execute("evaluate_js", code=code, timeout=0.5)

    assert (result.success, result.error) == (False, "Timeout")
    assert "did not end within 0.5 s" in result.message
    browser.do("close_tab")
    assert browser.observe().tab != hanging


def test_an_action_that_makes_the_page_hang_is_done_and_the_next_one_says_that_it_hangs(browser, site, monkeypatch):
    monkeypatch.setattr(perform, "_MORE", 0.5)
    hanging = browser.do("new_tab", url=f"{site.url}/plain").data

    code = f"() => {{ setTimeout(() => {{ {HANGS} }}); return 'given back' }}"
    result = browser.do("evaluate_js", code=code, timeout=600)

    assert (result.data, result.page_changed) == ("given back", True)
    assert result.message == "Evaluated; since then the page does not answer"
    for action in (PressKey("a", timeout=0.5), Click(selector="body", timeout=0.5)):
        result = browser.execute(action)
        assert (result.success, result.error) == (False, "Timeout"), action
    browser.do("close_tab")
    assert browser.observe().tab != hanging


def test_a_dialog_after_which_the_page_hangs_is_answered(browser, site, monkeypatch):
    monkeypatch.setattr(open_tab, "ANSWER", 0.5)
    hanging = browser.do("new_tab", url=f"{site.url}/plain").data
    browser.execute("evaluate_js", code=f"() => {{ alert('stop'); {HANGS} }}")

    assert browser.do("handle_dialog").message == "Accepted the alert 'stop'"

    browser.do("close_tab")
    assert browser.observe().tab != hanging


def test_a_certificate_that_nobody_signed_is_refused(browser):
    with serve(tls=True) as secure:
        result = browser.execute("goto", url=secure.url)

    assert (result.success, result.error) == (False, "Navigation")
    assert "certificate is not valid (ignore_https_errors takes it)" in result.message
    assert "ERR_CERT_AUTHORITY_INVALID" in result.message or "ERR_CERT_COMMON_NAME_INVALID" in result.message


def test_a_page_that_closes_itself(browser, site):
    browser.goto(f"{site.url}/plain")
    first = browser.observe().tab
    browser.js("void window.open('/form')")
    browser.until(lambda: browser.addresses() == [f"{site.url}/form"], "the tab does not open")
    browser.js("void (document.querySelector('#idle').onclick = () => window.close())")

    result = browser.do("click", role="button", name="Nothing happens")

    assert "was closed" in result.message
    assert browser.observe().tab == first


def test_the_tab_of_a_page_that_crashes_can_only_be_closed(browser, site):
    browser.goto(f"{site.url}/plain")
    tab = browser.browser._tabs.latest

    crashed = browser.execute("goto", url="chrome://crash")

    assert crashed.error == "Refused"
    with pytest.raises(Exception, match="crash"):
        browser.run(tab.page.goto("chrome://crash"))
    browser.until(lambda: tab.crashed, "the page lives on")
    for action in (Click(selector="h1"), Goto(f"{site.url}/plain"), Reload()):
        refused = browser.execute(action)
        assert refused.error == "TabGone"
        assert "new_tab opens another tab" in refused.message
    assert browser.do("switch_tab", tab=tab.id).success
    assert browser.do("close_tab").success
    browser.goto(f"{site.url}/plain")


def test_a_browser_outlives_a_page_that_crashes_while_a_picture_of_it_is_taken(browser, site):
    browser.do("new_tab", url=f"{site.url}/plain")
    for _ in range(3):
        browser.do("new_tab", url=f"{site.url}/plain")
        tab = browser.browser._tabs.latest

        async def crash(tab=tab):
            taking = asyncio.ensure_future(tab.cdp.send("Page.captureScreenshot"))
            with pytest.raises(PlaywrightError, match="crash"):
                await tab.page.goto("chrome://crash")
            taking.cancel()  # nobody answers it any more

        browser.run(crash())
        browser.until(lambda tab=tab: tab.crashed, "the page lives on")
        browser.do("close_tab")

    assert browser.js("document.title") == "Plain"


def test_a_browser_outlives_its_last_tab(browser, site):
    for _ in range(3):
        browser.do("close_tab")
        browser.goto(f"{site.url}/plain")


def test_a_name_that_a_page_suggests_leads_nowhere_else(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.js("document.querySelector('a').href = '/download/evil'")

    data = browser.do("download_file", selector="a").data

    assert data["path"].startswith(str(browser.folder / "downloads") + "/")
    assert [path.name for path in (browser.folder / "partial").iterdir()] == []


def test_a_download_of_100_megabytes(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.js("document.querySelector('a').href = '/download/huge.bin'")

    data = browser.do("download_file", selector="a", timeout=60).data

    assert (data["suggested_filename"], data["size"]) == ("huge.bin", DOWNLOAD_SIZE)
    assert (browser.folder / "downloads" / "huge.bin").stat().st_size == DOWNLOAD_SIZE


def test_a_click_that_downloads_nothing_says_so(browser, site):
    browser.goto(f"{site.url}/plain")

    result = browser.execute("download_file", selector="h1", timeout=0.5)

    assert (result.error, result.message) == ("Timeout", "The download did not begin after 0.5 s; raise timeout=")


def test_who_navigates_last_wins(browser, site):
    async def both():
        never = asyncio.create_task(browser.browser.execute(Goto(f"{site.url}/never")))
        while "/never" not in site.asked:  # noqa: ASYNC110  # the site runs in a thread
            await asyncio.sleep(0.01)
        other = await browser.browser.execute(Goto(f"{site.url}/plain"))
        return await never, other

    site.asked.clear()
    never, other = browser.run(both())

    assert other.success
    assert not never.success
    assert "ERR_ABORTED" in never.message or "interrupted by another" in never.message


def test_the_death_of_chromium_is_known_within_a_second_and_an_action_in_it_has_not_closed_its_tab(run, site):
    with browsing(run) as browser:
        browser.goto(f"{site.url}/form")

        async def scene():
            clicking = asyncio.create_task(browser.browser.execute(Click(selector="#no-such", timeout=30)))
            await asyncio.sleep(0.3)  # it waits for what is not there
            began = time.monotonic()
            os.kill(browser.browser.pid, signal.SIGKILL)
            reason = await asyncio.wait_for(browser.browser.ended, 5)
            return time.monotonic() - began, reason, await clicking

        took, reason, result = browser.run(scene())

        assert took < 1
        assert reason.startswith("Chromium was ended by SIGKILL.")
        assert not result.success
        assert browser.execute(Click(selector="h1")).error is not None


def test_a_driver_that_dies_is_not_reported_once_more_when_the_garbage_is_collected(run, caplog):
    async def scene():
        before = set(psutil.Process().children(recursive=True))
        playwright = await start_driver()
        (driver,) = {*psutil.Process().children(recursive=True)} - before
        driver.kill()
        with pytest.raises(PlaywrightError):  # it has heard of the death then
            await playwright.chromium.connect_over_cdp("ws://127.0.0.1:9/")
        await playwright.stop()

    run(scene())
    gc.collect()

    assert caplog.messages == []


def test_the_death_of_the_driver_ends_the_session(run, browser):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with browsing(run) as other:
        started = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
        driver = next(child for child in started if "run-driver" in command_of(child))
        driver.kill()
        result = other.execute("evaluate_js", code="1")
        reason = run(asyncio.wait_for(other.browser.ended, 15))

    assert not result.success
    assert reason.startswith("Chromium's driver ended: ")
    assert browser.js("1") == 1


def test_closing_ends_what_is_under_way(run, site):
    with browsing(run) as browser:

        async def leave():
            never = asyncio.create_task(browser.browser.execute(Goto(f"{site.url}/never")))
            while "/never" not in site.asked:  # noqa: ASYNC110  # the site runs in a thread
                await asyncio.sleep(0.01)
            await browser.browser.close()
            await browser.browser.close()
            return await never

        site.asked.clear()
        result = browser.run(leave())

    assert not result.success
    assert not browser.browser.ended.done()


def test_a_dialog_that_another_client_answers_is_gone(dialogs):
    press(dialogs, "Alert")

    async def answer():
        tab = dialogs.browser._tabs.latest
        await tab.cdp.send("Page.handleJavaScriptDialog", {"accept": True})

    dialogs.run(answer())
    dialogs.until(lambda: dialogs.browser._tabs.latest.dialog is None, "the dialog stays")
    assert dialogs.execute(HandleDialog()).error == "Refused"
    assert said(dialogs) == "after the alert"


def test_a_dialog_of_another_tab_is_shown_and_named_with_its_default(browser, site):
    asking = browser.do("new_tab", url=f"{site.url}/plain").data
    browser.execute("evaluate_js", code="void setTimeout(() => prompt('Who?', 'nobody'))")
    browser.until(lambda: browser.browser._tabs.latest.dialog, "no dialog opens")
    assert str(browser.observe()).splitlines()[-3] == "Dialog (prompt): Who? (default 'nobody')"
    other = browser.do("new_tab").data

    seen = browser.observe()
    refused = browser.execute("handle_dialog")

    assert [(tab.id, tab.dialog.default) for tab in seen.tabs if tab.dialog is not None] == [(asking, "nobody")]
    assert f" {site.url}/plain; Dialog (prompt): Who? (default 'nobody')" in str(seen)
    assert refused.message == (
        f"The tab {other} shows no dialog. The page in {asking} waits in a dialog (prompt): 'Who?' with the default "
        "'nobody'; handle_dialog answers it after switch_tab"
    )
    browser.do("switch_tab", tab=asking)
    browser.do("handle_dialog")
    for tab in (other, asking):
        browser.do("close_tab", tab=tab)
