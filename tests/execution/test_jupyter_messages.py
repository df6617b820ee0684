"""Messages of kernels, well-formed and not, to events."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.execution.jupyter_messages import (
    Origin,
    events_of,
    failure_of_reply,
    pager_of_reply,
    summary_of_reply,
    user_expressions_of_reply,
)
from runtimed.protocol.codec import MAX_FRAME, decode_event, encode_event
from runtimed.protocol.events import (
    MAX_INLINE,
    Clear,
    Display,
    Event,
    Failed,
    InputRequested,
    Started,
    Stream,
)

ORIGIN = Origin(5.0, "e", "c")
WHERE: dict[str, Any] = {"at": 5.0, "execution_id": "e", "cell_id": "c"}


class Store:
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def __call__(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        return sha256


def translate(msg_type: str, content: Any, store: Store | None = None) -> list[Event]:
    return events_of({"msg_type": msg_type, "content": content}, ORIGIN, store or Store())


def display(data: Any, store: Store | None = None, **content: Any) -> Display:
    (event,) = translate("display_data", {"data": data, **content}, store)
    assert isinstance(event, Display)
    return event


def test_each_type_of_message_has_its_event() -> None:
    assert translate("stream", {"name": "stderr", "text": "oh"}) == [Stream(name="stderr", text="oh", **WHERE)]
    assert translate("execute_input", {"code": "1", "execution_count": 4}) == [Started(execution_count=4, **WHERE)]
    assert translate("clear_output", {"wait": True}) == [Clear(wait=True, **WHERE)]
    assert translate("input_request", {"prompt": "? ", "password": True}) == [
        InputRequested(prompt="? ", password=True, **WHERE)
    ]
    assert translate("error", {"ename": "E", "evalue": "v", "traceback": ["a", "b"]}) == [
        Failed(ename="E", evalue="v", traceback=("a", "b"), **WHERE)
    ]
    content = {"data": {"text/plain": "2"}, "metadata": {"a": {"b": 1}}, "execution_count": 7}
    assert translate("execute_result", content) == [
        Display(kind="execute_result", data={"text/plain": "2"}, metadata='{"a":{"b":1}}', execution_count=7, **WHERE)
    ]
    update = {"data": {}, "metadata": {}, "transient": {"display_id": "d"}}
    assert translate("update_display_data", update) == [
        Display(kind="update_display_data", data={}, display_id="d", **WHERE)
    ]
    for other in ("status", "comm_open", "comm_msg", "iopub_welcome", "debug_event", None):
        assert translate(other, {"execution_state": "busy"}) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["a" * (2 * MAX_INLINE + 5), "€" * MAX_INLINE, "\ud800" * MAX_INLINE, "a😀" * MAX_INLINE]
)
def test_a_long_stream_is_split_within_the_limit(text: str) -> None:
    events = translate("stream", {"name": "stdout", "text": text})
    pieces = [event.text for event in events if isinstance(event, Stream)]
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode("utf-8", "surrogatepass")) <= MAX_INLINE for piece in pieces)
    assert len(pieces) == len(events) > 1


def test_an_empty_stream_is_nothing() -> None:
    assert translate("stream", {"name": "stdout", "text": ""}) == []


def test_mime_types_decide_what_a_value_is() -> None:
    png = base64.encodebytes(b"\x89PNG" * 40).decode()  # with line breaks, as Python's standard library makes them
    data = {
        "text/plain": ["a\n", "b"],
        "image/png": png,
        "IMAGE/JPEG": "AAAA",
        "image/svg+xml": "<svg/>",
        "application/pdf": "AAAA",
        "audio/wav; rate=8": "AAAA",
        "application/json": {"z": [1, None, "é"]},
        "application/vnd.jupyter.widget-view+json": {"model_id": "m"},
        "application/vnd.custom": "text",
        "image/gif": "this is not base64!",
    }
    assert display(data).data == {
        "text/plain": "a\nb",
        "image/png": b"\x89PNG" * 40,
        "IMAGE/JPEG": b"\0\0\0",
        "image/svg+xml": "<svg/>",
        "application/pdf": b"\0\0\0",
        "audio/wav; rate=8": b"\0\0\0",
        "application/json": '{"z":[1,null,"é"]}',
        "application/vnd.jupyter.widget-view+json": '{"model_id":"m"}',
        "application/vnd.custom": "text",
        "image/gif": "this is not base64!",
    }


def test_json_comes_out_as_it_came_in() -> None:
    value = {"nan": float("inf"), "big": 10**40, "lone": "\ud800", "deep": [[["x"]]]}
    text = display({"application/json": value}).data["application/json"]
    assert json.loads(text) == value
    assert display({"application/json": "a string"}).data == {"application/json": '"a string"'}


def test_large_values_become_blobs() -> None:
    store = Store()
    binary, text, fitting = b"b" * (MAX_INLINE + 1), "€" * (MAX_INLINE // 3 + 1), "f" * MAX_INLINE
    data = display(
        {"image/png": base64.b64encode(binary).decode(), "text/html": text, "text/plain": fitting}, store
    ).data
    assert data["text/plain"] == fitting
    image, html = data["image/png"], data["text/html"]
    assert image == {"t": "blob", "sha256": hashlib.sha256(binary).hexdigest(), "size": len(binary), "text": False}
    assert (html["size"], html["text"]) == (len(text.encode()), True)
    assert [store.blobs[image["sha256"]], store.blobs[html["sha256"]].decode()] == [binary, text]


def test_what_the_store_raises_passes_through() -> None:
    def full(_data: bytes) -> str:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        events_of({"msg_type": "display_data", "content": {"data": {"a": "x" * (MAX_INLINE + 1)}}}, ORIGIN, full)


def test_every_event_fits_into_a_frame() -> None:
    many = {f"text/x-{number}": "x" * (900_000 if number < 10 else 5000) for number in range(2000)}
    huge = "h" * 20_000_000
    events = [
        display(many),
        display({}, metadata={"a": huge}),
        *translate("error", {"ename": huge, "evalue": huge, "traceback": [huge, huge, *["line"] * 2_000_000]}),
        *translate("input_request", {"prompt": huge}),
        *translate("stream", {"name": huge, "text": huge}),
        failure_of_reply({"ename": huge, "evalue": huge}, ORIGIN),
    ]
    for event in events:
        encoded = encode_event(event)
        assert len(encoded) < MAX_FRAME // 2
        assert decode_event(encoded) == event


def test_a_shortened_text_says_so() -> None:
    (event,) = translate("error", {"ename": "E", "evalue": "v" * 10_000_000, "traceback": ["a"] * 2_000_000})
    assert isinstance(event, Failed)
    assert event.evalue.endswith("characters left out)")
    assert event.traceback[-1].endswith("more lines left out")


def test_replies_say_how_it_ended() -> None:
    assert summary_of_reply({"status": "ok"}) is None
    assert summary_of_reply({"status": "error", "ename": "E", "evalue": "v"}) == "E: v"
    assert summary_of_reply({"status": "error", "ename": "KeyboardInterrupt", "evalue": ""}) == "KeyboardInterrupt"
    assert summary_of_reply({"status": "aborted"}) == "The kernel skipped this execution"
    assert summary_of_reply({}) == "Error"
    assert failure_of_reply({"ename": "E", "evalue": "v", "traceback": ["t"]}, ORIGIN) == Failed(
        ename="E", evalue="v", traceback=("t",), is_published=False, **WHERE
    )


def test_only_pages_of_a_payload_are_shown() -> None:
    payload = [
        {"source": "page", "start": 0, "data": {"text/plain": "help"}},
        {"source": "set_next_input", "text": "x"},
        {"source": "page", "data": 5},
        "junk",
    ]
    assert pager_of_reply({"payload": payload}, ORIGIN, Store()) == [
        Display(kind="display_data", data={"text/plain": "help"}, **WHERE)
    ]
    assert pager_of_reply({"payload": "junk"}, ORIGIN, Store()) == []


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("name", "text", "data", "metadata", "transient", "execution_count", "wait", "prompt", "password")
CONTENT = JUNK | st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys((*KEYS, "ename", "evalue", "traceback", "status", "payload", "source"), JUNK),
        "data": JUNK | st.dictionaries(st.sampled_from(["text/plain", "image/png", "application/json", ""]), JUNK),
        "transient": JUNK | st.fixed_dictionaries({"display_id": JUNK}),
        "payload": JUNK | st.lists(st.fixed_dictionaries({"source": st.just("page"), "data": JUNK}), max_size=2),
    },
)
TYPES = [
    *("stream", "display_data", "execute_result", "update_display_data", "error"),
    *("clear_output", "execute_input", "input_request", "status", "x"),
]


@given(st.sampled_from(TYPES), CONTENT)
def test_no_content_is_too_odd(msg_type: str, content: Any) -> None:
    """What comes out can always travel and come back."""
    for event in translate(msg_type, content):
        assert decode_event(encode_event(event)) == event
    if isinstance(content, dict):
        summary_of_reply(content)
        assert decode_event(encode_event(failure_of_reply(content, ORIGIN))) == failure_of_reply(content, ORIGIN)
        for page in pager_of_reply(content, ORIGIN, Store()):
            assert decode_event(encode_event(page)) == page


def test_user_expressions_that_are_too_large_or_no_objects_say_so() -> None:
    good = {"status": "ok", "data": {"text/plain": "\ud800"}, "metadata": {}}
    large = {"status": "ok", "data": {"text/plain": "x" * MAX_INLINE}, "metadata": {}}

    found = json.loads(user_expressions_of_reply({"user_expressions": {"large": large, "good": good, "odd": 1}}))

    assert found["good"] == good
    assert (found["large"]["ename"], found["odd"]["ename"]) == ("LeftOut", "LeftOut")
    assert f"the limit is {MAX_INLINE}" in found["large"]["evalue"]
    assert found["odd"]["evalue"] == "it is not a JSON object"


@pytest.mark.parametrize("content", [{}, {"user_expressions": None}, {"user_expressions": [1]}])
def test_a_reply_without_user_expressions_has_none(content: dict[str, object]) -> None:
    assert user_expressions_of_reply(content) == "{}"
