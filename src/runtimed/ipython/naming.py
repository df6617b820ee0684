"""The notebook and the cell in which a magic runs, as far as they are known. Nothing here does I/O."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, Final

from runtimed.ids import CellId
from runtimed.notebook_names import cell_id_in, notebook_path, session_id_of

__all__ = ["document_cell_id", "frontend_cell_id", "notebook_file"]

_CELLS: Final = uuid.UUID("5f2b6c1e-7a43-5d0e-9c7b-3f0a4c1d2e68")


def frontend_cell_id(shell: Any) -> str | None:
    """Return the frontend's id of the running cell; None in a terminal, and from frontends without ids."""
    get_parent = getattr(shell, "get_parent", None)
    return None if get_parent is None else cell_id_in((get_parent() or {}).get("metadata") or {})


def notebook_file(shell: Any) -> Path | None:
    """Return the real path of this kernel's notebook; None if it is unknown.

    Source: VS Code sets `__vsc_ipynb_file__` in the namespace; Jupyter Server sets JPY_SESSION_NAME in the environment
    of kernels (of consoles as well, whose name is no path of a file).
    """
    value = shell.user_ns.get("__vsc_ipynb_file__")
    if not isinstance(value, str) and getattr(shell, "kernel", None) is not None:
        value = os.environ.get("JPY_SESSION_NAME")
    return notebook_path(value)


def document_cell_id(path: Path | None, cell_id: str, whole_in: str | None = None) -> CellId:
    """Return the document cell of a cell of a notebook, the same one at any time.

    The whole cell, in the notebook's own session, is the notebook's cell itself: it keeps its id, as in the proxy
    kernel and in the file. Any other gets an id of its own: a cell under a magic has another source in the file, and
    several notebooks, copies of one too, may share a session.

    Args:
        path: The notebook's file: copies of a notebook have the same cell ids.
        cell_id: The frontend's id.
        whole_in: The id of the session to which the whole cell goes, as it is; None if its first line is a magic's.
    """
    if path is not None and whole_in == session_id_of(path):
        return CellId(cell_id)
    key = b"\0".join((b"" if path is None else os.fsencode(path), cell_id.encode(errors="surrogatepass")))
    return CellId(f"cell-{uuid.uuid5(_CELLS, key.hex())}")
