"""The outline of a page as text: read from Playwright's snapshot, numbered anew, cut, filtered, compared.

Pure functions over lines; nothing here talks to a browser.

Source: the format is that of Playwright's `aria_snapshot(mode="ai")`: YAML of which each line is
`- role "name" [attribute] [ref=e5]: text`, the part before the colon in single quotes where YAML needs that.
"""

from __future__ import annotations

import difflib
import json
import re
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
    r"( *)- ('?)([a-z]+)(?: (\"(?:[^\"\\]|\\.)*\"))?((?: \[(?!ref=)[^\]]*\])*)(?: \[ref=((f\d+)?e\d+)\])?"
    r"((?: \[[^\]]*\])*)\2(?::(?: (.*))?)?$"
)
_ENTER_FRAME: Final = " >> internal:control=enter-frame >> "
_STEP: Final = 2
"""Spaces by which a child is indented."""


class Line(msgspec.Struct, frozen=True, gc=False):
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
    numbers: dict[str | None, str] = {}
    for raw in snapshot.split("\n"):
        match = _LINE.match(raw)
        if match is None:
            if raw.strip():
                lines.append(Line((len(raw) - len(raw.lstrip())) // _STEP, raw.lstrip()))
            continue
        indent, quote, role, name, _, ref, prefix, attributes, value = match.groups()
        text = raw[len(indent) :]
        if ref is not None:
            if prefix not in numbers:
                numbers[prefix] = number(prefix or "")
            start, end = match.span(6)
            ref = numbers[prefix] + ref[len(prefix or "") :]
            text = f"{raw[len(indent) : start]}{ref}{raw[end:]}"
        lines.append(
            Line(
                len(indent) // _STEP,
                text,
                role,
                "" if name is None else _name(name, quoted=bool(quote)),
                value or "",
                ref,
                attributes != "" and "[cursor=pointer]" in attributes,
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
        ref, prefix, level = match[6], match[7], len(match[1])
        while owners and owners[-1][0] >= level:
            owners.pop()
        if ref is None:
            continue
        if prefix and prefix not in seen and owners:
            seen.add(prefix)
            yield prefix, owners[-1][1]
        if match[3] == "iframe":
            owners.append((level, ref))


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


def elements(lines: Sequence[Line]) -> dict[str, Element]:
    """Return the elements of a whole outline that have a ref and mean something by themselves, by their refs."""
    hidden = _hidden(lines)
    within: list[tuple[int, str]] = []  # the iframes around a line: level, selector with which to enter
    counts: dict[tuple[str, str, str], int] = {}
    seen: list[tuple[Line, str, tuple[str, str, str], int]] = []
    for index, line in enumerate(lines):
        while within and within[-1][0] >= line.level:
            within.pop()
        if not line.role:
            continue
        prefix = within[-1][1] if within else ""
        # Without a name a selector finds all of the role, named ones too.
        key, every = (prefix, line.role, line.name), (prefix, line.role, "")
        place = counts.get(key, 0)
        if index not in hidden:
            counts[every] = counts.get(every, 0) + 1
            counts[key] = place + 1
        if line.ref is not None:
            seen.append((line, prefix, key, place))
        if line.role == "iframe":
            within.append((line.level, f"{prefix}iframe:visible >> nth={place}{_ENTER_FRAME}"))
    found = {}
    for line, prefix, key, place in seen:
        selector = _selector(line, place, counts.get(key, 0))
        if line.ref is not None and (selector is not None or line.role != "generic"):
            name = line.name or (_plain(line.value) if line.role == "generic" else "")
            found[line.ref] = Element(line.ref, line.role, name, None if selector is None else prefix + selector)
    return found


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
        return f"text={_quoted(text)}" if text and line.pointer else None
    if line.role == "iframe":
        return f"iframe:visible >> nth={place}"
    named = f"role={line.role}[name={_quoted(line.name)}]" if line.name else f"role={line.role}"
    return named if count == 1 and line.name else f"{named} >> nth={place}"


def _around(lines: Sequence[Line], index: int) -> Line | None:
    level = lines[index].level if index < len(lines) else (lines[-1].level if lines else 0)
    return next((line for line in reversed(lines[:index]) if line.level < level and line.role), None)


def _quoted(text: str) -> str:
    return f'"{text}"' if text.isprintable() and '"' not in text and "\\" not in text else json.dumps(text)


def _name(quoted_name: str, *, quoted: bool) -> str:
    if quoted:
        quoted_name = quoted_name.replace("''", "'")
    if "\\" not in quoted_name:
        return quoted_name[1:-1]
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
