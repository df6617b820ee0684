"""The connection that asks a page past Playwright's driver: whatever happens to the page, each question ends."""

import asyncio

import pytest
from playwright.async_api import Error as PlaywrightError

from runtimed.browser.page_connection import PageConnection
from tests.browser.conftest import browsing

NEVER = {"expression": "window.asked = true; new Promise(() => {})", "awaitPromise": True}


@pytest.fixture(scope="module")
def shared(run):
    """One whose pages must be told of the session's config."""
    with browsing(run, device_scale_factor=2.5, viewport_width=400, viewport_height=400) as driven:
        yield driven


@pytest.fixture
def tab(browser, site):
    browser.goto(f"{site.url}/plain")
    return browser.browser._tabs.latest


def test_answers_come_to_those_who_asked_also_long_ones(browser, tab):
    async def ask_all():
        questions = [f"'{letter}'.repeat({length})" for length in (1, 200, 70_000, 3_000_000) for letter in "ab"]
        return await asyncio.gather(
            *(tab.connection.send("Runtime.evaluate", {"expression": question}) for question in questions)
        )

    answers = [answer["result"]["value"] for answer in browser.run(ask_all())]

    assert answers == [letter * length for length in (1, 200, 70_000, 3_000_000) for letter in "ab"]


def test_what_chromium_refuses_is_an_error_that_says_so(browser, tab):
    with pytest.raises(PlaywrightError, match="'No.such' wasn't found"):
        browser.run(tab.connection.send("No.such", {}))
    with pytest.raises(PlaywrightError, match="accepts no connection to the page"):
        browser.run(PageConnection.open(tab._tabs.address, "no-such-target"))


@pytest.mark.parametrize("end", ["close_tab", "goto"])
def test_a_question_ends_with_its_page(browser, tab, site, end):
    async def ask_and_leave():
        asking = asyncio.ensure_future(tab.connection.send("Runtime.evaluate", NEVER))
        await tab.page.wait_for_function("window.asked")  # else it may be the next page that is asked
        await (tab.page.close() if end == "close_tab" else tab.page.goto(f"{site.other}/plain"))
        async with asyncio.timeout(10):
            await asking

    with pytest.raises(PlaywrightError):
        browser.run(ask_and_leave())


def test_who_asks_after_the_end_of_the_tab_is_told(browser, tab):
    browser.do("new_tab")
    browser.do("close_tab", tab=tab.id)

    with pytest.raises(PlaywrightError, match="gone"):
        browser.run(tab.connection.send("Runtime.evaluate", {"expression": "1"}))


def test_a_tab_without_one_is_what_the_session_asks_for_and_can_be_used(browser, site, monkeypatch):
    async def refuse(*_):
        raise PlaywrightError("Chromium accepts no connection")

    monkeypatch.setattr(PageConnection, "open", refuse)
    browser.do("new_tab", url=f"{site.url}/form")
    assert browser.js("devicePixelRatio") == 2.5
    browser.do("click", role="button", name="Rename me")
    browser.do("close_tab")
