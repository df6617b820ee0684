"""Frames that no honest peer sends: messages of every kind, changed at random in their bytes and in their values."""

from __future__ import annotations

import random
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgpack
import msgspec

from runtimed.errors import ProtocolError
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.codec import decode_asked_of_daemon, decode_asked_of_host, encode_message
from runtimed.protocol.host_operations import HostOperation
from runtimed.protocol.messages import (
    PROTOCOL_VERSION,
    Ack,
    Cancel,
    EventFrame,
    Failure,
    Hello,
    Message,
    Refusal,
    Reply,
    Request,
    Welcome,
)
from runtimed.protocol.operation import Operation

__all__ = ["Batch", "batches", "every_operation"]

VALUES: Final[dict[str, Any]] = {
    "notebook_id": "fuzz",
    "cell_id": "c",
    "cell_type": "code",
    "cell_ids": ["c"],
    "execution_id": "e",
    "source": "x = 1",
    "code": "x = 1",
    "text": "y",
    "key": "k",
    "value": "v",
    "env_source": "none",
    "sha256": "0" * 64,
}
"""What a field of this name holds; others hold their default, or something of their type."""


def every_operation(kinds: Any) -> list[Operation[Any]]:
    """One operation of each kind in a union of them."""
    return [msgspec.convert(_fields(kind), kinds) for kind in typing.get_args(kinds)]


def _fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    types = typing.get_type_hints(kind)
    fields = {
        field.name: _value(field.name, types[field.name])
        for field in msgspec.structs.fields(kind)
        if field.name in VALUES or field.required
    }
    return {kind.__struct_config__.tag_field or "": kind.__struct_config__.tag, **fields}


