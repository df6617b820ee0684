"""Reads the data that a schema describes from all frames of a page, without a model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error as PlaywrightError

from runtimed.browser.isolated import ask
from runtimed.browser.numerals import APART, RAISED, NoNumber, Unreadable, read_number
from runtimed.browser.schema import (
    MAX_DEPTH,
    Part,
    alternatives,
    check_schema,
    check_value,
    find_selectors,
    is_optional,
    resolve,
)
from runtimed.errors import BrowserError

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

__all__ = ["FUNCTIONS", "locate_all", "scrape_data"]

_MAX_ITEMS: Final = 10_000
_PATIENCE: Final = 2000.0
"""Milliseconds within which an existing element must give its value, and a frame its answer."""

_NO: Final = frozenset(
    (
        "false",
        "no",
        "off",
        "0",
        "✗",
        "✘",
        "☐",
        "\u00d7",
        "nein",
        "nee",
        "nej",
        "non",
        "não",
        "nie",
        "нет",
        "いいえ",
        "否",
    )
)

_VALUE: Final = """(element, [attribute, number, RAISED, APART]) => {
  const language = element => {
    for (let node = element; node; node = node.parentElement ?? node.getRootNode().host)
      if (node.lang) return node.lang;
    return null;
  };
  const value = () => {
    if (attribute) {
      if (attribute === 'href' || attribute === 'src') return element[attribute] || element.getAttribute(attribute);
      return element.getAttribute(attribute);
    }
    if (element.tagName === 'INPUT' && (element.type === 'checkbox' || element.type === 'radio'))
      return element.checked;
    for (const state of ['aria-checked', 'aria-pressed', 'aria-selected'])
      if (/^(true|false)$/.test(element.getAttribute(state)) && !element.innerText?.trim())
        return element.getAttribute(state) === 'true';
    if ('value' in element && /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName)) return element.value;
    const text = element.innerText ?? element.textContent;
    return number && element.firstElementChild ? marked(text) : text;
  };
  // Digits that the page raises, or sets apart by its style, do not go on with those before them.
  const marked = text => {
    const digit = /\\p{Nd}/u, laid = element.checkVisibility(), walker = document.createTreeWalker(element, 4);
    const boxOf = (node, place) => {
      const range = document.createRange();
      range.setStart(node, place);
      range.setEnd(node, place + 1);
      return range.getBoundingClientRect();
    };
    const inSup = node => element.contains(node.parentElement.closest('sup'));
    const shown = node => {
      if (!laid) return !node.parentElement.closest('script, style');
      const range = document.createRange();
      range.selectNodeContents(node);
      return range.getClientRects().length > 0 && getComputedStyle(node.parentElement).visibility === 'visible';
    };
    const markOf = (before, node, place, spaced) => {
      if (!laid) return inSup(node) && !inSup(before.node) ? RAISED : '';
      const one = boxOf(before.node, before.place), two = boxOf(node, place);
      const gap = Math.max(two.left - one.right, one.left - two.right);
      if (gap < one.height / 2 && two.top < one.bottom && one.top < two.bottom) {
        const up = one.bottom - two.bottom, down = two.top - one.top;
        if (up > one.height * 0.2 && down < up * 0.6) return RAISED;
        if (!spaced && two.height < one.height * 0.85 && digit.test(before.node.data[before.place])) return RAISED;
        if (gap < 2) return up < one.height * -0.2 ? APART : '';
      }
      return APART;
    };
    const marks = new Map();
    let before = null, loose = false, count = 0;
    while (walker.nextNode()) {
      const node = walker.currentNode, data = node.data, first = data.search(/\\S/);
      loose ||= first !== 0;
      if (first < 0 || !shown(node)) continue;
      if (before && digit.test(data[first])) {
        const mark = markOf(before, node, first, loose);
        if (mark) marks.set(count, mark);
      }
      count += data.match(/\\p{Nd}/gu)?.length ?? 0;
      before = { node, place: data.trimEnd().length - 1 };
      loose = before.place < data.length - 1;
    }
    if (!marks.size || count !== (text.match(/\\p{Nd}/gu)?.length ?? 0)) return text;
    let place = 0;
    return text.replace(/\\p{Nd}/gu, (one, at) => {
      const mark = marks.get(place++) ?? '', last = text[at - 1] ?? ' ';
      return (mark === RAISED && !/[.,]/.test(last)) || (mark === APART && digit.test(last)) ? mark + one : one;
    });
  };
  const seen = element.checkVisibility({visibilityProperty: true}) || element.matches('input, head *');
  return [value(), language(element), navigator.language, seen];
}"""

FUNCTIONS: Final = {"value": _VALUE, "source": "frame => frame.src"}
"""JavaScript functions for pages; see `isolated`."""


async def scrape_data(page: Page, schema: Part, *, selector: str | None) -> Any:
    """Return the data that a JSON schema describes; see `schema` for what it may say.

    An array has as many items as its `selector` shows in all frames. Everything else is the first that is visible, in
    the first frame that shows one; what is hidden counts where nothing is visible. A boolean without yes or no in its
    text says whether its element is there.

    Raises:
        BrowserError: If something required is not on the page or cannot be read as its type (attribute `path`), or the
            schema cannot be honoured.
    """
    check_schema(schema if selector is None else {"selector": selector, **schema} if _is_leaf(schema) else schema)
    root = page.locator("html")
    if selector is not None:
        places = await locate_all(root, selector, every=False)
        if not places:
            raise BrowserError(f"scrape: {selector!r} finds nothing on the page", selector=selector)
        root = places[0].first
    return await _read(root, schema, schema, "$", required=True, depth=0)


def _is_leaf(part: Part) -> bool:
    return "properties" not in part and part.get("type") not in ("array", "object") and not find_selectors(part)


async def locate_all(around: Locator, selector: str, *, every: bool = True) -> list[Locator]:
    """Return what a selector finds in an element: the matches of its own document, then of each frame in it.

    Hidden matches are left out, unless no match is visible.

    Args:
        around: The element.
        selector: The selector.
        every: Whether all frames are searched; else a frame is only if the document before it has no match.

    Raises:
        BrowserError: If a frame does not answer.
        PlaywrightError: If the selector is invalid.
    """
    for visible in (True, False):
        found = await _in_frames(around, selector, visible=visible, every=every)
        if found:
            return found
    return []


async def _in_frames(around: Locator, selector: str, *, visible: bool, every: bool) -> list[Locator]:
    look = around.locator(selector)
    if visible:
        look = look.filter(visible=True)
    found = [look] if await look.count() else []
    if len(around.page.frames) > 1 and (every or not found):
        frames = around.locator("iframe, frame")
        for place in range(await frames.count()):
            inside = frames.nth(place).content_frame.locator("html")
            try:
                async with asyncio.timeout(_PATIENCE / 1000):
                    found += await _in_frames(inside, selector, visible=visible, every=every)
            except TimeoutError:
                name = await ask(frames.nth(place), "source")
                raise BrowserError(f"scrape: the frame {name!r} on the page does not answer") from None
            if found and not every:
                break
    return found


async def _read(around: Locator, part: Any, schema: Part, path: str, *, required: bool, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise BrowserError(f"scrape: the schema is nested too deeply at {path}", path=path)
    part = resolve(part, schema, path)
    required = required and not is_optional(part, schema, path)
    refused: BrowserError | None = None
    for option in alternatives(part, schema, path):
        try:
            value = await _read_one(around, option, schema, path, required=required, depth=depth)
        except BrowserError as exc:
            refused = refused or exc
        else:
            if value is not None:
                check_value(value, option, path)
            return value
    if refused is not None:
        raise refused
    return None


async def _read_one(around: Locator, part: Part, schema: Part, path: str, *, required: bool, depth: int) -> Any:
    selectors, kind = find_selectors(part), part.get("type")
    if kind == "array":
        return await _read_items(around, part, schema, path, depth=depth)
    if selectors:
        places: list[Locator] = []
        for selector in selectors:
            places = places or await locate_all(around, selector, every=False)
        if not places:
            if "default" in part:
                return part["default"]
            if kind == "boolean":
                return False
            if required:
                raise BrowserError(
                    f"scrape: nothing on the page is {path} ({selectors[-1]})", path=path, selector=selectors[-1]
                )
            return None
        around = places[0].first
    if kind == "object" or "properties" in part:
        needed = part.get("required", ())
        names = list(part["properties"])
        values = await asyncio.gather(
            *(
                _read(
                    around, part["properties"][name], schema, f"{path}.{name}", required=name in needed, depth=depth + 1
                )
                for name in names
            )
        )
        return dict(zip(names, values, strict=True))
    if not selectors and "attribute" not in part and "const" in part:
        return part["const"]
    try:
        asked = [part.get("attribute"), kind in ("number", "integer"), RAISED, APART]
        read = await ask(around, "value", asked, limit=_PATIENCE)
    except PlaywrightError as exc:
        raise BrowserError(f"scrape: {path} cannot be read: {exc.message}", path=path) from exc
    return _typed(read, part, path, required=required)


async def _read_items(around: Locator, part: Part, schema: Part, path: str, *, depth: int) -> list[Any]:
    items = resolve(part.get("items", {}), schema, path)
    places = await locate_all(around, find_selectors(part)[-1])
    found = [one for place in places for one in await place.all()][:_MAX_ITEMS]
    return list(
        await asyncio.gather(
            *(
                _read(one, items, schema, f"{path}[{place}]", required=True, depth=depth + 1)
                for place, one in enumerate(found)
            )
        )
    )


def _typed(read: list[Any], part: Part, path: str, *, required: bool) -> Any:
    """Convert a value of the page to the schema's type."""
    value, language, fallback, seen = read
    kind = part.get("type")
    if kind == "boolean":
        text = str(value).strip().lower()
        if "attribute" in part:
            return value is not None and text not in _NO
        if not seen:
            return False
        return value if isinstance(value, bool) else text not in _NO
    if value is None:
        if "default" in part:
            return part["default"]
        if required:
            raise BrowserError(f"scrape: {path} has no value", path=path)
        return None
    if kind in ("number", "integer"):
        try:
            return read_number(
                str(value),
                declared=part.get("locale"),
                language=language,
                fallback=fallback,
                pick=part.get("pick"),
                whole=kind == "integer",
            )
        except Unreadable as exc:
            if isinstance(exc, NoNumber) and not required:
                return part.get("default")
            raise BrowserError(f"scrape: {path} {exc}", path=path) from exc
    return str(value).strip()
