"""Another client of the same Chromium, raw Playwright above all: what it changes, and what stays the session's."""

import asyncio
import contextlib
import json
import time
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from runtimed.actions import EvaluateJs
from runtimed.browser import attached_client, open_tab, tunnel
from tests.browser.conftest import browsing

PAGE = """<p id=said>nothing</p>
<button onclick="alert('a'); said.textContent = 'done'">alert</button>
<button onclick="said.textContent = confirm('c')">confirm</button>
<button onclick="said.textContent = prompt('p', 'nobody')">prompt</button>
<button onclick="onbeforeunload = event => event.preventDefault(); said.textContent = 'stayed'">beforeunload</button>
<button onclick="setTimeout(() => { said.textContent = confirm('late') }, 200)">later</button>
"""

ANSWERS = [
    ("alert", True, None, "done"),
    ("alert", False, None, "done"),
    ("confirm", True, None, "true"),
    ("confirm", False, None, "false"),
    ("prompt", True, "me", "me"),
    ("prompt", False, None, ""),
    ("beforeunload", True, None, "/tiny"),
    ("beforeunload", False, None, "stayed"),
]
"""A dialog, the answer to it, and what the page makes of that."""


@pytest.fixture(scope="module")
def shared(run):
    with browsing(run, geolocation=(10.0, 20.0, 1.0)) as driven:
        yield driven


@pytest.fixture(scope="module")
def attach(run, shared):
    """Attach Playwright to the module's browser, for a block."""
    playwright = run(async_playwright().start())

    @contextlib.contextmanager
    def attached():
        theirs = run(playwright.chromium.connect_over_cdp(shared.browser.cdp_url))
        try:
            yield theirs
        finally:
            run(theirs.close())

    yield attached
    run(playwright.stop())


