import sqlite3
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runtimed.ids import HostEpoch
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Failed
from runtimed.storage.session_store import SessionStore

H1, H2 = HostEpoch("h1"), HostEpoch("h2")


def sql(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def fill(path: Path) -> None:
    with SessionStore(path) as store:
        for i in range(1, 11):
            execution = f"e{i % 2}"
            assert store.append_event(b"%d" % i, execution_id=execution, cell_id="c", host=(H1, i)) == i


def test_events_come_back_in_order_and_by_execution(tmp_path: Path) -> None:
    fill(tmp_path / "a.db")
    with SessionStore(tmp_path / "a.db") as store:
        assert store.last_seq == 10
        assert store.append_event(b"", execution_id=None, cell_id=None) == 11
        assert store.read_events(8) == [(9, b"9"), (10, b"10"), (11, b"")]
        assert store.read_events(0, upto=2) == [(1, b"1"), (2, b"2")]
        assert store.read_events(3, execution_id="e1") == [(5, b"5"), (7, b"7"), (9, b"9")]
        assert store.read_events(3, execution_id="e1", upto=7) == [(5, b"5"), (7, b"7")]
        assert store.read_events(0, execution_id="unknown") == []
        assert store.read_events(11) == []
        assert (store.last_event_of_execution("e0"), store.last_event_of_execution("unknown")) == (10, 0)


def test_a_page_ends_before_it_grows_too_large_but_is_never_empty(tmp_path: Path) -> None:
    with SessionStore(tmp_path / "a.db") as store:
        for size in (10, 10, 50, 1, 1):
            store.append_event(bytes(size), execution_id="e", cell_id=None)
        pages = [[seq for seq, _ in store.read_events(after, max_bytes=20)] for after in (0, 1, 2, 3, 5)]
        assert pages == [[1, 2], [2], [3], [4, 5], []]
        assert [seq for seq, _ in store.read_events(1, max_rows=3)] == [2, 3, 4]
        assert [seq for seq, _ in store.read_events(1, execution_id="e", max_rows=2)] == [2, 3]
        store.append_event(b"x", execution_id=None, cell_id=None)
        with store.transaction():
            assert [seq for seq, _ in store.read_events(0, max_bytes=1)] == [1]


def test_an_event_of_a_host_is_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path)
    with SessionStore(path) as store:
        assert store.last_event_of_host(H1) == 10
        assert [store.append_event(b"again", execution_id="e", cell_id=None, host=(H1, n)) for n in (1, 10)] == [
            None
        ] * 2
        assert store.append_event(b"new", execution_id="e", cell_id=None, host=(H2, 3)) == 11
        assert store.append_event(b"late", execution_id="e", cell_id=None, host=(H2, 2)) == 12
        assert store.append_event(b"late", execution_id="e", cell_id=None, host=(H2, 2)) is None
        assert store.append_event(b"next", execution_id="e", cell_id=None, host=(H2, 4)) == 13
        assert (store.last_event_of_host(H1), store.last_event_of_host(H2)) == (10, 4)
    with SessionStore(path) as store:
        assert (store.last_event_of_host(H1), store.last_event_of_host(H2)) == (10, 4)
        assert [body for _, body in store.read_events(10)] == [b"new", b"late", b"next"]


def test_numbers_are_never_used_again_after_deletions(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path)
    sql(path, "DELETE FROM events")
    with SessionStore(path) as store:
        assert (store.last_seq, store.last_event_of_host(H1)) == (10, 10)
        assert store.append_event(b"again", execution_id="e", cell_id=None, host=(H1, 7)) is None
        assert store.append_event(b"new", execution_id="e", cell_id=None, host=(H1, 11)) == 11
    sql(path, "DELETE FROM events WHERE seq = 11")
    with SessionStore(path) as store:
        assert store.append_event(b"new", execution_id="e", cell_id=None) == 12


def test_a_rolled_back_event_may_be_stored_again(tmp_path: Path) -> None:
    with SessionStore(tmp_path / "a.db") as store:

        def append_and_fail() -> None:
            assert store.append_event(b"x", execution_id="e", cell_id="c", host=(H1, 1)) == 1
            raise KeyError

        with pytest.raises(KeyError), store.transaction():
            append_and_fail()
        assert (store.last_seq, store.last_event_of_host(H1), store.read_events(0)) == (0, 0, [])
        assert store.append_event(b"y", execution_id="other", cell_id="c", host=(H1, 1)) == 1
        assert store.append_event(b"z", execution_id="e", cell_id="c", host=(H1, 2)) == 2
    with SessionStore(tmp_path / "a.db") as store:
        assert store.read_events(0, execution_id="other") == [(1, b"y")]
        assert store.read_events(0, execution_id="e") == [(2, b"z")]
        assert store.last_event_of_host(H1) == 2


