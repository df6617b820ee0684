"""A document written anew without its history, while it is edited, and the process that verifies one."""

import copy
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from itertools import pairwise
from typing import Any

import pytest
from automerge import core
from hypothesis import given
from hypothesis import strategies as st

from runtimed.document.checks import MAX_TEXT
from runtimed.document.compaction import FINGERPRINT_SIZE, PIECE, Compaction, fingerprint
from runtimed.document.notebook import NotebookDocument
from runtimed.document.verifier import READY, Verdict
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from tests.document.test_properties import EDITS, Model

ME = ClientId("a" * 32)
A, B = CellId("cell-a"), CellId("cell-b")
HEAD = 2 * PIECE
"""How much of a long text another one replaces: more than was compacted before, and not so much that it takes long."""
Put = core.ScalarType


def result_of(steps: Generator[None, None, bytes]) -> bytes:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)


def reloaded(document: NotebookDocument) -> NotebookDocument:
    return NotebookDocument.load(document.save(), [])


@given(st.lists(EDITS, max_size=20), st.lists(st.tuples(EDITS, st.integers(0, 6)), max_size=20), st.lists(EDITS))
def test_a_compacted_document_is_what_the_old_one_is_whatever_is_edited_meanwhile(
    before: list[Any], meanwhile: list[tuple[Any, int]], afterwards: list[Any]
):
    source, model = NotebookDocument.create(SessionId("n")), Model()
    for edit in before:
        model.apply(source, edit)
    compaction = Compaction(source, piece=4)
    steps = compaction.catch_up()
    snapshot = b""
    for edit, pause in meanwhile:
        model.apply(source, edit)
        for _ in range(pause):
            if next(steps, steps) is steps:
                # A pass is complete: the first one is what gets stored, all others follow.
                snapshot = snapshot or reloaded(NotebookDocument.load(None, [compaction.take_changes()])).save()
                steps = compaction.catch_up()
    for _ in steps:
        pass
    snapshot = snapshot or NotebookDocument.load(None, [compaction.take_changes()]).save()
    for _ in compaction.catch_up():
        pass

    fresh = compaction.document
    later = compaction.take_changes()
    stored = NotebookDocument.load(snapshot, [later])
    for document in (fresh, stored, reloaded(fresh)):
        model.check(document)
        assert (document.cells(), document.all_metadata()) == (source.cells(), source.all_metadata())
        assert document.heads == fresh.heads
        assert document.shows_all
    twin = copy.deepcopy(model)
    for edit in afterwards:
        model.apply(fresh, edit)
        twin.apply(source, edit)
    model.check(reloaded(fresh))
    assert fresh.cells() == source.cells()


def a_document(source: str = "1") -> NotebookDocument:
    document = NotebookDocument.create(SessionId("n"))
    document.add_cell(A, source, "code", author=ME)
    document.add_cell(B, "b", "markdown", author=ME)
    return document


def test_a_compacted_document_has_no_history():
    source = a_document()
    for n in range(1000):
        source.set_source(A, "x" * (n % 7), base=None, author=ClientId(f"{n:032x}"))
    compaction = Compaction(source)
    assert list(compaction.catch_up()) == [None] * 2
    assert len(compaction.document.history()) == 4
    assert len(compaction.document.save()) < len(source.save()) / 20


def test_a_long_source_is_written_in_pieces():
    source = a_document("x" * MAX_TEXT)
    compaction = Compaction(source)
    sizes = [len(written(compaction.document)) for _ in compaction.catch_up()]
    assert len(sizes) == MAX_TEXT / PIECE + 1
    source.set_source(A, "x" * 7 * PIECE + "y" * 5 * PIECE + "x" * (MAX_TEXT - 14 * PIECE), base=None, author=ME)
    before = [written(compaction.document)]
    texts = before + [written(compaction.document) for _ in compaction.catch_up()]
    assert texts[-1] == written(source)
    assert max(map(len, texts)) <= MAX_TEXT
    for one, other in pairwise(texts):
        assert abs(one.count("x") - other.count("x")) + abs(one.count("y") - other.count("y")) <= PIECE


