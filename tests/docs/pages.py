"""The pages that people read, as their Markdown: code blocks, headings and links."""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.name: path for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]}

_markdown = MarkdownIt("commonmark").enable("table")


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        line: Where its fence is, counted from 1.
        language: The first word behind the fence.
        why_not: Why it does not run; empty if it does.
        code: Its text.
    """

    line: int
    language: str
    why_not: str
    code: str


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    for token in _markdown.parse(page.read_text(encoding="utf-8")):
        if token.type == "fence":
            language, _, rest = token.info.strip().partition(" ")
            mark, _, why_not = rest.partition(":")
            assert not rest or (mark == "no-run" and why_not.strip()), f"{page.name}: {token.info!r}"
            yield Block((token.map or [0])[0] + 1, language, why_not.strip(), token.content)


def anchors(page: Path) -> set[str]:
    """What `#…` behind the page's address may say: the slugs of its headings."""
    tokens = _markdown.parse(page.read_text(encoding="utf-8"))
    found: dict[str, int] = {}
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or [])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return {slug if not number else f"{slug}-{number}" for slug, most in found.items() for number in range(most + 1)}


def links(page: Path) -> list[str]:
    """The targets of all links and pictures of a page."""

    def targets(tokens: list[Token]) -> Iterator[str]:
        for token in tokens:
            target = token.attrGet("src" if token.type == "image" else "href")
            if target is not None:
                yield str(target)
            yield from targets(token.children or [])

    return list(targets(_markdown.parse(page.read_text(encoding="utf-8"))))
