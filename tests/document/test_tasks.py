"""What is done with documents: nothing that a notebook says is lost by it, and what is damaged is refused."""

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from automerge import core
from msgspec.structs import replace

from runtimed.document.checks import MAX_TEXT
from runtimed.document.contents import Contents, contents_of, decode_cell, row_of
from runtimed.document.deltas import CellAdded, CellDeleted, Delta, TypeSet, encode_delta
from runtimed.document.engine import ROOT, Engine
from runtimed.document.notebook import SCHEMA, NotebookDocument
from runtimed.document.stored import PendingEdit, StoredNotebook, StoredRow
from runtimed.document.tasks import ReadAll, Rebuild, WritePending, Written, decode_task, perform
from runtimed.document.worker import READY, Verdict
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId, SessionId
from runtimed.storage.rows import checksum
from tests.document.edited import EditedDocument

ME = ClientId("a" * 32)
ID = SessionId("n")
A, B = CellId("cell-a"), CellId("cell-b")
Put = core.ScalarType


def a_document(source: str = "1") -> EditedDocument:
    document = EditedDocument.create(ID)
    document.add_cell(A, source, "code", author=ME)
    document.add_cell(B, "b", "markdown", author=ME)
    document.set_entry("k", "v", author=ME)
    return document


def rows(*pieces: bytes) -> list[StoredRow]:
    names = ["snapshot", *(f"change {n}" for n in range(1, len(pieces)))]
    return [
        StoredRow("change" if n else "snapshot", name, checksum(data), data)
        for n, (name, data) in enumerate(zip(names, pieces, strict=True))
    ]


def pending(*deltas: Delta) -> list[PendingEdit]:
    encoded = map(encode_delta, deltas)
    return [PendingEdit(n, ME, checksum(data), data) for n, data in enumerate(encoded, 1)]


def written(stored: StoredNotebook, after: int = 1_000_000, memory: int | None = None) -> Written:
    found = perform(WritePending(stored, after, memory))
    assert isinstance(found, Written)
    return found


def test_pending_edits_become_one_change_each_of_their_author():
    before = a_document()
    edits = pending(TypeSet(A, "raw"), CellDeleted(B))
    found = written(StoredNotebook(ID, rows(before.save()), edits))
    assert (found.snapshot, len(found.changes), found.is_compacted) == (None, 2, False)
    after = NotebookDocument.load(before.save(), found.changes)
    assert [(cell.id, cell.cell_type) for cell in after.cells()] == [(A, "raw")]
    assert perform(ReadAll(StoredNotebook(ID, rows(before.save()), edits))) == contents_of(after)


def test_written_again_after_a_death_the_same_edits_make_the_same_changes():
    stored = StoredNotebook(ID, rows(a_document().save()), pending(TypeSet(A, "raw"), CellDeleted(B)))
    assert written(stored) == written(stored)


def test_the_first_edits_become_a_document():
    (cell, _other) = a_document().cells()
    found = written(StoredNotebook(ID, [], pending(CellAdded(cell), TypeSet(A, "raw"))))
    assert found.changes == []
    document = NotebookDocument.load(found.snapshot, [])
    assert document.cells() == [replace(cell, cell_type="raw")]
    assert len(document.history()) == 4  # the first one, the id, the two edits


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        (pending(TypeSet(CellId("gone"), "raw")), "refers to cell 'gone'"),
        ([PendingEdit(7, ME, 1, b"x")], "edit 7 is damaged"),
        ([PendingEdit(7, ME, checksum(b"x"), b"x")], "edit 7 is unreadable"),
    ],
)
def test_edits_that_are_none_of_this_document_are_refused(edits: list[PendingEdit], sentence: str):
    with pytest.raises(StorageError, match=sentence):
        written(StoredNotebook(ID, rows(a_document().save()), edits))


@pytest.mark.parametrize("source", ["", "1", "x" * MAX_TEXT, "x" * (MAX_TEXT + 1)])
def test_a_rebuilt_document_has_the_same_content_and_no_history(source: str):
    before = a_document()
    for n in range(1000):
        before.set_source(A, "x" * (n % 7), base=None, author=ClientId(f"{n:032x}"))
    before.set_source(A, source, base=None, author=ME)
    snapshot = perform(Rebuild(ID, [row_of(cell) for cell in before.cells()], before.all_metadata()))
    assert isinstance(snapshot, bytes)
    after = EditedDocument.load(snapshot, [])
    assert (after.cells(), after.all_metadata()) == (before.cells(), before.all_metadata())
    assert len(after.history()) == 5  # the first one, the id, two cells, an entry
    assert len(snapshot) < len(before.save())
    after.append_source(A, "!", author=ME)
    assert [cell.source for cell in NotebookDocument.load(after.save(), []).cells()] == [source + "!", "b"]


def test_a_damaged_row_is_not_written_into_a_new_document():
    row = row_of(a_document().cells()[0])
    with pytest.raises(StorageError, match="cell cell-a is damaged"):
        perform(Rebuild(ID, [row._replace(checksum=row.checksum + 1)], {}))


