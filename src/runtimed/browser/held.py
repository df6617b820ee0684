"""Reads the content of fields, and compares it: as requested, reformatted by the page, or another text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import msgspec
from playwright.async_api import Error as PlaywrightError

from runtimed.browser.doing import NoEffect

if TYPE_CHECKING:
    from playwright.async_api import Locator, Playwright

__all__ = ["BOXES", "FIELD", "HIDE", "TYPED", "Held", "letters", "look", "other", "outcome", "register"]

_MOST_ADDED: Final = 6
"""Letters and digits that a page's own format may add: a country's code, a unit, decimal places."""

# Pictures of the page, and who watches it, must not show it either. An editor's text is read as it is rendered, so that
# dots would be what the page saves.
HIDE: Final = """if (!field.matches('input, textarea')) field.style.opacity = '0';
    else if (field.type !== 'password') field.style.webkitTextSecurity = 'disc';"""

FIELD: Final = """const field = element.matches('input, textarea, select') || element.isContentEditable
    ? element : element.closest('label')?.control ?? element;"""

# The boxes of a code have one character each, and the page moves from one to the next.
BOXES: Final = """const boxes = [...(field.form ?? field.getRootNode()).querySelectorAll('input[maxlength="1"]')];"""

TYPED: Final = ("text", "search", "email", "url", "tel", "password", "number", "textarea")
"""Types of fields into which people type characters; the others are set."""

_ENGINE: Final = "runtimed-field"

# `SELECTOR >> runtimed-field=note >> internal:or="runtimed-field=look LENGTH WORDS"` gives an element whose text is the
# answer in JSON, in one question that waits for nothing and that runs in the world of Playwright's own scripts.
_SCRIPT: Final = f"""(() => {{
  const typed = {json.dumps(TYPED)};
  let noted = [];
  const is_visible = field => {{
    const {{ width, height }} = field.getBoundingClientRect();
    return width > 0 && height > 0 && field.checkVisibility({{ visibilityProperty: true }});
  }};
  const is_refused = field => {{
    if (field.readOnly || field.matches(':disabled')) return true;
    for (let node = field; node; node = node.parentNode ?? node.host)
      if (node.matches?.('[aria-disabled], [inert]')) return true;
    return false;
  }};
  const take = field => {{
    if (!field.matches('input, textarea') || !typed.includes(field.type) || window !== window.top) return false;
    if (!is_visible(field) || is_refused(field)) return false;
    field.select();
    field.focus();
    return field.isConnected && field.getRootNode().activeElement === field;
  }};
  const look = (element, length, secret, write) => {{
    {FIELD}
    {BOXES}
    const several = length > 1, these = boxes.slice(boxes.indexOf(field)).slice(0, length);
    if (secret) {{ {HIDE} }}
    const boxed = several && field.maxLength === 1;
    const answer = {{
      kind: field.isContentEditable ? 'contenteditable' : String(field.type ?? ''),
      value: field.isContentEditable ? field.innerText : typeof field.value !== 'string' ? null
        : boxed ? these.map(box => box.value).join('') : field.value,
      most: field.maxLength > 0 ? field.maxLength : null,
      locked: field.readOnly ? 'read-only' : field.matches(':disabled') ? 'disabled' : '',
      focused: field === field.getRootNode().activeElement,
      around: typeof field.value !== 'string' || field.selectionStart == null || boxed ? null
        : [field.value.slice(0, field.selectionStart), field.value.slice(field.selectionEnd)],
    }};
    return {{ ...answer, taken: write && !boxed && take(field) }};
  }};
  return {{ queryAll(root, body) {{
    const [verb, length, ...words] = body.split(' ');
    if (verb === 'note') {{
      if (noted.push(root) === 1) queueMicrotask(() => {{ noted = []; }});
      return [];
    }}
    const told = noted.length === 1
      ? look(noted[0], Number(length), words.includes('secret'), words.includes('write')) : {{}};
    const answer = document.createElement('data');
    answer.textContent = JSON.stringify({{ ...told, count: noted.length }});
    return [answer];
  }} }};
}})()"""

_MEANT: Final = """([field, ...others], [kind, text]) => others.length || !field ? ''
  : Object.assign(field.ownerDocument.createElement('input'), { type: kind, value: text }).value"""

_FORMS: Final = {
    "color": "a colour such as #ff8800",
    "date": "a date such as 2026-11-29",
    "datetime-local": "a date and a time such as 2026-11-29T12:30",
    "month": "a month such as 2026-11",
    "number": "a number such as 12.5",
    "range": "a number between its ends, in its steps",
    "time": "a time such as 12:30",
    "week": "a week such as 2026-W48",
}
"""Characters that a field of a type takes. Source: HTML, 4.10.5.1 "States of the type attribute"."""


_MOMENTS: Final = frozenset({"date", "datetime-local", "month", "time", "week"})
"""Types of fields that may reformat a text."""


class Held(msgspec.Struct, frozen=True):
    """The content of a field.

    Attributes:
        count: Number of elements; the rest is known for exactly one.
        kind: Its `type`, or `contenteditable`; empty if it is no field.
        value: None if it is no field.
        most: Its `maxlength`.
        locked: Why nobody can write there, if so.
        focused: Whether it has the focus.
        around: The text before and behind its caret or selection; None if unknown.
        taken: Whether typed text replaces its content.
    """

    count: int = 0
    kind: str = ""
    value: str | None = None
    most: int | None = None
    locked: str = ""
    focused: bool = False
    around: tuple[str, str] | None = None
    taken: bool = False


async def register(playwright: Playwright) -> None:
    """Register the engine that reads fields with a connected driver."""
    await playwright.selectors.register(_ENGINE, _SCRIPT, content_script=True)


async def look(found: Locator, text: str = "", *, secret: bool = False, write: bool = False) -> Held:
    """Return the content of a field; only their number if there is no such field, or several.

    It exists or is gone, so nothing waits for it.

    Args:
        found: The field.
        text: What it is to contain, alone or with the fields that follow it if each has one character.
        secret: Whether pictures must not show what is written there.
        write: Whether to focus it and select all its content, if it can be written at once.
    """
    words = [str(len(text)), *(["secret"] if secret else []), *(["write"] if write else [])]
    asked = json.dumps(f"{_ENGINE}=look {' '.join(words)}")
    answer = await found.locator(f"{_ENGINE}=note >> internal:or={asked}").text_content()
    return msgspec.json.decode(answer or "{}", type=Held)


async def outcome(
    found: Locator, wanted: str, before: Held, *, secret: bool, kept: bool = False, within: bool = False
) -> str | None:
    """Return how a field took a text: empty for unchanged, a remark if reformatted, None for another text.

    Args:
        found: The field.
        wanted: What it should contain.
        before: What it contained.
        secret: Whether its content must not be told.
        kept: Whether its earlier content may still be there.
        within: Whether it may contain more.
    """
    meant = ""
    try:
        held = await look(found, wanted)
        if held.kind in _MOMENTS and held.value != wanted:
            meant = await found.evaluate_all(_MEANT, [held.kind, wanted])
    except PlaywrightError:  # it has led to another page
        held = Held()
    if not held.kind and before.kind:
        return "; the field is not there any more"
    value = held.value
    if value is None or _same(value, wanted, held.kind) or (within and wanted in value) or value == (meant or None):
        return ""
    added = None if held.kind in _FORMS else _added(value, wanted)
    if within and added is None and letters(wanted):
        added = "" if letters(wanted) in letters(value) else None
    if added is None or (added and not kept and added == letters(before.value or "")):
        return None
    return "; the page has put it in its own form" if secret else f"; the page has made {value!r} of it"


def _same(value: str, wanted: str, kind: str) -> bool:
    if kind == "contenteditable":
        return value.split() == wanted.split()
    if kind == "color":
        return value.lower() == wanted.lower()
    if kind in ("number", "range"):
        try:
            return float(value) == float(wanted)
        except ValueError:
            return value == wanted
    lines = wanted.replace("\r\n", "\n").replace("\r", "\n")
    if value == lines:
        return True
    return kind not in ("textarea", "text", "password") and value == lines.strip()


def _added(value: str, wanted: str) -> str | None:
    """Return the letters and digits that a page added when it reformatted a text; None if it is another text.

    A mask puts its own characters between those of the text. Additions stand apart (`12.00 kg`, `1 (555) 123`), except
    a country's code behind a plus. A character that touches the text was there before, or came twice.
    """
    places = [index for index, character in enumerate(value) for _ in letters(character)]
    given, asked = letters(value), letters(wanted)
    if not asked or len(places) != len(given):
        return None
    begin = given.find(asked)
    while begin >= 0:
        end = begin + len(asked)
        code = value.lstrip().startswith("+") and begin <= 3
        apart = begin == 0 or code or places[begin] - places[begin - 1] > 1
        added = given[:begin] + given[end:]
        if (
            apart
            and (end == len(given) or places[end] - places[end - 1] > 1)
            and len(added) <= _MOST_ADDED
            and (code or asked not in added)
        ):
            return added
        begin = given.find(asked, begin + 1)
    return None


def letters(text: str) -> str:
    """Return the characters of a text that count if a page reformats it."""
    return "".join(character for character in text.casefold() if character.isalnum())


async def other(
    found: Locator, what: str, done: str, before: Held, text: str = "", *, secret: bool = False
) -> NoEffect:
    """Return the error for a field that contains something else than the written text."""
    now = await look(found, text)
    if now.locked:
        return NoEffect(f"{what} is {now.locked}", error="Refused")
    held = now.value or ""
    if not held and before.kind in _FORMS and done == "filled in":
        return NoEffect(f"{what} holds nothing of that: it takes {_FORMS[before.kind]}", error="Refused")
    holds = f"{len(held)} characters" if secret else repr(held)
    why = f": it takes at most {before.most} characters" if before.most is not None and len(held) == before.most else ""
    if before.kind in _MOMENTS and done == "typed":
        why = f": its keys are those of the browser's own field; fill takes {_FORMS[before.kind]}"
    return NoEffect(f"{what} was {done}, and holds {holds}{why}", error="Refused")
