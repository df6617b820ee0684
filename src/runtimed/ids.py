"""The ids of runtimed as types, and the functions that make them. Nothing here talks to anybody."""

import hashlib
import uuid
from typing import Final, NewType

from runtimed.errors import SessionError

__all__ = [
    "MAX_NOTEBOOK_ID",
    "CellId",
    "ClientId",
    "ExecutionId",
    "HostEpoch",
    "NotebookId",
    "check_notebook_id",
    "new_cell_id",
    "new_client_id",
    "new_execution_id",
    "new_host_epoch",
    "new_notebook_id",
    "stored_name",
]

NotebookId = NewType("NotebookId", str)
CellId = NewType("CellId", str)
ExecutionId = NewType("ExecutionId", str)
ClientId = NewType("ClientId", str)
HostEpoch = NewType("HostEpoch", str)

MAX_NOTEBOOK_ID: Final = 1024
"""Longest notebook id, in UTF-8 bytes."""


def new_notebook_id() -> NotebookId:
    """Return a fresh id for a session that nobody named."""
    return NotebookId(f"agent-session-{uuid.uuid4()}")


def new_cell_id() -> CellId:
    """Return a fresh cell id."""
    return CellId(f"cell-{uuid.uuid4()}")


def new_execution_id() -> ExecutionId:
    """Return a fresh execution id."""
    return ExecutionId(f"execution-{uuid.uuid4()}")


def new_client_id() -> ClientId:
    """Return a fresh id for one client object; it authors that client's edits."""
    return ClientId(uuid.uuid4().hex)


def new_host_epoch() -> HostEpoch:
    """Return a fresh id for one host process; its events are numbered within it."""
    return HostEpoch(uuid.uuid4().hex)


def check_notebook_id(value: object) -> NotebookId:
    """Validate a notebook id that a user chose.

    Any text may name a session, slashes and control characters included: ids are stored under a
    hash (`stored_name`), never used as a path.

    Raises:
        SessionError: If it is not a text, empty, longer than MAX_NOTEBOOK_ID bytes, or not valid Unicode.
    """
    if not isinstance(value, str):
        raise SessionError(f"A notebook id must be a str, not {type(value).__name__}")
    if not value:
        raise SessionError("A notebook id must not be empty; leave it out to get a generated one")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as exc:
        raise SessionError(f"A notebook id must be valid Unicode; {value!r} holds a lone surrogate") from exc
    if size > MAX_NOTEBOOK_ID:
        raise SessionError(f"A notebook id may have at most {MAX_NOTEBOOK_ID} bytes; this one has {size}")
    return NotebookId(value)


def stored_name(notebook_id: NotebookId) -> str:
    """Return the file name under which a session is stored: 32 hexadecimal digits, safe on any file system."""
    return hashlib.sha256(notebook_id.encode()).hexdigest()[:32]
