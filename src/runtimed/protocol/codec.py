"""Encodes and decodes messages: a frame is its length in four bytes (big-endian), then one MessagePack value.

Bytes from a peer are decoded into typed structs: bytes that do not belong to a message never become objects. Lone
surrogates, which a kernel may print, are passed (`surrogatepass`). Nothing here waits or opens a socket.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Any, Final, Generic, TypeVar, get_args

import msgpack
import msgspec

from runtimed.errors import ProtocolError
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.counting import check_values
from runtimed.protocol.events import Event
from runtimed.protocol.host_operations import HostOperation
from runtimed.protocol.messages import Answer, AskedOfDaemon, AskedOfHost, Hello, Message
from runtimed.protocol.operation import Operation, reply_type
from runtimed.protocol.replies import InPieces

__all__ = [
    "MAX_FRAME",
    "MAX_GREETING",
    "FrameReader",
    "decode_answer",
    "decode_asked_of_daemon",
    "decode_asked_of_host",
    "decode_event",
    "decode_greeting",
    "encode_event",
    "encode_event_frame",
    "encode_message",
    "is_clear",
    "is_comm",
    "pack",
    "read_pieces",
    "unpack",
]

MAX_FRAME: Final = 16 * 2**20
"""Largest frame accepted from a peer, in bytes, without its length prefix."""

MAX_GREETING: Final = 2**16
"""Largest frame accepted before the greeting, in bytes. Decoding a frame of this size is harmless."""

_LENGTH: Final = struct.Struct(">I")
_pack = msgpack.Packer(use_bin_type=True, unicode_errors="surrogatepass", autoreset=True).pack


T = TypeVar("T")


class _Decoder(Generic[T]):
    """Decodes values of one type."""

    def __init__(self, kind: Any, what: str) -> None:
        # msgspec inspects the types here, once, since threads may decode concurrently.
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._box = msgspec.defstruct("_Box", [("value", kind)])
        msgspec.json.Decoder(self._box)
        self._what = what

    def decode(self, data: bytes | memoryview, *, trusted: bool = True) -> T:
        """Decode a value.

        Args:
            data: MessagePack.
            trusted: Whether the daemon or a host encoded it, so that its size needs no check.

        Raises:
            ProtocolError: If the bytes are not such a value.
        """
        try:
            value: T = self._decoder.decode(data)
        except (msgspec.ValidationError, TypeError, RecursionError) as exc:
            raise ProtocolError(f"not {self._what}: {exc}") from exc
        except (msgspec.DecodeError, ValueError):
            # msgspec rejects lone surrogates. The fallback makes objects of everything, so values are counted first.
            if not trusted:
                check_values(bytes(data))
            return self._convert(unpack(data))
        return value

    def _convert(self, plain: Any) -> T:
        try:
            value: T = msgspec.convert({"value": plain}, self._box).value  # type: ignore[attr-defined]  # made above
        except (msgspec.ValidationError, UnicodeEncodeError) as exc:  # a tag may hold a lone surrogate
            raise ProtocolError(f"not {self._what}: {exc}") from exc
        return value


class _OperationTag(msgspec.Struct):
    op: str = ""


class _RequestTag(msgspec.Struct):
    """The kind of a message, without its other fields."""

    operation: _OperationTag | None = None


_greetings: Final[_Decoder[Hello]] = _Decoder(Hello, "a greeting")
_answers: Final[_Decoder[Answer]] = _Decoder(Answer, "a message")
_events: Final[_Decoder[Event]] = _Decoder(Event, "an event")
_tags: Final[_Decoder[_RequestTag]] = _Decoder(_RequestTag, "a message")


class _AskedDecoder(Generic[T]):
    """Decodes the messages of an asking side, which may contain anything."""

    def __init__(self, kind: Any, operations: Any, whom: str) -> None:
        self._decoder: _Decoder[T] = _Decoder(kind, "a message")
        self._known = {str(each.__struct_config__.tag): each for each in get_args(operations)}
        self._whom = whom

    def decode(self, body: bytes) -> T:
        if len(body) > MAX_GREETING:
            check_values(body)
        tag = _tags.decode(body, trusted=False).operation
        if tag is not None and tag.op:
            if tag.op not in self._known:
                raise ProtocolError(f"{self._whom} knows no operation {tag.op[:100]!r}")
            if self._known[tag.op].is_free_form and len(body) <= MAX_GREETING:
                check_values(body)
        return self._decoder.decode(body, trusted=False)


_asked_of_daemon: Final[_AskedDecoder[AskedOfDaemon]] = _AskedDecoder(AskedOfDaemon, ClientOperation, "a daemon")
_asked_of_host: Final[_AskedDecoder[AskedOfHost]] = _AskedDecoder(AskedOfHost, HostOperation, "a host")


def pack(value: Any) -> bytes:
    """Encode plain values (None, bool, int, float, str, bytes, list, dict) as MessagePack.

    Raises:
        ProtocolError: If the value contains any other type, or an integer of more than 64 bits.
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
        ProtocolError: If it is larger than MAX_FRAME, or contains anything but plain values.
    """
    try:
        plain = msgspec.to_builtins(message, builtin_types=(bytes,))
    except TypeError as exc:
        raise ProtocolError(f"cannot encode: {exc}") from exc
    body = pack(plain)
    if len(body) > MAX_FRAME:
        raise ProtocolError(f"a message of {len(body)} bytes is larger than a frame may be ({MAX_FRAME} bytes)")
    return _LENGTH.pack(len(body)) + body


def encode_event(event: Event) -> bytes:
    """Encode an event, once for storage and for every subscriber."""
    return pack(msgspec.to_builtins(event, builtin_types=(bytes,)))


# An event is a map of less than 16 keys, the tag first.
_CLEAR: Final = pack("t") + pack("clear")


def is_clear(event: bytes) -> bool:
    """Whether an encoded event is a `Clear`, without decoding it."""
    return event.startswith(_CLEAR, 1)


_COMM: Final = pack("t") + pack("comm")


def is_comm(event: bytes) -> bool:
    """Whether an event's encoded bytes are those of a `Comm`."""
    return event.startswith(_COMM, 1)


