"""Adds interactive elements that Playwright's snapshot omits to an outline, such as empty editors.

Pure functions over lines; nothing here talks to a browser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from runtimed.browser.outline import Known, Line

__all__ = ["Added", "completed"]

_PLAIN: Final = re.compile(r"[^\W\d_](?:[^:#\"\\]|:(?! |$)|(?<! )#)*")
"""Texts that YAML does not quote."""


class Added(msgspec.Struct, frozen=True):
    """An element that a snapshot omits, and its place, by refs.

    Attributes:
        ref: Its ref.
        owner: The iframe that contains it; None outside of all.
        parent: Its parent; None if the snapshot omits that, too, or `after` says it.
        after: The element before it.
        first: The first shown line inside it; None if there is none.
        last: The last shown line inside it.
        text: Its text, if no line inside it is shown.
    """

    ref: str
    owner: str | None
    parent: str | None
    after: str | None
    first: str | None
    last: str | None
    text: str


class _Node:
    def __init__(self, line: Line, parent: _Node | None) -> None:
        self.line = line
        self.parent = parent
        self.inside: list[_Node] = []


def completed(lines: Sequence[Line], known: Mapping[str, Known], added: Sequence[Added], *, whole: bool) -> list[Line]:
    """Return the lines of an outline with the omitted elements, and with the page's names of its editors.

    Args:
        lines: The outline.
        known: What is known of its elements, and of the added ones.
        added: The omitted elements, in the order of the page.
        whole: Whether the outline is one of the whole page; else nothing is added beside its outermost lines.
    """
    if added:
        lines = list(_flat(_insert(lines, added, whole=whole)))
    return [_called(line, known) for line in lines]


def _called(line: Line, known: Mapping[str, Known]) -> Line:
    told = known.get(line.ref or "")
    if told is None or not told.acting:
        return line
    text, name = line.text, line.name
    if line.role == "generic" and not name and told.name:
        name = told.name
        text = text.replace("- generic", f"- generic {json.dumps(name, ensure_ascii=False)}", 1)
    if told.editable:
        text = text.replace(f"[ref={line.ref}]", f"[ref={line.ref}] [contenteditable]", 1)
    return line if text == line.text else msgspec.structs.replace(line, text=text, name=name)


def _insert(lines: Sequence[Line], added: Sequence[Added], *, whole: bool) -> _Node:
    root, nodes = _tree(lines)
    for one in added:
        first, last = nodes.get(one.first or ""), nodes.get(one.last or "")
        before, around = nodes.get(one.after or ""), nodes.get(one.parent or "")
        if first is not None:
            parent = first.parent
        elif before is not None:
            parent = before.parent
        else:
            parent = around or nodes.get(one.owner or "", root)
        if parent is None or (parent is root and not whole):
            continue
        node = _Node(Line(0, f"- generic [ref={one.ref}]", "generic", ref=one.ref), parent)
        nodes[one.ref] = node
        if first is not None and last is not None and last.parent is parent:
            start, end = parent.inside.index(first), parent.inside.index(last) + 1
            node.inside = parent.inside[start:end]
            for child in node.inside:
                child.parent = node
            parent.inside[start:end] = [node]
            node.line = msgspec.structs.replace(node.line, text=f"{node.line.text}:")
            continue
        if one.text:
            value = one.text if _PLAIN.fullmatch(one.text) else json.dumps(one.text, ensure_ascii=False)
            node.line = msgspec.structs.replace(node.line, text=f"{node.line.text}: {value}", value=value)
        place = 0 if before is None else parent.inside.index(before) + 1
        _put(node, parent, place)
    return root


def _put(node: _Node, parent: _Node, place: int) -> None:
    """Insert a line in place of its text, or else at its reported place."""
    while place < len(parent.inside) and not parent.inside[place].line.role:
        place += 1  # properties come first
    at = place
    while at < len(parent.inside) and parent.inside[at].line.ref is None:
        line = parent.inside[at].line
        if line.role in {"text", "generic"} and line.plain_value == node.line.plain_value:
            parent.inside[at] = node
            return
        at += 1
    parent.inside.insert(place, node)
    line = parent.line
    if line.value and line.plain_value == node.line.plain_value:
        parent.line = msgspec.structs.replace(line, text=line.text.removesuffix(line.value).rstrip(), value="")
    elif line.role and not line.value and not line.text.endswith(":"):
        parent.line = msgspec.structs.replace(line, text=f"{line.text}:")


def _tree(lines: Sequence[Line]) -> tuple[_Node, dict[str, _Node]]:
    least = min((line.level for line in lines), default=0)
    root = _Node(Line(least - 1, ""), None)
    nodes: dict[str, _Node] = {}
    parent = root
    for line in lines:
        while parent.parent is not None and parent.line.level >= line.level:
            parent = parent.parent
        node = _Node(line, parent)
        parent.inside.append(node)
        if line.ref is not None:
            nodes[line.ref] = node
        parent = node
    return root, nodes


def _flat(root: _Node) -> Iterator[Line]:
    """Return all lines of a tree, each one level below its parent."""
    waiting = [(child, 0) for child in reversed(root.inside)]
    while waiting:
        node, level = waiting.pop()
        yield node.line if node.line.level == level else msgspec.structs.replace(node.line, level=level)
        waiting += [(child, level + 1) for child in reversed(node.inside)]
