"""The outline of a page as text: read from Playwright's snapshot, numbered anew, cut, filtered, compared.

Pure functions over lines; nothing here talks to a browser.

Source: the format is that of Playwright's `aria_snapshot(mode="ai")`: YAML of which each line is
`- role "name" [attribute] [ref=e5]: text`, the part before the colon in single quotes where YAML needs that.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from runtimed.pages import Element

__all__ = [
    "REF",
    "Line",
    "at_most",
    "difference",
    "elements",
    "frames",
    "interactive",
    "nearest",
    "read_outline",
    "shallow",
    "subtree",
    "text_of",
]

REF: Final = re.compile(r"(d\d+)(e\d+)")
"""A ref: the number of a document, which is never given to another one, and that of an element in it."""

INTERACTIVE: Final = frozenset({
    "button", "checkbox", "combobox", "gridcell", "link", "listbox", "menuitem", "menuitemcheckbox", "menuitemradio",
    "option", "radio", "scrollbar", "searchbox", "slider", "spinbutton", "switch", "tab", "textbox", "treeitem",
})  # fmt: skip
"""Roles of what people operate. Source: WAI-ARIA 1.2, 5.3.2 "Widget Roles"."""

_LINE: Final = re.compile(
    r"( *)- ('?)([a-z]+)(?: (\"(?:[^\"\\]|\\.)*\"))?((?: \[[^\]]*\])*)\2(?=:|$)(?::(?: (.*))?)?$", re.DOTALL
)
_REF: Final = re.compile(r"\[ref=((?:f\d+)?)(e\d+)\]")
_ENTER_FRAME: Final = " >> internal:control=enter-frame >> "
_STEP: Final = 2
"""Spaces by which a child is indented."""


class Line(msgspec.Struct, frozen=True):
    """A line of an outline.

    Attributes:
        level: 0 for the outermost.
        text: What it shows, without its indentation.
        role: Empty for a property of the element above.
        name: Empty if it has none.
        value: The text behind the colon.
        ref: As clients see it; None if it has none.
        pointer: Whether the pointer says that it can be clicked.
    """

    level: int
    text: str
    role: str = ""
    name: str = ""
    value: str = ""
    ref: str | None = None
    pointer: bool = False


def read_outline(snapshot: str, number: Callable[[str], str]) -> list[Line]:
    """Read a snapshot.

    Args:
        snapshot: Playwright's text.
        number: Gives for the prefix of a frame (`f3`, empty for the main frame) that of its document in our refs.
    """
    lines = []
    for raw in snapshot.split("\n"):
        match = _LINE.match(raw)
        if match is None:
            if raw.strip():
                lines.append(Line((len(raw) - len(raw.lstrip())) // _STEP, raw.lstrip()))
            continue
        indent, quote, role, name, attributes, value = match.groups()
        ref = None
        text = raw[len(indent) :]
        found = _REF.search(attributes) if attributes else None
        if found is not None:
            ref = f"{number(found[1])}{found[2]}"
            at = match.start(5) - len(indent)
            ending = at + len(attributes)
            text = f"{text[:at]}{_REF.sub(f'[ref={ref}]', attributes)}{text[ending:]}"
        lines.append(
            Line(
                len(indent) // _STEP,
                text,
                role,
                _name(name, quoted=bool(quote)),
                value or "",
                ref,
                pointer="[cursor=pointer]" in attributes,
            )
        )
    return lines


def frames(snapshot: str) -> Iterator[tuple[str, str]]:
    """Give the prefix of each frame in a snapshot with Playwright's ref of the iframe element that holds it."""
    owners: list[tuple[int, str]] = []
    seen = set()
    for raw in snapshot.split("\n"):
        match = _LINE.match(raw)
        if match is None:
            continue
        found = _REF.search(match[5])
        level = len(match[1])
        while owners and owners[-1][0] >= level:
            owners.pop()
        if found is None:
            continue
        if found[1] and found[1] not in seen and owners:
            seen.add(found[1])
            yield found[1], owners[-1][1]
        if match[3] == "iframe":
            owners.append((level, found[1] + found[2]))


def text_of(lines: Sequence[Line]) -> str:
    """Return the text of an outline, the outermost line without indentation."""
    least = min((line.level for line in lines), default=0)
    return "\n".join(" " * _STEP * (line.level - least) + line.text for line in lines)


def subtree(lines: Sequence[Line], ref: str) -> list[Line] | None:
    """Return an element with all that is in it, None if it is not there."""
    start = next((index for index, line in enumerate(lines) if line.ref == ref), None)
    if start is None:
        return None
    level = lines[start].level
    end = next((index for index in range(start + 1, len(lines)) if lines[index].level <= level), len(lines))
    return list(lines[start:end])


def shallow(lines: Sequence[Line], depth: int) -> list[Line]:
    """Return the lines down to a depth: 1 leaves the outermost ones."""
    least = min((line.level for line in lines), default=0)
    return [line for line in lines if line.level - least < depth]


def interactive(lines: Sequence[Line]) -> list[Line]:
    """Return what people operate, flat and in as few words as name it."""
    return [
        msgspec.structs.replace(line, level=0, text=line.text.replace(" [cursor=pointer]", "").rstrip(":"))
        for line in lines
        if line.ref is not None
        and (line.role in INTERACTIVE or (line.pointer and (line.role != "generic" or line.value)))
    ]


