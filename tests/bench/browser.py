"""The engine of browser sessions against raw Playwright doing the same, in turns, each with a Chromium of its own."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

from runtimed.actions import Action, Click, Fill, Goto
from runtimed.browser.chromium import Chromium
from runtimed.browser.engine import Browser
from runtimed.pages import BrowserConfig
from tests.bench.tools import Row
from tests.browser.conftest import Heard, ref_of
from tests.browser.server import serve
from tests.chromium import ensure_chromium

__all__ = ["browser"]

WARM_UP = 5
ROUNDS = 60

Work = Callable[[], Awaitable[Any]]


def browser() -> Iterator[Row]:
    """What people do with a page: ratios of each to raw Playwright."""
    with serve() as site:
        yield from asyncio.run(_measure(site.url))


async def _measure(url: str) -> list[Row]:
    config = BrowserConfig(chromium=str(ensure_chromium()))
    values = map(str, itertools.count())
    async with AsyncExitStack() as stack:
        began = time.perf_counter()
        ours = await Browser.open(config, Path(stack.enter_context(tempfile.TemporaryDirectory())), Heard())
        opened = time.perf_counter() - began
        stack.push_async_callback(ours.close)
        page = await _raw_page(stack, config)

        async def act(action: Action) -> None:
            result = await ours.execute(action)
            assert result.success, result

        for path in ("list", "form"):
            await act(Goto(f"{url}/{path}"))
            await page.goto(f"{url}/{path}")
        seen = await ours.observe()
        name, button = ref_of(seen, "textbox", "Name"), ref_of(seen, "button", "Nothing happens")
        pairs: dict[str, tuple[Work, Work]] = {
            "`observe`": (ours.observe, lambda: page.aria_snapshot(mode="ai")),
            "`click`": (
                lambda: act(Click(ref=button)),
                lambda: page.get_by_role("button", name="Nothing happens").click(),
            ),
            "`fill`": (
                lambda: act(Fill(next(values), ref=name)),
                lambda: page.get_by_role("textbox", name="Name").fill(next(values)),
            ),
            "`screenshot`": (ours.screenshot, page.screenshot),
            "`goto`": (lambda: act(Goto(f"{url}/form")), lambda: page.goto(f"{url}/form")),
        }
        rows = [await _compare(what, *works) for what, works in pairs.items()]
        await act(Goto(f"{url}/list"))
        full, some = await ours.observe(), await ours.observe(interactive_only=True)
        await act(Click(role="button", name="Change"))
        change = await ours.observe(since=full.id)
    share = len(some.tree) / len(full.tree)
    return [
        *rows,
        ("A page of 2,000 elements, `interactive_only` / all of its text", f"{share:.0%}"),
        ("… the difference after one change / all of its text", f"{len(change.tree) / len(full.tree):.1%}"),
        ("A new browser, engine only, no spare", f"{opened:.2f} s"),
    ]


async def _raw_page(stack: AsyncExitStack, config: BrowserConfig) -> Page:
    """A page of another Chromium with the same arguments, attached as users attach."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    chromium = await Chromium.start(config, folder / "profile", folder, lambda _: None)
    stack.push_async_callback(chromium.close)
    playwright = await stack.enter_async_context(async_playwright())
    host, port = chromium.address
    driven = await playwright.chromium.connect_over_cdp(f"ws://{host}:{port}{chromium.path}")
    page = driven.contexts[0].pages[0]
    await page.set_viewport_size({"width": config.viewport_width, "height": config.viewport_height})
    return page


async def _compare(what: str, ours: Work, theirs: Work) -> Row:
    times = []
    for number in range(WARM_UP + ROUNDS):
        # Who comes first changes, so that neither always finds the machine as the other left it.
        order = (ours, theirs) if number % 2 else (theirs, ours)
        took = {}
        for work in order:
            began = time.perf_counter()
            await work()
            took[work] = time.perf_counter() - began
        times.append((took[ours], took[theirs]))
    first, second = (statistics.median(column) for column in zip(*times[WARM_UP:], strict=True))
    ratio = statistics.median(one / other for one, other in times[WARM_UP:])
    return (
        f"{what} of the engine / of raw Playwright, median of ratios",
        f"{ratio:.2f} ({first * 1e3:.1f} ms / {second * 1e3:.1f} ms)",
    )
