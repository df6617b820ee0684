"""What an operation may hold: no number without bounds, no list without an end, and nothing that costs too much."""

import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from runtimed.errors import ProtocolError
from runtimed.protocol import codec
from runtimed.protocol.bounds import MAX_ITEMS, MAX_NUMBER
from runtimed.protocol.browser_operations import Act
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.counting import MAX_VALUES, check_values
from runtimed.protocol.host_operations import HostOperation
from runtimed.protocol.messages import Ack, Cancel, Hello, Request
from runtimed.protocol.operation import Operation

ASKED: tuple[type[msgspec.Struct], ...] = (Hello, Request, Cancel, Ack)
OPERATIONS: tuple[type[Operation[Any]], ...] = tuple(
    dict.fromkeys((*get_args(ClientOperation), *get_args(HostOperation)))
)
FREE_FORM = {kind for kind in OPERATIONS if kind.is_free_form}
NOT_FINITE = (math.nan, math.inf, -math.inf)


def leaves(kind: inspect.Type) -> Iterator[inspect.Type]:
    """All types that a value of this type may hold, itself included."""
    yield kind
    if isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from leaves(each)
    elif isinstance(kind, inspect.ListType):
        yield from leaves(kind.item_type)
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from leaves(field.type)
    elif isinstance(kind, inspect.DictType):
        yield from leaves(kind.key_type)
        yield from leaves(kind.value_type)


def fields(kind: type[msgspec.Struct]) -> Iterator[tuple[inspect.Field, list[inspect.Type]]]:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    for field in described.fields:
        if not (kind is Request and field.name == "operation"):
            yield field, list(leaves(field.type))


EVERY_FIELD = [
    pytest.param(kind, field, types, id=f"{kind.__name__}.{field.name}")
    for kind in (*ASKED, *OPERATIONS)
    for field, types in fields(kind)
]


def asked_with(kind: type[msgspec.Struct], name: str, value: Any) -> bytes:
    """A frame's body in which this field has this value, and all others what their types ask for."""
    plain: dict[str, Any] = {}
    for field, types in fields(kind):
        if field.required:
            plain[field.encode_name] = next(_some(each) for each in types if _some(each) is not None)
    plain[next(field.encode_name for field, _ in fields(kind) if field.name == name)] = value
    config = kind.__struct_config__
    plain[str(config.tag_field)] = config.tag
    if kind is Request:
        plain["operation"] = {"op": "status"}
    if kind not in ASKED:
        plain = {"t": "request", "id": 1, "operation": plain}
    packed: bytes = msgpack.packb(plain)
    return packed


def decode(kind: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    return codec.decode_asked_of_host if kind in get_args(HostOperation) else codec.decode_asked_of_daemon


def _some(kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.StructType):
        return {field.encode_name: _some(field.type) for field in kind.fields if field.required}
    values: dict[type, Any] = {
        inspect.StrType: "s",
        inspect.IntType: 1,
        inspect.FloatType: 1.0,
        inspect.BytesType: b"b",
        inspect.BoolType: False,
        inspect.ListType: [],
        inspect.DictType: {},
    }
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    return values.get(type(kind))


@pytest.mark.parametrize(("kind", "field", "types"), EVERY_FIELD)
def test_every_number_has_bounds_and_every_list_an_end(kind, field, types):
    for each in types:
        if isinstance(each, inspect.IntType | inspect.FloatType):
            assert each.ge is not None
            assert each.le is not None
            assert -MAX_NUMBER <= each.ge <= each.le <= MAX_NUMBER
        if isinstance(each, inspect.ListType | inspect.DictType):
            assert kind in FREE_FORM or (each.max_length or math.inf) <= MAX_ITEMS
        if isinstance(each, inspect.AnyType):
            assert kind in FREE_FORM


@pytest.mark.parametrize(("kind", "field", "types"), EVERY_FIELD)
def test_no_field_of_any_operation_takes_a_number_that_is_not_finite_or_a_huge_one(kind, field, types):
    good = decode(kind)(asked_with(kind, field.name, _some(next(t for t in types if _some(t) is not None))))
    assert good is not None
    wrong: list[Any] = [*NOT_FINITE, 1e308, -1e308, 2**64 - 1, -(2**63)]
    if any(isinstance(each, inspect.AnyType) for each in types):
        inside = [[{"deep": [number]}] for number in NOT_FINITE]
        wrong = [{"v": value} for value in inside] if isinstance(types[0], inspect.DictType) else inside
    for value in wrong:
        with pytest.raises(ProtocolError):
            decode(kind)(asked_with(kind, field.name, value))


def test_the_operations_of_any_shape_are_those_that_are_counted():
    of_any_shape = {
        kind
        for kind in OPERATIONS
        if any(isinstance(each, inspect.AnyType) for _field, types in fields(kind) for each in types)
    }

    assert of_any_shape == FREE_FORM


# --- counting ---------------------------------------------------------------------------------------------------------


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Lengths of one and of two bytes are all there are of texts that are not huge.
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=20),
)


