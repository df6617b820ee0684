"""Documents are compacted while clients edit them, and whatever goes wrong leaves the old one."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import string
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from runtimed import Client, ExecutionEvent, Session
from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.verifying import VERIFIER
from runtimed.daemon.upkeep.compaction import compact
from runtimed.document.compaction import Compaction
from runtimed.document.notebook import NotebookDocument
from runtimed.ids import CellId, ClientId, SessionId, stored_name
from runtimed.storage.audit import Actor
from runtimed.storage.session_store import SessionStore
from tests.conftest import command_of, processes_of, wait_until
from tests.daemon.conftest import until

ME = ClientId("a" * 32)
ACTOR = Actor(ME, label=None, uid=0, pid=None)
ID = SessionId("n")
A = CellId("cell-a")
EDITS = 100


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore(tmp_path / "s.db") as store:
        yield store


def open_document(store: SessionStore, memory: int | None = None) -> SharedDocument:
    log = EventLog(store, Flow(Demand(), ID), None)
    return SharedDocument(ID, store, log, time.time, compact_after=EDITS, compact_after_memory=memory)


def append(document: SharedDocument, text: str) -> None:
    document.edit("source", ACTOR, lambda d: d.append_source(A, text, author=ME))


def count(document: SharedDocument, number: int) -> None:
    document.edit("metadata", ACTOR, lambda d: d.set_metadata("done", str(number), author=ME))


@pytest.fixture
def document(store: SessionStore) -> SharedDocument:
    """A document that is due."""
    document = open_document(store)
    document.edit("added", ACTOR, lambda d: d.add_cell(A, "", "code", author=ME))
    for n in range(EDITS):
        assert not document.compaction_due
        append(document, f"<{n}>")
    assert document.compaction_due
    return document


def source(document: SharedDocument) -> str:
    return document.cell(A).source


def tokens(count: int) -> str:
    return "".join(f"<{n}>" for n in range(count))


def failing(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_document_that_was_just_loaded_is_due_by_what_is_stored(store: SessionStore, document: SharedDocument):
    again = open_document(store)
    assert not again.compaction_due
    again.load()
    assert (again.changes, again.compaction_due) == (EDITS, True)


def is_due(document: SharedDocument) -> bool:
    return document.compaction_due


def test_a_document_is_due_by_the_memory_of_few_changes_too_whoever_counts_them(store: SessionStore):
    document = open_document(store, memory=10_000_000)
    document.edit("added", ACTOR, lambda d: d.add_cell(A, "x" * 500_000, "code", author=ME))
    for _ in range(7):
        assert not is_due(document)
        append(document, "x")  # writes 500,000 code points, 3 bytes of memory for each; they are stored packed
    assert is_due(document)
    assert document.changes == 7 < EDITS
    again = open_document(store, memory=10_000_000)
    again.load()
    assert is_due(again)

    document.postpone_compaction()
    assert not is_due(document)
    append(document, "x")
    assert is_due(document)

    assert asyncio.run(compact(ID, document))
    assert not is_due(document)
    append(document, "x")
    assert not is_due(document)
    assert not is_due(open_document(store, memory=1))  # it is not loaded


def test_a_document_is_not_written_anew_for_less_than_twice_what_it_holds(store: SessionStore):
    document = open_document(store, memory=1)
    document.edit("added", ACTOR, lambda d: d.add_cell(A, "x" * 500_000, "code", author=ME))
    append(document, "x")
    assert not is_due(document)
    append(document, "x")
    assert is_due(document)


def test_memory_is_given_back_to_the_system(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER_MEMORY", "64M")
    rng = random.Random(1)
    with Session("s") as session:
        cell_id = session.create_cell("x" * 300_000)
        status = Client().status()
        assert status is not None
        daemon = psutil.Process(status.pid)
        before = daemon.memory_info().rss
        highest = before
        while not compactions(data_dir):
            session.append_source(cell_id, "".join(rng.choices(string.ascii_letters, k=1000)))
            highest = max(highest, daemon.memory_info().rss)
        grown = highest - before
        assert grown > 40 * 2**20
        wait_until(lambda: daemon.memory_info().rss - before < grown / 2, "the daemon keeps the memory")


def test_a_compacted_document_is_stored_as_a_snapshot_alone(store: SessionStore, document: SharedDocument, caplog):
    caplog.set_level(logging.INFO)
    old = document.content
    assert asyncio.run(compact(ID, document))
    assert document.content is not old
    assert (document.changes, document.compaction_due) == (0, False)
    snapshot, changes = store.load_document()
    assert changes == []
    # The first change, the id, the cell.
    assert len(NotebookDocument.load(snapshot, []).history()) == 3
    assert "100 changes less" in caplog.text
    append(document, "!")
    assert source(open_document(store)) == source(document) == tokens(EDITS) + "!"


def test_what_is_edited_meanwhile_is_stored_behind_the_snapshot(store: SessionStore, document: SharedDocument):
    done = 0

    async def scenario() -> bool:
        nonlocal done
        running = asyncio.create_task(compact(ID, document))
        while not running.done():
            append(document, f"<{EDITS + done}>")
            done += 1
            count(document, done)
            await asyncio.sleep(0.001)
        return await running

    assert asyncio.run(scenario())
    assert done > 10
    stored = open_document(store)
    assert source(stored) == source(document) == tokens(EDITS + done)
    assert stored.content.metadata("done") == str(done)
    assert (stored.content.cells(), stored.content.heads) == (document.content.cells(), document.content.heads)
    assert stored.changes == document.changes < EDITS


def test_an_edit_of_the_last_moment_is_in_the_document_that_takes_the_old_one_s_place(
    store: SessionStore, document: SharedDocument
):
    compaction = Compaction(document.content)
    for _ in compaction.catch_up():
        pass
    snapshot = NotebookDocument.load(None, [compaction.take_changes()]).save()
    append(document, "!")
    count(document, 1)
    document.replace(compaction, snapshot)
    stored = open_document(store)
    assert source(stored) == source(document) == tokens(EDITS) + "!"
    assert stored.content.all_metadata() == document.content.all_metadata() == {"done": "1"}
    assert stored.changes == document.changes == 1


BAD_VERIFIERS = [
    ("ended with -6", failing("import os; os.abort()")),
    ("ended with -11", failing("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")),
    ("ended with 1: no automerge", failing("raise SystemExit('no automerge')")),
    ("not loaded within 1 seconds", failing("import time; time.sleep(1000)")),
    ("says something else", failing("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())")),
    ("says something else", failing("")),
    ("cannot be compacted", ["/nonexistent/python"]),
]


@pytest.mark.parametrize(("message", "verifier"), BAD_VERIFIERS)
def test_a_document_that_is_not_verified_stays_as_it_was(
    store: SessionStore, document: SharedDocument, caplog, message: str, verifier: list[str]
):
    old, stored = document.content, store.load_document()
    assert not asyncio.run(compact(ID, document, verifier=verifier, deadline=1))
    assert document.content is old
    assert store.load_document() == stored
    (logged,) = caplog.records
    assert (logged.levelname, "session 'n'" in logged.getMessage()) == ("ERROR", True)
    assert message in logged.getMessage()
    # Not every second again, but after a tenth as many edits more.
    for n in range(EDITS // 10):
        assert not document.compaction_due
        append(document, f"<{EDITS + n}>")
    assert document.compaction_due
    assert asyncio.run(compact(ID, document))
    assert source(open_document(store)) == tokens(EDITS + EDITS // 10)


def test_bytes_that_were_damaged_on_the_way_leave_the_old_document(
    store: SessionStore, document: SharedDocument, caplog
):
    stored = store.load_document()
    damage = "data = bytearray(sys.stdin.buffer.read()); data[len(data) // 2] ^= 1"
    give = f"subprocess.run({[*VERIFIER, '60', 'snapshot']!r}, input=bytes(data)).returncode"
    verifier = failing(f"import subprocess, sys; {damage}; sys.exit({give})")
    assert not asyncio.run(compact(ID, document, verifier=verifier))
    assert store.load_document() == stored
    assert "ended with 65: a stored change is unreadable" in caplog.text


def test_a_full_disk_leaves_the_old_document(store: SessionStore, document: SharedDocument, caplog):
    noise = "".join(random.Random(1).choices(string.ascii_letters, k=19_000))
    document.edit("source", ACTOR, lambda d: d.set_source(A, noise, base=None, author=ME))
    old, stored = document.content, store.load_document()
    (pages,) = store.database.row("PRAGMA page_count")
    store.database.execute(f"PRAGMA max_page_count = {pages}")
    assert not asyncio.run(compact(ID, document))
    assert "the disk is full" in caplog.text
    assert document.content is old
    assert store.load_document() == stored
    store.database.execute("PRAGMA max_page_count = 100000")
    append(document, "!")
    assert source(open_document(store)) == noise + "!"
    assert asyncio.run(compact(ID, document))
    assert source(open_document(store)) == noise + "!"


def during_a_verification(document: SharedDocument, act: Callable[["asyncio.Task[bool]"], Awaitable[None]]) -> None:
    """Act while a verifier that never answers is at work; afterwards it is gone."""

    async def scenario() -> None:
        before = set(psutil.Process().children())
        hangs = failing("import time; time.sleep(1000)")
        running = asyncio.create_task(compact(ID, document, verifier=hangs))
        await until(lambda: set(psutil.Process().children()) - before, "no verifier begins")
        started = set(psutil.Process().children()) - before
        await act(running)
        for process in started:
            process.wait(timeout=20)

    asyncio.run(scenario())


def test_a_compaction_that_is_cancelled_leaves_the_document_and_no_process(document: SharedDocument):
    async def cancel(running: "asyncio.Task[bool]") -> None:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    old = document.content
    during_a_verification(document, cancel)
    assert (document.content is old, document.compaction_due) == (True, True)


def test_a_document_that_was_loaded_again_meanwhile_is_not_replaced(document: SharedDocument, caplog):
    async def scenario() -> bool:
        running = asyncio.create_task(compact(ID, document))
        await asyncio.sleep(0)
        document.forget()
        append(document, "!")
        return await running

    assert not asyncio.run(scenario())
    assert source(document) == tokens(EDITS) + "!"
    assert document.compaction_due
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


# The daemon


class Writer(threading.Thread):
    """A client that appends to its own cell until it is stopped, through whatever happens to the daemon."""

    def __init__(self, session_id: str) -> None:
        super().__init__()
        self.session = Session(session_id)
        self.cell_id = self.session.create_cell()
        self.appended = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            self.session.append_source(self.cell_id, f"<{self.appended}>")
            self.appended += 1

    def __enter__(self) -> "Writer":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.done.set()
        self.join()
        self.session.close()


def compactions(data_dir: Path) -> int:
    path = data_dir / "daemon.log"
    return path.read_text().count("compacted the document of session 's'") if path.exists() else 0


def shut_down(data_dir: Path) -> None:
    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "the daemon lives on")


def test_clients_that_stream_into_a_document_notice_nothing_of_its_compaction(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "300")
    with Session("s") as session:
        stream = session.subscribe(event_types=["cell_changed"])
        seen: list[ExecutionEvent] = []
        with Writer("s") as one, Writer("s") as other:
            wait_until(lambda: compactions(data_dir) >= 2, "the document is not compacted")
            goes_on(one)
            goes_on(other)
        expected = {one.cell_id: tokens(one.appended), other.cell_id: tokens(other.appended)}
        # Each cell was added once.
        for event in stream:
            seen.append(event)
            if len(seen) == one.appended + other.appended + 2:
                break
        stream.close()
        cells = session.get_cells()
    assert {cell.id: cell.source for cell in cells} == expected
    for writer in (one, other):
        assert sum(event.cell_id == writer.cell_id for event in seen) == writer.appended + 1
    shut_down(data_dir)
    with SessionStore(data_dir / "sessions" / f"{stored_name(SessionId('s'))}.db") as store:
        snapshot, changes = store.load_document()
    assert snapshot is not None
    assert len(changes) < one.appended + other.appended
    with Session("s") as session:
        assert session.get_cells() == cells


def goes_on(writer: Writer) -> None:
    appended = writer.appended
    wait_until(lambda: writer.appended > appended + 5, "a client does not go on")


def verifiers(data_dir: Path) -> list[psutil.Process]:
    return [process for process in processes_of(data_dir) if VERIFIER[-1] in command_of(process)]


@pytest.mark.parametrize("moment", ["while it is verified", "when it is verified"])
def test_a_daemon_that_is_killed_while_it_compacts_loses_nothing(data_dir, monkeypatch, moment):
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "200")
    with Session("s") as session, Writer("s") as one, Writer("s") as other:
        for _ in range(3):
            wait_until(lambda: verifiers(data_dir), "the document is not compacted")
            if moment == "when it is verified":
                wait_until(lambda: not verifiers(data_dir), "the verifier does not end")
            status = Client().status()
            assert status is not None
            os.kill(status.pid, signal.SIGKILL)
            goes_on(one)
            goes_on(other)
        one.done.set()
        other.done.set()
        one.join()
        other.join()
        assert {cell.id: cell.source for cell in session.get_cells()} == {
            one.cell_id: tokens(one.appended),
            other.cell_id: tokens(other.appended),
        }
    wait_until(lambda: not verifiers(data_dir), "a verifier lives on")


def test_a_daemon_that_ends_drops_the_compaction(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "200")
    with Session("s") as session, Writer("s") as writer:
        wait_until(lambda: verifiers(data_dir), "the document is not compacted")
        writer.done.set()
        writer.join()
        expected = session.get_cells()
    shut_down(data_dir)
    assert "Traceback" not in (data_dir / "daemon.log").read_text()
    with Session("s") as session:
        assert session.get_cells() == expected
