"""Runs functions in pages, in the isolated world of Playwright's own scripts.

In its own world a page may replace or remove built-ins such as `eval`, `Array.prototype.map` or `JSON`. In the isolated
one it can change only the document. Only functions that were registered before can be called there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, Frame, Locator, Playwright

__all__ = ["ask", "ask_all", "ask_of", "frame_of", "register", "selector"]

_ENGINE: Final = "runtimed-ask"

_PATIENCE: Final = 1.0
"""Seconds within which a frame must say whether an element is in it."""

_FUNCTIONS: Final = {
    "mark": "(element, key, kept) => { kept.set(key, true); }",
    "isMarked": "(root, key, kept) => kept.delete(key)",
}

# `SELECTOR >> runtimed-ask=one NAME ARGUMENT` gives an element whose text is the answer in JSON, and `find` in place of
# `one` the elements that the function gives. `SELECTOR >> runtimed-ask=note` finds nothing, and `all` answers for what
# was noted since.
_SCRIPT: Final = """(() => {
  const functions = {FUNCTIONS}, kept = new Map();
  let noted = [];
  const sound = (key, value) => typeof value === 'string' ? value.toWellFormed() : value;
  const told = (root, given) => {
    const answer = (root.ownerDocument ?? root).createElement('data');
    answer.textContent = JSON.stringify(given ?? null, sound);
    return [answer];
  };
  return { queryAll(root, body) {
    const [, verb, name, argument] = /^(\\w+) ?(\\w*) ?(.*)$/s.exec(body);
    if (verb === 'note') {
      if (noted.push(root) === 1) queueMicrotask(() => { noted = []; });
      return [];
    }
    const given = functions[name](verb === 'all' ? noted : root, JSON.parse(argument), kept);
    return verb === 'find' ? given : told(root, given);
  } };
})()"""


async def register(playwright: Playwright, functions: Mapping[str, str]) -> None:
    """Register functions with a connected driver, which passes them to the existing contexts.

    Args:
        playwright: The driver.
        functions: Name → JavaScript code. Each is called with an element, an argument, and a `Map` that keeps data for
            later calls on the same document.
    """
    named = ",\n".join(f"{name}: {code}" for name, code in {**_FUNCTIONS, **functions}.items())
    script = _SCRIPT.replace("{FUNCTIONS}", f"{{ {named} }}")
    await playwright.selectors.register(_ENGINE, script, content_script=True)


async def ask(found: Locator | Frame, name: str, argument: object = None, *, limit: float | None = None) -> Any:
    """Call a function with an element; return its value, as JSON carries it.

    Args:
        found: The element, which is awaited; for a frame its document, which may have none.
        name: The function.
        argument: A further argument, as JSON carries it.
        limit: Milliseconds; None for Playwright's own limit, 0 for none.

    Raises:
        PlaywrightError: If there are several such elements, or none in time, or the function fails.
    """
    told = await found.locator(selector("one", name, argument)).text_content(timeout=limit)
    return msgspec.json.decode(told or "null")


async def ask_all(found: Locator, name: str, argument: object = None, *, limit: float | None = None) -> Any:
    """Call a function with the list of all elements that a locator finds now; see `ask`."""
    every = json.dumps(selector("all", name, argument), ensure_ascii=False)
    look = found.locator(f"{_ENGINE}=note").locator(f"internal:or={every}")
    return msgspec.json.decode(await look.text_content(timeout=limit) or "null")


async def ask_of(element: ElementHandle, name: str, argument: object = None) -> Any:
    """Call a function with an element handle; see `ask`."""
    answer = await element.query_selector(selector("one", name, argument))
    return None if answer is None else msgspec.json.decode(await answer.text_content() or "null")


async def frame_of(found: Locator, limit: float | None = None) -> Frame:
    """Return the frame of an element, which is awaited as in `ask`."""
    frames, key = found.page.frames, secrets.token_hex(8)
    await ask(found, "mark", key, limit=limit)
    marked = await asyncio.gather(*(_is_marked(frame, key) for frame in frames))
    return next((frame for frame, is_it in zip(frames, marked, strict=True) if is_it), found.page.main_frame)


async def _is_marked(frame: Frame, key: str) -> bool:
    with contextlib.suppress(PlaywrightError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            return await ask(frame.locator(":root"), "isMarked", key) is True
    return False


def selector(verb: str, name: str, argument: object = None) -> str:
    """Return the selector that calls a function.

    With the verb `find` it finds the elements that the function returns.
    """
    return f"{_ENGINE}={verb} {name} {json.dumps(argument, ensure_ascii=False)}"
