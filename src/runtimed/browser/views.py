"""Views of an outline: as text, a part, some levels, what people operate, differences, resemblances.

Pure functions over lines; nothing here talks to a browser.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from runtimed.browser.outline import INTERACTIVE, REF_SHOWN, STEP, Known, Line

__all__ = ["at_most", "beginning", "difference", "interactive", "nearest", "shallow", "subtree", "text_of"]

_LISTS: Final = frozenset({"combobox", "listbox"})
_SHOWN_OPTIONS: Final = 20
"""Options of a closed list that are shown among what people operate."""
_LONG_SUMMARY: Final = 80
_MOST_ALIKE: Final = 100
"""Elements of one name that are compared with one that is gone: each takes a walk through the outline."""


def text_of(lines: Sequence[Line]) -> str:
    """Return the text of an outline, the outermost line without indentation."""
    least = min((line.level for line in lines), default=0)
    return "\n".join(" " * STEP * (line.level - least) + line.text for line in lines)


def subtree(lines: Sequence[Line], ref: str) -> list[Line] | None:
    """Return an element with its content; None if it does not exist."""
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
    """Return what people operate, as a flat list in few words; below a list its options."""
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
            text = f"{text}: {below}" if below else text
        found.append(msgspec.structs.replace(line, level=0, text=text))
        if line.role in _LISTS:
            found += _options(lines, index)
    return found


def beginning(lines: Sequence[Line], ref: str) -> tuple[list[Line], list[Line]] | None:
    """Return the ancestors of an element, outermost first, and the lines from its own on; None if it does not exist."""
    start = next((index for index, line in enumerate(lines) if line.ref == ref), None)
    if start is None:
        return None
    around: list[Line] = []
    level = lines[start].level
    for line in reversed(lines[:start]):
        if line.level < level and line.role:
            around.insert(0, line)
            level = line.level
    return around, list(lines[start:])


def at_most(text: str, limit: int | None, least: int = 1) -> tuple[str, int, str | None]:
    """Cut an outline to a number of characters, if possible before a line with a ref.

    Args:
        text: The outline.
        limit: Characters; None for no limit.
        least: Number of lines that are shown at least, if only in part.

    Returns:
        The rest, the number of characters cut, and the ref at which the outline goes on.
    """
    if limit is None or len(text) <= limit:
        return text, 0, None
    lines = text.split("\n")
    length = fitting = 0
    for line in lines:
        length += len(line) + (fitting > 0)
        if length > limit:
            break
        fitting += 1
    refs = [found[1] if (found := REF_SHOWN.search(line)) else None for line in lines]
    if fitting < least:
        kept, end = text[:limit], least
    else:  # lines without a ref stay with the one above them
        end = next((place for place in range(fitting, least - 1, -1) if refs[place] is not None), fitting)
        kept = "\n".join(lines[:end])
    following = next((ref for ref in refs[end:] if ref is not None), None)
    return kept, len(text) - len(kept), following


def difference(before: Sequence[Line], now: Sequence[Line]) -> str:
    """Return the differences: new lines begin with `+`, removed ones with `-`.

    Above each group, behind `@`, is its nearest common ancestor.
    """
    first, second = ([f"{' ' * STEP * line.level}{line.text}" for line in lines] for lines in (before, now))
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


def nearest(ref: str, before: Sequence[Line], known: Collection[str], now: Sequence[Line]) -> Line | None:
    """Return what has replaced an element that is gone; None in doubt.

    Args:
        ref: The element's ref.
        before: The outline that showed it.
        known: Refs that existed at the same time: those name other elements.
        now: The present outline.
    """
    gone = next(place for place, line in enumerate(before) if line.ref == ref)
    places = [place for place, line in enumerate(now) if line.ref is not None and line.ref not in known]
    found = _likest(before[gone], [(place, now[place]) for place in places])
    if not found:
        return None
    twins = _twins(before, gone)
    if len(found) > _MOST_ALIKE:
        return None
    if len(found) > 1 or len(twins) > 1:
        around = _ancestors(before, gone)
        alone = next(
            (steps for steps, at in enumerate(around) if sum(at <= twin < _end(before, at) for twin in twins) > 1),
            len(around),
        )
        part = _part(before, gone, alone)
        found = [place for place in found if _alike(part, _part(now, place, alone))]
    return now[found[0]] if len(found) == 1 else None


def _likest(gone: Line, lines: Sequence[tuple[int, Line]]) -> list[int]:
    """Return the indexes of the lines that resemble one the most, and enough."""
    found: list[int] = []
    score = 0.5
    for place, line in lines:
        match = difflib.SequenceMatcher(None, gone.name, line.name)
        # Most lines are nothing like it, which a quick check shows.
        if (gone.name or line.name) and min(match.real_quick_ratio(), match.quick_ratio()) * 0.8 + 0.2 < score:
            continue
        likeness = match.ratio() if gone.name or line.name else 1.0
        likeness = likeness * 0.8 + (0.2 if line.role == gone.role else 0.0)
        if line.role == "generic" and gone.role != "generic":
            continue
        if likeness > score:
            found, score = [place], likeness
        elif likeness == score and found:
            found.append(place)
    return found


def _twins(lines: Sequence[Line], place: int) -> list[int]:
    """Return the indexes of the elements with the same role and name, itself included."""
    one = lines[place]
    return [at for at, line in enumerate(lines) if line.ref and (line.role, line.name) == (one.role, one.name)]


def _ancestors(lines: Sequence[Line], place: int) -> list[int]:
    """Return the indexes of an element's ancestors, the nearest first."""
    found = []
    level = lines[place].level
    for at in range(place - 1, -1, -1):
        if lines[at].level < level and lines[at].role:
            found.append(at)
            level = lines[at].level
    return found


def _part(lines: Sequence[Line], place: int, steps: int) -> tuple[list[str], list[str]]:
    """Return the names of an element's ancestors, and the content of the part of the page so many levels around it."""
    around = _ancestors(lines, place)
    top = [place, *around][min(steps, len(around))]
    names = [f"{lines[at].role} {lines[at].name}" for at in around if lines[at].name]
    return names, [f"{line.role} {line.name} {line.value}" for line in lines[top : _end(lines, top)]]


def _alike(one: tuple[list[str], list[str]], other: tuple[list[str], list[str]]) -> bool:
    """Whether two parts are the same, as far as both outlines show their ancestors."""
    around = all(name == named for name, named in zip(one[0], other[0], strict=False))
    return around and one[1] == other[1]


def _end(lines: Sequence[Line], place: int) -> int:
    """Return the index behind the content of an element."""
    level = lines[place].level
    return next((at for at in range(place + 1, len(lines)) if lines[at].level <= level), len(lines))


def _summary(lines: Sequence[Line], index: int) -> str:
    """Return the first words of an element's content, or else its address."""
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
