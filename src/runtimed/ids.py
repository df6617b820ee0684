"""The types of ids, and the functions that generate and validate them. Nothing here does I/O."""

import hashlib
import unicodedata
import uuid
from typing import Final, NewType

from runtimed.errors import SessionError

__all__ = [
    "MAX_CLIENT_ID",
    "MAX_LABEL",
    "MAX_SESSION_ID",
    "CellId",
    "ClientId",
    "ExecutionId",
    "HostEpoch",
    "SessionId",
    "cell_id_of",
    "check_client_id",
    "check_label",
    "check_new_session_id",
    "check_session_id",
    "control_character",
    "new_browser_session_id",
    "new_cell_id",
    "new_client_id",
    "new_execution_id",
    "new_host_epoch",
    "new_notebook_id",
    "stored_name",
    "unfit",
]

SessionId = NewType("SessionId", str)
CellId = NewType("CellId", str)
ExecutionId = NewType("ExecutionId", str)
ClientId = NewType("ClientId", str)
HostEpoch = NewType("HostEpoch", str)

MAX_SESSION_ID: Final = 1024
"""Longest session id, in bytes of UTF-8."""

MAX_CLIENT_ID: Final = 128
"""Longest client id, in ASCII characters."""

MAX_LABEL: Final = 256
"""Longest label of a client, in characters."""

_CONTROLS: Final = ("Cc", "Cs", "Zl", "Zp")

_DIRECTIONS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Bidirectional control characters, which can reorder the displayed text.

Source: Unicode Standard Annex 9, "Bidirectional Algorithm", `Bidi_Control`.
"""


def new_notebook_id() -> SessionId:
    """Return a fresh id for a kernel session."""
    return SessionId(f"agent-session-{uuid.uuid4()}")


def new_browser_session_id() -> SessionId:
    """Return a fresh id for a browser session."""
    return SessionId(f"browser-session-{uuid.uuid4()}")


def new_cell_id() -> CellId:
    """Return a fresh cell id."""
    return CellId(f"cell-{uuid.uuid4()}")


def cell_id_of(execution_id: str) -> CellId:
    """Return the id of the cell that is created with an execution; deterministic, so a resent request is idempotent."""
    digest = hashlib.sha256(ascii(execution_id).encode()).digest()  # accepts any value: it is checked later
    return CellId(f"cell-{uuid.UUID(bytes=digest[:16])}")


def new_execution_id() -> ExecutionId:
    """Return a fresh execution id."""
    return ExecutionId(f"execution-{uuid.uuid4()}")


def new_client_id() -> ClientId:
    """Return a fresh id for a client, the author of its edits."""
    return ClientId(uuid.uuid4().hex)


def new_host_epoch() -> HostEpoch:
    """Return a fresh id for a host process, whose events are numbered within it."""
    return HostEpoch(uuid.uuid4().hex)


def check_session_id(value: object) -> SessionId:
    """Validate a session id that a user chose.

    Any text names a session that exists, slashes and control characters included: files are named by a hash of the id
    (`stored_name`). See `check_new_session_id` for new ones.

    Raises:
        SessionError: If it is not a str, empty, longer than MAX_SESSION_ID, or not valid Unicode.
    """
    if not isinstance(value, str):
        raise SessionError(f"A session id must be a str, not {type(value).__name__}")
    if not value:
        raise SessionError("A session id must not be empty; leave it out to get a generated one")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as exc:
        raise SessionError(f"A session id must be valid Unicode; {value!r} holds a lone surrogate") from exc
    if size > MAX_SESSION_ID:
        raise SessionError(f"A session id may have at most {MAX_SESSION_ID} bytes; this one has {size}")
    return SessionId(value)


def check_client_id(value: object) -> ClientId:
    """Validate the id that a client chose for itself.

    Raises:
        SessionError: If it is empty, longer than MAX_CLIENT_ID, or has other characters than printable ASCII without
            spaces.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CLIENT_ID:
        raise SessionError(f"A client id is a text of 1 to {MAX_CLIENT_ID} characters")
    if not all("!" <= character <= "~" for character in value):
        raise SessionError(f"A client id holds printable ASCII characters and no spaces; not {value!r}")
    return ClientId(value)


def check_label(value: object) -> str | None:
    """Validate a client's label: one line of plain text, or None.

    Raises:
        SessionError: If it is not a str, longer than MAX_LABEL, or contains control characters, line breaks,
            bidirectional control characters or lone surrogates.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise SessionError(f"A label must be a str, not {type(value).__name__}")
    if len(value) > MAX_LABEL:
        raise SessionError(f"A label may have at most {MAX_LABEL} characters; this one has {len(value)}")
    character = control_character(value)
    if character is not None:
        raise SessionError(
            f"A label is one line of plain text; {value!r} holds {character!a}, which is a control character, "
            "a line break, a mark that turns the direction of writing, or half of a character"
        )
    return value


def check_new_session_id(session_id: SessionId) -> None:
    """Refuse an id for a new session that people could not read or type. Stored ids may be any text.

    Raises:
        SessionError: If it begins or ends with white space, or holds a control character or a line break.
    """
    why = unfit(session_id)
    if why is not None:
        raise SessionError(f"The id of a new session {why}", session_id=session_id)


def unfit(new_id: str) -> str | None:
    """Return what follows the subject of a sentence that refuses a new id; None for a fit one."""
    character = control_character(new_id)
    if character is not None:
        return f"is one line of plain text; {new_id!r} holds {character!a}"
    if new_id != new_id.strip():
        return f"must not begin or end with white space; this one is {new_id!r}"
    return None


def control_character(text: str) -> str | None:
    """Return the first control character, line break, bidirectional control or surrogate of a text; None without any.

    Joiners are none: emoji and several scripts need them.
    """
    return next((one for one in text if unicodedata.category(one) in _CONTROLS or one in _DIRECTIONS), None)


def stored_name(session_id: SessionId) -> str:
    """Return the name of a session's files: 32 hexadecimal digits, safe on any file system."""
    return hashlib.sha256(session_id.encode()).hexdigest()[:32]
