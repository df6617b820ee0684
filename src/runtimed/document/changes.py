"""Parses Automerge change chunks: their bounds, hashes and dependencies. Nothing here keeps a document.

Automerge 0.2.0.dev4 silently drops damaged changes, and changes whose dependencies are missing, when it loads them
behind a snapshot. So the caller needs the hashes to check afterwards that every change was applied.

Source: Automerge binary format, https://automerge.org/automerge-binary-format-spec/
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["HASH_SIZE", "MAX_CHANGE", "RawChange", "heads_of", "read_changes", "read_leb128"]

MAX_CHANGE: Final = 64 * 2**20
"""Largest accepted change, in bytes after decompression."""

HASH_SIZE: Final = 32
"""Length of a change's hash, in bytes."""

_MAGIC: Final = b"\x85\x6f\x4a\x83"
_CHECKSUM_END: Final = 8
_CHANGE: Final = 1
_COMPRESSED: Final = 2


@dataclass(frozen=True, slots=True)
class RawChange:
    """One change.

    Attributes:
        data: The whole chunk, unchanged.
        hash: SHA-256 that identifies the change; a head of the document until another change depends on it.
        deps: Hashes of the changes it depends on.
        actor: Id of the actor who made it.
        size: Length of its content after decompression, in bytes.
        first_operation: Number of its first operation, counted through the whole history.
    """

    data: bytes
    hash: bytes
    deps: tuple[bytes, ...]
    actor: bytes
    size: int
    first_operation: int


def read_changes(pieces: Iterable[bytes]) -> list[RawChange]:
    """Split bytes into changes.

    Args:
        pieces: Each holds any number of whole change chunks.

    Raises:
        ValueError: If a piece holds anything else, or a chunk is damaged.
    """
    changes = []
    for piece in pieces:
        place = 0
        while place < len(piece):
            change = _read_change(piece, place)
            changes.append(change)
            place += len(change.data)
    return changes


def heads_of(changes: Sequence[RawChange]) -> list[RawChange]:
    """Return the changes that no other one depends on: a document that has these has all of them."""
    needed = {dep for change in changes for dep in change.deps}
    return [change for change in changes if change.hash not in needed]


def read_leb128(data: bytes, place: int) -> tuple[int, int]:
    """Read a number; return it, and the place behind it.

    Raises:
        ValueError: If it is cut off, or too large.
    """
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("a number in a change is damaged")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _read_change(data: bytes, start: int) -> RawChange:
    body_start = start + _CHECKSUM_END
    if data[start : start + len(_MAGIC)] != _MAGIC or len(data) <= body_start:
        raise ValueError(f"no Automerge chunk at byte {start}")
    kind = data[body_start]
    size, content_start = read_leb128(data, body_start + 1)
    end = content_start + size
    if end > len(data):
        raise ValueError(f"the chunk at byte {start} is cut off")
    content = data[content_start:end]
    if kind == _COMPRESSED:
        content = _inflate(content)
    elif kind != _CHANGE:
        raise ValueError(f"the chunk at byte {start} is not a change (type {kind})")
    digest = hashlib.sha256(b"%c%b%b" % (_CHANGE, _leb128(len(content)), content)).digest()
    if digest[:4] != data[start + len(_MAGIC) : body_start]:
        raise ValueError(f"the chunk at byte {start} does not match its checksum")
    count, place = read_leb128(content, 0)
    if place + count * HASH_SIZE > len(content):
        raise ValueError(f"the chunk at byte {start} is cut off")
    deps = tuple(content[at : at + HASH_SIZE] for at in range(place, place + count * HASH_SIZE, HASH_SIZE))
    actor_size, place = read_leb128(content, place + count * HASH_SIZE)
    actor = content[place : place + actor_size]
    _number_of_author, place = read_leb128(content, place + actor_size)
    first_operation, _ = read_leb128(content, place)
    return RawChange(data[start:end], digest, deps, actor, len(content), first_operation)


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(data, MAX_CHANGE)
    except zlib.error as exc:
        raise ValueError(f"a compressed change is damaged: {exc}") from exc
    if not inflater.eof:
        raise ValueError(f"a compressed change is cut off, or larger than {MAX_CHANGE} bytes")
    return content


def _leb128(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
