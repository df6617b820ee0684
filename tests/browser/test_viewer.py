"""The viewer's page, as people see it in a browser of their own; and what those may do who take part."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import async_playwright

from runtimed.actions import NewTab
from runtimed.browser.lifespan import Lifespan
from runtimed.lifecycle import Limits, SessionEvent
from tests.browser.conftest import Driven, Run, _chromium, browsing
from tests.browser.test_relay import ask

VIEW: dict[str, Any] = {"interactive_viewer": True, "viewport_width": 640, "viewport_height": 540}
"""Small, as each picture of it takes processor time."""


@pytest.fixture(scope="module")
def watchers(run: Run[Any]) -> Iterator[Chromium]:
    """The Chromium of those who watch."""
    playwright = run(async_playwright().start())
    try:
        yield run(playwright.chromium.launch(executable_path=_chromium(), chromium_sandbox=False))
    finally:
        run(playwright.stop())


@pytest.fixture(scope="module")
def shared(run: Run[Any]) -> Iterator[Driven]:
    """An interactive one: its page is that of the others, and more."""
    with browsing(run, **VIEW) as driven:
        yield driven


async def open_viewer(watchers: Chromium, browser: Driven, complaints: list[str]) -> Any:
    page = await watchers.new_page(viewport={"width": 1200, "height": 800})
    page.set_default_timeout(10_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(browser.browser.viewer_url)
    await page.locator("#state", has_text="live").wait_for()
    return page


def test_the_page_shows_the_session_its_time_its_tabs_and_address_and_a_goto_as_one_line(browser, site, watchers):
    url = f"{site.url}/plain?watched"
    browser.goto(url)
    complaints: list[str] = []

    async def look() -> dict[str, Any]:
        page = await open_viewer(watchers, browser, complaints)
        await page.locator("#view[src^='data:image/jpeg']").wait_for()
        await page.locator("#tabs .active", has_text="Plain").wait_for()
        lines = page.locator("#log li").filter(visible=True)
        seen = {
            "id": await page.locator("#id").inner_text(),
            "title": await page.title(),
            "ends": await page.locator("#ends").inner_text(),
            "tabs": await page.locator("#tabs button").all_inner_texts(),
            "address": await page.locator("#address").input_value(),
            "last": (await lines.last.locator("span").inner_text()),
            "gotos": await lines.filter(has_text=url).count(),
        }
        await page.get_by_label("Network").check()
        seen["with_network"] = await lines.filter(has_text=f"200 GET {url}").count()
        await page.get_by_label("Filter the log").fill("no such words")
        seen["sifted"] = await lines.count(), await page.locator("#none").inner_text()
        await page.close()
        return seen

    seen = browser.run(look())

    minutes, seconds = seen["ends"].removeprefix("ends in ").removesuffix(" without use").split(":")
    assert 0 < int(minutes) * 60 + int(seconds) <= 180
    del seen["ends"]
    assert seen == {
        "id": "shop",
        "title": "shop · runtimed",
        "tabs": ["Plain"],
        "address": url,
        "last": f"{browser.observe().tab} is at {url} (status 200)",
        "gotos": 1,
        "with_network": 1,
        "sifted": (0, "No line of the log fits the filter."),
    }
    assert complaints == []


def test_the_page_is_one_file_that_may_load_nothing_from_elsewhere(browser):
    _, head, page = browser.run(ask(browser.browser.viewer_url))

    assert "Content-Security-Policy: default-src 'none'" in head
    assert b"INTERACTIVE" not in page
    assert b"NONCE" not in page


def test_watchers_who_take_part_go_click_type_and_answer_dialogs_and_the_log_says_so(browser, site, watchers):
    browser.goto(f"{site.url}/plain")
    complaints: list[str] = []
    used = browser.heard.uses

    async def take_part() -> None:
        page = await open_viewer(watchers, browser, complaints)
        driven = browser.browser._tabs.latest.page
        await page.locator("#address").fill(f"{site.url}/form")
        await page.locator("#address").press("Enter")
        await page.locator("#tabs .active", has_text="Form").wait_for()
        await click_in(page, driven, "#name")
        await page.keyboard.type("Ada Lovelace, typed fast")
        await driven.wait_for_function("document.getElementById('name').value === 'Ada Lovelace, typed fast'")
        await driven.evaluate("void setTimeout(() => { document.title = prompt('What is your name?') })")
        await page.locator("#dialog", has_text="What is your name?").wait_for()
        await page.get_by_label("Answer").fill("Grace")
        await page.get_by_role("button", name="OK").click()
        await page.locator("#dialog").wait_for(state="hidden")
        await page.locator("#log li", has_text="Accepted the prompt").wait_for()
        await driven.wait_for_function("document.title === 'Grace'")
        await driven.evaluate("void setTimeout(() => { document.title = confirm('Sure?') })")
        await page.locator("#dialog", has_text="Sure?").wait_for()
        await browser.browser.execute(NewTab())
        await page.locator("#dialog").wait_for(state="hidden")
        waiting = page.get_by_role("tab").filter(has=page.get_by_label("waits in a dialog (confirm)"))
        await waiting.click()  # it is in the way of its own tab alone
        await page.get_by_role("button", name="Cancel").click()
        await page.locator("#dialog").wait_for(state="hidden")
        await driven.wait_for_function("document.title === 'false'")
        assert await waiting.count() == 0
        await page.close()

    browser.run(take_part())

    tab = browser.observe().tab
    assert [(entry.label, entry.text) for entry in browser.heard.entries if entry.client_id == "viewer"] == [
        ("viewer", f"{tab} is at {site.url}/form (status 200)"),
        ("viewer", "Accepted the prompt 'What is your name?'"),
        ("viewer", f"{tab} is active: {site.url}/form"),
        ("viewer", "Dismissed the confirm 'Sure?'"),
    ]
    assert browser.heard.uses > used
    assert complaints == []


async def click_in(page: Any, driven: Any, selector: str) -> None:
    """Click an element of the page that the picture shows."""
    async with asyncio.timeout(10):
        # The page lets nobody evaluate texts, as `wait_for_function` does if what it waits for is not so at once.
        while not await page.locator("#view").evaluate("view => view.naturalWidth"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    place, shown = await driven.locator(selector).bounding_box(), await page.locator("#view").bounding_box()
    scale = shown["width"] / VIEW["viewport_width"]
    await page.mouse.click(shown["x"] + (place["x"] + 5) * scale, shown["y"] + (place["y"] + 5) * scale)


AT_SIGN = """document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {
    key: '@', code: 'KeyQ', keyCode: 81, ctrlKey: true, altKey: true, modifierAltGraph: true, bubbles: true,
}))"""
ERASED = """document.activeElement.dispatchEvent(new InputEvent('beforeinput', {
    inputType: 'deleteContentBackward', cancelable: true,
}))"""
"""What keyboards on screens do in the place of the key."""
PASTED = "Wort ✂ " * 700 + "\n"


def test_text_that_comes_without_keys_is_written_where_the_picture_was_clicked(browser, watchers):
    browser.goto("data:text/html,<title>Two</title><textarea id=a></textarea><textarea id=b></textarea>")
    complaints: list[str] = []

    async def take_part() -> None:
        page = await open_viewer(watchers, browser, complaints)
        driven = browser.browser._tabs.latest.page
        cdp = await page.context.new_cdp_session(page)

        async def holds(a: str, b: str) -> None:
            await driven.wait_for_function("([x, y]) => a.value === x && b.value === y", arg=[a, b])

        await page.get_by_label("Filter the log").fill("Two")
        await click_in(page, driven, "#a")
        await page.keyboard.insert_text("emoji 🙂, ")
        await page.keyboard.type("ß日")
        await cdp.send("Input.imeSetComposition", {"text": "かん", "selectionStart": 2, "selectionEnd": 2})
        await page.locator("#keys.composing").wait_for()
        await cdp.send("Input.insertText", {"text": "漢"})
        await page.evaluate(AT_SIGN)
        await holds("emoji 🙂, ß日漢@", "")
        await page.evaluate(ERASED)
        await cdp.send("Input.imeSetComposition", {"text": "é", "selectionStart": 1, "selectionEnd": 1})
        await click_in(page, driven, "#b")
        await page.keyboard.type("key\n")
        await holds("emoji 🙂, ß日漢é", "key\n")
        await page.evaluate("text => navigator.clipboard.writeText(text)", PASTED)
        await page.keyboard.press("Control+v")
        await holds("emoji 🙂, ß日漢é", f"key\n{PASTED}")
        await driven.evaluate("void setTimeout(() => alert('Hello'))")
        await page.get_by_role("button", name="OK").click()
        await page.locator("#dialog").wait_for(state="hidden")
        await page.keyboard.type("!")
        await holds("emoji 🙂, ß日漢é", f"key\n{PASTED}!")
        assert await page.get_by_label("Filter the log").input_value() == "Two"
        await page.close()

    browser.run(take_part())

    assert complaints == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("input", [["mouse", {"type": "mouseMoved", "x": 1, "y": 1}]], 200),
        ("input", {"kind": "mouse"}, 400),
        ("input", [["file", {}]], 400),
        ("act", {"type": "reload"}, 200),
        ("act", {"type": "evaluate_js", "code": "1"}, 400),
        ("act", {"type": "nonsense"}, 400),
        ("act", [], 400),
    ],
)
def test_the_viewer_takes_only_what_its_page_sends(browser, path, body, status):
    assert browser.run(ask(browser.browser.viewer_url, path, "POST", json.dumps(body).encode()))[0] == status


def test_a_viewer_whose_session_has_ended_says_how_and_offers_nothing_more(run, watchers):
    complaints: list[str] = []

    async def watch(driven: Driven) -> tuple[str, list[bool], str]:
        page = await open_viewer(watchers, driven, complaints)
        await page.locator("#view[src^='data:image/jpeg']").wait_for()
        await driven.browser.close()
        await page.locator("#state.over").wait_for()
        said = await page.locator("#state").inner_text()
        controls = page.locator("header button, nav button, nav input, #keys")
        enabled = [await control.is_enabled() for control in await controls.all()]
        opacity = await page.locator("#view").evaluate("view => getComputedStyle(view).opacity")
        await page.close()
        return said, enabled, opacity

    with browsing(run, **VIEW) as driven:
        said, enabled, opacity = run(watch(driven))

    assert re.fullmatch(r"ended at .*\d:\d\d:\d\d.*: closed \(stopped\)", said)
    assert enabled == [False] * 6
    assert opacity == "0.35"
    assert complaints == []


def test_a_session_is_ended_by_the_death_of_its_browser_by_a_limit_or_by_somebody():
    lifespan = Lifespan("shop", Limits(timeout_minutes=3, max_duration_minutes=10), 1000.0)
    causes = [lifespan.ended_by(now) for now in (1100.0, 1180.0)]
    lifespan.use(1500.0)
    causes += [lifespan.ended_by(now) for now in (1180.0, 1600.0)]
    lifespan.died = "Chromium ended"
    causes.append(lifespan.ended_by(1100.0))

    assert causes == [
        SessionEvent.STOPPED,
        SessionEvent.IDLE_TOO_LONG,
        SessionEvent.STOPPED,
        SessionEvent.LASTED_TOO_LONG,
        SessionEvent.DIED,
    ]


def test_a_session_lives_on_while_it_is_used_and_as_long_as_its_limits_say():
    lifespan = Lifespan("shop", Limits(timeout_minutes=3, max_duration_minutes=10), 1000.0)
    idle = [lifespan.deadline()]
    lifespan.begin()
    idle.append(lifespan.deadline())
    lifespan.end(1100.0)
    lifespan.use(1050.0)
    idle.append(lifespan.deadline())

    assert idle == [
        (1180.0, SessionEvent.IDLE_TOO_LONG),
        (1600.0, SessionEvent.LASTED_TOO_LONG),
        (1280.0, SessionEvent.IDLE_TOO_LONG),
    ]
    assert Lifespan("shop", Limits(), 1000.0).deadline() is None
