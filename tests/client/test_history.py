"""The history of a notebook: who edited it, when, and how."""

import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runtimed import Client, NotebookEdit, Session
from tests.conftest import wait_until


def told(edits: Any) -> list[tuple[str | None, str, str | None, str | None]]:
    return [(edit.label, edit.action, edit.cell_id, edit.detail) for edit in edits]


def test_the_history_says_who_did_what_the_latest_first(session, face):
    began = datetime.now(UTC)
    name = session.notebook_id
    with face.session(name, label="ann") as ann, face.session(name, label="bob") as bob, face.session(name) as cleo:
        first = ann.create_cell("a = 1", cell_id=f"{name} first")
        second = bob.create_cell("# title", "markdown")
        cleo.set_source(first, "a = 1")
        bob.get_cell(first)
        bob.set_source(first, "a = 23")
        ann.append_source(first, "4")
        ann.move_cell(second)
        cleo.set_metadata("k", "v")
        bob.set_cell_metadata(second, "tag", "t")
        cleo.set_cell_type(second, "raw")
        ann.delete_cell(second)
        edits = list(session.history())
    assert told(edits) == [
        ("ann", "cell_deleted", second, None),
        (None, "cell_type_set", second, "raw"),
        ("bob", "cell_metadata_set", second, "tag"),
        (None, "metadata_set", None, "k"),
        ("ann", "cell_moved", second, None),
        ("ann", "cell_edited", first, "+1 -0"),
        ("bob", "cell_edited", first, "+2 -1"),
        ("bob", "cell_added", second, "markdown"),
        ("ann", "cell_added", first, "code"),
    ]
    assert [edit.version for edit in edits] == list(range(9, 0, -1))
    assert [edit.client_id for edit in edits[:3]] == [ann.client_id, cleo.client_id, bob.client_id]
    assert {edit.uid for edit in edits} == {os.getuid()}
    times = [edit.at for edit in reversed(edits)]
    assert began <= times[0] <= times[-1] <= datetime.now(UTC)
    assert times == sorted(times)
    assert list(session.history(first)) == [edit for edit in edits if edit.cell_id == first]
    assert next(iter(session.history(second))).action == "cell_deleted"
    assert list(session.history("nobody")) == []


def test_a_long_history_comes_page_by_page(session):
    cell_id = session.create_cell("")
    for number in range(1100):
        session.append_source(cell_id, "x") if number % 10 else session.set_metadata("n", str(number))
    edits = list(session.history())
    assert [edit.version for edit in edits] == list(range(1101, 0, -1))
    assert [edit.version for edit in session.history(cell_id)] == [e.version for e in edits if e.cell_id == cell_id]


def test_an_execution_is_no_edit(with_kernel):
    result = with_kernel.run("1")
    edits = list(with_kernel.history(result.cell_id))
    assert [edit.action for edit in edits] == ["cell_added"]
    with_kernel.clear_outputs(result.cell_id)
    assert [edit.action for edit in with_kernel.history(result.cell_id)] == ["outputs_cleared", "cell_added"]


def test_a_session_that_never_began_has_no_history_and_does_not_begin(face):
    with face.session("never began") as session:
        assert list(session.history()) == []
    assert [one.session_id for one in Client().sessions.list() if one.session_id == "never began"] == []


def test_a_compaction_says_that_older_edits_are_gone(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "20")
    with Session("s", label="ann") as session:
        cell_id = session.create_cell("")
        for _ in range(25):
            session.append_source(cell_id, "x")

        def last() -> NotebookEdit:
            return list(session.history(cell_id))[-1]

        wait_until(lambda: last().action == "history_begins", "the document is not compacted")
        kept = list(session.history())
        assert [edit.version for edit in kept] == list(range(26, last().version - 1, -1))
        assert (last().client_id, last().label, last().uid, last().cell_id) == (None, None, None, None)
        assert 20 <= last().version <= 26


def test_the_history_outlives_a_daemon_that_is_killed(data_dir: Path):
    with Session("s", label="ann") as session:
        cell_id = session.create_cell("1")
        session.append_source(cell_id, "2")
        before = list(session.history())
        status = Client().status()
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)
        session.append_source(cell_id, "3")
        assert list(session.history())[1:] == before
