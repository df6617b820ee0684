"""The outline of a page as text: read from Playwright's snapshot and numbered anew, with what its elements are.

Pure functions over lines; nothing here talks to a browser.

Source: the format is that of Playwright's `aria_snapshot(mode="ai")`: YAML of which each line is
`- role "name" [attribute] [ref=e5]: text`, the part before the colon in single quotes where YAML needs that.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from runtimed.actions import Place
from runtimed.pages import Element

__all__ = [
    "INTERACTIVE",
    "OWN",
    "REF",
    "REF_SHOWN",
    "STEP",
    "Known",
    "Line",
    "Part",
    "document_of",
    "elements",
    "frames",
    "masked",
    "number_of",
    "parts",
    "read_outline",
    "ref_in",
]

REF: Final = re.compile(r"(d\d+)(e\d+)")
"""A ref: the number of a document, which no other one ever gets, and that of an element in it.

The element's number begins with a zero where we assigned it, since Playwright assigns none.
"""

OWN: Final = 10**9
"""Lower bound of the numbers that we assign to elements."""

REF_SHOWN: Final = re.compile(r"\[ref=(d\d+e\d+)\]")
"""A ref as an outline shows it."""

INTERACTIVE: Final = frozenset({
    "button", "checkbox", "combobox", "gridcell", "link", "listbox", "menuitem", "menuitemcheckbox", "menuitemradio",
    "option", "radio", "scrollbar", "searchbox", "slider", "spinbutton", "switch", "tab", "textbox", "treeitem",
})  # fmt: skip
"""Roles of what people operate. Source: WAI-ARIA 1.2, 5.3.2 "Widget Roles"."""


_LINE: Final = re.compile(
    r"( *)- ('?)([a-z]+)(?: (\"(?:[^\"\\]|\\.)*\"))?((?: \[(?!ref=)[^\]]*\])*)(?: \[ref=((f\d+)?e\d+)\])?"
    r"((?: \[[^\]]*\])*)\2(?::(?: (.*))?)?$"
)
_HIDDEN: Final = "•••"
STEP: Final = 2
"""Spaces of one level of indentation."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """A line of an outline.

    Attributes:
        level: 0 for the outermost.
        text: Its text without indentation.
        role: Empty for a property of the element above.
        name: Empty if it has none.
        value: The text behind the colon.
        ref: As clients see it; None if it has none.
        pointer: Whether the mouse pointer marks it as clickable.
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
        """The text behind the colon, without YAML's quotes."""
        if self.value.startswith('"'):
            with contextlib.suppress(ValueError):
                text: str = json.loads(self.value, strict=False)
                return text
        return self.value


class Known(msgspec.Struct, frozen=True, gc=False):
    """What a page says of an element beside its line.

    Attributes:
        selector: Finds it, and nothing else, in its frame; None if nothing does.
        name: Its accessible name, also if the outline leaves it to the lines below.
        acting: Whether it can be focused, edited or clicked, whatever its role.
        password: Whether it is a password field.
        editable: Whether it is an editor.
        place: Its place among its twins, if it was asked for alone and its selector counts them.
    """

    selector: str | None = None
    name: str = ""
    acting: bool = False
    password: bool = False
    editable: bool = False
    place: Place | None = None


class Part(msgspec.Struct, frozen=True):
    """What an outline shows of one frame.

    Attributes:
        owner: The ref of its iframe; None for the outermost frame.
        lines: The lines of the frame itself.
    """

    owner: str | None
    lines: list[Line]


def read_outline(snapshot: str, number: Callable[[str], str]) -> list[Line]:
    """Read a snapshot.

    Args:
        snapshot: Playwright's text.
        number: Prefix of a frame (`f3`, empty for the main frame) → number of its document in our refs.
    """
    lines = []
    numbers: dict[str | None, str] = {}
    for raw in snapshot.split("\n"):
        match = _LINE.match(raw)
        if match is None:
            if raw.strip():
                lines.append(Line((len(raw) - len(raw.lstrip())) // STEP, raw.lstrip()))
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
                len(indent) // STEP,
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
    """Yield the prefix of each frame in a snapshot with Playwright's ref of its iframe."""
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


def parts(lines: Sequence[Line]) -> list[Part]:
    """Return what an outline shows of each frame, the outermost first and each behind the one that contains it."""
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
    """Return the elements of an outline that have a ref and a meaning of their own, by their refs."""
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
    """Return the lines without the content of password fields.

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
        # The value is behind the field, or below it, where a placeholder may be, too.
        holds = line is field or (field is not None and line.role == "text")
        if field is not None and holds and line.value and (field.ref is not None or line.plain_value in unseen):
            line = msgspec.structs.replace(  # noqa: PLW2901  # what is shown of it
                line, text=f"{line.text.removesuffix(line.value)}{_HIDDEN}", value=_HIDDEN
            )
        shown.append(line)
    return shown


def number_of(ref: str) -> int:
    """Return the number of an element in its document; those that we assigned are the large ones."""
    own = ref.rpartition("e")[2]
    return int(own) + (OWN if own.startswith("0") else 0)


def document_of(ref: str) -> str:
    """Return the document of an element."""
    return ref[: ref.index("e")]


def ref_in(document: str, number: int) -> str:
    """Return the ref of the element with a number in a document."""
    return f"{document}e{number}" if number < OWN else f"{document}e0{number - OWN}"


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
