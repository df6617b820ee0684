"""Who did what, as rows: merged while somebody types, kept with the last edit of each cell, and never half a truth."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtimed.ids import CellId, ClientId, ExecutionId
from runtimed.storage.audit import MERGED_WITHIN, Actor, AuditRow
from runtimed.storage.session_store import SessionStore
from tests.storage.edits import last_edit

ANN = Actor(ClientId("ann"), label="Ann 🎈", uid=1000, pid=17)
BOB = Actor(ClientId("bob"), label=None, uid=1000, pid=None)


def unknown(client_id: str) -> Actor:
    """What is known of a client of which nothing was noted."""
    return Actor(ClientId(client_id), label=None, uid=os.getuid(), pid=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.db"


@pytest.fixture
def store(path: Path) -> Iterator[SessionStore]:
    with SessionStore(path) as store:
        yield store


def row(action: Any, at: float, actor: Actor | None = ANN, cell: str | None = None, **more: Any) -> AuditRow:
    cell_id = None if cell is None else CellId(cell)
    return AuditRow(at=at, until=more.pop("until", at), action=action, actor=actor, cell_id=cell_id, **more)


def note(store: SessionStore, *rows: AuditRow) -> None:
    for one in rows:
        store.note(one)


def sql(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def count(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(number)


def test_everything_noted_comes_back_newest_first_after_reopening(path: Path) -> None:
    rows = [
        row("cell_added", 1, cell="c"),
        row("execution_queued", 2.5, BOB, cell="c", execution_id=ExecutionId("e")),
        row("kernel_start", 2.25, BOB, detail="current"),
        row("execution_cancelled", 3, None, cell="c", execution_id=ExecutionId("e")),
        row("metadata_set", 4),
    ]
    with SessionStore(path) as store:
        note(store, *rows)
        assert list(store.audit()) == rows[::-1]
    with SessionStore(path) as store:
        assert list(store.audit()) == rows[::-1]


def test_edits_of_one_kind_by_one_client_to_one_cell_are_one_row_though_another_is_edited_meanwhile(
    path: Path,
) -> None:
    with SessionStore(path) as store:
        for tick in range(1000):
            note(store, row("cell_edited", tick / 100, ANN, "a"), row("cell_edited", tick / 100, BOB, "b"))
        expected = [
            row("cell_edited", 0, BOB, "b", until=9.99, count=1000),
            row("cell_edited", 0, ANN, "a", until=9.99, count=1000),
        ]
        assert list(store.audit()) == expected
    with SessionStore(path) as store:
        assert list(store.audit()) == expected
    assert count(path, "audit") == 2


@pytest.mark.parametrize(
    "other",
    [
        row("cell_edited", 1, BOB, "c"),
        row("cell_edited", 1, replace(ANN, pid=18), "c"),
        row("cell_moved", 1, ANN, "c"),
        row("cell_edited", 1, ANN, "d"),
        row("cell_edited", MERGED_WITHIN, ANN, "c"),
        row("cell_edited", -1, ANN, "c"),
        row("metadata_set", 1, ANN),
    ],
    ids=["client", "process", "kind", "cell", "time", "clock set back", "document"],
)
def test_whatever_differs_is_a_row_of_its_own(store: SessionStore, other: AuditRow) -> None:
    first = row("cell_edited", 0, ANN, "c")
    note(store, first, other)
    assert list(store.audit()) == [other, first]


def test_another_edit_of_the_cell_in_between_ends_a_row(store: SessionStore) -> None:
    rows = [row("cell_edited", 0, ANN, "c"), row("cell_edited", 1, BOB, "c"), row("cell_edited", 2, ANN, "c")]
    note(store, *rows)
    assert list(store.audit()) == rows[::-1]


def test_what_is_done_to_a_kernel_or_an_execution_is_never_merged(store: SessionStore) -> None:
    rows = [
        row("kernel_interrupt", 1),
        row("kernel_interrupt", 1),
        row("kernel_input", 2, cell="c", execution_id=ExecutionId("e")),
        row("kernel_input", 2, cell="c", execution_id=ExecutionId("e")),
    ]
    note(store, *rows)
    assert list(store.audit()) == rows[::-1]


def test_the_last_edit_of_a_cell_is_known_at_once_and_after_reopening(path: Path) -> None:
    def check(store: SessionStore) -> None:
        assert [last_edit(store, cell) for cell in ("a", "b", "gone", "again", "run", "unknown")] == [
            (BOB, 5.0),
            (ANN, 2.0),
            None,
            (BOB, 9.0),
            None,
            None,
        ]

    with SessionStore(path) as store:
        assert last_edit(store, "a") is None
        note(
            store,
            row("cell_added", 1, ANN, "a"),
            row("cell_added", 2, ANN, "b"),
            row("cell_moved", 3, BOB, "a"),
            row("cell_moved", 5, BOB, "a"),
            row("execution_queued", 6, ANN, "a", execution_id=ExecutionId("e")),
            row("execution_queued", 6, ANN, "run", execution_id=ExecutionId("f")),
            row("cell_added", 7, ANN, "gone"),
            row("cell_deleted", 8, BOB, "gone"),
            row("cell_added", 7, ANN, "again"),
            row("cell_deleted", 8, ANN, "again"),
            row("cell_added", 9, BOB, "again"),
        )
        check(store)
    with SessionStore(path) as store:
        check(store)


def test_a_transaction_that_fails_takes_its_notes_along(store: SessionStore) -> None:
    note(store, row("cell_added", 1, ANN, "c"), row("cell_edited", 2, ANN, "c"))
    assert last_edit(store, "c") == (ANN, 2.0)

    def write_and_fail() -> None:
        note(store, row("cell_edited", 3, ANN, "c"), row("cell_edited", 4, BOB, "c"), row("cell_added", 4, BOB, "new"))
        assert last_edit(store, "c") == (BOB, 4.0)
        raise KeyError

    with pytest.raises(KeyError), store.transaction():
        write_and_fail()

    assert list(store.audit()) == [row("cell_edited", 2, ANN, "c"), row("cell_added", 1, ANN, "c")]
    assert (last_edit(store, "c"), last_edit(store, "new"), store.actor("bob")) == ((ANN, 2.0), None, unknown("bob"))
    note(store, row("cell_edited", 5, BOB, "c"))
    assert last_edit(store, "c") == (BOB, 5.0)


def test_a_client_is_stored_once_and_found_by_its_id(path: Path) -> None:
    moved = replace(ANN, pid=99)
    with SessionStore(path) as store:
        note(store, *(row("kernel_interrupt", n, ANN if n % 2 else BOB) for n in range(10)))
        note(store, row("kernel_interrupt", 10, moved))
    with SessionStore(path) as store:
        note(store, row("kernel_interrupt", 11, BOB))
        assert [store.actor(name) for name in ("ann", "bob", "unknown")] == [moved, BOB, unknown("unknown")]
    assert count(path, "clients") == 3


def test_pruning_keeps_the_last_edit_of_each_cell_there_is_and_the_clients_that_are_named(path: Path) -> None:
    with SessionStore(path) as store:
        note(
            store,
            row("cell_added", 1, BOB, "a"),
            row("cell_edited", 2, ANN, "a"),
            row("cell_added", 3, BOB, "gone"),
            row("cell_deleted", 4, BOB, "gone"),
            row("kernel_interrupt", 5, BOB),
            row("cell_added", 11, ANN, "b"),
        )
        assert store.prune_audit(10.0) == 4
        kept = [row("cell_added", 11, ANN, "b"), row("cell_edited", 2, ANN, "a")]
        assert list(store.audit()) == kept
        assert (last_edit(store, "a"), last_edit(store, "gone"), store.actor("bob")) == (
            (ANN, 2.0),
            None,
            unknown("bob"),
        )
        assert store.prune_audit(10.0) == 0
        note(store, row("cell_edited", 12, BOB, "a"))
        assert list(store.audit()) == [row("cell_edited", 12, BOB, "a"), *kept]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE audit SET action = 'cell_moved' WHERE at = 2",
        "UPDATE audit SET until = 3 WHERE at = 2",
        "UPDATE audit SET client = 1 WHERE at = 2",
        "UPDATE audit SET client = NULL WHERE at = 2",
        "UPDATE names SET name = 'a' WHERE name = 'c'",
        "UPDATE clients SET pid = 5 WHERE client_id = 'bob'",
    ],
)
def test_a_damaged_row_tells_nothing_and_is_named_in_the_log(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = row("cell_added", 1, ANN, "b")
    with SessionStore(path) as store:
        note(store, good, row("cell_added", 2, BOB, "c"))
    sql(path, damage)
    with SessionStore(path) as store:
        assert list(store.audit()) == [good]
        assert [last_edit(store, cell) for cell in ("a", "b", "c")] == [None, (ANN, 1.0), None]
    assert caplog.records
    assert all("damaged and left out" in record.getMessage() for record in caplog.records)


def test_reading_may_stop_early_and_holds_nothing_up(store: SessionStore) -> None:
    note(store, *(row("kernel_interrupt", n) for n in range(100)))
    rows = store.audit()
    assert next(rows).at == 99
    rows.close()
    note(store, row("kernel_interrupt", 100))
    assert next(store.audit()).at == 100


def test_the_index_of_edits_finds_the_last_ones(path: Path) -> None:
    SessionStore(path).close()
    connection = sqlite3.connect(path)
    query = "SELECT max(id) FROM audit WHERE cell IS NOT NULL AND execution IS NULL GROUP BY cell"
    plan = [line[-1] for line in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    connection.close()
    assert plan == ["SEARCH audit USING INDEX audit_edits (cell>?)"]


def test_last_edits_of_many_cells_are_found_at_once_whatever_their_ids_are(path: Path) -> None:
    ids = ["a", "b'", 'c"', "nul \0", "😀é", "x" * 1000, "[1]"]
    with SessionStore(path) as store:
        for n, cell_id in enumerate(ids):
            store.note(AuditRow(at=n, until=n, action="cell_added", actor=ANN, cell_id=CellId(cell_id)))
        assert store.last_edits([*ids, "unknown"]) == {cell_id: (ANN, float(n)) for n, cell_id in enumerate(ids)}
        assert store.last_edits([]) == {}


def test_what_was_read_once_is_read_anew_after_an_edit_a_rollback_a_deletion_and_a_pruning(store: SessionStore) -> None:
    note(store, row("cell_added", 1, cell="a"), row("cell_added", 1, cell="b"))
    assert store.last_edits(["a", "b"]) == {"a": (ANN, 1.0), "b": (ANN, 1.0)}
    note(store, row("cell_edited", 2, BOB, "a"))
    assert store.last_edits(["a", "b"]) == {"a": (BOB, 2.0), "b": (ANN, 1.0)}
    note(store, row("cell_edited", 3, BOB, "a"))  # merged into the entry before
    assert store.last_edits(["a"]) == {"a": (BOB, 3.0)}
    with contextlib.suppress(ZeroDivisionError), store.transaction():
        note(store, row("cell_edited", 4, ANN, "a"))
        assert store.last_edits(["a"]) == {"a": (ANN, 4.0)}
        raise ZeroDivisionError
    assert store.last_edits(["a"]) == {"a": (BOB, 3.0)}
    note(store, row("cell_deleted", 5, cell="a"))
    assert store.last_edits(["a", "b"]) == {"b": (ANN, 1.0)}
    store.prune_audit(100)
    assert store.last_edits(["a", "b"]) == {"b": (ANN, 1.0)}
