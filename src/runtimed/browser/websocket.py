"""The frames of a forwarded WebSocket: the boundaries of its messages, and the text of small ones.

Sans-IO: takes bytes, gives messages back; nothing here opens a socket. Source: RFC 6455, section 5.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import msgspec

__all__ = ["MAX_READ", "Frames", "Piece", "client_frame", "server_frame"]

MAX_READ: Final = 4 * 2**20
"""Longest message that is decoded, in bytes; a longer one is forwarded in pieces."""

_TEXT: Final = 1
_FIRST_CONTROL: Final = 8


class Piece(msgspec.Struct, frozen=True):
    """Something to forward.

    Attributes:
        raw: Its bytes.
        text: Its text, if it is a complete text message; else None.
    """

    raw: bytes
    text: bytes | None = None


class Frames:
    """Splits one direction of a WebSocket.

    Attributes:
        between: Whether the last piece ended a message, so that another one may follow it.
    """

    def __init__(self) -> None:
        self.between = True
        self._buffer = bytearray()
        self._raw = bytearray()
        self._payload = bytearray()
        self._is_text = False
        self._is_long = False  # whether the present message is forwarded undecoded
        self._is_last = False  # whether the present frame ends its message
        self._rest = 0  # bytes of the present frame to forward undecoded

    def receive_data(self, data: bytes) -> Iterator[Piece]:
        """Take bytes, and yield what is to be forwarded, in order."""
        self._buffer += data
        while self._buffer:
            piece = self._pass_on() if self._rest else self._read_frame()
            if piece is None:
                return
            if piece.raw:
                yield piece

    def _pass_on(self) -> Piece:
        raw = self._take(min(self._rest, len(self._buffer)))
        self._rest -= len(raw)
        self._end_long()
        return Piece(raw)

    def _read_frame(self) -> Piece | None:
        """Read the next frame; None if it is incomplete."""
        head = _head(self._buffer)
        if head is None:
            return None
        size, length = head
        first, mask = self._buffer[0], self._buffer[size - 4 : size] if self._buffer[1] & 0x80 else b""
        is_last, kind = bool(first & 0x80), first & 0x0F
        if kind < _FIRST_CONTROL and (self._is_long or len(self._payload) + length > MAX_READ):
            self._is_long, self._is_last, self._rest = True, is_last, length
            raw = bytes(self._raw) + self._take(size)
            self._raw.clear()
            self._payload.clear()
            self.between = False
            self._end_long()
            return Piece(raw)
        if len(self._buffer) < size + length:
            return None
        raw = self._take(size + length)
        if kind >= _FIRST_CONTROL:
            return Piece(raw)  # control frames may come within a message
        self._is_text = kind == _TEXT or (self._is_text and not kind)
        self._raw += raw
        self._payload += _masked(raw[size:], mask)
        if not is_last:
            return Piece(b"")
        piece = Piece(bytes(self._raw), bytes(self._payload) if self._is_text else None)
        self._raw.clear()
        self._payload.clear()
        return piece

    def _end_long(self) -> None:
        if not self._rest and self._is_last:
            self._is_long = self._is_last = False
            self.between = True

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def client_frame(text: bytes) -> bytes:
    """Return a text message as a client sends it."""
    mask = os.urandom(4)
    return _frame_head(text, 0x80) + mask + _masked(text, mask)


def server_frame(text: bytes) -> bytes:
    """Return a text message as a server sends it."""
    return _frame_head(text, 0) + text


def _head(buffer: bytearray) -> tuple[int, int] | None:
    """Return the length of a frame's head, and of its payload."""
    if len(buffer) < 2:
        return None
    length = buffer[1] & 0x7F
    more = {126: 2, 127: 8}.get(length, 0)
    size = 2 + more + (4 if buffer[1] & 0x80 else 0)
    if len(buffer) < size:
        return None
    return size, int.from_bytes(buffer[2 : 2 + more]) if more else length


def _frame_head(text: bytes, mask_bit: int) -> bytes:
    length = len(text)
    if length < 126:
        return bytes([0x80 | _TEXT, mask_bit | length])
    if length < 2**16:
        return bytes([0x80 | _TEXT, mask_bit | 126]) + length.to_bytes(2)
    return bytes([0x80 | _TEXT, mask_bit | 127]) + length.to_bytes(8)


def _masked(payload: bytes, mask: bytes | bytearray) -> bytes:
    """Apply a mask; applying it twice restores the data."""
    if not mask or not payload:
        return payload
    # As one large number: byte by byte a page's script would take milliseconds.
    whole = (bytes(mask) * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(whole)).to_bytes(len(payload))