def _value(name: str, kind: Any) -> Any:
    if name in VALUES:
        return VALUES[name]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _fields(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return _value(name, typing.get_args(kind)[0])
    if typing.get_origin(kind) is typing.Literal:
        return typing.get_args(kind)[0]
    if typing.get_origin(kind) in (dict, list):
        of = typing.get_args(kind)[-1]
        return {} if typing.get_origin(kind) is dict else [_value("", of)]
    simple: dict[Any, Any] = {int: 1, float: 1.0, bool: True, bytes: b"b"}
    return simple.get(kind, "a")


@dataclass
class Batch:
    """What is sent on one connection: every frame but the last is one that the other side has to deal with.

    Attributes:
        greeting: Comes first; empty for a peer that does not greet.
        frames: The changed ones, in this order; the last one ends the connection, unless the batch just ends.
    """

    greeting: bytes
    frames: list[bytes] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        """All of it."""
        return self.greeting + b"".join(self.frames)


def batches(
    seed: int, count: int, *, asked_of: Literal["daemon", "host"], may_be_sent: Callable[[Operation[Any]], bool]
) -> Iterator[Batch]:
    """Give `count` changed frames in batches, each of which is followed by the end of its connection.

    Args:
        seed: Two runs of one seed are the same.
        count: How many frames, the greetings not counted.
        asked_of: Who gets them.
        may_be_sent: Whether an operation that is valid in spite of all changes does no harm.
    """
    numbers = random.Random(seed)
    operations = every_operation(ClientOperation if asked_of == "daemon" else HostOperation)
    decode = decode_asked_of_daemon if asked_of == "daemon" else decode_asked_of_host
    hello = encode_message(Hello(PROTOCOL_VERSION, "0", "fuzz", None, 1))
    batch = Batch(hello)
    number = 0
    while number < count:
        frame = _changed(numbers, encode_message(_message(numbers, operations, number)))
        message = _read(frame, decode)
        match message:
            case Request(operation=operation) if not may_be_sent(operation):
                continue
        number += 1
        batch.frames.append(frame)
        # Anything else is answered with the end of the connection.
        if not isinstance(message, Request | Cancel) or len(batch.frames) > 40:
            yield batch
            batch = Batch(b"" if numbers.random() < 0.05 else hello)
    yield batch


def _message(numbers: random.Random, operations: list[Operation[Any]], number: int) -> Message:
    if numbers.random() < 0.9:
        return Request(number, numbers.choice(operations))
    others: list[Message] = [
        Hello(PROTOCOL_VERSION, "0", "again", None, 1),
        Welcome("0", 1),
        Refusal("no"),
        Cancel(number - 1),
        Reply(number, {}),
        Failure(number, "RuntimedError", "no", {}),
        EventFrame(number, 1, b"event"),
        Ack(2**52),
    ]
    return numbers.choice(others)


def _read(frame: bytes, decode: Callable[[bytes], Message]) -> Message | None:
    try:
        return decode(frame[4:]) if int.from_bytes(frame[:4], "big") == len(frame) - 4 else None
    except ProtocolError:
        return None


# --- changes ----------------------------------------------------------------------------------------------------------


def _changed(numbers: random.Random, frame: bytes) -> bytes:
    return numbers.choice(_CHANGES)(numbers, frame)


def _as_it_is(numbers: random.Random, frame: bytes) -> bytes:
    return frame


def _flip_bits(numbers: random.Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    for _ in range(numbers.randint(1, 4)):
        # The length is left: a longer one would swallow the frames behind it.
        data[numbers.randrange(4, len(data))] ^= 1 << numbers.randrange(8)
    return bytes(data)


def _cut_body(numbers: random.Random, frame: bytes) -> bytes:
    body = frame[4 : numbers.randrange(4, len(frame))]
    return len(body).to_bytes(4, "big") + body


def _extend_body(numbers: random.Random, frame: bytes) -> bytes:
    body = frame[4:] + numbers.randbytes(numbers.randint(1, 20))
    return len(body).to_bytes(4, "big") + body


def _wrong_length(numbers: random.Random, frame: bytes) -> bytes:
    return numbers.choice([0, len(frame) + 1, 2**24, 2**24 + 1, 2**31, 2**32 - 1]).to_bytes(4, "big") + frame[4:]


def _noise(numbers: random.Random, frame: bytes) -> bytes:
    body = numbers.randbytes(numbers.randint(0, 60))
    return len(body).to_bytes(4, "big") + body


def _nested(numbers: random.Random, frame: bytes) -> bytes:
    depth = numbers.choice([10, 500, 20_000])
    body = numbers.choice([b"\x91", b"\x81\xa1t"]) * depth + b"\xc0"
    return len(body).to_bytes(4, "big") + body


def _change_value(numbers: random.Random, frame: bytes) -> bytes:
    """Put something else in the place of one value, name or tag of the message."""
    message = msgpack.unpackb(frame[4:])
    target = message
    if isinstance(message.get("operation"), dict) and numbers.random() < 0.85:
        target = message["operation"]
    key = numbers.choice(list(target))
    match numbers.randrange(8):
        case 0:
            del target[key]
        case 1:
            target[numbers.choice(["", "op", "t", "id", "extra"])] = target[key]
        case _:
            target[key] = _odd_value(numbers, target[key])
    body: bytes = msgpack.packb(message, unicode_errors="surrogatepass")
    return len(body).to_bytes(4, "big") + body


def _odd_value(numbers: random.Random, value: Any) -> Any:
    odd: list[Any] = [
        *(None, True, -1, 0, 2**31, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"), -1e308),
        *("", "a", "\ud800", "\0", "../../etc/passwd", "🦊" * 50, b"bytes", [], {}, [[]] * 3, {"a": {"b": [1]}}),
        *([value], {"x": value}, [None] * 1000),
    ]
    return numbers.choice(odd)


_CHANGES: Final = (
    *(_as_it_is, _as_it_is, _as_it_is),
    *(_change_value, _change_value, _change_value, _change_value, _change_value, _change_value),
    *(_flip_bits, _flip_bits),
    *(_cut_body, _extend_body, _wrong_length, _noise, _nested),
)
