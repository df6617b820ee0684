"""What a page says, without any model: as Markdown, or as data that a schema with selectors describes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import markdownify
from playwright.async_api import Error as PlaywrightError

from runtimed.errors import BrowserError

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

__all__ = ["scrape_data", "scrape_markdown"]

_MAX_ITEMS: Final = 10_000
_MAX_DEPTH: Final = 20

# A copy of what is visible: shadow DOM and iframes in their places, addresses in full.
_COPY: Final = r"""([root, options]) => {
  // Of a document that shows nothing, so that nothing is loaded once more.
  const inert = document.implementation.createHTMLDocument('');
  const skipped = new Set(['SCRIPT', 'STYLE', 'NOSCRIPT', 'TEMPLATE', 'LINK', 'META', 'HEAD', 'SVG', 'CANVAS', 'OBJECT',
    'EMBED', 'DIALOG']);
  const around = 'nav, aside, footer, [role=navigation], [role=complementary], [role=contentinfo], [role=banner], '
    + '[role=search], [aria-hidden=true]';
  const inArticle = 'article, main, [role=main]';
  const blocks = (node, main) => node.matches(around)
    || (node.matches('header, form') && !node.closest(inArticle) && main && !node.querySelector('h1'));
  const copy = (node, main) => {
    if (node.nodeType === Node.TEXT_NODE) return inert.createTextNode(node.data);
    if (!(node instanceof node.ownerDocument.defaultView.Element)) return null;
    const tag = node.tagName.toUpperCase();
    if (skipped.has(tag) && !(tag === 'DIALOG' && node.open)) return null;
    const style = node.ownerDocument.defaultView.getComputedStyle(node);
    if (style.display === 'none' || style.visibility === 'hidden') return null;
    if (main && blocks(node, main)) return null;
    let made;
    if (tag === 'A') {
      made = options.links && node.href ? inert.createElement('a') : inert.createElement('span');
      if (options.links && node.href) made.setAttribute('href', node.href);
    } else if (tag === 'IMG') {
      if (!options.images) return null;
      made = inert.createElement('img');
      made.setAttribute('src', node.currentSrc || node.src);
      made.setAttribute('alt', node.alt);
      return made;
    } else if (tag === 'INPUT' || tag === 'TEXTAREA' || tag === 'SELECT') {
      return null;
    } else if (tag === 'IFRAME' || tag === 'FRAME' || tag === 'BODY' || tag === 'HTML') {
      made = inert.createElement('div');
    } else if (tag === 'BUTTON') {
      made = inert.createElement('span');
    } else {
      made = inert.createElement(/^[A-Z][A-Z0-9]*$/.test(tag) ? tag : 'div');
      for (const name of ['colspan', 'rowspan', 'start', 'class'])
        if (node.hasAttribute(name) && (name !== 'class' || tag === 'CODE'))
          made.setAttribute(name, node.getAttribute(name));
    }
    let children = node.childNodes;
    if (tag === 'IFRAME' || tag === 'FRAME') {
      let inside = null;
      try { inside = node.contentDocument?.body; } catch { inside = null; }
      children = inside ? [inside] : [];
    } else if (node.shadowRoot) children = node.shadowRoot.childNodes;
    else if (tag === 'SLOT') { const given = node.assignedNodes(); if (given.length) children = given; }
    for (const child of children) { const one = copy(child, main); if (one) made.append(one); }
    return made;
  };
  const words = node => node.textContent.trim().length;
  const whole = copy(root, false);
  if (!options.only_main) return whole.outerHTML;
  // The part that calls itself the main one; else all but what stands around it. A page that would lose most of what it
  // says, or that says little, stays whole.
  const candidates = root.querySelectorAll ? [...root.querySelectorAll('main, [role=main]')] : [];
  const articles = root.querySelectorAll ? root.querySelectorAll('article') : [];
  const chosen = candidates.length === 1 ? candidates[0] : articles.length === 1 ? articles[0] : root;
  const part = copy(chosen, true) ?? whole;
  return words(part) < 200 && words(part) < words(whole) * 0.5 ? whole.outerHTML : part.outerHTML;
}"""

_NUMBER: Final = re.compile(r"[-+\u2212]?\d(?:[\d.,'\u00a0\u202f  ]*\d)?(?:[eE][-+]?\d+)?")
_VALUE: Final = """(element, attribute) => {
  if (attribute) {
    if (attribute === 'href' || attribute === 'src') return element[attribute] || element.getAttribute(attribute);
    return element.getAttribute(attribute);
  }
  if (element.tagName === 'INPUT' && (element.type === 'checkbox' || element.type === 'radio')) return element.checked;
  if ('value' in element && /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName)) return element.value;
  return element.innerText ?? element.textContent;
}"""


async def scrape_markdown(
    page: Page, *, selector: str | None, only_main_content: bool, links: bool, images: bool
) -> str:
    """Return what a page shows as Markdown, with its headings, lists and tables.

    Args:
        page: The page.
        selector: The part to read; None for all of it.
        only_main_content: Whether menus, headers, footers and the like are left out; a page that says little stays
            whole.
        links: Whether links lead somewhere, or are plain text.
        images: Whether images are part of it.

    Raises:
        BrowserError: If the selector finds nothing.
    """
    root = page.locator(selector if selector is not None else "body").first
    if not await root.count():
        raise BrowserError(f"scrape: {selector or 'body'!r} finds nothing on the page", selector=selector)
    html = await root.evaluate(
        f"(root, options) => ({_COPY})([root, options])",
        {"links": links, "images": images, "only_main": only_main_content and selector is None},
    )
    return await asyncio.to_thread(_markdown, html)


async def scrape_data(page: Page, schema: Mapping[str, Any], *, selector: str | None) -> Any:
    """Return the data that a JSON schema describes.

    Besides what JSON Schema has, each part of the schema may have `selector` (CSS or any that Playwright knows) or
    `role` with `name`, inside the element around it, and `attribute` (`href`, `src`: in full) in place of the text.
    An array has as many items as its `selector` finds.

    Raises:
        BrowserError: If something required is not on the page or cannot be read as its type (attribute `path`), or the
            schema cannot be understood.
    """
    root = page.locator(selector if selector is not None else "html").first
    if not await root.count():
        raise BrowserError(f"scrape: {selector!r} finds nothing on the page", selector=selector)
    return await _read(root, schema, schema, "$", required=True, depth=0)


async def _read(
    around: Locator, part: Mapping[str, Any], schema: Mapping[str, Any], path: str, *, required: bool, depth: int
) -> Any:
    if depth > _MAX_DEPTH:
        raise BrowserError(f"scrape: the schema is nested too deeply at {path}", path=path)
    part, optional = _plain_part(part, schema, path)
    required = required and not optional
    selector = _selector(part)
    kind = part.get("type")
    if kind == "array":
        if selector is None:
            raise BrowserError(f"scrape: the array {path} needs a selector, or a role with name", path=path)
        items = part.get("items", {"type": "string"})
        found = (await around.locator(selector).all())[:_MAX_ITEMS]
        return list(
            await asyncio.gather(
                *(
                    _read(one, items, schema, f"{path}[{place}]", required=True, depth=depth + 1)
                    for place, one in enumerate(found)
                )
            )
        )
    if selector is not None:
        around = around.locator(selector).first
        if not await around.count():
            if required and "default" not in part:
                raise BrowserError(f"scrape: nothing on the page is {path} ({selector})", path=path, selector=selector)
            return part.get("default")
    if kind == "object" or "properties" in part:
        needed = part.get("required", [])
        names = list(part.get("properties", {}))
        values = await asyncio.gather(
            *(
                _read(
                    around, part["properties"][name], schema, f"{path}.{name}", required=name in needed, depth=depth + 1
                )
                for name in names
            )
        )
        return dict(zip(names, values, strict=True))
    try:
        value = await around.evaluate(_VALUE, part.get("attribute"), timeout=2000)
    except PlaywrightError as exc:
        raise BrowserError(f"scrape: {path} cannot be read: {exc.message}", path=path) from exc
    return _typed(value, kind, path, required=required)


def _plain_part(part: Any, schema: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], bool]:
    """Return a part of a schema with what it refers to, and whether it may be null."""
    if not isinstance(part, Mapping):
        raise BrowserError(f"scrape: {path} is no schema", path=path)
    optional = False
    for _ in range(_MAX_DEPTH):
        if "$ref" in part:
            name = str(part["$ref"]).rpartition("/")[2]
            definitions = schema.get("$defs") or schema.get("definitions") or {}
            if name not in definitions:
                raise BrowserError(f"scrape: {path} refers to {part['$ref']!r}, which the schema lacks", path=path)
            part = {**definitions[name], **{key: value for key, value in part.items() if key != "$ref"}}
            continue
        options = part.get("anyOf") or part.get("oneOf") or part.get("allOf")
        if options:
            optional = optional or any(option.get("type") == "null" for option in options)
            chosen: Mapping[str, Any] = next((option for option in options if option.get("type") != "null"), {})
            part = {**chosen, **{k: v for k, v in part.items() if k not in ("anyOf", "oneOf", "allOf")}}
            continue
        break
    kinds = part.get("type")
    if isinstance(kinds, list):
        optional = optional or "null" in kinds
        part = {**part, "type": next((kind for kind in kinds if kind != "null"), "string")}
    return part, optional


def _selector(part: Mapping[str, Any]) -> str | None:
    if "selector" in part:
        return str(part["selector"])
    if "role" in part:
        name = part.get("name")
        quoted = "" if name is None else '[name="' + str(name).replace("\\", "\\\\").replace('"', '\\"') + '"]'
        return f"role={part['role']}{quoted}"
    return None


def _typed(value: Any, kind: Any, path: str, *, required: bool) -> Any:
    if value is None:
        if required:
            raise BrowserError(f"scrape: {path} has no value", path=path)
        return None
    match kind:
        case "boolean":
            return value if isinstance(value, bool) else str(value).strip().lower() in ("true", "yes", "on", "1", "✓")
        case "number" | "integer":
            number = _number(str(value))
            if number is None:
                if required:
                    raise BrowserError(f"scrape: {path} is no number: {str(value).strip()!r}", path=path)
                return None
            return int(number) if kind == "integer" else number
        case _:
            return str(value).strip()


def _number(text: str) -> float | None:
    """Read a number as people write it: the last of its separators is the decimal one, unless three digits follow."""
    match = _NUMBER.search(text)
    if match is None:
        return None
    digits = re.sub(r"['\u00a0\u202f ]", "", match[0]).replace("\u2212", "-")
    last = max(digits.rfind("."), digits.rfind(","))
    if last >= 0:
        mark, other = digits[last], "," if digits[last] == "." else "."
        digits = digits.replace(other, "")
        after = re.match(r"\d*", digits[digits.rfind(mark) + 1 :])
        thousands = digits.count(mark) > 1 or (mark == "," and after is not None and len(after[0]) == 3)
        digits = digits.replace(mark, "") if thousands else digits.replace(mark, ".")
    return float(digits)


def _markdown(html: str) -> str:
    text: str = markdownify.markdownify(
        html, heading_style=markdownify.ATX, bullets="-", code_language_callback=_language, table_infer_header=True
    )
    lines = [line.rstrip() for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _language(pre: Any) -> str:
    code = pre.find("code")
    names = [] if code is None else code.get("class") or []
    return next((name.removeprefix("language-") for name in names if name.startswith("language-")), "")
