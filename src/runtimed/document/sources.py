"""A cell's source in its document: a Text that merges, or a plain Str where it is too long for that.

Automerge 0.2.0.dev4 inserts 1,000,000 code points in 1.0 s, makes their change in 0.5 s, and takes 263 MB meanwhile:
hence the bound. Deleting costs 11 µs for each code point, so what replaces much is a new text. Values are checked by
the caller.
"""

from __future__ import annotations

from typing import Final

from runtimed.document.checks import MAX_TEXT
from runtimed.document.engine import Engine, Writer
from runtimed.document.mirror import CellNodes
from runtimed.document.text_edit import TextEdit, find_edits
from runtimed.ids import ClientId

__all__ = ["put", "write"]

_DELETION: Final = 14
"""Deleting a code point takes as long as inserting so many."""

_FEW: Final = 200
"""So many code points, deleted in 2 ms, are always deleted: the text stays the same one."""


def write(engine: Engine, nodes: CellNodes, present: str, source: str, author: ClientId) -> None:
    """Write a new source in one change: by edits of the present text where that is faster, else as a whole."""
    edits: list[TextEdit] = []
    text = nodes.source if len(source) <= MAX_TEXT and _is_plain(engine, nodes, present) else None
    if text is not None:
        edits = find_edits(present, source)
        if _is_written_anew(sum(edit.deleted for edit in edits), source):
            text = None
    with engine.write(author) as writer:
        if text is None:
            text = put(writer, nodes.cell, source)
        else:
            writer.edit_text(text, edits)
    nodes.source, nodes.is_plain = text, True


def _is_written_anew(deleted: int, source: str) -> bool:
    """Whether a new text takes less time than deleting so many code points of the present one."""
    return deleted > _FEW and deleted * _DELETION > len(source)


def put(writer: Writer, cell: bytes, source: str) -> bytes | None:
    """Write a whole source; return its id if it is a text."""
    if len(source) <= MAX_TEXT:
        return writer.put_text(cell, "source", source)
    writer.put(cell, "source", source)
    return None


def _is_plain(engine: Engine, nodes: CellNodes, present: str) -> bool:
    """Whether the source is a text with one element for each code point.

    A foreign text may hold wider elements, which any edit damages: such a text is replaced as a whole.
    """
    if nodes.source is None:
        return False
    if not nodes.is_plain:  # looked up once, as it costs 10 ms for 20,000 code points
        nodes.is_plain = len(engine.elements(nodes.source)) == len(present)
    return nodes.is_plain
