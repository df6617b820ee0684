"""Messages to bytes and back: a frame is a length in four bytes (big-endian), then one MessagePack value.

Lone surrogates, which a kernel may print, pass (`surrogatepass`). Nothing here waits or opens a socket.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Any, Final

import msgpack
import msgspec

from runtimed.errors import ProtocolError
from runtimed.protocol.events import Event
from runtimed.protocol.messages import Message
from runtimed.structs import prepare

__all__ = [
    "MAX_FRAME",
    "FrameReader",
    "decode_event",
    "decode_message",
    "encode_event",
    "encode_event_frame",
    "encode_message",
    "is_clear",
    "pack",
    "unpack",
]

MAX_FRAME: Final = 16 * 2**20
"""Largest frame accepted from a peer, in bytes, its length prefix not counted."""

_LENGTH: Final = struct.Struct(">I")
_pack = msgpack.Packer(use_bin_type=True, unicode_errors="surrogatepass", autoreset=True).pack


_INVALID: Final = (msgspec.ValidationError, UnicodeEncodeError)  # a tag may hold a lone surrogate


class _MessageBox(msgspec.Struct):
    """Holds a message: msgspec prepares the types of a struct once, those of a bare union at each call (10 µs)."""

    value: Message


class _EventBox(msgspec.Struct):
    """Holds an event, for the same reason."""

    value: Event


prepare(_MessageBox, _EventBox)


def pack(value: Any) -> bytes:
    """Encode plain values (None, bool, int, float, str, bytes, list, dict) as MessagePack.

    Raises:
        ProtocolError: If the value holds something else, or an integer of more than 64 bits.
    """
    try:
        packed: bytes = _pack(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ProtocolError(f"cannot encode: {exc}") from exc
    return packed


def unpack(data: bytes | memoryview) -> Any:
    """Decode one MessagePack value.

    Raises:
        ProtocolError: If the bytes are not exactly one value.
    """
    try:
        return msgpack.unpackb(data, raw=False, unicode_errors="surrogatepass", strict_map_key=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as exc:
        raise ProtocolError(f"unreadable message: {str(exc) or 'nested too deeply'}") from exc


def encode_message(message: Message) -> bytes:
    """Return the frame of a message, length prefix included.

    Raises:
        ProtocolError: If it does not fit into MAX_FRAME.
    """
    body = pack(msgspec.to_builtins(message, builtin_types=(bytes,)))
    if len(body) > MAX_FRAME:
        raise ProtocolError(f"a message of {len(body)} bytes is larger than a frame may be ({MAX_FRAME} bytes)")
    return _LENGTH.pack(len(body)) + body


def encode_event(event: Event) -> bytes:
    """Return an event's own bytes, the same for storage and for every subscriber."""
    return pack(msgspec.to_builtins(event, builtin_types=(bytes,)))


# An event is a map of less than 16 keys, the tag first.
_CLEAR: Final = pack("t") + pack("clear")


def is_clear(event: bytes) -> bool:
    """Whether an event's own bytes, made by `encode_event`, are those of a `Clear`; decoding them takes longer."""
    return event.startswith(_CLEAR, 1)


# The bytes of an `EventFrame` around its id, its seq and its event: a map of 4 keys, in this order.
_EVENT_HEAD: Final = b"\x84" + pack("t") + pack("event") + pack("id")
_EVENT_SEQ: Final = pack("seq")
_EVENT_BODY: Final = pack("event") + b"\xc6"
"""Ends with the type byte of a MessagePack `bin 32`, whose length follows."""


def encode_event_frame(request_id: int, seq: int, event: bytes) -> tuple[bytes, bytes]:
    """Return an event frame in two parts, to be sent one behind the other: its own prefix, and `event` untouched."""
    head = b"".join((_EVENT_HEAD, _pack(request_id), _EVENT_SEQ, _pack(seq), _EVENT_BODY, _LENGTH.pack(len(event))))
    return _LENGTH.pack(len(head) + len(event)) + head, event


def decode_message(body: bytes | memoryview) -> Message:
    """Return the message in a frame's body.

    Raises:
        ProtocolError: If it is no MessagePack, no message, or a field has a wrong type.
    """
    value = unpack(body)
    try:
        return msgspec.convert({"value": value}, _MessageBox).value
    except _INVALID as exc:
        raise ProtocolError(f"not a message: {exc}") from exc


def decode_event(data: bytes | memoryview) -> Event:
    """Return an event from its own bytes.

    Raises:
        ProtocolError: If the bytes hold none.
    """
    value = unpack(data)
    try:
        return msgspec.convert({"value": value}, _EventBox).value
    except _INVALID as exc:
        raise ProtocolError(f"not an event: {exc}") from exc


class FrameReader:
    """Cuts a stream of bytes into frame bodies."""

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._buffer = bytearray()

    def receive_data(self, data: bytes | memoryview) -> Generator[bytes]:
        """Take bytes as they came from the socket; give the bodies of the frames that are now complete.

        Consume or close the iterator before the next call, which begins with what was not consumed.

        Raises:
            ProtocolError: If a frame announces more than `max_frame` bytes.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > self._max_frame:
                    raise ProtocolError(f"a frame of {length} bytes is larger than allowed ({self._max_frame} bytes)")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    break
                body = bytes(memoryview(buffer)[start + _LENGTH.size : end])
                start = end
                yield body
        finally:
            del buffer[:start]

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)
