"""Raw events to outputs."""

import hashlib
import json
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.errors import ProtocolError
from runtimed.execution import outputs
from runtimed.execution.outputs import OutputFold, blobs_in, to_public
from runtimed.ids import CellId, ExecutionId
from runtimed.models import ExecutionEvent, ExecutionResult, Output
from runtimed.protocol.codec import decode_event, encode_event
from runtimed.protocol.events import (
    Blob,
    CellChanged,
    Clear,
    Display,
    Event,
    Failed,
    Finished,
    InputRequested,
    KernelState,
    Queued,
    Started,
    Stream,
)

CELL = CellId("cell-1")
EXECUTION = ExecutionId("execution-1")


def stdout(text: str) -> Stream:
    return Stream(at=1.0, name="stdout", text=text)


def stderr(text: str) -> Stream:
    return Stream(at=1.0, name="stderr", text=text)


def shown(text: str, display_id: str | None = None) -> Display:
    return Display(at=1.0, kind="display_data", data={"text/plain": text}, display_id=display_id)


def updated(text: str, display_id: str | None, metadata: str = "{}") -> Display:
    data = {"text/plain": text}
    return Display(at=1.0, kind="update_display_data", data=data, display_id=display_id, metadata=metadata)


def fold(*events: Event) -> OutputFold:
    folded = OutputFold()
    for event in events:
        folded.add(event)
    return folded


def text_of(*chunks: str) -> str:
    return "".join(output.text or "" for output in fold(*map(stdout, chunks)).outputs)


def stream(text: str, name: str = "stdout") -> Output:
    return Output(output_type="stream", name=name, text=text)


def display(text: str, display_id: str | None = None, **metadata: Any) -> Output:
    return Output(output_type="display_data", data={"text/plain": text}, metadata=metadata, display_id=display_id)


def blob(content: bytes, *, text: bool = False) -> Blob:
    return Blob(sha256=hashlib.sha256(content).hexdigest(), size=len(content), text=text)


def blob_map(content: bytes, *, text: bool = False) -> dict[str, Any]:
    named = blob(content, text=text)
    return {"t": "blob", "sha256": named.sha256, "size": named.size, "text": named.text}


# --- streams ----------------------------------------------------------------------------------------------------------


def test_consecutive_texts_of_one_stream_are_one_output() -> None:
    folded = fold(stdout("a"), stdout("b\n"), stderr("c"), stdout("d"), stdout("e"))
    assert folded.outputs == (stream("ab\n"), stream("c", "stderr"), stream("de"))


def test_a_display_separates_the_texts_around_it() -> None:
    assert fold(stdout("a"), shown("x"), stdout("b")).outputs == (stream("a"), display("x"), stream("b"))


def test_an_empty_text_is_no_output() -> None:
    assert fold(stdout("a"), stderr(""), stdout("b")).outputs == (stream("ab"),)


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        (["50%\r100%"], "100%"),
        (["100%\r50%"], "50%%"),
        (["abc\r"], "abc"),
        (["abc\r", "X"], "Xbc"),
        (["abc\r", "\nX"], "abc\nX"),
        (["abc\r\nX\r\n"], "abc\nX\n"),
        (["abc\r\r\nX"], "abc\nX"),
        (["abc\rX\ndef"], "Xbc\ndef"),
        (["one\ntwo\rT"], "one\nTwo"),
        (["abc\bX"], "abX"),
        (["abc\b"], "abc"),
        (["abc\b\b \b"], "a c"),
        (["\b\bx"], "x"),
        (["a\n\bx"], "a\nx"),
        (["ab", "c\b", "\b", "XY"], "aXY"),
        (["\u4f60\u597d\r\u6211"], "\u6211\u597d"),
        (["\udc80\r\ud800"], "\ud800"),
    ],
)
def test_carriage_return_and_backspace_move_the_cursor(chunks: list[str], text: str) -> None:
    assert text_of(*chunks) == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        pytest.param("\x1b[31mred\x1b[39m\x1b[1mbold\x1b[m", "\x1b[31mred\x1b[39m\x1b[1mbold\x1b[m", id="plain lines"),
        pytest.param("\x1b[31mred\x1b[0m\r", "\x1b[31mred\x1b[0m", id="the same colours"),
        pytest.param("\x1b[31mred\x1b[0m\rblue", "blue", id="overwritten colours are gone"),
        pytest.param("\x1b[31mred!\x1b[0m\rno", "no\x1b[31md!\x1b[0m", id="the rest keeps its colour"),
        pytest.param("\x1b[31mred\r\x1b[32mg", "\x1b[32mg\x1b[31med\x1b[32m", id="colours in force stay in force"),
        pytest.param("\x1b[31m\nab\rx\n", "\x1b[31m\nxb\n", id="a colour from the line before"),
        pytest.param("a\r\x1b[38;5;208mb\x1b[0m", "\x1b[38;5;208mb\x1b[0m", id="256 colours"),
        pytest.param("a\r\x1b[1;48;2;1;2;3mb\x1b[22mc", "\x1b[1;48;2;1;2;3mb\x1b[0;48;2;1;2;3mc", id="bold ends"),
        pytest.param("100%\r\x1b[K5%", "5%", id="erased to the end"),
        pytest.param("100%\x1b[2K\r5%", "5%", id="erased line"),
        pytest.param("abc\b\x1b[2Kd", "  d", id="erasing leaves the cursor"),
        pytest.param("\r1\x1b[A\r2\x1b[A", "2\x1b[A", id="other sequences stay, once"),
        pytest.param(
            "\ra\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", id="link"
        ),
        pytest.param("abc\r\x1b[3", "\x1b[3abc", id="a sequence without an end"),
        pytest.param("abc\r\x1b[3\n", "\x1b[3c\n", id="a line's end ends it"),
    ],
)
def test_escape_sequences_have_no_width(written: str, text: str) -> None:
    assert text_of(written) == text
    assert text_of(*written) == text


