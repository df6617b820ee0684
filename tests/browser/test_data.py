"""Data by schemas, from real pages."""

import json
from typing import Any

import pytest

from runtimed import BrowserError

SHOP = """<!doctype html><html lang="de"><title>Shop</title>
<p class="name" hidden>Template</p>
<ul>
  <li class="item" style="display: none"><b class="name">Template</b></li>
  <li class="item" data-id="7"><b class="name">Mini</b> <i class="price">1.299 €</i> <u class="votes">12.345 Bewertungen</u></li>
  <li class="item" data-id="8"><b class="name">Maxi</b> <i class="price">ab ,89 €</i> <u class="votes">3 Bewertungen</u>
    <s class="sold-out">ausverkauft</s></li>
  <li class="item" data-id="9"><b class="name">iPhone 15 128 GB, 799 €</b> <i class="price">auf Anfrage</i> <u class="votes">0</u>
    <s class="sold-out" style="display: none">ausverkauft</s> <input type="checkbox" checked> <span class="ship">nein</span></li>
</ul>
<iframe srcdoc="<html lang=en><ul><li class=item data-id=10><b class=name>Framed</b> <i class=price>$1,299</i>
  <u class=votes>4</u></ul><p class=inside>Only here</p></html>"></iframe>"""  # noqa: E501  # a page

ITEMS: dict[str, Any] = {
    "type": "array",
    "selector": ".item",
    "items": {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "attribute": "data-id"},
            "name": {"type": "string", "selector": ".name"},
            "price": {"type": ["number", "null"], "selector": ".price"},
            "votes": {"type": "integer", "selector": ".votes"},
            "sold_out": {"type": "boolean", "selector": ".sold-out"},
        },
        "required": ["id", "name", "price", "votes", "sold_out"],
    },
}


@pytest.fixture(scope="module")
def shop(shared, site):
    shared.goto(f"{site.url}/plain")
    shared.js(f"document.open(), document.write({SHOP!r}), document.close()")
    shared.do("wait", text="Framed")
    return shared


def scrape(browser, schema, **options):
    return browser.run(browser.browser.scrape(schema=schema, **options))


def test_items_are_those_that_are_visible_in_all_frames_with_their_own_conventions(shop):
    assert scrape(shop, ITEMS) == [
        {"id": 7, "name": "Mini", "price": 1299, "votes": 12345, "sold_out": False},
        {"id": 8, "name": "Maxi", "price": 0.89, "votes": 3, "sold_out": True},
        {"id": 9, "name": "iPhone 15 128 GB, 799 €", "price": None, "votes": 0, "sold_out": False},
        {"id": 10, "name": "Framed", "price": 1299, "votes": 4, "sold_out": False},
    ]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "selector": ".name"}, "Mini"),
        ({"type": "string", "selector": ".inside"}, "Only here"),
        ({"type": "string", "selector": "title"}, "Shop"),
        ({"type": "number", "selector": "[data-id='9'] .name", "pick": "price"}, 799),
        ({"type": "integer", "selector": "[data-id='9'] .name", "pick": "first"}, 15),
        ({"type": "boolean", "role": "Checkbox"}, True),
        ({"type": "boolean", "role": "listitem", "name": "MAXI"}, False),
        ({"type": "boolean", "selector": "input"}, True),
        ({"type": "boolean", "selector": ".ship"}, False),
        ({"type": "boolean", "selector": "[data-id='8'] .sold-out"}, True),
        ({"type": "boolean", "selector": ".nowhere"}, False),
        ({"type": "boolean", "selector": "input", "attribute": "checked"}, True),
        ({"type": "boolean", "selector": "input", "attribute": "disabled"}, False),
        ({"type": "number", "selector": "[data-id='7'] .votes", "locale": "en"}, 12.345),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}], "selector": "[data-id='9'] .price"}, "auf Anfrage"),
        ({"type": "integer", "selector": ".nowhere", "default": 5}, 5),
    ],
)
def test_a_value_is_read_as_its_type(shop, schema, value):
    assert scrape(shop, schema) == value


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (
            {"type": "number", "selector": "[data-id='9'] .name"},
            "$ has 3 numbers, 15 and 128 and 799, in 'iPhone 15 128 GB, 799 €'; "
            "say which with pick: 'first', 'last' or 'price', or narrow the selector",
        ),
        ({"type": "integer", "selector": "[data-id='8'] .price"}, "$ is no whole number: ,89; declare it as number"),
        ({"type": "number", "selector": ".item"}, "$ has 2 numbers"),
        ({"type": "number", "selector": ".votes", "maximum": 99}, "$ is 12345.0, above 99 (maximum)"),
        ({"type": "array", "selector": ".item", "items": {}, "maxItems": 3}, "$ has 4 items, more than 3 (maxItems)"),
        ({"type": "string", "selector": ".name", "enum": ["Maxi"]}, "$ is 'Mini', none of ['Maxi'] (enum)"),
        ({"type": "string", "selektor": ".name"}, "$ has the key 'selektor'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(shop, schema, says):
    with pytest.raises(BrowserError) as caught:
        scrape(shop, schema)

    assert caught.value.message.startswith(f"scrape: {says}")


def test_a_part_of_the_page_in_a_frame_is_read(shop):
    schema = {"type": "object", "properties": {"name": {"type": "string", "selector": ".name"}}}

    assert scrape(shop, schema, selector="[data-id='10']") == {"name": "Framed"}
    assert scrape(shop, {"type": "string"}, selector=".inside") == "Only here"


@pytest.mark.parametrize(
    ("html", "number"),
    [
        ("$19<sup>99</sup>", 19.99),
        ("<span>$<span>19</span><sup style='font-size: 50%'>99</sup></span>", 19.99),
        ("<b>19</b> <sup>95</sup> €", 19.95),
        ("<b>$1,299</b><small style='vertical-align: super'>00</small> each", 1299),
        ("<div style='display: flex'><i>$</i><b style='font-size: 40px'>19</b><small>99</small></div>", 19.99),
        ("$1<b>,2</b>99", 1299),
        ("<i>1</i><i>2</i><i>3</i>", 123),
        ("19 €<sup>1</sup>", 19),
        ("19€<sup>99</sup>", 19.99),
        ("12 m<sup>2</sup>", 12),
        ("$19<span style='padding-left: 4px'>99</span>", "has 2 numbers, 19 and 99, in '$19 99'"),
        ("$19 <small>12 left</small>", "has 2 numbers, 19 and 12"),
        ("4.5<sup>2</sup>", "is 4.5 with a raised 2, in '4.5²', which may be a note, a power or part of the number"),
        ("10<sup>6</sup>", "is 10 with a raised 6, in '10⁶'"),
        ("1,234<sup>56</sup>", "is 1,234 with a raised 56"),
        ("<b hidden>$19<sup>99</sup></b>", 19.99),
    ],
)
def test_a_number_ends_where_the_page_raises_digits_or_sets_them_apart(shared, site, html, number):
    shared.goto(f"{site.url}/plain")
    page = f"<html lang=en><main>{html}"
    shared.js(f"document.open(), document.write({json.dumps(page)}), document.close()")
    schema = {"type": "number", "selector": "main b" if "hidden" in html else "main"}

    if isinstance(number, str):
        with pytest.raises(BrowserError) as caught:
            scrape(shared, schema)
        assert caught.value.message.startswith(f"scrape: $ {number}")
    else:
        assert scrape(shared, schema) == number
