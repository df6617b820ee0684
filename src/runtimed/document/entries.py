"""Encodes the values of a cell's metadata as JSON texts, the form in which documents and messages hold them.

Nothing here knows a document.
"""

from __future__ import annotations

import json
import reprlib
from typing import Any, NoReturn

from runtimed.document.checks import check_text
from runtimed.errors import InvalidCell

__all__ = ["text_of", "value_of"]


def text_of(value: object) -> str:
    """Return a JSON value as text, equal for equal values with keys in the same order.

    Raises:
        InvalidCell: If it is not a JSON value, has NaN or infinity in it, is not valid Unicode, or is larger than
            MAX_SOURCE.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidCell(
            f"A value of a cell's metadata must be a JSON value, not {reprlib.repr(value)}: {exc}"
        ) from exc
    return check_text(text, "A value of a cell's metadata", InvalidCell)


def value_of(text: str) -> Any:
    """Return the value of a JSON text; of any other text, as other programs may have written it, the text itself."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")