def test_a_source_that_was_replaced_meanwhile_begins_anew():
    source = a_document("x" * 20 * PIECE)
    compaction = Compaction(source)
    for _ in compaction.catch_up():
        pass
    source.set_source(A, "y" * 10 * PIECE, base=None, author=ME)
    assert [written(compaction.document) for _ in compaction.catch_up()] == ["y" * n * PIECE for n in range(1, 11)]


@pytest.mark.parametrize("first", ["short", "x" * MAX_TEXT, "x" * (MAX_TEXT + 1)])
@pytest.mark.parametrize("second", ["other", "y" * HEAD + "x" * (MAX_TEXT - HEAD), "y" * (MAX_TEXT + 1)])
def test_a_source_crosses_the_length_up_to_which_it_merges_while_it_is_compacted(first: str, second: str):
    source = a_document(first)
    compaction = Compaction(source)
    steps = compaction.catch_up()
    next(steps)
    source.set_source(A, second, base=None, author=ME)
    for _ in (*steps, *compaction.catch_up()):
        pass
    assert reloaded(compaction.document).cells() == source.cells()
    compaction.document.append_source(A, "!", author=ME)
    assert written(reloaded(compaction.document)) == second + "!"


def written(document: NotebookDocument) -> str:
    record = document.cell(A)
    return "" if record is None else record.source


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
def test_a_document_that_holds_what_we_do_not_know_keeps_its_history(change: Callable[[Any, bytes, bytes], object]):
    document = core.Document.load(a_document().save())
    document.set_actor(b"a newer version")
    with document.transaction() as transaction:
        cells: Any = transaction.get(core.ROOT, "cells")
        cell: Any = transaction.get(cells[1], A)
        change(transaction, core.ROOT, cell[1])
    with pytest.raises(StorageError, match="does not know"):
        Compaction(NotebookDocument.load(bytes(document.save()), []))


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.append_source(A, "1", author=ME),
        lambda d: d.set_cell_type(A, "raw", author=ME),
        lambda d: d.set_execution(A, None, 1, author=ME),
        lambda d: d.set_execution(A, ExecutionId("e"), None, author=ME),
        lambda d: d.set_cell_metadata(A, "k", "v", author=ME),
        lambda d: d.set_metadata("k", "v", author=ME),
        lambda d: d.move_cell(A, B, author=ME),
        lambda d: d.delete_cell(B, author=ME),
    ],
)
def test_documents_that_say_something_else_have_another_fingerprint(edit: Callable[[NotebookDocument], object]):
    document = a_document()
    same = result_of(fingerprint(document))
    assert same == result_of(fingerprint(reloaded(document)))
    assert len(same) == FINGERPRINT_SIZE
    edit(document)
    assert result_of(fingerprint(document)) != same


def verifier(given: bytes, seconds: int = 60) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-P", "-m", "runtimed.document.verifier", str(seconds), "snapshot"]
    return subprocess.run(command, input=given, capture_output=True, check=False)


def test_a_verified_document_comes_back_as_a_snapshot_with_its_fingerprint():
    document = a_document()
    done = verifier(b"".join(document.history()))
    assert (done.returncode, done.stderr) == (0, READY)
    assert done.stdout[:FINGERPRINT_SIZE] == result_of(fingerprint(document))
    assert NotebookDocument.load(done.stdout[FINGERPRINT_SIZE:], []).cells() == document.cells()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x", lambda data: data[200:], lambda data: b""]
)
def test_bytes_that_cannot_be_loaded_are_refused_with_a_sentence(damage: Callable[[bytes], bytes]):
    done = verifier(damage(b"".join(a_document().history())))
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (Verdict.DAMAGED, b"", 2)
    assert b"Traceback" not in done.stderr


def test_a_verifier_that_hangs_is_ended_by_the_system_though_nobody_waits_for_it():
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "runtimed.document.verifier", "1", "snapshot"], stdin=subprocess.PIPE
    ) as process:
        assert process.wait(timeout=60) == -signal.SIGALRM