def count(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    if isinstance(value, dict):
        return 1 + sum(1 + count(each) for each in value.values())
    return 1


@given(plain)
def test_values_are_counted_as_they_are_read(value):
    packed = msgpack.packb(value)

    check_values(packed, count(value) - 1)
    if count(value) > 1:
        with pytest.raises(ProtocolError, match="contains more than"):
            check_values(packed, count(value) - 2)
    for end in range(0, len(packed), max(1, len(packed) // 10)):
        with pytest.raises(ProtocolError, match="it is incomplete"):
            check_values(packed[:end])


@pytest.mark.parametrize("value", [*NOT_FINITE, [1, {"a": math.nan}], [0.5, -math.inf]])
@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
def test_a_number_that_is_not_finite_is_found_wherever_it_is(value, single):
    with pytest.raises(ProtocolError, match="not finite"):
        check_values(msgpack.packb(value, use_single_float=single))


def test_large_and_finite_numbers_pass():
    for value in (1.7976931348623157e308, 5e-324, -0.0, 3.4028234663852886e38):
        check_values(msgpack.packb(value))
        check_values(msgpack.packb(min(value, 3e38), use_single_float=True))


def test_a_long_text_and_long_bytes_are_one_value():
    check_values(msgpack.packb(["x" * 2**20, b"x" * 2**20, "x" * 70_000, "x" * 300]), 4)


def test_a_value_of_a_type_of_its_own_is_refused():
    for value in (msgpack.ExtType(5, b"abcd"), msgpack.Timestamp(1), msgpack.ExtType(1, b"x" * 300)):
        with pytest.raises(ProtocolError, match="an extension type"):
            check_values(msgpack.packb([value]))


ACT = Act(notebook_id="n", action={"type": "x"})
HEAD = codec.encode_message(Request(1, ACT))[4:].rpartition(b"\xa1x")[0]
"""A request up to a value that may have any shape."""


@pytest.mark.parametrize(
    "body",
    [
        b"\x90" * 2**24,
        b"\x91" * 2**24,
        b"\xdd\x01\x00\x00\x00" + b"\x90" * 2**24,
        b"\xdd\xff\xff\xff\xff" * 2**20,
        b"\x81\xa1t" + b"\x93" * 2**23,
        HEAD + b"\xdd\x00\xff\x00\x00" + b"\x90" * 0xFF0000,
        HEAD + b"\x91" * 2**23,
        HEAD + b"\xdd\x00\x0f\x00\x00" * 2**10 + b"\x00" * 2**20,
        b"\x83\xa1t\xa6cancel\xa2id\x01\xa1x\xdd\x01\x00\x00\x00" + b"\x90" * 2**24,
        # With a lone surrogate in front, for which there is another decoder.
        b"\x83\xa1t\xa6cancel\xa1x\xa3\xed\xa0\x80\xa2id\xdd\x00\xff\x00\x00" + b"\x90" * 0xFF0000,
    ],
    ids=[
        "lists",
        "nested",
        "one list",
        "claims",
        "in a map",
        "action",
        "deep action",
        "claimed",
        "unknown",
        "surrogate",
    ],
)
def test_a_frame_of_millions_of_values_costs_nothing_before_it_is_refused(body):
    began = time.process_time()
    with pytest.raises(ProtocolError):
        codec.decode_asked_of_daemon(body)
    took = time.process_time() - began
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        codec.decode_asked_of_daemon(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # Reading it into objects takes 8 s and a gigabyte.
    assert took < 2
    assert peak < 64 * 2**20


def test_as_many_values_as_may_be_are_read():
    values = [0] * (MAX_VALUES - 100)
    request = Request(1, Act(notebook_id="n", action={"type": values}))

    assert codec.decode_asked_of_daemon(codec.encode_message(request)[4:]) == request