# The bytes of an `EventFrame` around its id, its seq and its event: a map of 4 keys, in this order.
_EVENT_HEAD: Final = b"\x84" + pack("t") + pack("event") + pack("id")
_EVENT_SEQ: Final = pack("seq")
_EVENT_BODY: Final = pack("event") + b"\xc6"
"""Ends with the type byte of a MessagePack `bin 32`, whose length follows."""


def encode_event_frame(request_id: int, seq: int, event: bytes) -> tuple[bytes, bytes]:
    """Return an event frame in two parts to be sent in order: its prefix, and `event`, which is not copied."""
    head = b"".join((_EVENT_HEAD, _pack(request_id), _EVENT_SEQ, _pack(seq), _EVENT_BODY, _LENGTH.pack(len(event))))
    return _LENGTH.pack(len(head) + len(event)) + head, event


def decode_greeting(body: bytes) -> Hello:
    """Decode a frame's body as a greeting.

    Raises:
        ProtocolError: If it is not a greeting.
    """
    return _greetings.decode(body, trusted=False)


def decode_asked_of_daemon(body: bytes) -> AskedOfDaemon:
    """Decode a frame's body as a message of a client, which may contain anything.

    Raises:
        ProtocolError: If it is not MessagePack, not such a message, names an unknown operation, has a field of a wrong
            type or out of bounds, or too many values.
    """
    return _asked_of_daemon.decode(body)


def decode_asked_of_host(body: bytes) -> AskedOfHost:
    """Decode a frame's body as a message of a daemon to a host.

    Raises:
        ProtocolError: As `decode_asked_of_daemon`.
    """
    return _asked_of_host.decode(body)


def decode_answer(body: bytes) -> Answer:
    """Decode a frame's body as a message of the serving side.

    Raises:
        ProtocolError: If it is not MessagePack, not such a message, or has a field of a wrong type.
    """
    return _answers.decode(body)


def decode_event(data: bytes | memoryview) -> Event:
    """Decode an event.

    Raises:
        ProtocolError: If the bytes are not an event.
    """
    return _events.decode(data)


def read_pieces(operation: Operation[InPieces[T]], data: bytes) -> T:
    """Decode the value of a reply in pieces.

    Args:
        operation: The operation that was requested.
        data: All pieces, joined.

    Raises:
        ProtocolError: If the bytes are not a reply to the operation.
    """
    (kind,) = get_args(reply_type(type(operation)))
    try:
        value: T = msgspec.convert(unpack(data), kind)
    except msgspec.ValidationError as exc:
        raise ProtocolError(f"not a reply to {type(operation).__name__}: {exc}") from exc
    return value


class FrameReader:
    """Splits a stream of bytes into the bodies of frames.

    Attributes:
        max_frame: Largest accepted frame, in bytes.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self.max_frame = max_frame
        self._buffer = bytearray()

    def receive_data(self, data: bytes | memoryview) -> Generator[bytes]:
        """Take bytes from the stream, and yield the bodies of the frames that they complete.

        Consume or close the iterator before the next call; frames that were not consumed come first then.

        Raises:
            ProtocolError: If a frame announces more than `max_frame` bytes.
        """
        self._buffer += data
        return self._bodies()

    def _bodies(self) -> Generator[bytes]:
        buffer, start = self._buffer, 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > self.max_frame:
                    raise ProtocolError(f"a frame of {length} bytes is larger than allowed ({self.max_frame} bytes)")
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
        """Bytes received of an incomplete frame, length prefix included."""
        return len(self._buffer)

    @property
    def announced(self) -> int:
        """Size of the incomplete frame in bytes; 0 if there is none, or its length prefix is incomplete."""
        if len(self._buffer) < _LENGTH.size:
            return 0
        length: int = _LENGTH.unpack_from(self._buffer)[0]
        return length