def test_a_damaged_event_is_replaced_by_one_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path)
    sql(path, "UPDATE events SET body = x'ff' WHERE seq = 3")
    with SessionStore(path) as store:
        (one, two, (seq, body), *_) = store.read_events(0)
        assert [one, two] == [(1, b"1"), (2, b"2")]
        event = decode_event(body)
        assert isinstance(event, Failed)
        assert (seq, event.ename) == (3, "StorageError")
        assert event.evalue == f"event 3 in {path} is damaged: its bytes do not match their checksum"
        assert store.read_events(3, upto=4) == [(4, b"4")]


def test_more_ids_than_memory_keeps_are_still_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimed.storage.names._MAX_NAMES", 3)
    with SessionStore(tmp_path / "a.db") as store:
        for _ in range(2):
            for i in range(10):
                store.append_event(b"%d" % i, execution_id=f"e{i}", cell_id=f"c{i}")
        found = [store.read_events(0, execution_id=f"e{i}") for i in range(10)]
    assert found == [[(i + 1, b"%d" % i), (i + 11, b"%d" % i)] for i in range(10)]


class EventLogMachine(RuleBasedStateMachine):
    """The log against a list: appended, rolled back, closed and opened in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "a.db"
        self.store = SessionStore(self.path)
        self.committed: list[tuple[str | None, tuple[HostEpoch, int] | None, bytes]] = []
        self.events = list(self.committed)
        self.leave: Callable[[bool], None] | None = None

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(
        body=st.binary(max_size=40),
        execution=st.sampled_from([None, "e1", "e2"]),
        host=st.none() | st.tuples(st.sampled_from([H1, H2]), st.integers(1, 6)),
    )
    def append(self, body: bytes, execution: str | None, host: tuple[HostEpoch, int] | None) -> None:
        seq = self.store.append_event(body, execution_id=execution, cell_id=None, host=host)
        if host is not None and any(known == host for _, known, _ in self.events):
            assert seq is None
        else:
            self.events.append((execution, host, body))
            assert seq == len(self.events)
        if self.leave is None:
            self.committed = list(self.events)

    @precondition(lambda self: self.leave is None)
    @rule()
    def begin(self) -> None:
        block = self.store.transaction()
        block.__enter__()

        def leave(failed: bool) -> None:
            block.__exit__(KeyError if failed else None, None, None)

        self.leave = leave

    @precondition(lambda self: self.leave is not None)
    @rule(failed=st.booleans())
    def end(self, failed: bool) -> None:
        assert self.leave is not None
        self.leave(failed)
        self.leave = None
        if failed:
            self.events = list(self.committed)
        else:
            self.committed = list(self.events)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.leave = None
        self.events = list(self.committed)
        self.store = SessionStore(self.path)

    @rule(
        after=st.integers(0, 20),
        execution=st.sampled_from([None, "e1", "e2"]),
        upto=st.none() | st.integers(0, 20),
        max_bytes=st.integers(1, 100),
    )
    def read(self, after: int, execution: str | None, upto: int | None, max_bytes: int) -> None:
        expected = [
            (seq, body)
            for seq, (owner, _, body) in enumerate(self.events, 1)
            if seq > after and (upto is None or seq <= upto) and execution in (None, owner)
        ]
        found: list[tuple[int, bytes]] = []
        while page := self.store.read_events(
            found[-1][0] if found else after, execution_id=execution, upto=upto, max_bytes=max_bytes
        ):
            assert len(page) == 1 or sum(len(body) for _, body in page) <= max_bytes
            found += page
        assert found == expected

    @invariant()
    def numbers_agree(self) -> None:
        assert self.store.last_seq == len(self.events)
        for epoch in (H1, H2):
            numbers = [host[1] for _, host, _ in self.events if host is not None and host[0] == epoch]
            assert self.store.last_event_of_host(epoch) == max(numbers, default=0)
        for execution in ("e1", "e2"):
            seqs = [seq for seq, (owner, _, _) in enumerate(self.events, 1) if owner == execution]
            assert self.store.last_event_of_execution(execution) == (seqs[-1] if seqs else 0)


TestEventLogMachine = EventLogMachine.TestCase
TestEventLogMachine.settings = settings(max_examples=40, stateful_step_count=30)
