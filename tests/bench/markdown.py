"""Compares what scraping makes of a corpus of pages with what people would write down, and with other readers.

`tests/browser/markdown` holds the pages and, beside each, what a reader of it wants: its content as a whole, without
menus and advertisements. The score of a text is the share of the wanted words that it has (recall), and the share of
its words that are wanted (precision); a word counts as often as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from playwright.async_api import async_playwright

from runtimed.browser.find import find_chromium
from runtimed.browser.scrape import scrape_markdown
from tests.bench.tools import Row
from tests.browser.server import serve

__all__ = ["Score", "compare", "markdown", "pages"]

FOLDER = Path(__file__).parent.parent / "browser" / "markdown"


class Score(NamedTuple):
    """How well a text has the words that are wanted."""

    recall: float
    precision: float

    @property
    def f1(self) -> float:
        """The harmonic mean."""
        return 2 * self.recall * self.precision / (self.recall + self.precision or 1)


def pages() -> list[Path]:
    """The texts that are wanted; the page is beside each."""
    return sorted(FOLDER.glob("*.md"))


def compare(wanted: str, text: str) -> Score:
    """Score a text in Markdown."""
    want, have = _words(wanted), _words(text)
    both = sum((want & have).values())
    return Score(both / (sum(want.values()) or 1), both / (sum(have.values()) or 1))


def _words(text: str) -> Counter[str]:
    """Count the words that a reader sees: no addresses, no marks. Scripts without spaces count by character."""
    text = re.sub(r"\]\((?:[^()\s]|\([^()\s]*\))*\)", "]", text)
    text = unicodedata.normalize("NFKC", re.sub(r"<br>|^```+\w*", " ", text, flags=re.MULTILINE)).lower()
    return Counter(re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\W_\u3040-\u30ff\u4e00-\u9fff]+", text))


def markdown() -> Iterator[Row]:
    """Recall, precision and their mean of three readers over the corpus, each page once."""
    scores: dict[str, list[Score]] = {}
    with serve() as site:
        addresses = {page: f"{site.url}/markdown/{page.stem}" for page in pages()}
        ours, html, outlines = asyncio.run(_read(list(addresses.values())))
        theirs, name = _snapshots(list(addresses.values()), outlines)
        for page, own, source, outline in zip(addresses, ours, html, theirs, strict=True):
            wanted = page.read_text()
            readers = {"ours": own, "trafilatura": _trafilatura(source), name: _plain_outline(outline)}
            for reader, text in readers.items():
                scores.setdefault(reader, []).append(compare(wanted, text))
            print(  # this takes a while
                f"{page.stem:14}" + "  ".join(f"{reader} {each[-1].f1:.2f}" for reader, each in scores.items())
            )
    for reader, each in scores.items():
        recall, precision, mean = (
            statistics.mean(values)
            for values in zip(*((one.recall, one.precision, one.f1) for one in each), strict=True)
        )
        yield (
            f"Markdown of {len(each)} pages by {reader}: recall / precision / F1 / worst page",
            f"{recall:.3f} / {precision:.3f} / {mean:.3f} / {min(one.f1 for one in each):.2f}",
        )


async def _read(addresses: list[str]) -> tuple[list[str], list[str], list[str]]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium().program, args=["--no-sandbox"])
        page = await browser.new_page()
        ours, html, outlines = [], [], []
        for address in addresses:
            await page.goto(address)
            ours.append(await scrape_markdown(page, selector=None, only_main_content=True, links=True, images=False))
            html.append(await page.content())
            outlines.append(await page.aria_snapshot(mode="ai"))
        await browser.close()
    return ours, html, outlines


def _trafilatura(html: str) -> str:
    import trafilatura  # bench-only extra

    found = trafilatura.extract(
        html, output_format="markdown", include_links=True, include_tables=True, include_formatting=True
    )
    return found or ""


def _snapshots(addresses: list[str], fallback: list[str]) -> tuple[list[str], str]:
    """Return what Playwright's MCP server says of each page, or, without Node.js's npx, Playwright's own outlines."""
    npx = shutil.which("npx")
    if npx is None:
        return fallback, "Playwright's aria_snapshot"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        command = [npx, "--yes", "@playwright/mcp", "--headless", "--isolated", "--no-sandbox"]
        command += ["--executable-path", str(find_chromium().program)]
        server = ends.enter_context(
            subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        ends.callback(server.terminate)
        requests = iter(range(1, 10_000))

        def ask(method: str, **params: Any) -> dict[str, Any]:
            assert server.stdin is not None
            assert server.stdout is not None
            number = next(requests)
            message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            server.stdin.write(json.dumps(message) + "\n")
            server.stdin.flush()
            for line in server.stdout:
                answer: dict[str, Any] = json.loads(line)
                if answer.get("id") == number:
                    return dict(answer["result"])
            return {}

        if not ask(
            "initialize", protocolVersion="2024-11-05", capabilities={}, clientInfo={"name": "bench", "version": "1"}
        ):
            return fallback, "Playwright's aria_snapshot (its MCP server did not start)"
        texts = []
        for address in addresses:
            ask("tools/call", name="browser_navigate", arguments={"url": address})
            answer = ask("tools/call", name="browser_snapshot", arguments={})
            text = "\n".join(part.get("text", "") for part in answer["content"])
            texts.append(text.partition("```yaml")[2].partition("```")[0])
    return texts, "Playwright's MCP server"


def _plain_outline(outline: str) -> str:
    """Return the words of an outline that are the page's: no roles, no refs, no addresses."""
    lines = []
    for line in outline.splitlines():
        match = re.match(
            r"\s*- (?:/\w+:.*|'?([\w/]+)(?: (\"(?:[^\"\\]|\\.)*\"|/.*/))?((?: \[[^\]]*\])*)'?:?\s*(.*))$", line
        )
        if match is None:
            lines.append(line)
        elif match[1] is not None:
            name, text = (match[2] or "").strip('"'), (match[4] or "").strip('"')
            # The name of an element with content of its own is that content once more.
            lines.append(text if text else name)
    return "\n".join(lines)