ALPHABET = ["a", "bc", "long text ", " ", "\r", "\b", "\n", "\r\n", "\x1b[31m", "\x1b[1;32m", "\x1b[0m", "\x1b[39m"]
MORE = ["\x1b[K", "\x1b[2K", "\x1b[A", "\x1b", "[", "3", "m", "\x1b]8;;", "\x1b\\", "\x07", "█", "\ud800"]
TEXTS = st.lists(st.sampled_from(ALPHABET + MORE), max_size=30).map("".join)


@given(text=TEXTS, data=st.data())
def test_the_cuts_between_chunks_do_not_matter(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    folded = OutputFold()
    for start, end in pairwise([0, *cuts, len(text)]):
        folded.add(stdout(text[start:end]))
        if data.draw(st.booleans()):
            _ = folded.outputs  # reading in between changes nothing
    assert folded.outputs == fold(stdout(text)).outputs


def as_a_terminal(text: str) -> str:
    """Return what a terminal of cells shows: the reference."""
    lines: list[list[str]] = [[]]
    column = 0
    for char in text:
        line = lines[-1]
        if char == "\n":
            lines.append([])
            column = 0
        elif char == "\r":
            column = 0
        elif char == "\b":
            column = max(0, column - 1)
        else:
            line[column : column + 1] = [char]
            column += 1
    return "\n".join("".join(line) for line in lines)


@given(st.text(alphabet="abcé█\r\b\n", max_size=60))
def test_lines_are_as_a_terminal_shows_them(text: str) -> None:
    assert text_of(text) == as_a_terminal(text)


@given(st.lists(st.sampled_from(["abc", "d", "\r", "\b", "\x1b[31m", "\x1b[0m", "\x1b[1m"]), max_size=30))
def test_colours_take_no_room(pieces: list[str]) -> None:
    folded = text_of("".join(pieces))
    for colour in ("\x1b[31m", "\x1b[0m", "\x1b[1m", "\x1b[0;31m", "\x1b[0;1m", "\x1b[31;1m", "\x1b[1;31m"):
        folded = folded.replace(colour, "")
    assert folded == as_a_terminal("".join(piece for piece in pieces if piece[0] != "\x1b"))


BAR = "█" * 20
FLOODS = {
    "100 MB without a newline": (["y" * 2**20] * 100, "y" * (100 * 2**20)),
    "the same after a carriage return": (["\r", *["y" * 2**20] * 100], "y" * (100 * 2**20)),
    "20,000 flushed lines": ([f"{n}\n" for n in range(20_000)], "".join(f"{n}\n" for n in range(20_000))),
    "100,000 progress bars": (
        [f"\r{n / 1000:3.0f}%|\x1b[32m{BAR}\x1b[0m| {n}/100000\x1b[A" for n in range(1, 100_001)],
        f"100%|\x1b[32m{BAR}\x1b[0m| 100000/100000\x1b[A",
    ),
    "100,000 overwritings in a line of 10 MB": (
        ["y" * 2**20] * 10 + ["\rab\b"] * 100_000,
        "ab" + "y" * (10 * 2**20 - 2),
    ),
    "a million backspaces": (["y" * 2**20, "\b" * 2**20, "x"], "x" + "y" * (2**20 - 1)),
    "10 MB of Windows lines": (["some text\r\n"] * 10 * 2**16, "some text\n" * 10 * 2**16),
    "a flood of unfinished escapes": (["\r\x1b]", *["a"] * 100_000], None),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_fold_within_seconds(name: str) -> None:
    chunks, text = FLOODS[name]
    begun = time.process_time()
    folded = text_of(*chunks)
    assert time.process_time() - begun < 10  # 3 s at most on a machine of 2026; minutes if anything is quadratic
    assert text is None or folded == text  # no comparison of 100 MB in the report of a failure


# --- displays and errors ----------------------------------------------------------------------------------------------


def test_values_are_text_bytes_or_parsed_json() -> None:
    event = Display(
        at=1.0,
        kind="execute_result",
        data={
            "text/plain": "{1}",
            "image/png": b"\x89PNG",
            "image/svg+xml": "<svg/>",
            "application/json": '{"a": [1, null]}',
            "application/vnd.plotly.v1+json": "[1e400]",
            "application/geo+json; charset=utf-8": '"x"',
            "application/broken+json": "{",
            "application/deep+json": "[" * 100_000,
        },
        metadata='{"image/png": {"width": 10}}',
        execution_count=7,
    )
    assert fold(event).outputs == (
        Output(
            output_type="execute_result",
            data={
                "text/plain": "{1}",
                "image/png": b"\x89PNG",
                "image/svg+xml": "<svg/>",
                "application/json": {"a": [1, None]},
                "application/vnd.plotly.v1+json": [float("inf")],
                "application/geo+json; charset=utf-8": "x",
                "application/broken+json": "{",
                "application/deep+json": "[" * 100_000,
            },
            metadata={"image/png": {"width": 10}},
            execution_count=7,
        ),
    )


@pytest.mark.parametrize("metadata", ["", "{", "[1]", "null"])
def test_metadata_that_is_no_map_is_empty(metadata: str) -> None:
    event = Display(at=1.0, kind="display_data", data={"text/plain": "x"}, metadata=metadata)
    assert fold(event).outputs == (display("x"),)


def test_an_error_keeps_its_traceback() -> None:
    event = Failed(at=1.0, ename="ValueError", evalue="no", traceback=("\x1b[31m---", "ValueError: no"))
    assert fold(decode_event(encode_event(event))).outputs == (
        Output(output_type="error", ename="ValueError", evalue="no", traceback=("\x1b[31m---", "ValueError: no")),
    )


def test_an_update_replaces_every_output_of_its_id() -> None:
    result = Display(at=1.0, kind="execute_result", data={"text/plain": "3"}, display_id="d", execution_count=2)
    folded = fold(shown("1", "d"), stdout("x"), shown("2", "other"), result)
    folded.add(updated("new", "d", '{"isolated": true}'))
    assert folded.outputs == (
        display("new", "d", isolated=True),
        stream("x"),
        display("2", "other"),
        Output(
            output_type="execute_result",
            data={"text/plain": "new"},
            metadata={"isolated": True},
            execution_count=2,
            display_id="d",
        ),
    )


def test_an_update_after_reading_is_seen() -> None:
    folded = fold(shown("1", "d"))
    assert folded.outputs == (display("1", "d"),)
    folded.add(updated("2", "d"))
    assert folded.outputs == (display("2", "d"),)


def test_an_update_of_an_unknown_display_is_ignored() -> None:
    folded = fold(stdout("x"), shown("no id"), updated("y", "elsewhere"), updated("z", None))
    assert folded.outputs == (stream("x"), display("no id"))


def test_an_update_from_another_execution_can_be_applied() -> None:
    folded = fold(shown("1", "d"), Finished(at=2.0, status="ok"))
    assert folded.apply_update(updated("2", "d")) is True
    assert folded.apply_update(updated("2", "e")) is False
    assert folded.apply_update(updated("2", None)) is False
    assert folded.outputs == (display("2", "d"),)


# --- clear_output -----------------------------------------------------------------------------------------------------


def test_clear_takes_everything_away_at_once() -> None:
    folded = fold(stdout("a"), shown("b", "d"), Clear(at=1.0))
    assert list(folded.outputs) == []
    folded.add(updated("c", "d"))
    assert list(folded.outputs) == []
    folded.add(stdout("d"))
    assert list(folded.outputs) == [stream("d")]


@pytest.mark.parametrize(
    ("event", "output"),
    [
        (stdout("new"), stream("new")),
        (shown("new"), display("new")),
        (Failed(at=1.0, ename="E", evalue="e"), Output(output_type="error", ename="E", evalue="e")),
    ],
)
def test_clear_with_wait_waits_for_the_next_output(event: Event, output: Output) -> None:
    folded = fold(stdout("old"), shown("old", "d"), Clear(at=1.0, wait=True))
    folded.add(updated("older", "d"))
    folded.add(stdout(""))
    folded.add(Finished(at=1.0, status="ok"))
    assert list(folded.outputs) == [
        stream("old"),
        display("older", "d"),
    ]  # an update and an empty text are no next output
    folded.add(event)
    assert list(folded.outputs) == [output]
    folded.add(shown("more"))
    assert list(folded.outputs) == [output, display("more")]


def test_clear_at_once_settles_a_waiting_clear() -> None:
    folded = fold(stdout("a"), Clear(at=1.0, wait=True), Clear(at=1.0), stdout("b"), stdout("c"))
    assert folded.outputs == (stream("bc"),)


# --- blobs ------------------------------------------------------------------------------------------------------------

PNG = b"\x89PNG" * 400_000
JSON = json.dumps({"points": list(range(1000)), "odd": "\ud800"}, ensure_ascii=False).encode("utf-8", "surrogatepass")
HTML = "<b>\udc80</b>".encode("utf-8", "surrogatepass")


def large(display_id: str | None = None) -> Display:
    return Display(
        at=1.0,
        kind="display_data",
        data={
            "text/plain": "<Figure>",
            "image/png": blob_map(PNG),
            "application/json": blob_map(JSON, text=True),
            "text/html": blob_map(HTML, text=True),
        },
        display_id=display_id,
    )


VALUES: dict[str, bytes | str] = {blob(content).sha256: content for content in (PNG, JSON, HTML)}
RESOLVED = {
    "text/plain": "<Figure>",
    "image/png": PNG,
    "application/json": {"points": list(range(1000)), "odd": "\ud800"},
    "text/html": "<b>\udc80</b>",
}


def test_blobs_stay_references_until_their_contents_are_given() -> None:
    folded = fold(decode_event(encode_event(large())), large())
    png, parsed, html = blob(PNG), blob(JSON, text=True), blob(HTML, text=True)
    assert folded.missing_blobs == [png, parsed, html]
    unresolved = {"text/plain": "<Figure>", "image/png": png, "application/json": parsed, "text/html": html}
    assert [output.data for output in folded.outputs] == [unresolved] * 2
    assert [output.data for output in folded.outputs_with({png.sha256: PNG})] == [{**unresolved, "image/png": PNG}] * 2
    assert [output.data for output in folded.outputs_with(VALUES)] == [RESOLVED] * 2
    assert [output.data for output in folded.result(CELL, EXECUTION, VALUES).outputs] == [RESOLVED] * 2
    assert folded.missing_blobs == [png, parsed, html]


def test_text_of_blobs_may_be_given_as_text() -> None:
    values: dict[str, bytes | str] = {
        sha256: value if value is PNG or isinstance(value, str) else value.decode("utf-8", "surrogatepass")
        for sha256, value in VALUES.items()
    }
    assert fold(large()).outputs_with(values)[0].data == RESOLVED


def test_a_reader_of_blobs_is_asked_once_and_only_for_what_is_left() -> None:
    asked: list[Blob] = []

    def read(named: Blob) -> bytes | str:
        asked.append(named)
        return VALUES[named.sha256]

    folded = OutputFold(read)
    for event in (large("gone"), Clear(at=1.0), large("d"), updated("small", "d"), large("e")):
        folded.add(event)
    assert asked == []
    assert [output.data for output in folded.outputs] == [{"text/plain": "small"}, RESOLVED]
    assert folded.missing_blobs == []
    assert folded.result(CELL, EXECUTION).outputs == folded.outputs
    assert asked == [blob(PNG), blob(JSON, text=True), blob(HTML, text=True)]


def test_blobs_that_an_update_or_a_clear_took_away_are_not_missing() -> None:
    assert fold(large("d"), updated("small", "d")).missing_blobs == []
    assert fold(large(), Clear(at=1.0)).missing_blobs == []


def test_a_map_that_is_no_blob_is_refused() -> None:
    event = Display(at=1.0, kind="display_data", data={"text/plain": {"a": 1}})
    with pytest.raises(ProtocolError, match="not a value of an output"):
        _ = fold(event).outputs


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_says_how_it_went() -> None:
    folded = fold(Queued(at=9.0, author="a"), Started(at=10.0, execution_count=3), stdout("x"))
    running = folded.result(CELL, EXECUTION)
    assert (folded.status, running.success, running.started_at, running.ended_at) == (
        None,
        False,
        datetime.fromtimestamp(10, UTC),
        None,
    )
    folded.add(Finished(at=12.5, status="ok", execution_count=3))
    folded.add(stdout("late"))
    assert folded.status == "ok"
    assert folded.result(CELL, EXECUTION) == ExecutionResult(
        cell_id=CELL,
        execution_id=EXECUTION,
        success=True,
        execution_count=3,
        outputs=(stream("xlate"),),
        started_at=datetime.fromtimestamp(10, UTC),
        ended_at=datetime.fromtimestamp(12.5, UTC),
    )


@pytest.mark.parametrize("status", ["error", "cancelled", "died"])
def test_only_ok_is_a_success(status: Any) -> None:
    folded = fold(Finished(at=1.0, status=status))
    assert (folded.status, folded.started_at, folded.execution_count) == (status, None, None)
    assert folded.result(CELL, EXECUTION).success is False


def test_the_last_event_does_not_forget_the_count() -> None:
    assert fold(Started(at=1.0, execution_count=4), Finished(at=2.0, status="died")).execution_count == 4


def test_events_of_others_change_nothing() -> None:
    folded = fold(
        KernelState(at=1.0, status="busy"),
        CellChanged(at=1.0, change="source", author="a"),
        InputRequested(at=1.0, prompt="? "),
    )
    assert (folded.outputs, folded.status, folded.started_at, folded.ended_at) == ((), None, None, None)


# --- the public view of one event -------------------------------------------------------------------------------------

WHERE = {"cell_id": "cell-1", "execution_id": "execution-1"}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            Started(at=1.0, execution_count=2, **WHERE),
            ExecutionEvent(event_type="execution_started", cell_id=CELL, execution_id=EXECUTION, execution_count=2),
        ),
        (
            Stream(at=1.0, name="stderr", text="\r5%", **WHERE),
            ExecutionEvent(event_type="output", cell_id=CELL, execution_id=EXECUTION, output=stream("\r5%", "stderr")),
        ),
        (updated("x", "d", '{"a": 1}'), ExecutionEvent(event_type="output", output=display("x", "d", a=1))),
        (
            Display(at=1.0, kind="execute_result", data={"application/json": "[1]"}, execution_count=2),
            ExecutionEvent(
                event_type="output",
                output=Output(output_type="execute_result", data={"application/json": [1]}, execution_count=2),
            ),
        ),
        (
            Failed(at=1.0, ename="E", evalue="e", traceback=("t",)),
            ExecutionEvent(
                event_type="output", output=Output(output_type="error", ename="E", evalue="e", traceback=("t",))
            ),
        ),
        (
            Finished(at=1.0, status="ok", execution_count=2, cell_id=CELL, execution_id=EXECUTION),
            ExecutionEvent(event_type="done", cell_id=CELL, execution_id=EXECUTION, execution_count=2),
        ),
        (
            Finished(at=1.0, status="error", execution_count=2, message="E: e"),
            ExecutionEvent(event_type="error", execution_count=2, error_message="E: e"),
        ),
        (
            Finished(at=1.0, status="died", message="killed by signal 9"),
            ExecutionEvent(event_type="error", error_message="killed by signal 9"),
        ),
        (
            Finished(at=1.0, status="cancelled"),
            ExecutionEvent(event_type="error", error_message="The execution was cancelled before it began"),
        ),
        (
            KernelState(at=1.0, status="dead", exit_code=1),
            ExecutionEvent(event_type="kernel_status", status="dead"),
        ),
        (
            CellChanged(at=1.0, change="moved", author="a", cell_id="cell-1"),
            ExecutionEvent(event_type="cell_changed", cell_id=CELL, status="moved", author="a"),
        ),
        (Clear(at=1.0), None),
        (Queued(at=1.0, author="a"), None),
        (
            InputRequested(at=1.0, prompt="? ", password=True),
            ExecutionEvent(event_type="input_requested", message="? ", password=True),
        ),
    ],
)
def test_the_public_view_of_an_event(event: Event, expected: ExecutionEvent | None) -> None:
    assert to_public(event) == expected


def test_blobs_of_one_event_can_be_filled_in() -> None:
    event = large("d")
    assert blobs_in(event) == [blob(PNG), blob(JSON, text=True), blob(HTML, text=True)]
    assert blobs_in(stdout("x")) == []
    public = to_public(event, VALUES)
    assert public is not None
    assert public.output is not None
    assert public.output.data == RESOLVED


def test_all_names_what_the_module_offers() -> None:
    own = {
        name
        for name, value in vars(outputs).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == outputs.__name__
    }
    assert own == set(outputs.__all__) - {"BlobValues", "Outcome"}
