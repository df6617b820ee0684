"""A reader of an execution's events gets the same ones wherever it begins, live or from storage."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.reading import Entry, ExecutionReader, read_page
from runtimed.execution.outputs import OutputFold
from runtimed.ids import CellId, ExecutionId, SessionId
from runtimed.models import ExecutionResult
from runtimed.protocol.codec import decode_event, encode_event, is_clear
from runtimed.protocol.events import (
    CellChanged,
    Clear,
    Display,
    Event,
    Failed,
    Finished,
    InputRequested,
    KernelState,
    Omitted,
    Queued,
    Started,
    Stream,
)
from runtimed.storage.session_store import SessionStore

LIMIT = 1000


def text(size: int, name: str = "stdout") -> Stream:
    return Stream(at=1, execution_id="e", name=name, text="x" * size)


def display(size: int, display_id: str | None = None, kind: str = "display_data") -> Display:
    data = {"text/plain": "x" * size}
    return Display(at=1, execution_id="e", kind=kind, data=data, display_id=display_id)  # type: ignore[arg-type]


class Recorded:
    """A log on disk whose committed entries are kept, as a live stream would get them."""

    comms = False

    def __init__(self, folder: Path, limit: int | None = LIMIT) -> None:
        self.store = SessionStore(folder / "s.db")
        self.log = EventLog(SessionId("read"), self.store, Flow(Demand(), "read"), limit, time.time)
        self.entries: list[Entry] = []
        self.log.attach(self)  # type: ignore[arg-type]  # it is offered what a Stream is

    def offer(self, entries: list[Entry]) -> None:
        self.entries += entries

    def add(self, *events: Event) -> None:
        with self.log.transaction():
            for event in events:
                self.log.append(event)

    def read(self, after: int = 0, *, whole: bool = False) -> list[Event]:
        return [decode_event(body) for _seq, body in everything(self.log.reader("e", after=after, whole=whole))]


def everything(reader: ExecutionReader) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while page := reader.page():
        found += page
    return found


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    recorded = Recorded(tmp_path)
    yield recorded
    recorded.store.close()


def size_of(*events: Event) -> int:
    return sum(len(encode_event(event)) for event in events)


def test_outputs_up_to_the_limit_come_and_the_end_comes_after_any_amount_of_them(recorded):
    begin, end = Started(at=1, execution_id="e"), Finished(at=2, execution_id="e", status="error")
    failed = Failed(at=2, execution_id="e", ename="E", evalue="e")
    small, large = text(300), text(900)
    recorded.add(begin, small, small, large)
    for _ in range(50):
        recorded.add(large)
    recorded.add(failed, end)

    omitted = Omitted(at=0, execution_id="e", after=3, size=size_of(large) * 51)
    assert recorded.read() == [begin, small, small, omitted, failed, end]
    assert recorded.read(whole=True) == [begin, small, small, omitted, *[large] * 51, failed, end]
    assert recorded.read(after=3) == [omitted, failed, end]
    assert recorded.read(after=54) == [failed, end]


def test_without_a_limit_everything_comes(tmp_path):
    recorded = Recorded(tmp_path, limit=None)
    events = [text(2**20) for _ in range(5)]
    recorded.add(*events)
    assert recorded.read() == events
    recorded.store.close()


def test_exactly_the_limit_is_within_it(tmp_path):
    events = [text(300), text(200)]
    recorded = Recorded(tmp_path, limit=size_of(*events))
    recorded.add(*events)
    assert recorded.read() == events
    recorded.add(text(1))
    assert recorded.read() == [*events, Omitted(at=0, execution_id="e", after=2, size=size_of(text(1)))]
    recorded.store.close()


def test_what_is_cleared_counts_no_more(recorded):
    clear = Clear(at=1, execution_id="e", wait=True)
    for _ in range(20):
        recorded.add(text(700), clear)
    recorded.add(text(10))
    assert len([event for event in recorded.read() if isinstance(event, Stream)]) == 21
    recorded.add(text(2000), text(3), clear, text(4))
    events = recorded.read()
    assert [event for event in events if isinstance(event, Omitted)] == [
        Omitted(at=0, execution_id="e", after=41, size=1),
        Omitted(at=0, execution_id="e", after=41, size=size_of(text(2000), text(3))),
    ]
    assert events[-2:] == [clear, text(4)]


def test_updates_of_a_display_never_reach_the_limit(recorded):
    recorded.add(display(600, "d"))
    for size in range(100):
        recorded.add(display(500 + size, "d", "update_display_data"))
    assert len(recorded.read()) == 101


@pytest.mark.parametrize("whole", [False, True])
def test_a_reader_that_was_live_goes_on_from_storage(recorded, whole):
    reader = recorded.log.reader("e", after=0, whole=whole)
    recorded.add(text(300), text(800), text(900))
    live = list(reader.live(recorded.entries))
    recorded.add(Finished(at=2, execution_id="e", status="ok"))
    stored = reader.page()

    expected = recorded.read(whole=whole)
    found = [decode_event(body) for _seq, body in [*live, *stored]]
    assert [e for e in found if not isinstance(e, Omitted)] == [e for e in expected if not isinstance(e, Omitted)]
    assert [e.after for e in found if isinstance(e, Omitted)] == [1]
    assert decode_event(reader.omission()) == next(e for e in expected if isinstance(e, Omitted))


@pytest.mark.parametrize("whole", [False, True])
def test_a_clear_that_waits_is_done_by_an_output_that_is_left_out(recorded, whole):
    recorded.add(text(100), Clear(at=1, execution_id="e", wait=True), text(1200), text(1))
    found = result(recorded.read(whole=whole))
    assert (found.outputs, found.truncated, found.omitted_after) == ((), True, 2)


def test_pages_of_a_reply_end_and_go_on(recorded):
    recorded.add(*[text(90) for _ in range(5)], text(2000), Finished(at=2, execution_id="e", status="ok"))
    events: list[Event] = []
    sizes, after, is_all = [], 0, False
    while not is_all:
        reader = recorded.log.reader("e", after=after)
        page, is_all = read_page(reader, 250)
        sizes.append(len(page))
        events += [decode_event(body) for _seq, body in page]
        after = reader.cursor
    assert events == recorded.read()
    assert sizes == [2, 2, 3]


@pytest.mark.parametrize(
    "event",
    [
        Queued(at=1, author="a"),
        Started(at=1),
        text(3),
        display(3),
        Failed(at=1, ename="E", evalue="e"),
        Clear(at=1),
        Clear(at=1, execution_id="e" * 50, cell_id="c", wait=True),
        InputRequested(at=1, prompt="clear"),
        Finished(at=1, status="ok"),
        KernelState(at=1, status="idle"),
        CellChanged(at=1, change="cleared", author="a"),
        Omitted(at=1, after=1, size=1),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_clear_is_known_by_its_bytes(event):
    assert is_clear(encode_event(event)) == isinstance(event, Clear)


EVENTS = st.one_of(
    st.builds(text, st.integers(1, 1200), st.sampled_from(["stdout", "stderr"])),
    st.builds(display, st.integers(1, 600), st.sampled_from([None, "d", "f"])),
    st.builds(display, st.integers(1, 600), st.sampled_from(["d", "f", "g"]), st.just("update_display_data")),
    st.builds(lambda wait: Clear(at=1, execution_id="e", wait=wait), st.booleans()),
    st.just(Failed(at=1, execution_id="e", ename="E", evalue="e")),
    st.just(InputRequested(at=1, execution_id="e", prompt="?")),
    st.builds(lambda: Stream(at=1, execution_id="other", name="stdout", text="y" * 400)),
    st.just(KernelState(at=1, status="idle")),
)


def result(events: list[Event]) -> ExecutionResult:
    fold = OutputFold()
    for event in events:
        fold.add(event)
    return fold.result(CellId("c"), ExecutionId("e"))


@given(events=st.lists(EVENTS, max_size=25), breaks=st.lists(st.integers(1, 25), max_size=4), data=st.data())
@pytest.mark.parametrize("whole", [False, True])
@settings(max_examples=100)
def test_wherever_a_reader_begins_again_it_gives_the_same_outputs(tmp_path_factory, whole, events, breaks, data):
    recorded = Recorded(tmp_path_factory.mktemp("log"))
    name = uuid.uuid4().hex
    own = [msgspec.structs.replace(e, execution_id=name) if e.execution_id == "e" else e for e in events]
    recorded.entries.clear()
    reader = recorded.log.reader(name, after=0, whole=whole)
    got: list[tuple[int, bytes]] = []
    is_live = True
    for n, event in enumerate(own, 1):
        recorded.add(event)
        match data.draw(st.sampled_from(["live", "stored", "wait"])):
            case "live" if is_live:
                got += reader.live(recorded.entries)
            case "stored":
                got += everything(reader)
                is_live = True
            case _:
                is_live = False
        recorded.entries.clear()
        if n in breaks:
            reader = recorded.log.reader(name, after=got[-1][0] if got else 0, whole=whole)
            is_live = False
    got += everything(reader)
    if reader.omits:
        got.append((reader.cursor, reader.omission()))
    expected = [decode_event(body) for _seq, body in everything(recorded.log.reader(name, after=0))]

    assert [seq for seq, _body in got] == sorted(seq for seq, _body in got)
    found = [decode_event(body) for _seq, body in got]
    own = [event for event in own if event.execution_id == name]
    if whole:
        assert [event for event in found if not isinstance(event, Omitted)] == own
    else:
        assert [e for e in found if not isinstance(e, Omitted)] == [e for e in expected if not isinstance(e, Omitted)]
    controls = [event for event in own if not isinstance(event, Stream | Display)]
    assert [event for event in found if not isinstance(event, Stream | Display | Omitted)] == controls
    full, limited = result(own), result(found)
    if breaks:
        assert limited.omitted_bytes <= result(expected).omitted_bytes
        assert replace(limited, omitted_bytes=0) == replace(result(expected), omitted_bytes=0)
    else:
        assert limited == result(expected)
    if not limited.truncated:
        assert limited.outputs == full.outputs
    assert sum(len(output.text or "") for output in limited.outputs) <= LIMIT
    recorded.store.close()
