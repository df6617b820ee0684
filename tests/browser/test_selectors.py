"""Durable selectors: each finds the very element that was observed, on pages as shops and mailers have them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from playwright.async_api import Page

from runtimed.actions import Click, parse_action, recorded, repeatable
from runtimed.browser.elements import _by_ref
from runtimed.pages import LogEntry, Observation
from tests.browser.conftest import Driven
from tests.browser.server import PAGES, Site

NOTHING = "nothing was done; observe() shows what the page holds now"
PAGE_NAMES = sorted(path.stem for path in PAGES.glob("*.html"))


def observed(browser: Driven, url: str) -> Observation:
    browser.goto(url)
    browser.do("wait", load_state="load")
    return browser.observe()


def wrong(browser: Driven, seen: Observation) -> dict[str, Any]:
    """The elements whose selector finds something else than they are, with what it finds."""
    tab = browser.browser._tabs.latest
    assert tab is not None

    async def check(page: Page) -> dict[str, Any]:
        found = {}
        for element in seen.elements:
            if element.selector is None:
                continue
            where = browser.browser._performer._elements.locate(element.ref)
            assert where is not None
            meant = await _by_ref(tab, where[1]).element_handle()
            names = page.locator(element.selector)
            count = await names.count()
            same = count == 1 and await names.evaluate("(one, other) => one === other", meant)
            if not same:
                found[f"{element.role} {element.name!r}: {element.selector}"] = count
        return found

    result: dict[str, Any] = browser.run(check(tab.page))
    return result


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_the_selector_of_every_element_finds_that_element_and_no_other(browser: Driven, site: Site, name: str) -> None:
    seen = observed(browser, f"{site.url}/pages/{name}")

    assert wrong(browser, seen) == {}
    # A box in a shadow that has the same place as what its host holds.
    without = [(element.role, element.name) for element in seen.elements if element.selector is None]
    assert without == [("generic", "")] * (2 if name == "closed" else 0)


@pytest.mark.parametrize("name", ["checkout", "frames", "shadow"])
def test_the_selector_that_is_logged_finds_the_element_as_the_page_is_then(
    browser: Driven, site: Site, name: str
) -> None:
    seen = observed(browser, f"{site.url}/pages/{name}")
    # What stands in the observation is outdated: there is one more of each, before it.
    browser.js("document.body.prepend(...[...document.body.children].map(child => child.cloneNode(true)))")
    tab = browser.browser._tabs.latest
    assert tab is not None

    again = [browser.run(browser.browser._observer.remember(tab, element.ref)) for element in seen.elements]

    found = tuple(element for element in again if element is not None)
    assert [(element.ref, element.role) for element in found] == [
        (element.ref, element.role) for element in seen.elements
    ]
    assert [element for element in found if element.selector is None] == []
    assert wrong(browser, msgspec.structs.replace(seen, elements=found)) == {}


def logged(browser: Driven) -> LogEntry:
    return [entry for entry in browser.heard.entries if entry.kind == "action"][-1]


def test_what_is_done_again_is_done_to_the_same_field(browser: Driven, site: Site) -> None:
    seen = observed(browser, f"{site.url}/pages/checkout")
    first, second = (element.ref for element in seen.elements if element.name == "Street")
    browser.do("fill", ref=second, value="Gasse 2")
    done = logged(browser)
    assert (done.data["selector"], done.data["element"]) == (
        'role=textbox[name="Street"] >> nth=1',
        {"role": "textbox", "name": "Street"},
    )

    browser.goto(f"{site.url}/pages/checkout")
    browser.do(recorded(done.data))

    values = {
        element.ref: browser.observe(scope=element.ref).tree
        for element in browser.observe().elements
        if element.name == "Street"
    }
    assert [("Gasse 2" in tree) for tree in values.values()] == [False, True]
    assert first != second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("document.querySelector('#l2').remove()", "Nothing on the page is #l2 within 0.5 s; raise timeout="),
        (
            "document.querySelector('#l4').id = 'l2'",
            f'#l2 finds 2 elements instead of one link "Learn more"; {NOTHING}',
        ),
        (
            "document.querySelector('#l2').textContent = 'Delete all'",
            f'#l2 finds something else than link "Learn more"; {NOTHING}',
        ),
        (
            "document.querySelector('#l2').outerHTML = '<button id=l2>Learn more</button>'",
            f'#l2 finds something else than link "Learn more"; {NOTHING}',
        ),
    ],
    ids=["none", "several", "another name", "another role"],
)
def test_what_is_done_again_stops_before_a_doubtful_match(
    browser: Driven, site: Site, change: str, message: str
) -> None:
    seen = observed(browser, f"{site.url}/pages/learn_more")
    link = next(element for element in seen.elements if element.selector == "#l2")
    browser.do("hover", ref=link.ref)
    action = recorded(logged(browser).data)
    browser.do(action)

    browser.js(change)
    result = browser.execute(msgspec.structs.replace(action, timeout=0.5))

    assert (result.success, result.message) == (False, message)


def test_a_nameless_element_is_found_by_its_place_and_must_have_no_name_then(browser: Driven, site: Site) -> None:
    seen = observed(browser, f"{site.url}/pages/icons")
    icon = [element for element in seen.elements if (element.role, element.name) == ("button", "")][1]
    browser.do("click", ref=icon.ref)
    action = recorded(logged(browser).data)
    assert action == Click(selector=icon.selector, role="button", name="")
    assert browser.do(action).message == "Clicked button"

    browser.js("document.querySelector('button').remove()")  # "Underline" stands there now

    result = browser.execute(msgspec.structs.replace(action, timeout=0.5))
    assert result.message.startswith(f"{icon.selector} finds something else than button; nothing was done")


def test_what_screen_readers_pass_over_is_done_again_too(browser: Driven, site: Site) -> None:
    seen = observed(browser, f"{site.url}/pages/widgets")
    ghost = [element for element in seen.elements if (element.role, element.name) == ("button", "")][1]
    browser.do("click", ref=ghost.ref)

    assert browser.do(recorded(logged(browser).data)).success


FIELDS = "<label>Email <input></label><label>Phone number <input></label>"
BUTTONS = "<button class=btn onclick='this.remove()'>Save</button>"


@pytest.mark.parametrize(
    ("before", "fields", "after", "again", "says"),
    [
        (
            FIELDS,
            {"type": "fill", "selector": "input >> nth=1", "value": "0301"},
            "<label>Phone number <input></label><label>Email <input></label>",
            {"selector": "input >> nth=1", "role": "textbox", "name": "Phone number"},
            f'input >> nth=1 finds something else than textbox "Phone number"; {NOTHING}',
        ),
        (
            BUTTONS,
            {"type": "click", "selector": ".btn"},
            BUTTONS.replace("Save", "Delete account"),
            {"selector": ".btn", "role": "button", "name": "Save"},
            f'.btn finds something else than button "Save"; {NOTHING}',
        ),
        (
            BUTTONS.replace("button", "div"),
            {"type": "click", "selector": ".btn"},
            BUTTONS.replace("button", "div").replace("Save", "Delete account"),
            {"selector": '.btn >> internal:has-text="Save"s'},
            'Nothing on the page is .btn >> internal:has-text="Save"s',
        ),
        (
            FIELDS,
            {"type": "fill", "role": "textbox", "name": "phone", "value": "0301"},
            "<label>Fax number <input></label><label>Emergency phone <input></label>",
            {"role": "textbox", "name": "Phone number", "exact": True},
            'Nothing on the page is role=textbox[name="Phone number"]',
        ),
        (
            BUTTONS,
            {"type": "click", "role": "button"},
            BUTTONS.replace("Save", "Delete account"),
            {"role": "button", "name": "Save", "exact": True},
            'Nothing on the page is role=button[name="Save"]',
        ),
        (
            BUTTONS + FIELDS,
            {"type": "drag", "selector": ".btn", "to": {"selector": "input >> nth=1"}},
            BUTTONS + "<label>Phone number <input></label><label>Email <input></label>",
            {
                "selector": ".btn",
                "role": "button",
                "name": "Save",
                "to": {"selector": "input >> nth=1", "role": "textbox", "name": "Phone number"},
            },
            f'input >> nth=1 finds something else than textbox "Phone number"; {NOTHING}',
        ),
    ],
    ids=["field by place", "button by class", "what has no role", "part of a name", "role alone", "drag"],
)
def test_what_was_named_in_any_way_is_done_again_to_nothing_else(
    browser: Driven, site: Site, before: str, fields: dict[str, Any], after: str, again: dict[str, Any], says: str
) -> None:
    browser.goto(f"{site.url}/plain")
    browser.js(f"void (document.body.innerHTML = {before!r})")
    browser.do(parse_action(fields))
    data = logged(browser).data
    assert repeatable(data) == {**fields, **again}
    browser.js(f"void (document.body.innerHTML = {before!r})")
    browser.do(recorded(data))

    browser.js(f"void (document.body.innerHTML = {after!r})")
    html = browser.js("document.body.innerHTML")
    result = browser.execute(msgspec.structs.replace(recorded(data), timeout=0.5))

    assert not result.success
    assert result.message.startswith(says)
    assert browser.js("[...document.querySelectorAll('input')].map(one => one.value).join('')") == ""
    assert browser.js("document.body.innerHTML") == html


def test_a_click_on_what_comes_late_and_goes_at_once_is_logged_with_what_it_was(browser: Driven, site: Site) -> None:
    browser.goto(f"{site.url}/plain")
    browser.js(f"setTimeout(() => {{ document.body.innerHTML = {BUTTONS!r}; }}, 400)")

    browser.do("click", selector=".btn")

    assert logged(browser).data["element"] == {"role": "button", "name": "Save"}
    assert browser.js("document.querySelector('.btn')") is None


def test_refs_can_be_used_after_an_element_was_named_otherwise(
    browser: Driven, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.goto(f"{site.url}/plain")
    browser.js(f"void (document.body.innerHTML = {FIELDS + BUTTONS!r})")
    ref = browser.ref("textbox", "Phone number")
    browser.do("click", selector=".btn")
    monkeypatch.delattr(browser.browser._observer.__class__, "present")  # without another look at the whole page

    browser.do("fill", ref=ref, value="0301")

    assert browser.js("document.querySelectorAll('input')[1].value") == "0301"
