"""Reads what a tab shows, as Markdown, data or a picture, and finds the tabs that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from playwright.async_api import Error as PlaywrightError

from runtimed.browser.data import scrape_data
from runtimed.browser.open_tab import OpenTab
from runtimed.browser.scrape import scrape_markdown
from runtimed.browser.words import bad_selector
from runtimed.errors import BrowserError

__all__ = ["find_silent", "scrape", "take_picture"]

_PATIENCE: Final = 10.0
"""Seconds within which a page must answer."""


async def scrape(
    tab: OpenTab,
    *,
    selector: str | None,
    only_main_content: bool,
    links: bool,
    images: bool,
    schema: Mapping[str, Any] | None,
) -> Any:
    """Return what a tab shows as Markdown, or, with a schema, as the data that the schema describes.

    Args:
        tab: The tab; it may still load.
        selector: See `scrape_markdown` and `scrape_data`.
        only_main_content: See `scrape_markdown`.
        links: See `scrape_markdown`.
        images: See `scrape_markdown`.
        schema: See `scrape_data`; None for Markdown.

    Raises:
        BrowserError: If the selector finds nothing, the schema cannot be met, or the page does not answer.
    """
    await tab.ready
    try:
        async with asyncio.timeout(_PATIENCE):
            await tab.run(tab.page.title())
        if schema is not None:
            return await tab.run(scrape_data(tab.page, schema, selector=selector))
        return await tab.run(
            scrape_markdown(
                tab.page, selector=selector, only_main_content=only_main_content, links=links, images=images
            )
        )
    except TimeoutError:
        raise BrowserError(
            f"The page in {tab.id} has not answered within {_PATIENCE:g} s: it is busy. "
            "Wait, or go elsewhere with goto",
            tab=tab.id,
        ) from None
    except PlaywrightError as exc:
        said = bad_selector(exc, selector if schema is None else None)
        raise BrowserError(said or f"The page cannot be read: {exc.message}", tab=tab.id) from exc


async def take_picture(tab: OpenTab, *, full_page: bool) -> bytes:
    """Return a picture of a tab as PNG.

    Args:
        tab: The tab; it may still load.
        full_page: Whether the picture goes beyond what fits into the window.

    Raises:
        BrowserError: If the page does not answer.
    """
    await tab.ready
    try:
        return await tab.run(tab.page.screenshot(full_page=full_page))
    except PlaywrightError as exc:
        raise BrowserError(f"There is no picture of {tab.id}: {exc.message}", tab=tab.id) from exc


async def find_silent(tabs: Iterable[OpenTab]) -> list[str]:
    """Return a sentence for each tab that does not answer within seconds though no dialog holds it up."""
    asked = [tab for tab in tabs if tab.dialog is None and not tab.crashed]
    answered = await asyncio.gather(*(tab.answers(_PATIENCE) for tab in asked))
    return [
        f"The page in {tab.id} has not answered within {_PATIENCE:g} s: it is busy. Wait, or end it with close_tab"
        for tab, does in zip(asked, answered, strict=True)
        if not does
    ]
