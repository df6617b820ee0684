"""Durable selectors: each finds the very element that was observed, on pages as shops and mailers have them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page

from runtimed.actions import Click, Fill, Place, parse_action, recorded, repeatable
from runtimed.browser.elements import _by_ref
from runtimed.browser.places import difference
from runtimed.browser.survey import placed
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

    async def check(page: Page, ref: str, selector: str) -> Any:
        where = browser.browser._performer._elements.locate(ref)
        assert where is not None
        meant = await _by_ref(tab, where[1]).element_handle()
        return await page.locator(selector).evaluate_all("(found, meant) => [found.length, found[0] === meant]", meant)

    async def check_all(page: Page) -> dict[str, Any]:
        named = [(element, element.selector) for element in seen.elements if element.selector is not None]
        found = await asyncio.gather(*(check(page, element.ref, selector) for element, selector in named))
        return {
            f"{element.role} {element.name!r}: {selector}": count
            for (element, selector), (count, same) in zip(named, found, strict=True)
            if count != 1 or not same
        }

    result: dict[str, Any] = browser.run(check_all(tab.page))
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

    noted = [browser.run(browser.browser._observer.remember(tab, element.ref)) for element in seen.elements]

    again = tuple(one for one in noted if one is not None)
    assert [one.role for one in again] == [element.role for element in seen.elements]
    found = tuple(
        msgspec.structs.replace(element, selector=one.selector)
        for element, one in zip(seen.elements, again, strict=True)
    )
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
        {"role": "textbox", "name": "Street", "place": {"count": 1, "near": "Delivery address"}},
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
    assert action == Click(selector=icon.selector, role="button", name="", place=Place(2, "Format", ""))
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
            {"selector": "input >> nth=1", "role": "textbox", "name": "Phone number", "place": {"count": 1}},
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
                "to": {
                    "selector": "input >> nth=1",
                    "role": "textbox",
                    "name": "Phone number",
                    "place": {"count": 1},
                },
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


def form(part: str, fields: str = "Name Street") -> str:
    labels = "".join(f"<label>{name} <input></label>" for name in fields.split())
    return f"<form><h2>{part}</h2>{labels}</form>"


def rows(*names: str) -> str:
    return f"<table>{''.join(f'<tr><td>{name}<td><button>Edit</button>' for name in names)}</table>"


def cards(*names: str) -> str:
    """Without anything that says which is which but their texts."""
    return "<h2>Shop</h2>" + "".join(f"<div><span>{name}</span><div><button>Buy</button></div></div>" for name in names)


FORMS = form("Billing") + form("Shipping")
FIELD = 'role=textbox[name="Street"] >> nth=1'
EDIT = 'role=button[name="Edit"] >> nth=1'
BUY = 'role=button[name="Buy"] >> nth=1'
ICON = "body > div:nth-of-type(1) > button:nth-of-type(1)"


@pytest.mark.parametrize(
    ("before", "selector", "after", "says"),
    [
        (FORMS, FIELD, FORMS, None),
        (FORMS, FIELD, FORMS + form("Gift"), None),
        (FORMS, FIELD, FORMS.replace("Name", "First name"), None),
        (FORMS, FIELD, f"{form('Billing')}<p>New: parcels</p>{form('Shipping')}", None),
        (
            FORMS,
            FIELD,
            form("Shipping") + form("Billing"),
            'the field in "Billing", which was in "Shipping"',
        ),
        (FORMS, FIELD, form("Gift") + FORMS, 'the field in "Billing", which was in "Shipping"'),
        (
            FORMS,
            "form:nth-of-type(2) input >> nth=1",
            form("Gift") + FORMS,
            'the field in "Billing", which was in "Shipping"',
        ),
        (FORMS, FIELD, FORMS + form("Shipping"), "a field of which there are 2 there instead of 1"),
        (rows("Ada", "Bob"), EDIT, rows("Ada", "Bob", "Cy"), None),
        (
            rows("Ada", "Bob"),
            EDIT,
            rows("Zoe", "Ada", "Bob"),
            'the field in "Ada Edit", which was in "Bob Edit"',
        ),
        (cards("Ink", "Pen"), BUY, cards("Ink", "Pen", "Cup"), None),
        (cards("Ink", "Pen"), BUY, cards("Pen", "Ink"), 'the field in "Ink Buy", which was in "Pen Buy"'),
        (cards("Pen", "Pen"), BUY, cards("Pen", "Pen"), None),
        (
            cards("Pen", "Pen"),
            BUY,
            cards("Pen", "Pen", "Pen"),
            "a field of which there are 3 there instead of 2",
        ),
        ("<div><button></button></div>", ICON, "<div><button></button></div>", None),
        (
            "<div><button></button></div>",
            ICON,
            "<div><button></button></div><div><button></button></div>",
            "a field of which there are 2 there instead of 1",
        ),
    ],
)
def test_a_twin_of_what_is_meant_is_no_match(
    browser: Driven, site: Site, before: str, selector: str, after: str, says: str | None
) -> None:
    browser.goto(f"{site.url}/plain")
    browser.js(f"void (document.body.innerHTML = {before!r})")
    browser.do("hover", selector=selector)
    noted = logged(browser).data["element"]["place"]
    refs = [element.ref for element in browser.observe().elements if element.selector == selector]
    for ref in refs:
        browser.do("hover", ref=ref)
        assert logged(browser).data["element"]["place"] == noted
    assert refs or selector.startswith("form")  # as only people write it

    browser.js(f"void (document.body.innerHTML = {after!r})")

    tab = browser.browser._tabs.latest
    assert tab is not None
    now = browser.run(placed(tab.page.locator(selector), 10))
    assert now is not None
    assert difference(Place(**noted), now, "field") == says


@pytest.mark.parametrize("by", ["ref", "selector"])
def test_what_is_done_again_stops_before_a_twin_of_the_element(browser: Driven, site: Site, by: str) -> None:
    browser.goto(f"{site.url}/plain")
    browser.js(f"void (document.body.innerHTML = {FORMS!r})")
    named = browser.observe().elements
    browser.do("fill", **{by: getattr(next(one for one in named if one.selector == FIELD), by)}, value="Gasse 2")
    action = recorded(logged(browser).data)
    assert action == Fill("Gasse 2", selector=FIELD, role="textbox", name="Street", place=Place(1, "Shipping"))
    browser.do(action)

    browser.js(f"void (document.body.innerHTML = {form('Gift') + FORMS!r})")
    result = browser.execute(msgspec.structs.replace(action, timeout=1))

    says = 'the textbox "Street" in "Billing", which was in "Shipping"'
    assert (result.success, result.error, result.message) == (False, "Doubtful", f"{FIELD} finds {says}; {NOTHING}")
    assert browser.js("[...document.querySelectorAll('input')].map(one => one.value).join('')") == ""
