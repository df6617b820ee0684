"""Writes notebook files as Jupyter does, byte for byte. Nothing here opens a file or talks to anybody."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from runtimed.models import Cell
from runtimed.notebook_file.outputs import file_outputs, normal
from runtimed.notebook_file.reading import FORMAT, FileCell, NotebookFile, without_transient

__all__ = ["ATTACHMENTS", "file_cell", "file_id", "with_former_outputs", "write_notebook"]

ATTACHMENTS: Final = "attachments"
"""Metadata key under which a session's markdown or raw cell has what a file has beside the metadata."""

_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TEXT_TYPES: Final = frozenset({"application/javascript", "image/svg+xml"})
"""MIME types, beside `text/…`, whose values are written as lists of lines."""

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def file_id(cell_id: str) -> str:
    """Return the id of a session's cell in a file: the same one if the format admits it, else one made from it.

    Source: nbformat 4.5, "Cell ids": 1 to 64 letters, digits, `-` and `_` of ASCII.
    """
    if _ID.fullmatch(cell_id):
        return cell_id
    return f"cell-{hashlib.sha256(cell_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def file_cell(cell: Cell) -> FileCell:
    """Return a session's cell as a file has it."""
    is_code, metadata = cell.cell_type == "code", without_transient(cell.metadata)
    attachments = {} if is_code or not _are_attachments(metadata.get(ATTACHMENTS)) else metadata.pop(ATTACHMENTS)
    return FileCell(
        id=file_id(cell.id),
        cell_type=cell.cell_type,
        source=cell.source,
        metadata=metadata,
        attachments=attachments,
        execution_count=cell.execution_count if is_code else None,
        outputs=file_outputs(cell.outputs) if is_code else (),
    )


def _are_attachments(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(bundle, dict) for bundle in value.values())


def with_former_outputs(notebook: NotebookFile, former: NotebookFile) -> NotebookFile:
    """Return the notebook with a file's present outputs wherever they mean the same.

    So outputs that nobody has changed stay as they are written, base64 with line ends for example.
    """
    there = {cell.id: cell.outputs for cell in former.cells if cell.outputs}
    cells = tuple(
        replace(cell, outputs=there[cell.id])
        if cell.outputs
        and cell.id in there
        and cell.outputs != there[cell.id]
        and cell.outputs == normal(there[cell.id])
        else cell
        for cell in notebook.cells
    )
    return replace(notebook, cells=cells)


def write_notebook(notebook: NotebookFile) -> bytes:
    """Return the content of the file, in FORMAT.

    Source: nbformat 5.11, `nbformat.write`, with which Jupyter Server writes: sorted keys, an indentation of one, texts
    of several lines as lists of lines. A lone surrogate, with which it fails, is escaped.
    """
    major, minor = FORMAT
    content = {
        "cells": [_as_map(cell) for cell in notebook.cells],
        "metadata": dict(notebook.metadata),
        "nbformat": major,
        "nbformat_minor": minor,
    }
    # Python's encoder indents twenty times slower than this.
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    try:
        return msgspec.json.format(_encoded(text), indent=1) + b"\n"
    except msgspec.DecodeError:  # for a NaN, which JSON lacks and Jupyter writes
        text = json.dumps(content, ensure_ascii=False, sort_keys=True, indent=1, separators=(",", ": "))
        return _encoded(text) + b"\n"


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _as_map(cell: FileCell) -> dict[str, Any]:
    content: dict[str, Any] = {
        "cell_type": cell.cell_type,
        "id": cell.id,
        "metadata": dict(cell.metadata),
        "source": _lines(cell.source),
    }
    if cell.cell_type == "code":
        content |= {"execution_count": cell.execution_count, "outputs": [_output(output) for output in cell.outputs]}
    elif cell.attachments:
        content["attachments"] = {name: _bundle(bundle) for name, bundle in cell.attachments.items()}
    return content


def _output(output: Mapping[str, Any]) -> dict[str, Any]:
    match output["output_type"]:
        case "stream":
            return {**output, "text": _lines(output["text"])}
        case "error":
            return dict(output)
        case _:
            return {**output, "data": _bundle(output["data"])}


def _bundle(bundle: Mapping[str, Any]) -> dict[str, Any]:
    return {
        mime: _lines(value) if mime.startswith("text/") or mime in _TEXT_TYPES else value
        for mime, value in bundle.items()
    }


def _lines(value: Any) -> Any:
    return value.splitlines(keepends=True) if isinstance(value, str) else value
