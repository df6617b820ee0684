"""Writes a cell's source into a document: a Text, which merges, up to MAX_TEXT, else a Str, where the last writer wins.

Automerge 0.2.0.dev4 needs 1.0 s to insert 1,000,000 code points, 0.5 s for their change, and 263 MB: hence the bound.
Deleting costs 11 µs per code point, so a large deletion is written as a new text. The caller checks values.
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
"""Cost of deleting a code point, in insertions of one."""

_FEW: Final = 200
"""Up to this many code points are always deleted (2 ms), so that the text keeps its identity and merges."""


def write(engine: Engine, nodes: CellNodes, present: str, source: str, author: ClientId) -> None:
    """Write a new source as one change: by edits of the present text, or as a new text where that is faster."""
    edits: list[TextEdit] = []
    text = nodes.source if len(source) <= MAX_TEXT and _is_plain(engine, nodes, present) else None
    if text is not None:
        edits = find_edits(present, source)
        if _is_replaced(sum(edit.deleted for edit in edits), source):
            text = None
    with engine.write(author) as writer:
        if text is None:
            text = put(writer, nodes.cell, source)
        else:
            writer.edit_text(text, edits)
    nodes.source, nodes.is_plain = text, True


def _is_replaced(deleted: int, source: str) -> bool:
    """Whether writing a new text is faster than deleting this many code points of the present one."""
    return deleted > _FEW and deleted * _DELETION > len(source)


def put(writer: Writer, cell: bytes, source: str) -> bytes | None:
    """Write a new source; return its object id if it is a Text, None if it is a Str."""
    if len(source) <= MAX_TEXT:
        return writer.put_text(cell, "source", source)
    writer.put(cell, "source", source)
    return None


def _is_plain(engine: Engine, nodes: CellNodes, present: str) -> bool:
    """Whether the source is a text with one element for each code point.

    A foreign text may have wider elements, which an edit would damage: it is replaced as a whole.
    """
    if nodes.source is None:
        return False
    if not nodes.is_plain:  # checked once: it takes 10 ms for 20,000 code points
        nodes.is_plain = len(engine.elements(nodes.source)) == len(present)
    return nodes.is_plain
