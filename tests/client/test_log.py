"""Who did what: told by `sessions.log`, by each cell's last edit and by events, for both faces."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from runtimed import Attribution, AuditEntry, Client, Session, SessionError, SessionNotFound
from tests.client.faces import SyncFace, on_one_face
from tests.conftest import wait_until


def told(entries: list[AuditEntry]) -> list[tuple[object, ...]]:
    """What the entries say but for the times, the oldest first."""
    return [(e.action, e.label, e.count, e.cell_id, e.execution_id, e.detail) for e in reversed(entries)]


def log(face, session_id: str, **paging: int) -> list[AuditEntry]:
    entries: list[AuditEntry] = face.client().sessions.log(session_id, **paging)
    return entries


def test_everything_that_a_client_does_to_cells_is_in_the_log_by_kind(face):
    name = f"cells {face.name}"
    before = datetime.now(UTC)
    with face.session(name, label="an agent") as session:
        cell_id = session.create_cell("secret = 1")
        other = session.create_cell("two", "markdown")
        session.set_source(cell_id, "secret = 2")
        session.append_source(cell_id, "\nsecret = 3")
        session.move_cell(cell_id, other)
        session.set_cell_metadata(cell_id, "secret key", "secret value")
        session.set_cell_type(other, "raw")
        session.set_metadata("secret key", "secret value")
        session.clear_outputs(cell_id)
        session.set_source(cell_id, "secret = 2\nsecret = 3")
        session.delete_cell(other)
        client_id = session.client_id

    entries = log(face, name)

    assert told(entries) == [
        ("session_started", "an agent", 1, None, None, None),
        ("cell_added", "an agent", 1, cell_id, None, None),
        ("cell_added", "an agent", 1, other, None, None),
        ("cell_edited", "an agent", 2, cell_id, None, None),
        ("cell_moved", "an agent", 1, cell_id, None, None),
        ("cell_metadata_set", "an agent", 1, cell_id, None, None),
        ("cell_type_set", "an agent", 1, other, None, "raw"),
        ("metadata_set", "an agent", 1, None, None, None),
        ("cell_deleted", "an agent", 1, other, None, None),
    ]
    assert {(e.client_id, e.uid, e.pid) for e in entries} == {(client_id, os.getuid(), os.getpid())}
    assert all(before <= e.at <= e.until <= datetime.now(UTC) for e in entries)
    assert sorted(entries, key=lambda entry: entry.at, reverse=True) == entries
    assert "secret" not in repr(entries)


@on_one_face
def test_what_is_done_to_kernel_executions_and_session_is_in_the_log(face):
    name = f"kernel {face.name}"
    session = face.session(name, label="an agent")
    session.start_kernel(env_source="current")
    session.start_kernel()
    result = session.run("print('secret')")
    running = session.create_cell("import time; time.sleep(60)")
    waiting = session.create_cell("2")
    first, second = session.queue_cell(running), session.queue_cell(waiting)
    wait_until(lambda: session.get_cell_execution_count(running), "the cell does not begin")
    session.cancel(second)
    session.cancel(second)
    session.interrupt()
    session.wait(first)
    session.cancel(first)
    session.restart_kernel()
    session.shutdown_kernel()
    session.shutdown_kernel()
    session.stop()
    session.stop()
    session.close()

    entries = log(face, name)

    assert told(entries) == [
        ("session_started", "an agent", 1, None, None, None),
        ("kernel_start", "an agent", 1, None, None, "current"),
        ("execution_queued", "an agent", 1, result.cell_id, result.execution_id, None),
        ("cell_added", "an agent", 1, result.cell_id, None, None),
        ("cell_added", "an agent", 1, running, None, None),
        ("cell_added", "an agent", 1, waiting, None, None),
        ("execution_queued", "an agent", 1, running, first, None),
        ("execution_queued", "an agent", 1, waiting, second, None),
        ("execution_cancelled", "an agent", 1, waiting, second, None),
        ("kernel_interrupt", "an agent", 1, None, None, None),
        ("kernel_restart", "an agent", 1, None, None, None),
        ("kernel_shutdown", "an agent", 1, None, None, None),
        ("session_closed", "an agent", 1, None, None, "stopped"),
    ]
    assert "secret" not in repr(entries)


def test_what_was_refused_and_what_changed_nothing_is_not_in_the_log(face):
    name = f"refused {face.name}"
    with face.session(name) as session:
        cell_id = session.create_cell("1")
        for refused in (
            lambda: session.delete_cell("unknown"),
            session.interrupt,
            session.restart_kernel,
            lambda: session.queue_cell("unknown"),
            lambda: session.cancel("unknown"),
        ):
            with pytest.raises(Exception, match=r"not found|No kernel|no execution"):
                refused()
        session.set_source(cell_id, "1")
        session.get_cells()

    assert [entry.action for entry in reversed(log(face, name))] == ["session_started", "cell_added"]


@on_one_face
def test_thousands_of_appended_pieces_are_a_few_entries(face):
    name = f"stream {face.name}"
    with face.session(name) as session:
        mine, theirs = session.create_cell(), session.create_cell()
        with face.session(name) as other:
            for number in range(500):
                session.append_source(mine, f"{number} ")
                other.append_source(theirs, f"{number} ")

    entries = log(face, name)

    edits = {entry.cell_id: entry.count for entry in entries if entry.action == "cell_edited"}
    assert edits == {mine: 500, theirs: 500}
    assert len(entries) == 5


@on_one_face
def test_every_cell_says_who_edited_it_last(face):
    name = f"last edits {face.name}"
    with face.session(name, label="first") as session, face.session(name, label="second") as other:
        cell_id, moved, run = session.create_cell("1"), session.create_cell("2"), session.create_cell("3")
        other.set_source(cell_id, "1 + 1")
        other.move_cell(moved)
        other.execute_cell(run)
        written = other.run("4").cell_id

        cells = {cell.id: cell for cell in session.get_cells()}
        editors = {key: (cell.last_edit.label, cell.last_edit.client_id) for key, cell in cells.items()}
        first, second = ("first", session.client_id), ("second", other.client_id)
        assert editors == {cell_id: second, moved: second, run: first, written: second}
        assert [session.get_cell(key) for key in cells] == list(cells.values())
        edit = next(e for e in log(face, name) if e.action == "cell_edited")
        assert cells[cell_id].last_edit == Attribution(
            at=edit.until, client_id=other.client_id, label="second", uid=os.getuid(), pid=os.getpid()
        )


def test_the_system_says_which_process_a_client_is_whatever_the_client_says(face):
    name = f"process {face.name}"
    script = f"""
