"""Notebooks that take a second to load, written straight into a data folder in which no daemon runs."""

import contextlib
import sqlite3
from functools import lru_cache
from pathlib import Path

from runtimed.ids import CellId, ClientId, SessionId, stored_name
from runtimed.storage.session_store import SessionStore
from tests.document.edited import EditedDocument

AUTHOR = ClientId("f" * 32)


def source_of(number: int) -> str:
    """The source of one cell of a large notebook."""
    return f"cell {number}: " + f"{number * 7919 % 9973} " * 12


@lru_cache(maxsize=2)
def large_document(cells: int, notebook_id: SessionId) -> bytes:
    """The snapshot of a notebook with so many cells; 1,000 of them take some 0.3 s to write, and as long to load."""
    document = EditedDocument.create(notebook_id)
    for number in range(cells):
        document.add_cell(CellId(f"large-{number}"), source_of(number), "code", number, author=AUTHOR)
    return document.save()


def database_of(data_dir: Path, name: str) -> Path:
    """The path of a session's database."""
    return data_dir / "sessions" / f"{stored_name(SessionId(name))}.db"


def write_large_notebook(data_dir: Path, name: str, cells: int, *, set_aside: bool = False) -> Path:
    """Write a notebook as an earlier release left it, whose cells are in its document alone; return the path."""
    # One document serves all sessions: to write it takes seconds.
    return write_document(data_dir, name, large_document(cells, SessionId("large")), set_aside=set_aside)


def write_document(data_dir: Path, name: str, document: bytes, *, set_aside: bool = False) -> Path:
    """Write a notebook as an earlier release left it, with this snapshot; return the path."""
    path = database_of(data_dir, name)
    with SessionStore(path) as store:
        store.notebook.put_snapshot(document, 0, begins_at=1.0)
        if set_aside:
            store.notebook.set_aside()
    if not set_aside:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM counters WHERE name = 'cells'")
    return path