@pytest.mark.parametrize(
    ("after", "memory", "pays"),
    [(12, None, True), (13, None, False), (13, 1, True), (13, 10**9, False)],
)
def test_a_document_loses_its_history_when_that_pays(after: int, memory: int | None, pays: bool):
    document = a_document("")
    edits = [document.set_source(A, str(n) * 10_000, base=None, author=ME).change for n in range(10)]
    stored = StoredNotebook(ID, rows(a_document("").save(), *edits), pending(TypeSet(A, "raw"), CellDeleted(B)))
    found = written(stored, after, memory)
    assert found.is_compacted is pays
    if pays:
        fresh = NotebookDocument.load(found.snapshot, [])
        assert [(cell.source, cell.cell_type) for cell in fresh.cells()] == [("9" * 10_000, "raw")]
        assert len(fresh.history()) == 4  # the first one, the id, a cell, an entry


def test_a_history_of_less_than_twice_what_it_says_stays():
    stored = StoredNotebook(ID, rows(a_document("x" * 10_000).save()), pending(TypeSet(A, "raw")))
    assert not written(stored, 1_000_000, 1).is_compacted


FOREIGN: list[Callable[[Any, bytes, bytes], object]] = [
    lambda t, root, cell: t.put(root, "theme", Put.Str, "dark"),
    lambda t, root, cell: t.put(root, "cells", Put.Str, "none"),
    lambda t, root, cell: t.put(root, "notebook_id", Put.Int, 1),
    lambda t, root, cell: t.delete(root, "notebook_id"),
    lambda t, root, cell: t.put(root, "metadata", Put.Str, "none"),
    lambda t, root, cell: t.put(t.get(root, "metadata")[1], "k", Put.Int, 1),
    lambda t, root, cell: t.put(t.get(root, "cells")[1], "folder", Put.Str, "of cells"),
    lambda t, root, cell: t.put(cell, "comments", Put.Str, "why?"),
    lambda t, root, cell: t.put(cell, "cell_type", Put.Str, "sql"),
    lambda t, root, cell: t.put_object(cell, "source", core.ObjType.List),
    lambda t, root, cell: t.put(cell, "execution_count", Put.F64, 1.0),
    lambda t, root, cell: t.put(cell, "execution_id", Put.Int, 1),
    lambda t, root, cell: t.delete(cell, "position"),
    lambda t, root, cell: t.delete(cell, "metadata"),
    lambda t, root, cell: t.put(t.get(cell, "metadata")[1], "k", Put.Null, None),
]


@pytest.mark.parametrize("change", FOREIGN)
def test_a_document_that_holds_what_we_do_not_know_says_so(change: Callable[[Any, bytes, bytes], object]):
    """It is never compacted."""
    document = core.Document.load(a_document().save())
    document.set_actor(b"a newer version")
    with document.transaction() as transaction:
        cells: Any = transaction.get(core.ROOT, "cells")
        cell: Any = transaction.get(cells[1], A)
        change(transaction, core.ROOT, cell[1])
    stored = StoredNotebook(ID, rows(bytes(document.save())), [])
    assert not written(stored, 0, 0).is_compacted
    found = perform(ReadAll(stored))
    assert isinstance(found, Contents)
    assert found.has_foreign_content
    for row in found.cells:
        assert decode_cell(row.data).id == row.cell_id


# --- the process ---


def worker(given: bytes, seconds: int = 60) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-P", "-m", "runtimed.document.worker", str(seconds)]
    return subprocess.run(command, input=given, capture_output=True, check=False)


def reading(*pieces: bytes) -> bytes:
    return msgspec.msgpack.encode(ReadAll(StoredNotebook(ID, rows(*pieces), [])))


def test_a_process_of_its_own_performs_a_task():
    document = a_document()
    given = reading(document.save())
    assert decode_task(given) == ReadAll(StoredNotebook(ID, rows(document.save()), []))
    done = worker(given)
    assert (done.returncode, done.stderr) == (0, READY)
    assert msgspec.msgpack.decode(done.stdout, type=Contents) == contents_of(document)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x", lambda data: data[200:], lambda data: b""]
)
def test_bytes_that_cannot_be_loaded_are_refused_with_a_sentence(damage: Callable[[bytes], bytes]):
    done = worker(reading(damage(a_document().save())))
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (Verdict.DAMAGED, b"", 2)
    assert b"Traceback" not in done.stderr


def test_a_document_of_a_newer_version_is_not_damaged():
    newer = Engine(a_document().save())
    with newer.write("a newer version") as writer:
        writer.put(ROOT, "schema", SCHEMA + 1)
    done = worker(reading(newer.save()))
    assert (done.returncode, b"update runtimed" in done.stderr) == (Verdict.NEWER, True)


def test_a_process_that_hangs_is_ended_by_the_system_though_nobody_waits_for_it():
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "runtimed.document.worker", "1"], stdin=subprocess.PIPE
    ) as process:
        assert process.wait(timeout=60) == -signal.SIGALRM
