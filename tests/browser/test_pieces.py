"""Large pages in pieces: what is shown of them is what the whole outline shows there, whatever the page."""

import json
import re
from random import Random

import pytest

from runtimed.browser import observing, outline, pieces
from runtimed.browser.pieces import Cut, Level, Place


@pytest.fixture
def small(monkeypatch):
    """Every page is a large one, and its pieces are small."""
    monkeypatch.setattr(pieces, "LARGE", 0)
    monkeypatch.setattr(pieces, "_BESIDE", (2, 8))
    monkeypatch.setattr(observing, "_LEAST_PIECE", 4)


def read_in_pieces(browser, whole, most):
    """Read an outline page by page, comparing each with the whole; return how many there were."""
    lines = whole.tree.split("\n")
    places = {found[1]: at for at, line in enumerate(lines) if (found := re.search(r"\[ref=(\w+)\]", line))}
    start, count, at = None, 0, 0
    while True:
        page = browser.observe(max_chars=most, start=start)
        shown = page.tree.split("\n")
        count += 1
        begin = 0 if start is None else next(n for n, line in enumerate(shown) if f"[ref={start}]" in line)
        assert [line for line in shown[:begin] if line not in lines[:at]] == []
        end = len(lines) if page.next is None else places[page.next]
        wanted = lines[at:end]
        if begin == 0 and start is not None:  # what it is in has no room, nor then its indentation
            wanted, shown = ([line.strip() for line in some] for some in (wanted, shown))
        assert shown[begin:] == wanted
        assert (page.omitted > 0) is (page.next is not None)
        if page.next is None:
            return count
        start, at = page.next, end


@pytest.mark.parametrize("page", ["frames", "mail", "shadow", "shop"])
def test_a_piece_is_what_the_whole_outline_shows_there(browser, site, small, page):
    browser.goto(f"{site.url}/pages/{page}")
    browser.do("wait", load_state="load")
    whole = browser.observe()

    assert read_in_pieces(browser, whole, 600) > 1


def anything(random, depth=0):
    """HTML of whatever pages are made of."""

    def inside(least=0, most=4):
        return "".join(anything(random, depth + 1) for _ in range(random.randint(least, most)))

    def word():
        return random.choice(["Alpha", "Beta", "Gamma: delta", "One & two", "x"]) + str(random.randint(0, 99))

    if depth > 2 or random.random() < 0.2:
        return random.choice(
            [
                word,
                lambda: f"<span>{word()}</span>",
                lambda: f"<button>{word()}</button>",
                lambda: f"<a href='#{word()}'><b>{word()}</b> {word()}</a>",
                lambda: f"<label>{word()} <input></label>",
                lambda: f"<select><option>{word()}<option selected>{word()}</select>",
                lambda: "<img>",
                lambda: "<div></div>",
                lambda: f"<p hidden>{word()}</p>",
                lambda: f"<div aria-hidden=true>{word()}</div>",
                lambda: f"<h2>{word()}</h2>",
                lambda: f"<div onclick=';' tabindex=0>{word()}</div>",
                lambda: f"<div contenteditable>{word()}</div>",
                lambda: f"<iframe srcdoc='<p>{word()}<button>{word()}</button>'></iframe>" if depth == 1 else "",
            ]
        )()
    name = f"n{random.randint(0, 10**6)}"
    return random.choice(
        [
            lambda: f"<div>{inside()}</div>",
            lambda: f"<div>{inside(1, 9)}</div>",
            lambda: f"{word()}<section>{inside()}</section>",
            lambda: f"<section aria-labelledby={name}><h2 id={name}>{word()}</h2>{inside()}</section>",
            lambda: f"<article aria-labelledby={name}>{inside()}<h3 id={name}>{word()}</h3></article>",
            lambda: (
                f"<ul aria-label='{word()}'>{''.join(f'<li>{inside()}</li>' for _ in range(random.randint(1, 6)))}</ul>"
            ),
            lambda: (
                f"<table><caption>{word()}</caption><tr><th>{word()}"
                + "".join(f"<tr><td>{word()}<td>{inside(0, 2)}" for _ in range(random.randint(1, 6)))
                + "</table>"
            ),
            lambda: f"<div style='display:contents'>{inside()}</div>",
            lambda: f"<div style='cursor:pointer'>{inside()}</div>",
            lambda: f"<div style='pointer-events:none'>{inside()}</div>",
            lambda: f"<div style='visibility:hidden'>{word()}<p style='visibility:visible'>{inside()}</p></div>",
            lambda: f"<div role=none>{inside()}</div>",
            lambda: f"<div role=group aria-owns={name}>{inside()}</div><div id={name}>{inside(1)}</div>",
            lambda: f"<div id={name}>{inside(1)}</div><div role=group aria-owns={name}>{inside()}</div>",
            lambda: f"<details open><summary>{word()}</summary>{inside()}</details>",
            lambda: f"<fieldset><legend>{word()}</legend>{inside()}</fieldset>",
            lambda: f"<div><template shadowrootmode=open><p>{word()}<slot></slot>{inside()}</template>{inside()}</div>",
            lambda: (
                f"<div><template shadowrootmode=open><slot name=a></slot>{inside()}</template>"
                f"<div slot=a>{inside()}</div>{word()}</div>"
            ),
        ]
    )()