import runtimed
from runtimed.client import identity
hello = identity.Hello
identity.Hello = lambda protocol, version, client_id, label, pid: hello(protocol, version, client_id, label, 1)
with runtimed.Session({name!r}) as session:
    session.create_cell("1")
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        process.wait()

    assert {(entry.uid, entry.pid) for entry in log(face, name)} == {(os.getuid(), process.pid)}


def test_events_say_whose_edit_they_tell_of(face):
    with face.session(f"events {face.name}") as session, face.session(session.notebook_id) as other:
        events = session.subscribe(event_types=["cell_changed"])
        mine, theirs = session.create_cell("1"), other.create_cell("2")
        seen = [next(events), next(events)]
        events.close()

        assert [(e.cell_id, e.status, e.author) for e in seen] == [
            (mine, "added", session.client_id),
            (theirs, "added", other.client_id),
        ]
    assert session.client_id != other.client_id


def test_the_log_comes_in_pages_that_fit_together(face):
    name = f"pages {face.name}"
    with face.session(name) as session:
        for number in range(7):
            session.create_cell(str(number))
        session.stop()

    everything = log(face, name)

    assert len(everything) == 9
    pages = [log(face, name, page=page, page_size=4) for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [4, 4, 1, 0]
    assert [entry for entries in pages for entry in entries] == everything
    for nonsense in ({"page": 0}, {"page_size": 0}, {"page_size": 1001}):
        with pytest.raises(ValueError, match="^page(_size)? is an int, (at least 1|from 1 to 1000); not (0|1001)$"):
            log(face, name, **nonsense)


def test_reading_the_log_is_no_use_of_a_session_and_an_ended_one_stays_ended(face):
    name = f"ended {face.name}"
    with face.session(name) as session:
        session.create_cell("1")
        session.stop()
    before = face.client().sessions.get(name)

    assert [entry.action for entry in log(face, name)] == ["session_closed", "cell_added", "session_started"]

    assert face.client().sessions.get(name) == before


def test_an_unknown_session_has_no_log(face):
    with face.session("only joined"):
        pass
    for name in ("nobody", "only joined"):
        with pytest.raises(SessionNotFound, match=f"No session has the id '{name}' yet"):
            log(face, name)


def test_a_session_that_timed_out_ended_by_itself(face):
    name = f"timeout {face.name}"
    with face.session(name, timeout_minutes=0.001) as session:
        session.create_cell("1")
        wait_until(lambda: session.status().status == "timed_out", "the session does not time out")

    entry = log(face, name)[0]

    assert (entry.action, entry.detail) == ("session_timed_out", "idle_timeout")
    assert (entry.client_id, entry.label, entry.uid, entry.pid) == (None, None, None, None)


@on_one_face
def test_a_kernel_that_died_is_told_without_its_words(face):
    name = f"death {face.name}"
    with face.session(name) as session:
        session.run("import os; os.write(2, b'secret'); os.kill(os.getpid(), 9)")
        wait_until(lambda: session.status().status == "error", "the session does not end")
        session.stop()

    entries = log(face, name)

    assert (entries[0].action, entries[0].detail, entries[0].client_id) == ("session_error", "died", None)
    assert "secret" not in repr(entries)


def test_answering_a_question_is_noted_without_the_answer(shared_daemon):
    with Session("asked") as session:
        execution = session.submit(code="print(len(input()))")
        for event in execution.events():
            if event.event_type == "input_requested":
                execution.answer("secret")
        assert execution.wait().stdout == "6\n"

    entries = Client().sessions.log("asked")
    entry = entries[0]
    assert (entry.action, entry.execution_id, entry.cell_id, entry.client_id) == (
        "kernel_input",
        execution.id,
        execution.cell_id,
        session.client_id,
    )
    assert "secret" not in repr(entries)


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ("x" * 257, "at most 256 characters"),
        ("two\nlines", "one line of plain text"),
        ("\x1b[31mred", "one line of plain text"),
        ("\x9b31m", "one line of plain text"),
        ("\u202eright to left", "turns the direction"),
        ("\u2028", "a line break"),
        ("half \ud800", "half of a character"),
        (5, "must be a str"),
    ],
    ids=ascii,
)
def test_a_label_is_one_line_of_plain_text(face, label, sentence):
    with pytest.raises(SessionError, match=sentence):
        face.session("s", label=label)
    with pytest.raises(SessionError, match=sentence):
        type(face.client() if isinstance(face, SyncFace) else Client())(label=label)


def test_a_label_may_hold_any_script_and_signs():
    for label in ("größe 数据 عربي 🎈", "👩\u200d💻 dev", "Screenshot\u202f10\xa0am", "", None, "x" * 256):
        assert Session("s", label=label)._identity.label == label


def test_edits_within_a_minute_are_one_entry_with_its_first_and_last_time(face):
    name = f"span {face.name}"
    with face.session(name) as session:
        cell_id = session.create_cell()
        session.append_source(cell_id, "1")
        wait_until(lambda: datetime.now(UTC) - log(face, name)[0].at > timedelta(milliseconds=1), "time stands still")
        session.append_source(cell_id, "2")

    entry = log(face, name)[0]

    assert (entry.action, entry.count) == ("cell_edited", 2)
    assert timedelta(milliseconds=1) < entry.until - entry.at < timedelta(minutes=1)