def at_most(text: str, limit: int | None) -> tuple[str, int]:
    """Cut a text behind a line so that it has at most so many characters; return it and how many are left out."""
    if limit is None or len(text) <= limit:
        return text, 0
    end = text.rfind("\n", 0, limit + 1)
    kept = text[: end if end > 0 else limit]
    return kept, len(text) - len(kept)


def difference(before: Sequence[Line], now: Sequence[Line]) -> str:
    """Return what is different: lines that came begin with `+`, lines that went with `-`.

    Above each group, behind `@`, stands the nearest element around it.
    """
    first, second = ([f"{' ' * _STEP * line.level}{line.text}" for line in lines] for lines in (before, now))
    start = 0
    while start < min(len(first), len(second)) and first[start] == second[start]:
        start += 1
    end = 0
    while end < min(len(first), len(second)) - start and first[-1 - end] == second[-1 - end]:
        end += 1
    middle = difflib.SequenceMatcher(None, first[start : len(first) - end], second[start : len(second) - end])
    shown = []
    for what, old, old_end, new, new_end in middle.get_opcodes():
        if what == "equal":
            continue
        around = _around(now, start + new)
        if around is not None:
            shown.append(f"@ {around.text.rstrip(':')}")
        shown += [f"- {text}" for text in first[start + old : start + old_end]]
        shown += [f"+ {text}" for text in second[start + new : start + new_end]]
    return "\n".join(shown)


def elements(lines: Sequence[Line], every: Sequence[Line] | None = None) -> tuple[Element, ...]:
    """Return the elements of some lines that have a ref and mean something by themselves.

    Args:
        lines: Whose elements.
        every: The whole outline that they are part of: their selectors count what is the same in it.
    """
    wanted = {line.ref for line in lines if line.ref is not None}
    whole = lines if every is None else every
    hidden = _hidden(whole)
    within: list[tuple[int, str]] = []  # the iframes around a line: level, selector with which to enter
    counts: Counter[tuple[str, str, str]] = Counter()
    places: dict[int, int] = {}
    around: list[str] = []
    for index, line in enumerate(whole):
        while within and within[-1][0] >= line.level:
            within.pop()
        prefix = within[-1][1] if within else ""
        around.append(prefix)
        key = (prefix, line.role, line.name)
        if line.role:
            places[index] = counts[key]
            counts[key] += index not in hidden
        if line.role == "iframe":
            within.append((line.level, f"{prefix}iframe:visible >> nth={places[index]}{_ENTER_FRAME}"))
    found = []
    for index, line in enumerate(whole):
        if line.ref is None or line.ref not in wanted:
            continue
        selector = _selector(line, places[index], counts[around[index], line.role, line.name])
        if line.role == "generic" and selector is None:
            continue
        found.append(
            Element(
                ref=line.ref,
                role=line.role,
                name=line.name or (_plain(line.value) if line.role == "generic" else ""),
                selector=None if selector is None else around[index] + selector,
            )
        )
    return tuple(found)


def nearest(role: str, name: str, lines: Sequence[Line]) -> Line | None:
    """Return the element that resembles one which is gone the most; None if nothing does."""
    best, score = None, 0.5
    for line in lines:
        if line.ref is None:
            continue
        likeness = difflib.SequenceMatcher(None, name, line.name).ratio() if name or line.name else 1.0
        likeness = likeness * 0.8 + (0.2 if line.role == role else 0.0)
        if line.role == "generic" and role != "generic":
            continue
        if likeness > score:
            best, score = line, likeness
            if likeness == 1.0:
                break
    return best


def _hidden(lines: Sequence[Line]) -> set[int]:
    """Return the lines that a screen reader passes over, and so does a selector by role."""
    found: set[int] = set()
    for index, line in enumerate(lines):
        if line.role or not line.text.startswith("- /aria-hidden"):
            continue
        start = next(at for at in range(index - 1, -1, -1) if lines[at].level < line.level)
        level = lines[start].level
        end = next((at for at in range(index, len(lines)) if lines[at].level <= level), len(lines))
        found.update(range(start, end))
    return found


def _selector(line: Line, place: int, count: int) -> str | None:
    if line.role == "generic":
        text = _plain(line.value)
        return f"text={json.dumps(text, ensure_ascii=False)}" if text and line.pointer else None
    if line.role == "iframe":
        return f"iframe:visible >> nth={place}"
    named = f"role={line.role}[name={json.dumps(line.name, ensure_ascii=False)}]" if line.name else f"role={line.role}"
    return named if count == 1 and line.name else f"{named} >> nth={place}"


def _around(lines: Sequence[Line], index: int) -> Line | None:
    level = lines[index].level if index < len(lines) else (lines[-1].level if lines else 0)
    return next((line for line in reversed(lines[:index]) if line.level < level and line.role), None)


def _name(quoted_name: str | None, *, quoted: bool) -> str:
    if quoted_name is None:
        return ""
    if quoted:
        quoted_name = quoted_name.replace("''", "'")
    try:
        name: str = json.loads(quoted_name, strict=False)
    except ValueError:
        return quoted_name[1:-1]
    return name


def _plain(value: str) -> str:
    if value.startswith('"'):
        try:
            text: str = json.loads(value, strict=False)
        except ValueError:
            return value
        return text
    return value
