"""What a page says as Markdown, without any model."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

import markdownify

from runtimed.errors import BrowserError

if TYPE_CHECKING:
    from playwright.async_api import Page

__all__ = ["scrape_markdown"]

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
