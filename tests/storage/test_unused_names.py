"""The table of names keeps what some row refers to, however often a walk through it is interrupted, and no more."""

import sqlite3
from pathlib import Path

from runtimed.ids import CellId, ClientId, ExecutionId, HostEpoch
from runtimed.models import AuditAction
from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.session_store import SessionStore
from tests.storage.edits import last_edit

ANN = Actor(ClientId("ann"), "Ann", 1000, 7)


def names_in(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        return {name for (name,) in connection.execute("SELECT name FROM names")}
    finally:
        connection.close()


def execute(store: SessionStore, n: int, event: int | None = None) -> None:
    """What an execution of a cell of its own leaves behind, with an event of this number of its host."""
    with store.transaction():
        execution_id, cell_id = ExecutionId(f"execution-{n}"), CellId(f"cell-{n}")
        store.add_execution(execution_id, cell_id, "ann", "1", queued_at=float(n))
        store.note(
            AuditRow(
                at=float(n),
                until=float(n),
                action="execution_queued",
                actor=ANN,
                cell_id=cell_id,
                execution_id=execution_id,
            )
        )
        store.append_event(
            b"out", execution_id=execution_id, cell_id=cell_id, host=(HostEpoch("host"), event or n + 1), output=3
        )
        store.update_execution(f"execution-{n}", status="ok", ended_at=float(n))


def delete(store: SessionStore, numbers: range) -> None:
    """What the daemon does to old executions."""
    with store.transaction():
        for n in numbers:
            store.delete_execution(f"execution-{n}")
        store.prune_audit(numbers[-1] + 0.5)
    while store.is_deleting_events:
        with store.transaction():
            store.delete_some_events(2**20, 100)


def sweep(store: SessionStore) -> None:
    walk, goes_on = store.unused_names(), True
    while goes_on:
        with store.transaction():
            goes_on = walk.step()


def test_names_go_with_the_last_row_that_refers_to_them(tmp_path: Path) -> None:
    path = tmp_path / "session.db"
    with SessionStore(path) as store:
        for n in range(300):
            execute(store, n)
        delete(store, range(297))
        sweep(store)
    kept = {"host", *(f"{kind}-{n}" for kind in ("cell", "execution") for n in (297, 298, 299))}
    assert names_in(path) == kept
    with SessionStore(path) as store:
        assert [row.execution_id for row in store.audit()] == ["execution-299", "execution-298", "execution-297"]
        assert [seq for seq, _ in store.read_events(0, execution_id="execution-299")] == [300]
        assert store.last_event_of_host("host") == 300
        sweep(store)
    assert names_in(path) == kept


def test_a_cell_that_was_edited_keeps_its_name_and_who_edited_it(tmp_path: Path) -> None:
    path = tmp_path / "session.db"
    with SessionStore(path) as store:
        edits: list[tuple[str, AuditAction]] = [
            ("there", "cell_added"),
            ("gone", "cell_added"),
            ("gone", "cell_deleted"),
        ]
        for cell, action in edits:
            store.note(AuditRow(at=1.0, until=1.0, action=action, actor=ANN, cell_id=CellId(cell)))
        store.prune_audit(2.0)
        sweep(store)
        assert last_edit(store, "there") == (ANN, 1.0)
    assert names_in(path) == {"there"}


def test_what_is_named_while_the_walk_goes_on_stays_named(tmp_path: Path) -> None:
    path = tmp_path / "session.db"
    with SessionStore(path) as store:
        for n in range(1200):
            execute(store, n)
        delete(store, range(1200))
        walk, goes_on, used = store.unused_names(), True, set[str]()
        while goes_on:
            with store.transaction():
                goes_on = walk.step()
            # Old names are used anew, and so are new ones.
            for n in (len(used) * 25, 5000 + len(used)):
                execute(store, n, event=10_000 + n)
                used.add(f"execution-{n}")
        assert len(used) > 40
        assert {str(row.execution_id) for row in store.audit()} == used
        for execution_id in used:
            assert [body for _, body in store.read_events(0, execution_id=execution_id)] == [b"out"]
        sweep(store)
    assert names_in(path) == used | {one.replace("execution", "cell") for one in used} | {"host"}
