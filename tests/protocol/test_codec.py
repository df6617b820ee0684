"""Frames and messages, chopped and mutated."""

from collections.abc import Callable
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.errors import ProtocolError
from runtimed.protocol import codec
from runtimed.protocol.browser_operations import Act, BrowserOperation
from runtimed.protocol.client_operations import ClientOperation
from runtimed.protocol.document_operations import AddCell, SetSource
from runtimed.protocol.events import CellChanged, Display, Event, Failed, Finished, KernelState, Stream
from runtimed.protocol.execution_operations import Enqueue, Subscribe
from runtimed.protocol.host_operations import Execute, HostOperation
from runtimed.protocol.messages import (
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

ASKED: list[Message] = [
    Hello(1, "0.1.0", "c1", None, 42),
    Request(1, AddCell(notebook_id="n", cell_id="c", source="x\x00\U0001f600", cell_type="markdown", index=0)),
    Request(2**40, Enqueue(notebook_id="n", execution_id="e", cell_id="c", source="1+1", stdin=True)),
    Request(3, Subscribe(notebook_id="n", cell_ids=["a"], after=9)),
    Cancel(2),
    Ack(12),
]

ASKED_OF_HOST: list[Message] = [
    Hello(1, "0.1.0", "daemon", None, 42),
    Request(4, Execute(execution_id="e", cell_id="c", code="1")),
    Request(5, Act(notebook_id="n", action={"type": "click"}, key="k")),
    Ack(12),
]

ANSWERS: list[Message] = [
    Welcome("0.1.0", 7),
    Refusal("go away"),
    Reply(2, {"cells": [], "next": None}),
    Failure(2, "CellNotFound", "Cell not found: c", {"cell_id": "c"}),
]

BOTH = pytest.mark.parametrize(
    ("messages", "decode"),
    [(ASKED, codec.decode_asked_of_daemon), (ANSWERS, codec.decode_answer)],
    ids=["asked", "answers"],
)

EVENTS: list[Event] = [
    Stream(at=1.5, execution_id="e", cell_id="c", name="stdout", text="2\n\ud800"),
    Display(at=1.5, execution_id="e", kind="display_data", data={"image/png": b"\x89", "text/plain": "x"}),
    Failed(at=1.5, ename="ValueError", evalue="no", traceback=("a", "b")),
    Finished(at=1.5, execution_id="e", status="error", message="ValueError: no"),
    KernelState(at=1.5, status="dead", signal=9, stderr="last words"),
    CellChanged(at=1.5, cell_id="c", change="moved", author="a"),
]


def read(data: bytes, size: int, decode: Callable[[bytes], Message]) -> list[Message]:
    reader = codec.FrameReader()
    found = []
    for start in range(0, len(data), size):
        found += [decode(body) for body in reader.receive_data(data[start : start + size])]
    assert reader.pending == 0
    return found


@BOTH
def test_a_stream_of_messages_reads_the_same_however_it_is_chopped(messages, decode):
    data = b"".join(map(codec.encode_message, messages))

    for size in range(1, len(data) + 1):
        assert read(data, size, decode) == messages


def test_nobody_gets_what_only_the_other_side_may_get():
    for messages, decode in ((ASKED, codec.decode_answer), (ANSWERS, codec.decode_asked_of_daemon)):
        for message in messages:
            if not isinstance(message, Refusal):
                with pytest.raises(ProtocolError, match="not a message"):
                    decode(codec.encode_message(message)[4:])
    for message in ASKED[1:]:
        with pytest.raises(ProtocolError, match="not a greeting"):
            codec.decode_greeting(codec.encode_message(message)[4:])
    assert codec.decode_greeting(codec.encode_message(ASKED[0])[4:]) == ASKED[0]


DAEMONS, HOSTS = set(get_args(ClientOperation)), set(get_args(HostOperation))


def test_a_daemon_and_a_host_are_asked_only_for_what_they_do():
    assert set(get_args(BrowserOperation)) == DAEMONS & HOSTS
    for kinds, decode, whom in (
        (HOSTS - DAEMONS, codec.decode_asked_of_daemon, "a daemon"),
        (DAEMONS - HOSTS, codec.decode_asked_of_host, "a host"),
    ):
        for kind in kinds:
            tag = kind.__struct_config__.tag
            with pytest.raises(ProtocolError, match=f"^{whom} knows no operation '{tag}'$"):
                decode(codec.pack({"t": "request", "id": 1, "operation": {"op": tag}}))


def test_an_unknown_operation_in_a_large_frame_is_refused_as_well():
    body = codec.pack({"t": "request", "id": 1, "operation": {"op": "host_warm", "text": "x" * codec.MAX_GREETING}})

    with pytest.raises(ProtocolError, match="^a daemon knows no operation 'host_warm'$"):
        codec.decode_asked_of_daemon(body)


@given(st.integers(), st.text(), st.binary())
def test_what_cannot_be_said_in_valid_unicode_is_read_all_the_same(number, text, data):
    number %= 2**53
    request = Request(number, SetSource(notebook_id="n\ud800", cell_id=text, source=text + "\udfff" + text))
    reply = Reply(number, {"text": text + "\ud800", "data": data, "n": [number, None, True, 0.5]})

    assert codec.decode_asked_of_daemon(codec.encode_message(request)[4:]) == request
    assert codec.decode_answer(codec.encode_message(reply)[4:]) == reply


def test_an_event_keeps_its_bytes_inside_a_frame_and_the_frame_reads_as_one_message():
    for event in EVENTS:
        body = codec.encode_event(event)
        head, same = codec.encode_event_frame(7, 300, body)

        assert same is body
        assert read(head + same, 5, codec.decode_answer) == [EventFrame(7, 300, body)]
        assert codec.decode_event(body) == event


def test_the_fixed_prefix_of_an_event_frame_is_what_a_plain_encoder_would_write():
    body = codec.encode_event(EVENTS[0]).ljust(70_000, b"\x00")

    parts = b"".join(codec.encode_event_frame(2**33, 2**40, body))

    assert parts == codec.encode_message(EventFrame(2**33, 2**40, body))


def test_a_frame_larger_than_the_cap_is_refused_before_it_is_read():
    reader = codec.FrameReader()

    with pytest.raises(ProtocolError, match="larger than allowed"):
        list(reader.receive_data((codec.MAX_FRAME + 1).to_bytes(4, "big")))


def test_a_message_larger_than_the_cap_is_not_sent():
    with pytest.raises(ProtocolError, match="larger than a frame"):
        codec.encode_message(Reply(1, {"data": b"x" * codec.MAX_FRAME}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        codec.pack({"t": "request", "id": "one", "operation": {"op": "sessions"}}),
        codec.pack({"t": "request", "id": 1, "operation": {"op": "no such operation"}}),
        codec.pack({"t": "no such message"}),
        codec.pack(["request", 1]),
        codec.pack({"t": "request", "id": 1, "operation": {"op": "get_cell", "notebook_id": "n"}}),
        codec.pack({"t": "ack", "seq": 1}) + b"\x00",
        b"\x91" * 5000,
        codec.pack({"t": "\ud800"}),
        codec.pack({"t": "request", "id": 1, "operation": {"op": "\ud800", "notebook_id": "n"}}),
    ],
)
def test_what_is_no_message_is_a_protocol_error(body):
    with pytest.raises(ProtocolError):
        codec.decode_asked_of_daemon(body)
    with pytest.raises(ProtocolError):
        codec.decode_answer(body)
    with pytest.raises(ProtocolError):
        codec.decode_greeting(body)


def test_a_value_that_is_nested_too_deeply_is_said_to_be():
    with pytest.raises(ProtocolError, match="^unreadable message: nested too deeply$"):
        codec.unpack(b"\x91" * 5000)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_message_or_a_protocol_error(body):
    try:
        message = codec.decode_asked_of_daemon(body)
    except ProtocolError:
        return
    assert isinstance(message, msgspec.Struct)


@given(st.sampled_from(ASKED), st.data())
def test_a_message_with_flipped_bytes_is_a_message_or_a_protocol_error(message, data):
    frame = bytearray(codec.encode_message(message)[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = codec.decode_asked_of_daemon(bytes(frame))
    except ProtocolError:
        return
    assert isinstance(found, msgspec.Struct)


def test_values_that_messagepack_does_not_know_are_a_protocol_error():
    for value in (2**70, object(), {1, 2}):
        with pytest.raises(ProtocolError, match="cannot encode"):
            codec.pack(value)
