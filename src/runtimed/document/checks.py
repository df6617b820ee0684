"""Checks the values of an edit before it is applied. Nothing here knows a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast, get_args

from runtimed.errors import InvalidCell, RuntimedError, SessionError
from runtimed.ids import CellId, unfit
from runtimed.models import CellType

__all__ = [
    "MAX_KEY",
    "MAX_SOURCE",
    "MAX_TEXT",
    "check_cell_id",
    "check_cell_metadata",
    "check_cell_type",
    "check_execution",
    "check_index",
    "check_metadata",
    "check_new_id",
    "check_source",
    "check_text",
    "check_whole_metadata",
]

MAX_SOURCE: Final = 10 * 2**20
"""Largest source of a cell and largest metadata value, in bytes of UTF-8."""

MAX_TEXT: Final = 100_000
"""Longest source that is merged, in code points. For a longer one the last writer wins."""

MAX_KEY: Final = 1024
"""Longest cell id and metadata key, in bytes of UTF-8."""

_CELL_TYPES: Final[Sequence[str]] = get_args(CellType)
_MAX_INT: Final = 2**53 - 1
"""Largest integer that JavaScript holds exactly."""


def check_cell_id(value: object) -> CellId:
    """Return the id of a new cell.

    Raises:
        InvalidCell: If it is not a str, empty, not valid Unicode, or longer than MAX_KEY.
    """
    return CellId(_check_key(value, "A cell id", InvalidCell))


def check_new_id(value: str, what: str) -> None:
    """Check the id of a new cell or execution, which people read and type. Stored ids may be any text.

    Args:
        value: The id.
        what: Its name in the error message.

    Raises:
        InvalidCell: If it begins or ends with white space, or holds a control character or a line break.
    """
    why = unfit(value)
    if why is not None:
        raise InvalidCell(f"{what} {why}")


def check_source(value: object) -> str:
    """Return a cell's source.

    Raises:
        InvalidCell: If it is not a str, not valid Unicode, or larger than MAX_SOURCE.
    """
    return check_text(value, "A cell's source", InvalidCell)


def check_cell_type(value: object) -> CellType:
    """Return a cell type.

    Raises:
        InvalidCell: If there is no such type.
    """
    if value not in _CELL_TYPES:
        raise InvalidCell(f"A cell is code, markdown or raw, not {value!r}", cell_type=str(value))
    return cast("CellType", value)


def check_index(value: object, count: int) -> int:
    """Return the index at which a cell is inserted among `count` others; None appends it.

    Raises:
        InvalidCell: If it is not an integer from 0 to `count`.
    """
    if value is None:
        return count
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= count:
        raise InvalidCell(
            f"A new cell's index must be an integer from 0 to {count}, or None to append it; not {value!r}"
        )
    return value


def check_execution(execution_id: object, execution_count: object) -> None:
    """Check the id and the count of a cell's latest execution; None for either means there is none.

    Raises:
        InvalidCell: If the id is not a valid key, or the count is not an integer that JavaScript holds exactly.
    """
    if execution_id is not None:
        _check_key(execution_id, "An execution id", InvalidCell)
    if execution_count is not None and (
        not isinstance(execution_count, int)
        or isinstance(execution_count, bool)
        or not 0 <= execution_count <= _MAX_INT
    ):
        raise InvalidCell(f"An execution count must be an integer from 0 to {_MAX_INT}, not {execution_count!r}")


def check_cell_metadata(key: object, value: object) -> None:
    """Check one key of a cell's metadata and its value as JSON text; None deletes the key.

    Raises:
        InvalidCell: If the key or the text is not a str, not valid Unicode, or too long.
    """
    _check_key(key, "A key of a cell's metadata", InvalidCell)
    if value is not None:
        check_text(
            value, "A value of a cell's metadata", InvalidCell, hint="; turn it into text first, with json.dumps"
        )


def check_whole_metadata(metadata: Mapping[str, str]) -> None:
    """Check the total size of a cell's metadata, which is always read as a whole.

    Raises:
        InvalidCell: If it is larger than MAX_SOURCE.
    """
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
    if size > MAX_SOURCE:
        raise InvalidCell(
            f"A cell's metadata may have at most {MAX_SOURCE} bytes of UTF-8 in total; this edit makes it {size}: keep "
            "large data in a file, or delete another value first"
        )


def check_metadata(key: object, value: object) -> None:
    """Check one key and value of the notebook's metadata.

    Raises:
        SessionError: If key or value is not a str, not valid Unicode, or too long.
    """
    _check_key(key, "A metadata key", SessionError)
    check_text(value, "A metadata value", SessionError, hint="; turn it into text first, with json.dumps")


def _check_key(value: object, what: str, error: type[RuntimedError]) -> str:
    text = check_text(value, what, error, limit=MAX_KEY, advice="give a shorter one")
    if not text:
        raise error(f"{what} must not be empty")
    return text


def check_text(
    value: object,
    what: str,
    error: type[RuntimedError],
    *,
    limit: int = MAX_SOURCE,
    hint: str = "",
    advice: str = "keep large data in a file",
) -> str:
    """Return a text that a document accepts.

    Args:
        value: The value to check.
        what: Its name in the error message.
        error: Class of the error.
        limit: Largest size in bytes of UTF-8.
        hint: Ends the error message about a value of another type.
        advice: Ends the error message about a text that is too large.

    Raises:
        RuntimedError: As `error`, if it is not a str, not valid Unicode, or too large.
    """
    if not isinstance(value, str):
        raise error(f"{what} must be a str, not {type(value).__name__}{hint}")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as exc:
        raise error(
            f"{what} must be valid Unicode; there is a lone surrogate at {exc.start}: remove it, or replace it with "
            'text.encode(errors="replace").decode()'
        ) from exc
    if size > limit:
        raise error(f"{what} may have at most {limit} bytes of UTF-8; this one has {size}: {advice}")
    return value
