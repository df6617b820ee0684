"""Browser sessions as a user has them, through daemon and host, against raw Playwright, in turns on the same site."""

from __future__ import annotations

import contextlib
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from playwright.sync_api import Page, sync_playwright

from runtimed import BrowserSession
from tests.bench.tools import Row
from tests.browser.conftest import ref_of
from tests.browser.server import serve
from tests.chromium import ensure_chromium

__all__ = ["browser"]

WARM_UP = 5
ROUNDS = 60
CLICKS = 240
"""Rounds of a click, which waits for two of Chromium's frames: its time depends on the moment in which it comes."""
FRAME = 1 / 60
"""Seconds from one of Chromium's frames to the next."""
JOINS = 20

Work = Callable[[], Any]


def browser() -> Iterator[Row]:
    """What people do with a page: ratios of each to raw Playwright."""
    with serve() as site, BrowserSession(chromium=ensure_chromium()) as session, _raw_page() as page:
        for path in ("list", "form"):
            session.execute(type="goto", url=f"{site.url}/{path}", raise_on_failure=True)
            page.goto(f"{site.url}/{path}")
        for what, ours, theirs in _pairs(session, page, site.url):
            yield _compare(what, ours, theirs, rounds=CLICKS if "click" in what else ROUNDS)
        yield _joined(str(session.session_id))
        session.execute(type="goto", url=f"{site.url}/list", raise_on_failure=True)
        page.goto(f"{site.url}/list")
        yield _compare("`observe`, of 2,000 elements,", session.observe, lambda: _look(page))
        yield from _large(session, page, site.url)
        full, some = session.observe(), session.observe(interactive_only=True)
        session.execute(type="click", role="button", name="Change", raise_on_failure=True)
        change = session.observe(since=full)
        yield (
            "A page of 2,000 elements: `interactive_only` / all of its text; the difference after one change",
            f"{len(some.tree) / len(full.tree):.0%}; {len(change.tree) / len(full.tree):.1%}",
        )


def _large(session: BrowserSession, page: Page, url: str) -> Iterator[Row]:
    """A table of 10,000 rows."""
    session.execute(type="goto", url=f"{url}/table/10000", raise_on_failure=True)
    page.goto(f"{url}/table/10000")
    whole = lambda: page.aria_snapshot(mode="ai", timeout=0)  # noqa: E731  # beside `session.observe`
    yield _compare("`observe`, of a table of 10,000 rows, against the snapshot alone,", session.observe, whole, 1, 3)
    row = next(element.ref for element in reversed(session.observe().elements) if element.role == "row")
    following = session.observe(max_chars=5000).next
    ways: dict[str, dict[str, Any]] = {
        "scope=…": {"scope": row},
        "max_chars=5000": {"max_chars": 5000},
        "max_chars=5000, start=…": {"max_chars": 5000, "start": following},
        "max_chars=5000, interactive_only=True": {"max_chars": 5000, "interactive_only": True},
    }
    for what, options in ways.items():
        began = time.perf_counter()
        session.observe(**options)
        yield f"`observe({what})` of a table of 10,000 rows", f"{time.perf_counter() - began:.2f} s"
    session.execute(type="goto", url=f"{url}/list", raise_on_failure=True)


def _pairs(session: BrowserSession, page: Page, url: str) -> Iterator[tuple[str, Work, Work]]:
    """What is done by a session, and the same by raw Playwright."""
    values = map(str, itertools.count())
    ref = ref_of(session.observe(), "button", "Nothing happens")

    def act(**action: Any) -> None:
        session.execute(raise_on_failure=True, **action)

    yield "`observe`", session.observe, lambda: _look(page)
    yield "`observe`, against the snapshot alone,", session.observe, lambda: page.aria_snapshot(mode="ai")
    yield (
        "`click`",
        lambda: act(type="click", role="button", name="Nothing happens"),
        lambda: page.get_by_role("button", name="Nothing happens").click(),
    )
    yield (
        "`click` by its ref",
        lambda: act(type="click", ref=ref),
        lambda: page.get_by_role("button", name="Nothing happens").click(),
    )
    yield (
        "`fill`",
        lambda: act(type="fill", role="textbox", name="Name", value=next(values)),
        lambda: page.get_by_role("textbox", name="Name").fill(next(values)),
    )
    yield "`screenshot`", session.screenshot, page.screenshot
    yield "`goto`", lambda: act(type="goto", url=f"{url}/form"), lambda: page.goto(f"{url}/form")


def _look(page: Page) -> tuple[Any, ...]:
    """Ask for what an observation holds."""
    return page.aria_snapshot(mode="ai"), page.title(), page.url, page.evaluate("[scrollX, scrollY]")


@contextlib.contextmanager
def _raw_page() -> Iterator[Page]:
    """A page of the size of a session's, in a Chromium of Playwright's own."""
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=ensure_chromium()) as chromium:
        yield chromium.new_page(viewport={"width": 1280, "height": 1080})


def _compare(what: str, ours: Work, theirs: Work, warm_up: int = WARM_UP, rounds: int = ROUNDS) -> Row:
    times, numbers = [], random.Random(0)
    for number in range(warm_up + rounds):
        # Who comes first changes, so that neither always finds the machine as the other left it.
        order = (ours, theirs) if number % 2 else (theirs, ours)
        took = {}
        for work in order:
            # Chromium works in frames: whoever comes right after the other would meet the same moment of one each time.
            time.sleep(2 * FRAME * numbers.random())
            began = time.perf_counter()
            work()
            took[work] = time.perf_counter() - began
        times.append((took[ours], took[theirs]))
    first, second = (statistics.median(column) for column in zip(*times[warm_up:], strict=True))
    ratio = statistics.median(one / other for one, other in times[warm_up:])
    return (
        f"{what} of a browser session / of raw Playwright, median of ratios; medians",
        f"{ratio:.2f}; {first * 1e3:.1f} ms / {second * 1e3:.1f} ms",
    )


def _joined(session_id: str) -> Row:
    """Somebody else joins the session by its id and looks at it."""
    times = []
    for _ in range(WARM_UP + JOINS):
        began = time.perf_counter()
        other = BrowserSession(session_id)
        other.observe()
        times.append(time.perf_counter() - began)
        other.close()
    return (
        "`BrowserSession(ID).observe()` of a session that there is, median",
        f"{statistics.median(times) * 1e3:.0f} ms",
    )
