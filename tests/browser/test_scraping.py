"""Scraping: Markdown with what matters, data by schemas, no model."""

import re
from typing import Any
from urllib.parse import quote

import pytest

from runtimed import BrowserError
from tests.browser.server import HANGS

TEAS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "role": "heading", "name": "Teas of the world!"},
        "teas": {"type": "array", "selector": "tr.tea", "items": {"$ref": "#/$defs/Tea"}},
        "author": {"anyOf": [{"type": "string"}, {"type": "null"}], "selector": ".author", "default": None},
    },
    "required": ["title", "teas"],
    "$defs": {
        "Tea": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "selector": ".name"},
                "url": {"type": "string", "selector": "a", "attribute": "href"},
                "price": {"type": "number", "selector": ".price"},
                "stocked": {"type": "boolean", "selector": "td >> nth=2"},
            },
            "required": ["name", "price"],
        }
    },
}


@pytest.fixture
def teas(browser, site):
    browser.goto(f"{site.url}/article")
    return browser


def scrape(browser, **options):
    return browser.run(browser.browser.scrape(**options))


def test_an_article_as_markdown(teas, site):
    assert (
        scrape(teas)
        == f"""\
# Teas of the world!

All of them are made from [one plant]({site.url}/leaf), whose leaves are *treated* in **different** ways. \
What matters is how long the leaves are exposed to the air before they are dried, and how they are heated afterwards.

## Prices

| Tea | Price | In stock |
| --- | --- | --- |
| [Oolong]({site.url}/tea/1) | € 1,299.50 | yes |
| [Sencha]({site.url}/tea/2) | 12,50 € | no |

### How to

1. Boil
2. Wait
   - three minutes

```python
def brew():
    return "tea"
```

> It is always tea-time.
"""
    )


def test_more_or_less_of_it(teas, site):
    everything = scrape(teas, only_main_content=False, images=True, links=False)

    for text in (
        "Home About",
        "Site name",
        "Advertisement",
        "Imprint",
        f"![A leaf]({site.url}/leaf.png)",
        "| Oolong |",
    ):
        assert text in everything
    assert "](" not in everything.replace("![A leaf](", "")
    assert "Nobody sees this" not in everything
    assert scrape(teas, selector="ol") == "1. Boil\n2. Wait\n   - three minutes\n"
    with pytest.raises(BrowserError, match="scrape: 'video' finds nothing on the page"):
        scrape(teas, selector="video")


def test_a_tiny_page_is_kept_whole(browser, site):
    browser.goto(f"{site.url}/tiny")

    assert scrape(browser) == "Only this\n"


def test_frames_and_shadow_dom_are_part_of_it(browser, site):
    browser.goto(f"{site.url}/frames")

    text = scrape(browser)

    assert "## In the shadow" in text
    assert f"[Load again]({site.url}/inner?again)" in text


def test_scraping_loads_nothing(teas, site):
    site.asked.clear()

    scrape(teas, images=True)

    assert site.asked == []


def test_a_page_that_hangs_is_said_to_hang(teas, monkeypatch):
    monkeypatch.setattr("runtimed.browser.reading._PATIENCE", 0.3)
    teas.js(f"void setTimeout(() => {{ {HANGS} }})")

    for options in ({}, {"schema": {"type": "string", "selector": "h1"}}, {"selector": "h1"}):
        with pytest.raises(BrowserError) as caught:
            scrape(teas, **options)

        tab = caught.value.data["tab"]
        assert caught.value.message == (
            f"The page in {tab} has not answered within 0.3 s: it is busy. Wait, or go elsewhere with goto"
        ), options


def test_data_by_a_schema(teas, site):
    assert scrape(teas, schema=TEAS) == {
        "title": "Teas of the world!",
        "teas": [
            {"name": "Oolong", "url": f"{site.url}/tea/1", "price": 1299.5, "stocked": True},
            {"name": "Sencha", "url": f"{site.url}/tea/2", "price": 12.5, "stocked": False},
        ],
        "author": None,
    }
    assert scrape(teas, schema={"type": "array", "selector": "li", "items": {"type": "string"}}) == [
        "Boil",
        "Wait\nthree minutes",
        "three minutes",
    ]
    assert scrape(teas, selector="thead", schema={"type": "string", "selector": "th"}) == "Tea"


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "string", "selector": ".no"}, "nothing on the page is $ (.no)"),
        ({"type": "number", "selector": "h2"}, "$ is no number: 'Prices'"),
        ({"type": "array", "items": {}}, "$ is an array and needs a selector, or a role with name"),
        ({"$ref": "#/$defs/Nothing"}, "$ refers to '#/$defs/Nothing', which the schema lacks"),
        (
            {"type": "object", "properties": {"a": {"type": "string", "selector": ".no"}}, "required": ["a"]},
            "nothing on the page is $.a (.no)",
        ),
    ],
)
def test_what_a_schema_does_not_find_is_said(teas, schema, says):
    with pytest.raises(BrowserError) as caught:
        scrape(teas, schema=schema)

    assert caught.value.message == f"scrape: {says}"


SVG = """<svg xmlns="http://www.w3.org/2000/svg"><title>Sales</title>
<text y="20">Tea: <tspan x="0" dy="9">5 kg</tspan></text>
<a href="http://a.example/x"><text y="60">All teas</text></a><text y="80" visibility="hidden">Nothing</text></svg>"""


def test_a_document_that_is_a_drawing_is_observed_and_scraped(browser):
    browser.goto(f"data:image/svg+xml,{quote(SVG)}")

    seen = browser.observe()
    assert re.sub(r"ref=\w+", "ref", seen.tree).splitlines() == [
        '- img "Sales" [ref]:',
        '  - generic [ref]: "Tea: 5 kg"',
        '  - link "All teas" [ref] [cursor=pointer]:',
        "    - /url: http://a.example/x",
    ]
    browser.do("hover", ref=next(one.ref for one in seen.elements if one.role == "link"))
    assert scrape(browser) == "Tea: 5 kg\n\n[All teas](http://a.example/x)\n"
    browser.goto(f"data:text/html,<p>Chart {quote(SVG)}")
    assert scrape(browser) == "Chart Tea: 5 kg [All teas](http://a.example/x)\n"
    browser.goto(f"data:text/html,<p>Chart {quote(SVG.replace('<svg', '<svg role=img'))}")
    assert scrape(browser) == "Chart\n"


@pytest.mark.parametrize("part", ["body", "documentElement"])
def test_a_document_without_a_body_or_a_root_is_empty_and_not_busy(browser, part):
    browser.goto(f"data:text/html,<title>Gone</title><p>x</p><script>document.{part}.remove()</script>")

    seen = browser.observe()
    assert seen.title == ("Gone" if part == "body" else "")
    assert [one.role for one in seen.elements] == (["document"] if part == "body" else [])
    assert re.fullmatch(r"(- document \[ref=\w+\])?", seen.tree)
    assert scrape(browser).strip() == ""