@pytest.mark.parametrize("seed", [1, 14, 22])
def test_a_piece_of_any_page_is_what_the_whole_outline_shows_there(browser, site, small, seed):
    random = Random(seed)
    html = "".join(anything(random) for _ in range(6))
    browser.goto(f"{site.url}/plain")
    browser.js(f"void document.body.setHTMLUnsafe({json.dumps(html)})")
    whole = browser.observe()

    read_in_pieces(browser, whole, max(1000, len(whole.tree) // 4))


def test_the_first_page_of_a_large_outline_takes_no_more_than_that(browser, site):
    browser.goto(f"{site.url}/many/4000")

    first = browser.observe(max_chars=2000)
    second = browser.observe(max_chars=2000, start=first.next)

    whole = browser.observe().tree
    assert whole.startswith(first.tree)
    assert max(int(ref) for ref in re.findall(r"\[ref=d\d+e(\d+)\]", second.tree)) < 1000  # of 4,001
    assert first.omitted == pytest.approx(len(whole) - len(first.tree), rel=0.2)
    pressed = second.elements[-1]
    assert browser.do("click", ref=pressed.ref).message == f'Clicked button "{pressed.name}"'
    assert pressed.name in whole


def test_what_changed_since_a_page_of_a_large_outline_is_what_changed_in_that(browser, site, small):
    browser.goto(f"{site.url}/table/100")
    first = browser.observe(max_chars=500)
    second = browser.observe(max_chars=500, start=first.next)

    browser.js(
        "void (document.querySelectorAll('tr')[1].remove(), [2, 90].forEach("
        "at => document.querySelectorAll('tr')[at].cells[1].textContent = `Changed ${at}`))"
    )

    def difference(page):
        changed = browser.observe(since=page.id)
        assert changed.since == page.id
        lines = [re.sub(r" \[ref=\w+\]", "", line) for line in changed.tree.split("\n") if line[0] != "@"]
        return [re.sub(" +", " ", line) for line in lines if "Person" in line or "Changed" in line]

    assert difference(first) == ['- - cell "Person 0"']
    assert difference(second) == ['- - cell "Person 2"', '+ - cell "Changed 2"']


@pytest.mark.parametrize(
    ("below", "until"),
    [
        ("- list [ref=e2]:\n  - listitem [ref=e3]: One\n  - listitem [ref=e4]: Two", "d1e4"),
        ("- generic [ref=e2]:\n  - listitem [ref=e3]: One\n  - listitem [ref=e4]: Two", "d1e4"),
        ("- list [ref=e2]:\n  - listitem [ref=e4]: Two", "d1e4"),
        ("- generic [ref=e2]:\n  - listitem [ref=e4]: Two", None),  # more in it might put text beside, or unwrap it
        ("- list [ref=e2]: One", None),  # more in it might put that below
        ("- listitem [ref=e4]: Two", None),  # it has no line
        ("- list [ref=e2]:\n  - text: One\n  - text: Two", None),  # there is nothing to go on at
    ],
)
def test_a_piece_counts_where_no_more_would_change_the_lines_of_what_it_is_in(below, until):
    lines = outline.read_outline(f"- heading [ref=e1]\n{below}", lambda _: "d1")

    place = pieces.place_of(lines, Cut([Level("d1e2", after=True)], 10, 90), None)

    assert place == (None if until is None else Place(None, until, 10, 90))
