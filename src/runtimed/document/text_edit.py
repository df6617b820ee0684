"""Text diff and three-way merge. Nothing here knows a document.

The diff is a patience diff in O(n log n): it strips the common prefix and suffix, then anchors on lines (and, within a
line, on words) that occur exactly once on both sides.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

__all__ = ["TextEdit", "apply_edits", "carry_over", "find_edit", "find_edits"]

_MAX_DEPTH: Final = 8
"""Recursion limit: how often a stretch between two anchors is searched for anchors of its own."""
_WORDS: Final = re.compile(r"\w+|\s+|[^\w\s]")


class TextEdit(NamedTuple):
    """Replaces `deleted` code points from `start` on by `inserted`."""

    start: int
    deleted: int
    inserted: str


def find_edit(old: str, new: str) -> TextEdit:
    """Return one edit that turns `old` into `new`: what is between their common prefix and suffix."""
    prefix = _common_prefix(old, new)
    shorter = min(len(old), len(new)) - prefix
    suffix = min(_common_prefix(old[::-1], new[::-1]), shorter)
    return TextEdit(prefix, len(old) - suffix - prefix, new[prefix : len(new) - suffix])


def find_edits(old: str, new: str) -> list[TextEdit]:
    """Return the edits that turn `old` into `new`: ascending, not adjacent, with offsets in `old`."""
    found: list[TextEdit] = []
    _collect(old, new, 0, 0, found)
    edits: list[TextEdit] = []
    for start, deleted, inserted in found:
        if edits and edits[-1].start + edits[-1].deleted == start:
            before = edits.pop()
            edits.append(TextEdit(before.start, before.deleted + deleted, before.inserted + inserted))
        else:
            edits.append(TextEdit(start, deleted, inserted))
    return edits


def apply_edits(text: str, edits: Sequence[TextEdit]) -> str:
    """Return `text` with ascending edits applied."""
    pieces: list[str] = []
    done = 0
    for start, deleted, inserted in edits:
        pieces += text[done:start], inserted
        done = start + deleted
    pieces.append(text[done:])
    return "".join(pieces)


def carry_over(edits: Sequence[TextEdit], base: str, present: str) -> list[TextEdit]:
    """Rebase edits of a base text onto the present text: a three-way merge.

    Text that others inserted stays, and text that they deleted stays deleted. An edit that the present text already
    has is skipped, so a resent edit is idempotent.

    Args:
        edits: Ascending edits of `base`.
        base: The common ancestor.
        present: The text to edit.
    """
    places = _places_in(base, present)
    left = list(accumulate(places, max, initial=-1))  # left[i]: the last survivor before base[i]
    ends = (place if place >= 0 else len(present) for place in reversed(places))
    right = list(accumulate(ends, min, initial=len(present)))[::-1]  # right[i]: the first survivor from base[i] on
    carried: list[TextEdit] = []
    for start, deleted, inserted in edits:
        end = start + deleted
        survivors = [place for place in places[start:end] if place >= 0]
        before, after = left[start], right[end]
        if survivors:
            carried += _replace(survivors, inserted)
        elif not _is_there(present[before + 1 : after], deleted, inserted):
            # Beside the neighbour that survived; if both did, behind what others inserted between them.
            left_stands = start == 0 or places[start - 1] >= 0
            right_stands = end == len(base) or places[end] >= 0
            place = after if right_stands or not left_stands else before + 1
            if inserted:
                carried.append(TextEdit(place, 0, inserted))
    return carried


def _is_there(present: str, deleted: int, inserted: str) -> bool:
    """Whether an edit is applied already; `present` is all the text that is in its place now."""
    # Others who replaced the same text may have inserted more than this edit.
    return inserted in present if deleted else present == inserted


def _places_in(base: str, present: str) -> list[int]:
    """Return the offset in `present` of each code point of `base`, -1 for deleted ones."""
    places: list[int] = []
    shift = 0
    for start, deleted, inserted in find_edits(base, present):
        places += range(len(places) + shift, start + shift)
        places += [-1] * deleted
        shift += len(inserted) - deleted
    places += range(len(places) + shift, len(base) + shift)
    return places


def _replace(survivors: Sequence[int], inserted: str) -> list[TextEdit]:
    """Return edits that delete the code points at these ascending offsets and insert `inserted` at the first."""
    edits: list[TextEdit] = []
    first = previous = survivors[0]
    for place in [*survivors[1:], -1]:
        if place != previous + 1:
            edits.append(TextEdit(first, previous + 1 - first, "" if edits else inserted))
            first = place
        previous = place
    return edits


def _common_prefix(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts, in code points."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # comparing slices is much faster than comparing code points
        half = (low + high + 1) // 2
        if one[low:half] == other[low:half]:
            low = half
        else:
            high = half - 1
    return low


def _collect(old: str, new: str, offset: int, depth: int, edits: list[TextEdit]) -> None:
    start, deleted, inserted = find_edit(old, new)
    removed = old[start : start + deleted]
    offset += start
    if not removed and not inserted:
        return
    if not removed or not inserted or depth == _MAX_DEPTH:
        edits.append(TextEdit(offset, deleted, inserted))
        return
    old_lines, new_lines = removed.splitlines(keepends=True), inserted.splitlines(keepends=True)
    if len(old_lines) == 1 == len(new_lines):
        _between_anchors(_WORDS.findall(removed), _WORDS.findall(inserted), offset, depth, edits, otherwise=_one_edit)
    else:
        _between_anchors(old_lines, new_lines, offset, depth, edits, otherwise=_line_by_line)


def _one_edit(old: Sequence[str], new: Sequence[str], offset: int, _depth: int, edits: list[TextEdit]) -> None:
    edits.append(TextEdit(offset, sum(map(len, old)), "".join(new)))


def _line_by_line(old: Sequence[str], new: Sequence[str], offset: int, depth: int, edits: list[TextEdit]) -> None:
    if len(old) != len(new):
        _one_edit(old, new, offset, depth, edits)
        return
    for before, after in zip(old, new, strict=True):
        _collect(before, after, offset, depth + 1, edits)
        offset += len(before)


def _between_anchors(
    old: Sequence[str],
    new: Sequence[str],
    offset: int,
    depth: int,
    edits: list[TextEdit],
    *,
    otherwise: Callable[[Sequence[str], Sequence[str], int, int, list[TextEdit]], None],
) -> None:
    """Collect the edits of each stretch between two anchors; without an anchor, call `otherwise`."""
    anchors = _anchors(old, new)
    if not anchors:
        otherwise(old, new, offset, depth, edits)
        return
    old_done = new_done = 0
    for old_at, new_at in [*anchors, (len(old), len(new))]:
        before = "".join(old[old_done:old_at])
        _collect(before, "".join(new[new_done:new_at]), offset, depth + 1, edits)
        offset += len(before) + (len(old[old_at]) if old_at < len(old) else 0)
        old_done, new_done = old_at + 1, new_at + 1


def _anchors(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Return the longest increasing sequence of pieces that occur exactly once on both sides, as pairs of indices."""
    old_count, new_count = Counter(old), Counter(new)
    place_in_new = {piece: place for place, piece in enumerate(new) if new_count[piece] == 1 == old_count[piece]}
    pairs = [(place, place_in_new[piece]) for place, piece in enumerate(old) if piece in place_in_new]
    tails: list[int] = []  # the least index in `new` that ends a sequence of each length
    tail_pairs: list[int] = []
    previous: list[int] = []
    for index, (_, place) in enumerate(pairs):
        length = bisect_left(tails, place)
        previous.append(tail_pairs[length - 1] if length else -1)
        tails[length : length + 1] = [place]
        tail_pairs[length : length + 1] = [index]
    row = []
    index = tail_pairs[-1] if tail_pairs else -1
    while index >= 0:
        row.append(pairs[index])
        index = previous[index]
    return row[::-1]
