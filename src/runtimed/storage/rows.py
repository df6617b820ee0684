"""Values of database rows: checksums, and text with lone surrogates."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from runtimed.errors import StorageError

__all__ = ["checked", "checksum", "checksum_of", "damaged_row", "from_text", "is_intact", "to_text"]


def checksum(payload: bytes | memoryview) -> int:
    """Return the CRC-32 of a payload. SQLite itself does not detect flipped bits."""
    return zlib.crc32(payload)


def checksum_of(name: str, payload: bytes) -> int:
    """Return the CRC-32 of a payload with its owner's name, so that it does not match another row's payload."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass") + b"\0" + payload)


def is_intact(payload: object, expected: object) -> bool:
    """Return whether a payload read from a row matches its checksum."""
    return isinstance(payload, bytes) and zlib.crc32(payload) == expected


def damaged_row(path: Path, what: str, **data: Any) -> StorageError:
    """Return the error for a row whose payload does not match its checksum.

    Args:
        path: The database.
        what: The row's name, the subject of the message.
        data: Further attributes of the error.
    """
    message = f"{what} in {path} is damaged: its bytes do not match their checksum"
    return StorageError(message, path=str(path), set_aside=None, **data)


def to_text(value: str | None) -> str | bytes | None:
    """Return a text as SQLite accepts it: bytes if it has lone surrogates (from a file name or a kernel's message)."""
    if value is None or value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")
    return value


def from_text(value: str | bytes | None) -> str | None:
    """Return the text of a value from `to_text`."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def checked(check: object, data: object) -> tuple[int, bytes]:
    """Return a checksum and its data; damaged types become a pair that never matches, as no checksum is negative."""
    return (check, data) if isinstance(check, int) and isinstance(data, bytes) else (-1, b"")