def show(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.js(f"void (document.body.innerHTML = {json.dumps(PAGE)})")


def said(browser):
    return browser.js("document.getElementById('said')?.textContent ?? location.pathname")


def test_the_dialog_of_an_action_waits_for_its_answer_though_playwright_dismisses_any(browser, site, attach):
    got: list[str] = []
    with attach() as theirs:
        for kind, accept, text, _ in ANSWERS:
            if not got or got[-1] == "/tiny":
                show(browser, site)
            browser.js("void (said.textContent = 'nothing')")
            browser.run(theirs.contexts[0].pages[0].title())
            browser.do("click", role="button", name=kind)
            if kind == "beforeunload":
                assert browser.execute("goto", url=f"{site.url}/tiny").error == "Dialog"
            answered = browser.do("handle_dialog", accept=accept, text=text)
            assert answered.message.startswith(f"{'Accepted' if accept else 'Dismissed'} the {kind}")
            if (kind, accept) == ("beforeunload", True):
                browser.until(lambda: browser.addresses() == [f"{site.url}/tiny"], "the page is not left")
            got.append(said(browser))

    assert got == [wanted for *_, wanted in ANSWERS]


def test_the_dialog_of_an_action_stays_when_a_client_leaves(browser, site, attach):
    show(browser, site)
    with attach() as theirs:
        browser.run(theirs.contexts[0].pages[0].title())
        browser.do("click", role="button", name="confirm")

    browser.do("handle_dialog")
    assert said(browser) == "true"


def test_a_dialog_that_comes_some_time_after_an_action_is_the_action_s(browser, site, attach):
    show(browser, site)
    with attach() as theirs:
        browser.run(theirs.contexts[0].pages[0].click("text=confirm"))
        assert said(browser) == "false"  # of the client's own, as ever
        browser.do("click", role="button", name="later")
        browser.until(lambda: browser.browser._tabs.latest.dialog, "there is no dialog")
        browser.do("handle_dialog")

    assert said(browser) == "true"


def test_a_client_that_wants_something_of_a_page_gets_it_past_a_dialog_that_nobody_answers(
    browser, site, attach, monkeypatch
):
    monkeypatch.setattr(tunnel, "PATIENCE", 0.2)
    show(browser, site)
    with attach() as theirs:
        browser.do("click", role="button", name="confirm")
        title = browser.run(asyncio.wait_for(theirs.contexts[0].pages[0].evaluate("document.title"), 10))
        late = browser.execute("handle_dialog")

    assert title == "Plain"
    assert (late.error, late.message) == (
        "Refused",
        f"The tab {browser.observe().tab} shows no dialog: the confirm 'c' was dismissed by another client",
    )
    assert said(browser) == "false"


def test_a_client_with_a_handler_answers_and_the_action_says_so(browser, site, attach):
    show(browser, site)
    with attach() as theirs:
        answers = []

        def accept(dialog):
            answers.append(asyncio.ensure_future(dialog.accept("theirs")))

        theirs.contexts[0].pages[0].on("dialog", accept)
        browser.do("click", role="button", name="prompt")
        browser.until(lambda: answers and browser.browser._tabs.latest.dialog is None, "nobody answers")
        late = browser.execute("handle_dialog", text="ours")
        browser.run(asyncio.wait_for(answers[0], 10))

    assert late.message.endswith("shows no dialog: the prompt 'p' was accepted with 'theirs' by another client")
    assert said(browser) == "theirs"
    assert "prompt accepted with 'theirs' by another client: p" in [e.text for e in browser.heard.entries]


def test_an_action_waits_a_moment_for_a_client_to_answer_a_dialog_of_its_own(browser, site, attach, monkeypatch):
    async def scene(page):
        opened = asyncio.get_running_loop().create_future()
        page.once("dialog", lambda dialog: opened.set_result(dialog))  # noqa: PLW0108  # Playwright marks functions
        clicking = asyncio.ensure_future(page.click("text=confirm"))
        dialog = await opened
        while browser.browser._tabs.latest.dialog is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        acting = asyncio.ensure_future(browser.browser.execute(EvaluateJs("said.textContent")))
        await dialog.accept()
        await clicking
        return await acting

    monkeypatch.setattr(open_tab, "_OWN_ANSWER", 60.0)  # it goes on when the answer is there
    show(browser, site)
    with attach() as theirs:
        result = browser.run(asyncio.wait_for(scene(theirs.contexts[0].pages[0]), 20))

    assert (result.success, result.data) == (True, "true")


def test_a_handler_that_dismisses_neither_delays_nor_takes_the_answer_to_the_dialog_of_an_action(browser, site, attach):
    show(browser, site)
    with attach() as theirs:
        page, dismissed = theirs.contexts[0].pages[0], []
        page.on("dialog", lambda dialog: dismissed.append(asyncio.ensure_future(dialog.dismiss())))
        browser.run(page.title())
        browser.do("click", role="button", name="confirm")
        browser.until(lambda: dismissed and dismissed[0].done(), "the handler hears nothing")
        answered = browser.do("handle_dialog")

    assert answered.ended_at - answered.started_at < timedelta(seconds=attached_client.PATIENCE / 2)
    assert answered.message == "Accepted the confirm 'c'"
    assert said(browser) == "true"
    told = [entry.text for entry in browser.heard.entries if entry.kind == "dialog"]
    assert told == ["confirm: c", "confirm accepted: c"]


async def download(page, target):
    async with page.expect_download() as begun:
        await page.click("text=Report")
    await (await begun.value).save_as(target)


def test_downloads_arrive_for_the_session_and_for_each_client_that_hears_of_them(browser, site, attach, tmp_path):
    browser.goto(f"{site.url}/form")
    folder = browser.folder / "downloads"
    for file in folder.iterdir():
        file.unlink()
    for _ in range(2):
        with attach() as theirs, attach() as others:
            ours = browser.do("download_file", role="link", name="Report").data
            browser.run(download(theirs.contexts[0].pages[0], tmp_path / "theirs.txt"))
            browser.run(download(others.contexts[0].pages[0], tmp_path / "others.txt"))
        after = browser.do("download_file", role="link", name="Report").data
        for file in (ours["path"], after["path"], tmp_path / "theirs.txt", tmp_path / "others.txt"):
            assert Path(file).read_text() == "a report\n"

    browser.until(lambda: len(list(folder.iterdir())) == 8, "some downloads are missing")
    assert list((browser.folder / "partial").iterdir()) == []
    kept = [entry.text for entry in browser.heard.entries if entry.kind == "download"]
    assert kept == [f"downloaded report{'' if not n else f' ({n})'}.txt" for n in range(8)]


def test_what_a_client_does_in_a_context_of_its_own_is_its_own(browser, site, attach, tmp_path):
    async def scene(theirs):
        context = await theirs.new_context(viewport={"width": 500, "height": 400})
        page = await context.new_page()
        await page.goto(f"{site.url}/form")
        await download(page, tmp_path / "theirs.txt")
        later = "new Promise(done => setTimeout(() => done(confirm('theirs')), 100))"
        return page, await page.evaluate("[innerWidth, innerHeight]"), await page.evaluate(later)

    active = browser.observe().tab
    with attach() as theirs:
        page, size, answer = browser.run(scene(theirs))
        browser.until(lambda: len(browser.browser._tabs.all) == 1, "their tab is one of ours")
        assert browser.observe().tab == active
        browser.run(page.close())

    assert (size, answer) == ([500, 400], False)
    assert (tmp_path / "theirs.txt").read_text() == "a report\n"
    assert [entry for entry in browser.heard.entries if entry.kind in ("download", "dialog", "tab")] == []


@pytest.mark.parametrize("method", ["Browser.setDownloadBehavior", "Page.setDownloadBehavior"])
def test_a_client_that_asks_for_names_gets_its_copy_under_one(browser, site, attach, tmp_path, method):
    browser.goto(f"{site.url}/form")
    with attach() as theirs:
        session = browser.run(theirs.contexts[0].new_cdp_session(theirs.contexts[0].pages[0]))
        wish = {"behavior": "allow", "downloadPath": str(tmp_path / "theirs")}
        browser.run(session.send(method, wish))
        ours = browser.do("download_file", role="link", name="Report").data
        browser.until((tmp_path / "theirs" / "report.txt").exists, "there is no copy")
        browser.run(session.send(method, {"behavior": "deny"}))
        again = browser.do("download_file", role="link", name="Report").data

    assert ours["path"] != again["path"]
    assert [file.name for file in (tmp_path / "theirs").iterdir()] == ["report.txt"]


def test_a_client_that_closes_the_browser_leaves_it(browser, site, attach):
    browser.goto(f"{site.url}/plain")
    with attach() as theirs:
        session = browser.run(theirs.new_browser_cdp_session())
        assert browser.run(session.send("Browser.close")) == {}
        browser.until(lambda: not theirs.is_connected(), "the client is still there")

    assert browser.observe().url == f"{site.url}/plain"


def test_the_page_has_its_size_again_when_a_client_that_changed_it_has_left(browser, site, attach):
    browser.goto(f"{site.url}/plain")
    size = "[innerWidth, innerHeight]"
    with attach() as theirs:
        browser.run(theirs.contexts[0].pages[0].set_viewport_size({"width": 500, "height": 400}))
        assert browser.js(size) == [500, 400]

    deadline = time.monotonic() + 10
    while browser.js(size) != [1280, 1080]:
        assert time.monotonic() < deadline, "it has not its size again"


def test_the_place_and_the_permissions_are_the_session_s_again_when_a_client_that_changed_them_has_left(
    browser, site, attach
):
    async def change(context):
        await context.clear_permissions()
        await context.set_geolocation({"latitude": 50, "longitude": 60})

    place = """new Promise(done => navigator.geolocation.getCurrentPosition(
      found => done([found.coords.latitude, found.coords.longitude]), error => done(error.message)))"""
    browser.goto(f"{site.url}/plain")
    before = browser.js(place)
    with attach() as theirs:
        browser.run(change(theirs.contexts[0]))
    deadline = time.monotonic() + 10
    while browser.js(place) != [10, 20]:
        assert time.monotonic() < deadline, "the place is not the session's"

    assert before == [10, 20]


def message(**fields):
    return json.dumps(fields, separators=(",", ":")).encode()


def test_a_connection_to_one_tab_and_the_frames_of_a_tab_are_that_tab():
    shared = attached_client.SharedBrowser()
    client = attached_client.AttachedClient(shared, "T")
    frame = {"sessionId": "F", "targetInfo": {"type": "iframe", "targetId": "X"}}
    dismissal = message(id=7, method="Page.handleJavaScriptDialog", params={"accept": False})
    client.told(message(method="Target.attachedToTarget", params=frame))

    client.told(message(method="Page.javascriptDialogOpening", params={"type": "alert"}, sessionId="F"))
    kept = client.command(dismissal)
    wants = client.command(message(id=8, method="Runtime.evaluate", params={"expression": "1"}))
    given_up = client.give_up("T")

    assert kept == attached_client.Verdict((), (message(id=7, result={}),))
    assert wants == attached_client.Verdict(impatient="T")
    assert given_up is not None
    assert json.loads(given_up) == {**json.loads(dismissal), "id": 2**30 + 1}
    assert client.told(message(id=2**30 + 1, result={})) == attached_client.Told(passes=False)
    assert client.give_up("T") is None


def test_what_a_client_does_to_tabs_of_its_own_changes_nothing_of_the_session():
    shared = attached_client.SharedBrowser()
    shared.default_context = "OURS"
    client = attached_client.AttachedClient(shared)
    for session, context in (("A", "OURS"), ("B", "THEIRS")):
        info = {"type": "page", "targetId": f"{session}1", "browserContextId": context}
        client.told(message(method="Target.attachedToTarget", params={"sessionId": session, "targetInfo": info}))

    client.command(message(id=1, method="Emulation.setDeviceMetricsOverride", params={}, sessionId="B"))
    assert client.changed == set()
    client.command(message(id=2, method="Emulation.setDeviceMetricsOverride", params={}, sessionId="A"))
    assert client.changed == {"Emulation.setDeviceMetricsOverride"}

    client.command(message(id=3, method="Input.dispatchKeyEvent", params={}, sessionId="A"))
    assert shared.author == {"A1": client}
    client.told(message(method="Target.detachedFromTarget", params={"sessionId": "A"}))
    assert client.give_up("A1") is None
    shared.forget("A1")
    assert shared.author == {}


def test_an_answer_counts_to_a_dialog_that_the_client_has_caused_or_that_no_default_gives():
    shared = attached_client.SharedBrowser()
    client = attached_client.AttachedClient(shared, "T")

    def answer(kind, accept, *before):
        for command in before:
            client.command(command)
        client.told(message(method="Page.javascriptDialogOpening", params={"type": kind}))
        verdict = client.command(message(id=9, method="Page.handleJavaScriptDialog", params={"accept": accept}))
        client.told(message(method="Page.javascriptDialogClosed", params={"result": accept, "userInput": ""}))
        return verdict is attached_client.PASS

    click = message(id=1, method="Input.dispatchMouseEvent", params={})
    evaluate = message(id=2, method="Runtime.evaluate", params={"expression": "confirm()"})
    assert not answer("confirm", False)
    assert answer("confirm", True)
    assert not answer("beforeunload", True)
    assert answer("beforeunload", False)
    assert answer("confirm", False, evaluate)
    client.told(message(id=2, result={}))
    assert not answer("confirm", False)
    assert answer("confirm", False, click)
    client.told(message(id=1, result={}))
    assert answer("confirm", False)  # it acted last
    shared.begin_action("T")
    assert not answer("confirm", False)
    shared.end_action("T")
    assert not answer("confirm", False)


def test_commands_that_cannot_be_read_are_chromium_s_to_refuse():
    client = attached_client.AttachedClient(attached_client.SharedBrowser())

    assert {client.command(text) for text in (b"{", b"\xff", b"[]", b'{"id":"x"}', b"{}")} == {attached_client.PASS}
