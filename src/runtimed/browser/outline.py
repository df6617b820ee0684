"""The outline of a page as text: read from Playwright's snapshot, numbered anew, cut, filtered, compared.

Pure functions over lines; nothing here talks to a browser.

Source: the format is that of Playwright's `aria_snapshot(mode="ai")`: YAML of which each line is
`- role "name" [attribute] [ref=e5]: text`, the part before the colon in single quotes where YAML needs that.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from runtimed.pages import Element

__all__ = [
    "INTERACTIVE",
    "REF",
    "REF_SHOWN",
    "Known",
    "Line",
    "Part",
    "at_most",
    "difference",
    "elements",
    "frames",
    "interactive",
    "masked",
    "nearest",
    "number_of",
    "parts",
    "read_outline",
    "shallow",
    "subtree",
    "text_of",
]

REF: Final = re.compile(r"(d\d+)(e\d+)")
"""A ref: the number of a document, which is never given to another one, and that of an element in it."""

REF_SHOWN: Final = re.compile(r"\[ref=(d\d+e\d+)\]")
"""A ref as an outline shows it."""

INTERACTIVE: Final = frozenset({
    "button", "checkbox", "combobox", "gridcell", "link", "listbox", "menuitem", "menuitemcheckbox", "menuitemradio",
    "option", "radio", "scrollbar", "searchbox", "slider", "spinbutton", "switch", "tab", "textbox", "treeitem",
})  # fmt: skip
"""Roles of what people operate. Source: WAI-ARIA 1.2, 5.3.2 "Widget Roles"."""

_LISTS: Final = frozenset({"combobox", "listbox"})

_LINE: Final = re.compile(
    r"( *)- ('?)([a-z]+)(?: (\"(?:[^\"\\]|\\.)*\"))?((?: \[(?!ref=)[^\]]*\])*)(?: \[ref=((f\d+)?e\d+)\])?"
    r"((?: \[[^\]]*\])*)\2(?::(?: (.*))?)?$"
)
_HIDDEN: Final = "•••"
_SHOWN_OPTIONS: Final = 20
"""Options of a closed list that are shown among what people operate."""
_LONG_SUMMARY: Final = 80
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

    @property
    def plain_value(self) -> str:
        """The text behind the colon without the quotes that YAML may need."""
        if self.value.startswith('"'):
            with contextlib.suppress(ValueError):
                text: str = json.loads(self.value, strict=False)
                return text
        return self.value


class Known(msgspec.Struct, frozen=True, gc=False):
    """What a page tells of an element beside its line.

    Attributes:
        selector: Finds it, and nothing else, in its frame; None if nothing does.
        name: What a screen reader calls it, also where the outline leaves it to the lines below.
        acting: Whether it can be focused, edited or clicked, whatever its role.
        password: Whether it is a field for one.
    """

    selector: str | None = None
    name: str = ""
    acting: bool = False
    password: bool = False


class Part(msgspec.Struct, frozen=True):
    """What an outline shows of one frame.

    Attributes:
        owner: The ref of the iframe that holds it; None for the outermost.
        lines: Those of the frame itself.
    """

    owner: str | None
    lines: list[Line]


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


def interactive(lines: Sequence[Line], known: Mapping[str, Known]) -> list[Line]:
    """Return what people operate, flat and in as few words as name it; below a list its options."""
    found = []
    for index, line in enumerate(lines):
        if line.ref is None:
            continue
        told = known.get(line.ref, Known())
        if line.role not in INTERACTIVE and not line.pointer and not told.acting:
            continue
        text = line.text.replace(" [cursor=pointer]", "").removesuffix(":")
        if not line.name:
            below = told.name or ("" if line.value or line.role in _LISTS else _summary(lines, index))
            if not below and line.role == "generic" and not line.value and not told.acting:
                continue
            text = f"{text}: {below}" if below else text
        found.append(msgspec.structs.replace(line, level=0, text=text))
        if line.role in _LISTS:
            found += _options(lines, index)
    return found


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


def parts(lines: Sequence[Line]) -> list[Part]:
    """Return what an outline shows of each frame, the outermost first and each behind the one that holds it."""
    found = [Part(None, [])]
    inside: list[tuple[int, Part]] = []
    for line in lines:
        while inside and inside[-1][0] >= line.level:
            inside.pop()
        (inside[-1][1] if inside else found[0]).lines.append(line)
        if line.role == "iframe" and line.ref is not None:
            found.append(Part(line.ref, []))
            inside.append((line.level, found[-1]))
    return found


def elements(lines: Sequence[Line], known: Mapping[str, Known]) -> dict[str, Element]:
    """Return the elements of an outline that have a ref and mean something by themselves, by their refs."""
    found = {}
    for line in lines:
        if line.ref is None or not line.role:
            continue
        told = known.get(line.ref, Known())
        if line.role == "generic" and not line.pointer and not told.acting:
            continue
        name = line.name or told.name or (line.plain_value if line.role == "generic" else "")
        found[line.ref] = Element(line.ref, line.role, name, told.selector)
    return found


def masked(lines: Sequence[Line], known: Mapping[str, Known], unseen: Collection[str]) -> list[Line]:
    """Return the lines without what password fields hold.

    Args:
        lines: The lines.
        known: Says which elements are such fields.
        unseen: Values of such fields that have no ref.
    """
    shown = []
    field: Line | None = None
    for line in lines:
        if field is not None and line.level <= field.level:
            field = None
        if line.role == "textbox" and (bool(unseen) if line.ref is None else known.get(line.ref, Known()).password):
            field = line
        # The value stands behind the field, or below it, where a placeholder stands, too.
        holds = line is field or (field is not None and line.role == "text")
        if field is not None and holds and line.value and (field.ref is not None or line.plain_value in unseen):
            line = msgspec.structs.replace(  # noqa: PLW2901  # what is shown of it
                line, text=f"{line.text.removesuffix(line.value)}{_HIDDEN}", value=_HIDDEN
            )
        shown.append(line)
    return shown


def number_of(ref: str) -> int:
    """Return the number of an element in its document."""
    return int(ref.rpartition("e")[2])


def nearest(role: str, name: str, lines: Sequence[Line]) -> Line | None:
    """Return the element that resembles one which is gone the most; None if nothing does."""
    best, score = None, 0.5
    for line in lines:
        if line.ref is None:
            continue
        match = difflib.SequenceMatcher(None, name, line.name)
        # Most lines are nothing like it, which is seen at a glance.
        if (name or line.name) and min(match.real_quick_ratio(), match.quick_ratio()) * 0.8 + 0.2 <= score:
            continue
        likeness = match.ratio() if name or line.name else 1.0
        likeness = likeness * 0.8 + (0.2 if line.role == role else 0.0)
        if line.role == "generic" and role != "generic":
            continue
        if likeness > score:
            best, score = line, likeness
            if likeness == 1.0:
                break
    return best


def _summary(lines: Sequence[Line], index: int) -> str:
    """Return the first words of what is in an element, or else where it leads."""
    words: list[str] = []
    address = ""
    for line in lines[index + 1 :]:
        if line.level <= lines[index].level or sum(map(len, words)) > _LONG_SUMMARY:
            break
        if line.role:
            words += [text for text in (line.name, line.plain_value) if text]
        elif line.level == lines[index].level + 1 and line.text.startswith("- /url: "):
            address = line.text.removeprefix("- /url: ")
    text = " ".join(dict.fromkeys(words)) or address
    return text if len(text) <= _LONG_SUMMARY else f"{text[:_LONG_SUMMARY]}…"


def _options(lines: Sequence[Line], index: int) -> list[Line]:
    """Return the options of a closed list: they have no refs, and are chosen by `select_option`."""
    below = []
    for line in lines[index + 1 :]:
        if line.level <= lines[index].level:
            break
        if line.role == "option" and line.ref is None:
            below.append(msgspec.structs.replace(line, level=1))
    if len(below) > _SHOWN_OPTIONS:
        more = len(below) - _SHOWN_OPTIONS
        chosen = [line for line in below[_SHOWN_OPTIONS:] if "[selected]" in line.text]
        below = [*below[:_SHOWN_OPTIONS], *chosen, Line(1, f"- text: … {more} more options")]
    return below


def _around(lines: Sequence[Line], index: int) -> Line | None:
    level = lines[index].level if index < len(lines) else (lines[-1].level if lines else 0)
    return next((line for line in reversed(lines[:index]) if line.level < level and line.role), None)


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
