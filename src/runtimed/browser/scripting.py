"""Runs code in a page, and returns its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from runtimed.browser.doing import Refused

if TYPE_CHECKING:
    from playwright.async_api import Page

__all__ = ["evaluate"]

_MAX_DATA: Final = 8 * 2**20
"""Largest value that a page may return, in encoded bytes."""

# An expression first: so an object's braces are no block, and `await` needs no function around it. Syntax errors of the
# two kinds come before anything ran.
_RUN: Final = """async code => {
  const Async = (async () => {}).constructor, everywhere = eval;
  let run;
  try {
    run = new Async(`return (${code}\\n)`);
  } catch { /* no expression */ }
  let value;
  try {
    value = run ? await run() : await everywhere(code);
  } catch (error) {
    const early = error instanceof SyntaxError && /^Illegal return|^await is only valid/.test(error.message);
    if (run || !early) throw error;
    value = await new Async(code)();
  }
  if (typeof value === 'function') value = await value();

  const known = new Map();
  const brief = text => text.length > 300 ? text.slice(0, 300) + '\\u2026' : text;
  const plain = item => {
    if (typeof item === 'symbol' || typeof item === 'function') return brief(String(item));
    if (typeof item !== 'object' || item === null) return item;
    if (item === window || item instanceof Window) return '[object Window]';
    if (item instanceof Document) return `#document ${item.URL}`;
    if (item instanceof Element) return brief(item.outerHTML);
    if (item instanceof Error || item instanceof RegExp || item instanceof URL) return brief(String(item));
    if (item instanceof Node) return brief(item.nodeValue ?? item.nodeName);
    if (item instanceof NodeList || item instanceof HTMLCollection) item = [...item];
    const prototype = Object.getPrototypeOf(item);
    const several = Array.isArray(item);
    if (!several && prototype !== null && prototype !== Object.prototype) return item;
    if (known.has(item)) return known.get(item);
    const copy = several ? [] : {};
    known.set(item, copy);
    for (const key of Object.keys(item)) {
      try {
        copy[key] = plain(item[key]);
      } catch { /* a getter that fails */ }
    }
    return copy;
  };
  return plain(value);
}"""


async def evaluate(page: Page, code: str) -> Any:
    """Run code in a page: an expression, a function, or statements; return its value in a form that can be encoded.

    Raises:
        Refused: If the value has no such form, or is too large.
    """
    value = await page.evaluate(_RUN, code)
    try:
        plain = msgspec.to_builtins(value)
        size = len(msgspec.msgpack.encode(plain))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise Refused(f"The value cannot be given back: {exc}", error="Refused") from exc
    if size > _MAX_DATA:
        raise Refused(f"The value has {size} bytes, more than the {_MAX_DATA} that are allowed", error="Refused")
    return plain
