"""What frontends name: the notebook's file, after which its session is named for everybody, and the cell that runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtimed.errors import SessionError
from runtimed.ids import SessionId, check_new_session_id, check_session_id

__all__ = ["cell_id_in", "notebook_path", "session_id_of", "short_name"]


def cell_id_in(metadata: Mapping[str, Any]) -> str | None:
    """Return the frontend's id of the cell that an execute_request runs; None if its metadata name none.

    Source: JupyterLab, Notebook and VS Code send it as `cellId`; others as `cell_id`.
    """
    for name in ("cellId", "cell_id"):
        value = metadata.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def notebook_path(value: object) -> Path | None:
    """Return the real path of a notebook's file, as a frontend names it; None for what names no file.

    Two names of one file, as through a symbolic link, have one real path, and so one session.

    Args:
        value: An absolute path that ends with `.ipynb`, or that of an existing file.
    """
    if not isinstance(value, str) or not Path(value).is_absolute():
        return None
    path = Path(os.path.realpath(value))
    return path if path.suffix == ".ipynb" or path.is_file() else None


def session_id_of(path: Path) -> SessionId:
    """Return the id of the session named after a notebook file: its path, or a hash of a path that is no fit id."""
    try:
        session_id = check_session_id(str(path))
        check_new_session_id(session_id)
    except SessionError:
        return SessionId(f"notebook-{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}")
    return session_id


def short_name(session_id: str) -> str:
    """Return a session's name where room is short: of one that is named after a file, the file's name."""
    return session_id.rpartition("/")[2] or session_id if session_id.startswith("/") else session_id
