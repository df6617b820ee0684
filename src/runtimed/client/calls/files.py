"""The operations between a session and its notebook file. Nothing here opens a file: `client.files` does."""

from __future__ import annotations

from dataclasses import dataclass

from runtimed.client.calls.cells import iter_whole_cells
from runtimed.client.calls.metadata import get_metadata, get_notebook_metadata, set_metadata
from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow
from runtimed.ids import SessionId
from runtimed.notebook_file.merging import FILE_KEY, FileRecord
from runtimed.notebook_file.reading import NotebookFile
from runtimed.notebook_file.writing import file_cell

__all__ = ["Contents", "read_contents", "record_file"]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a session has for a file.

    Attributes:
        notebook: All of it, outputs beyond the daemon's limit included.
        record: What it knows of its file; None if it has none.
    """

    session_id: SessionId
    notebook: NotebookFile
    record: FileRecord | None


def read_contents(notebook: Notebook) -> Flow[Contents]:
    """Return the session as a file has it."""
    cells = yield from iter_whole_cells(notebook).all()
    metadata = yield from get_notebook_metadata(notebook)
    record = FileRecord.of_text((yield from get_metadata(notebook, FILE_KEY)))
    content = NotebookFile(metadata=metadata, cells=tuple(map(file_cell, cells)))
    return Contents(notebook.id, content, record)


def record_file(notebook: Notebook, record: FileRecord) -> Flow[None]:
    """Note that the session and its file are the same now."""
    yield from set_metadata(notebook, FILE_KEY, record.text())
