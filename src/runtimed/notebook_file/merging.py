"""Compares a notebook's file with its session: what each of them changed since both were the same.

Nothing here opens a file or knows a document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from runtimed.notebook_file.reading import FileCell, NotebookFile

__all__ = ["FILE_KEY", "FileRecord", "record_of"]

FILE_KEY: Final = "notebook_file"
"""Key of the document's metadata under which a session has the record of its file."""


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a session knows of its file: its content when the two were the same, without outputs.

    Attributes:
        path: The file's real path.
        cells: Id and digest of each cell, in the order of the file.
        metadata: A digest of the notebook's metadata.
    """

    path: str
    cells: list[tuple[str, str]]
    metadata: str

    def text(self) -> str:
        """Return the record as JSON text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def of_text(cls, text: str | None) -> FileRecord | None:
        """Return the record in a text; None if there is none, or nothing that is one."""
        try:
            return None if text is None else msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError:
            return None


def record_of(path: str, notebook: NotebookFile) -> FileRecord:
    """Return the record of a session that has the content of this file.

    Args:
        path: The file's real path.
        notebook: Its content.
    """
    return FileRecord(
        path=path,
        cells=[(cell.id, _digest(*_content(cell))) for cell in notebook.cells],
        metadata=_digest(dict(notebook.metadata)),
    )


def _content(cell: FileCell) -> Sequence[Any]:
    return cell.cell_type, cell.source, dict(cell.metadata), dict(cell.attachments)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
