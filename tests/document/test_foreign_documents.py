"""Documents that were not made by this project, and failures of automerge itself."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from automerge import core

from runtimed.document.cells import CellRecord
from runtimed.document.engine import GENESIS, Engine
from runtimed.errors import StorageError
from runtimed.ids import CellId, ClientId
from tests.document.edited import EditedDocument

ME = ClientId("a" * 32)
A = CellId("cell-a")
Put = core.ScalarType


def foreign(fill: Callable[[Any, bytes], object], *, genesis: bool = True) -> bytes:
    """Return a document whose cells map `fill` has written."""
    document = core.Document.load(GENESIS) if genesis else core.Document()
    document.set_actor(b"javascript")
    with document.transaction() as transaction:
        found = transaction.get(core.ROOT, "cells")
        cells = found[1] if found else transaction.put_object(core.ROOT, "cells", core.ObjType.Map)
        fill(transaction, cells)
    return bytes(document.save())


def a_cell(transaction: Any, cells: bytes, **values: Any) -> bytes:
    cell: bytes = transaction.put_object(cells, A, core.ObjType.Map)
    for key, value in values.items():
        transaction.put(cell, key, Put.Str if isinstance(value, str) else Put.Int, value)
    return cell


def test_a_source_that_is_a_plain_string_is_read_and_becomes_a_text_when_it_is_edited():
    document = EditedDocument.load(foreign(lambda t, cells: a_cell(t, cells, source="ab", position="a0")), [])
    assert [record.source for record in document.cells()] == ["ab"]
    document.append_source(A, "c", author=ME)
    document.append_source(A, "d", author=ME)
    document.set_source(A, "_abc", base="abc", author=ME)
    assert [record.source for record in document.cells()] == ["_abcd"]


def test_a_text_with_wide_elements_is_edited_without_damage():
    def fill(transaction: Any, cells: bytes) -> None:
        text = transaction.put_object(a_cell(transaction, cells, position="a0"), "source", core.ObjType.Text)
        transaction.insert(text, 0, Put.Str, "hello")

    document = EditedDocument.load(foreign(fill), [])
    document.set_source(A, "heABllo", base=None, author=ME)
    document.set_source(A, "hello!", base="hello", author=ME)
    assert [record.source for record in document.cells()] == ["heABllo!"]
    document.set_source(A, "ello!", base=None, author=ME)
    assert EditedDocument.load(document.save(), []).cells() == document.cells()


def test_junk_of_every_kind_is_read_as_cells_that_can_be_edited():
    def fill(transaction: Any, cells: bytes) -> None:
        transaction.put(cells, "a number", Put.Int, 1)
        transaction.put_object(cells, "a list", core.ObjType.List)
        transaction.put_object(cells, "an empty map", core.ObjType.Map)
        junk = transaction.put_object(cells, A, core.ObjType.Map)
        transaction.put(junk, "cell_type", Put.Bytes, b"code")
        transaction.put_object(junk, "source", core.ObjType.List)
        transaction.put(junk, "position", Put.Str, "not a position")
        transaction.put(junk, "execution_count", Put.Boolean, True)
        transaction.put(junk, "execution_id", Put.F64, 1.5)
        metadata = transaction.put_object(junk, "metadata", core.ObjType.Map)
        transaction.put(metadata, "number", Put.Uint, 2**63)
        text = transaction.put_object(metadata, "text", core.ObjType.Text)
        transaction.insert(text, 0, Put.Str, "x")

    document = EditedDocument.load(foreign(fill), [])
    empty = {"cell_type": "raw", "source": "", "execution_count": None, "execution_id": None}
    assert document.cells() == [
        CellRecord(id=CellId("an empty map"), position="", metadata={}, **empty),  # type: ignore[arg-type]
        CellRecord(id=A, position="not a position", metadata={"text": "x"}, **empty),  # type: ignore[arg-type]
    ]
    document.add_cell(CellId("new"), "1", "code", 1, author=ME)
    document.set_source(A, "2", base=None, author=ME)
    document.set_cell_metadata(CellId("an empty map"), "k", "v", author=ME)
    document.set_cell_type(A, "code", author=ME)
    document.set_execution(A, None, 1, author=ME)
    assert document.cell_ids() == ["an empty map", "new", A]
    assert EditedDocument.load(document.save(), []).cells() == document.cells()


def test_a_document_without_our_first_change_can_be_read_and_edited():
    document = EditedDocument.load(foreign(lambda t, cells: a_cell(t, cells, source="a"), genesis=False), [])
    document.set_entry("k", "v", author=ME)
    document.add_cell(CellId("b"), "b", "code", author=ME)
    loaded = EditedDocument.load(document.save(), [])
    assert [record.source for record in loaded.cells()] == ["a", "b"]
    assert (loaded.metadata("k"), loaded.notebook_id) == ("v", None)


def test_cells_can_be_added_between_two_that_are_at_the_same_place():
    def fill(transaction: Any, cells: bytes) -> None:
        for cell_id in ("one", "two"):
            cell = transaction.put_object(cells, cell_id, core.ObjType.Map)
            transaction.put(cell, "position", Put.Str, "a0")

    document = EditedDocument.load(foreign(fill), [])
    document.add_cell(A, "", "code", 1, author=ME)
    assert document.cell_ids() == ["one", A, "two"]
    assert len({record.position for record in document.cells()}) == 3
    assert EditedDocument.load(document.save(), []).cells() == document.cells()


def test_a_document_of_a_newer_schema_is_refused():
    data = foreign(lambda t, cells: t.put(core.ROOT, "schema", Put.Int, 2))
    with pytest.raises(StorageError, match="newer"):
        EditedDocument.load(data, [])


def test_a_counter_which_automerge_cannot_read_hides_only_itself():
    document = EditedDocument.load(
        foreign(lambda t, cells: a_cell(t, cells, source="s", position="a0", execution_count=5)), []
    )
    change = document.history()[-1]
    body = change[8:].replace(b"\x14", b"\x18")  # a value's type: Int becomes Counter
    assert body != change[8:]
    counter = change[:4] + hashlib.sha256(body).digest()[:4] + body
    document = EditedDocument.load(GENESIS, [counter])
    assert [(record.source, record.execution_count) for record in document.cells()] == [("s", None)]
    document.set_execution(A, None, 6, author=ME)
    assert EditedDocument.load(document.save(), []).cells() == document.cells()


BREAK_IT = """
import gc
from automerge import core
from runtimed.document.engine import ROOT, Engine, GENESIS
from runtimed.errors import StorageError
engine = Engine(GENESIS)
try:
    with engine.write("me") as writer:
        writer._transaction.put(ROOT, "n", core.ScalarType.Counter, 1)
except StorageError:
    print("refused")
del writer
try:
    engine.save()
except StorageError as exc:
    print("load it again" in str(exc))
del engine
gc.collect()
print("alive")
"""


def test_a_panic_breaks_one_document_and_not_the_process():
    done = subprocess.run([sys.executable, "-c", BREAK_IT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split("\n"), done.returncode) == (["refused", "True", "alive", ""], 0)


def test_an_exception_inside_a_transaction_rolls_it_back():
    engine = Engine(GENESIS)
    heads = engine.heads()

    def write(node: bytes, interrupted: type[BaseException] | None = None) -> None:
        with engine.write("me") as writer:
            writer.put(core.ROOT, "before", "v")
            writer.put(node, "key", "v")
            if interrupted:
                raise interrupted

    with pytest.raises(KeyboardInterrupt):
        write(core.ROOT, KeyboardInterrupt)
    with pytest.raises(StorageError, match="invalid"):
        write(b"no node")
    assert (engine.heads(), engine.usable) == (heads, True)
