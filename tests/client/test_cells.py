"""The members of a session that need no kernel, on both faces."""

import contextlib
import json
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from runtimed import Cell, CellNotFound, InvalidCell, NotConnected, Session, SessionError, SessionNotFound

NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]
UNICODE = "naïve = '日本語 \U0001f600 \x00 \u202e עברית'\r\n\tπ = 3"


def test_a_new_handle_is_disconnected_and_touches_nothing(face):
    session = face.session("never connected")

    assert (session.is_connected, session.kernel_started, session.env_source) == (False, False, None)
    assert repr(session) == "Session(id=never connected, status=disconnected)"


def test_a_handle_without_an_id_gets_a_generated_one(face):
    first, second = face.session().notebook_id, face.session().notebook_id

    assert first.startswith("agent-session-")
    assert first != second


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.get_cells(),
        lambda s: s.get_cell("c"),
        lambda s: s.set_source("c", ""),
        lambda s: s.append_source("c", ""),
        lambda s: s.delete_cell("c"),
        lambda s: s.move_cell("c"),
        lambda s: s.clear_outputs("c"),
        lambda s: s.get_cell_ids(),
        lambda s: s.get_cell_source("c"),
        lambda s: s.set_cell_metadata("c", "k", "v"),
        lambda s: s.delete_cell_metadata("c", "k"),
        lambda s: s.set_cell_type("c", "raw"),
        lambda s: s.queue_cell("c"),
        lambda s: s.wait("e"),
        lambda s: s.cancel("e"),
        lambda s: s.stream_execute("c"),
        lambda s: s.subscribe(),
        lambda s: s.restart_kernel(),
        lambda s: s.shutdown_kernel(),
        lambda s: s.interrupt(),
        lambda s: s.complete("a"),
        lambda s: s.inspect("a"),
        lambda s: s.set_kernelspec("a", "b"),
        lambda s: s.get_kernelspec(),
        lambda s: s.status(),
        lambda s: s.stop(),
    ],
)
def test_what_does_not_connect_by_itself_says_not_connected(face, use):
    with pytest.raises(NotConnected, match="^Not connected$"):
        use(face.session("not connected"))


def test_a_closed_handle_says_which_session_to_join_again(face, with_kernel):
    session = face.session(with_kernel.notebook_id)
    execution = session.submit(code="1")
    session.close()
    message = (
        f"Not connected: this handle of session {session.notebook_id!r} was closed; connect() joins the session again"
    )
    for use in (session.get_cells, session.interrupt, execution.wait, execution.cancel, execution.events):
        with pytest.raises(NotConnected) as caught:
            use()
        assert str(caught.value) == message
    session.connect()
    assert execution.wait().value == 1
    session.close()


def test_connecting_twice_is_harmless_and_changes_nothing(face):
    session = face.session(f"only connected {face.name}")
    session.connect()
    session.connect()

    assert session.is_connected
    assert repr(session) == f"Session(id=only connected {face.name}, status=connected)"
    assert session.get_cells() == []
    with pytest.raises(SessionNotFound):
        session.status()
    session.close()
    session.close()
    assert not session.is_connected


def test_a_cell_is_created_and_read_back(session):
    cell_id = session.create_cell("x = 1")

    assert cell_id.startswith("cell-")
    cell = session.get_cell(cell_id)
    assert cell == Cell(
        id=cell_id,
        cell_type="code",
        source="x = 1",
        metadata={},
        position=session.get_cell_position(cell_id),
        last_edit=cell.last_edit,
    )
    assert session.get_cells() == [session.get_cell(cell_id)]


def test_creating_a_cell_connects(face):
    session = face.session(f"created {face.name}")

    session.create_cell()

    assert session.is_connected
    session.stop()


def test_cells_stand_where_they_were_put_and_moved(session):
    last = session.create_cell("last")
    first = session.create_cell("first", index=0)
    middle = session.create_cell("middle", "markdown", 1)
    assert session.get_cell_ids() == [first, middle, last]

    session.move_cell(last)
    assert session.get_cell_ids() == [last, first, middle]
    session.move_cell(last, first)
    assert session.get_cell_ids() == [first, last, middle]
    session.delete_cell(last)
    assert [cell.source for cell in session.get_cells()] == ["first", "middle"]


def test_single_fields_are_read_and_an_unknown_cell_gives_none(session):
    cell_id = session.create_cell("# title", "markdown")
    session.set_cell_metadata(cell_id, "tags", ["a"])

    assert session.get_cell_source(cell_id) == "# title"
    assert session.get_cell_type(cell_id) == "markdown"
    assert session.get_cell_outputs(cell_id) == []
    assert session.get_cell_execution_count(cell_id) is None
    assert session.get_cell_metadata(cell_id) == {"tags": ["a"]}
    for name in ("source", "type", "outputs", "execution_count", "position", "metadata"):
        assert getattr(session, f"get_cell_{name}")("cell-unknown") is None


def test_a_cell_s_metadata_are_json_values(session):
    cell_id = session.create_cell()
    values = {
        "tags": ["a", UNICODE],
        "jupyter": {"source_hidden": True, "outputs_hidden": False},
        "nested": {"a": [{"b": [None, 1.5, -(2**70), ""]}]},
        "text": "[1]",
        "null": None,
    }
    for key, value in values.items():
        session.set_cell_metadata(cell_id, key, value)
    assert session.get_cell_metadata(cell_id) == values
    assert session.get_cell(cell_id).metadata == values

    del values["jupyter"]
    for _ in range(2):
        session.delete_cell_metadata(cell_id, "jupyter")
    assert session.get_cells()[0].metadata == values


def test_a_source_is_set_and_appended_to(session):
    cell_id = session.create_cell("a")
    session.set_source(cell_id, "b = 1")
    session.append_source(cell_id, "\nc = 2")

    assert session.get_cell_source(cell_id) == "b = 1\nc = 2"


def test_edits_of_two_clients_who_saw_the_same_text_are_both_kept(face, session):
    other = face.session(session.notebook_id)
    other.connect()
    cell_id = session.create_cell("import os\nprint(os)\n")
    assert other.get_cell_source(cell_id) == "import os\nprint(os)\n"

    other.set_source(cell_id, "import sys\nprint(os)\n")
    session.set_source(cell_id, "import os\nprint(os, 1)\n")
    assert session.get_cell_source(cell_id) == "import sys\nprint(os, 1)\n"

    other.set_source(cell_id, "import sys\nprint(os)\nmore\n")
    assert session.get_cell_source(cell_id) == "import sys\nprint(os, 1)\nmore\n"
    other.close()


HEARS: dict[str, Callable[[Any, str], object]] = {
    "get_cells": lambda s, c: s.get_cells(),
    "get_cell_ids": lambda s, c: s.get_cell_ids(),
    "get_cell": lambda s, c: s.get_cell(c),
    "get_cell_source": lambda s, c: s.get_cell_source(c),
    "set_source": lambda s, c: s.set_source(c, ""),
    "append_source": lambda s, c: s.append_source(c, ""),
    "delete_cell": lambda s, c: s.delete_cell(c),
}


@pytest.mark.parametrize("hear", HEARS.values(), ids=HEARS)
def test_the_source_of_a_cell_that_somebody_deleted_is_forgotten(face, session, hear):
    other = face.session(session.notebook_id)
    other.connect()
    kept, gone = session.create_cell("kept"), session.create_cell("gone")
    other.delete_cell(gone)
    with contextlib.suppress(CellNotFound):
        hear(session, gone)
    assert session._notebook.seen == {kept: "kept"}
    other.close()


def test_the_source_of_a_cell_is_forgotten_when_an_event_tells_that_it_was_deleted(face, session):
    other = face.session(session.notebook_id)
    other.connect()
    kept, gone = session.create_cell("kept"), session.create_cell("gone")
    events = session.subscribe()
    other.delete_cell(gone)
    assert next(events).cell_id == gone
    assert session._notebook.seen == {kept: "kept"}
    events.close()
    other.close()


def test_the_type_of_a_cell_changes(session):
    cell_id = session.create_cell("x")
    session.set_cell_type(cell_id, "raw")

    assert session.get_cell_type(cell_id) == "raw"


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.get_cell("cell-unknown"),
        lambda s: s.set_source("cell-unknown", ""),
        lambda s: s.append_source("cell-unknown", "x"),
        lambda s: s.delete_cell("cell-unknown"),
        lambda s: s.move_cell("cell-unknown"),
        lambda s: s.clear_outputs("cell-unknown"),
        lambda s: s.set_cell_metadata("cell-unknown", "k", "v"),
        lambda s: s.delete_cell_metadata("cell-unknown", "k"),
        lambda s: s.set_cell_type("cell-unknown", "raw"),
    ],
)
def test_an_unknown_cell_is_not_found(session, use):
    with pytest.raises(CellNotFound, match="^Cell not found: cell-unknown$") as caught:
        use(session)
    assert caught.value.cell_id == "cell-unknown"


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (lambda s: s.create_cell("x", "python"), "code, markdown or raw"),
        (lambda s: s.create_cell("x", index=5), "index"),
        (lambda s: s.create_cell("x", index=-1), "index"),
        (lambda s: s.create_cell("x", index="0"), "index must be an int"),
        (lambda s: s.create_cell(1), "source must be a str, not int"),
        (lambda s: s.create_cell("a\ud800b"), "surrogate"),
        (lambda s: s.create_cell("x" * (10 * 2**20 + 1)), "10"),
        (lambda s: s.set_source(s.create_cell(), None), "source must be a str"),
        (lambda s: s.set_cell_type(s.create_cell(), "html"), "code, markdown or raw"),
        (lambda s: s.set_cell_metadata(s.create_cell(), 1, "v"), "key must be a str"),
        (lambda s: s.set_cell_metadata(s.create_cell(), "k", {"a": math.nan}), "Out of range float values"),
        (lambda s: s.set_cell_metadata(s.create_cell(), "k", b"x"), "must be a JSON value, not b'x'"),
        (lambda s: s.set_cell_metadata(s.create_cell(), "k", ["\ud800"]), "lone surrogate"),
        (lambda s: s.set_cell_metadata(s.create_cell(), "k", NESTED), "must be a JSON value"),
        (lambda s: s.delete_cell_metadata(s.create_cell(), ""), "must not be empty"),
    ],
)
def test_what_cannot_be_a_cell_is_refused_in_a_sentence(session, use, sentence):
    with pytest.raises(InvalidCell, match=sentence):
        use(session)


@pytest.mark.parametrize(
    "source", [UNICODE, "", "x" * 30_000, "é" * 5 * 2**20], ids=["unicode", "empty", "long", "10 MB"]
)
def test_sources_come_back_exactly(session, source):
    cell_id = session.create_cell(source)

    assert session.get_cell_source(cell_id) == source


def test_metadata_is_set_and_read(session):
    assert session.get_metadata("title") is None
    session.set_metadata("title", json.dumps({"a": UNICODE}))

    assert json.loads(session.get_metadata("title")) == {"a": UNICODE}


def test_metadata_that_is_no_text_is_refused_in_a_sentence(session):
    with pytest.raises(SessionError, match="json.dumps"):
        session.set_metadata("title", {"a": 1})


def test_the_kernelspec_is_part_of_the_notebook_metadata(session):
    session.set_metadata("notebook_metadata", '{"language_info": {"name": "python"}}')
    assert session.get_kernelspec() is None
    session.set_kernelspec("python3", "Python 3", "python")

    assert session.get_kernelspec() == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert json.loads(session.get_metadata("notebook_metadata"))["language_info"] == {"name": "python"}


def test_setting_the_kernelspec_undoes_nothing_that_others_write_meanwhile(session):
    name = session.notebook_id
    with Session(name) as other, Session(name) as third:
        other.connect()
        third.connect()

        def add_many() -> None:
            for number in range(50):
                other.add_uv_dependency(f"package-{number}")

        adding = threading.Thread(target=add_many)
        adding.start()
        for number in range(50):
            third.set_kernelspec(f"k{number}", "K")
        adding.join()

        assert session.get_uv_dependencies() == [f"package-{number}" for number in range(50)]
        assert session.get_kernelspec() == {"name": "k49", "display_name": "K"}


def test_a_kernelspec_that_is_no_text_is_refused_in_a_sentence(session):
    with pytest.raises(SessionError, match="display name of a kernelspec must be a str, not int"):
        session.set_kernelspec("a", 5)


def test_notebook_metadata_that_is_no_json_object_is_named(session):
    session.set_metadata("notebook_metadata", "not json")
    with pytest.raises(SessionError, match="no JSON"):
        session.get_kernelspec()


@pytest.mark.parametrize("notebook_id", ["../../etc/passwd", "a/b\\c", "👩‍🔬 two", "é" * 500, "."])
def test_any_line_of_text_may_name_a_session(face, notebook_id):
    with face.session(notebook_id) as session:
        cell_id = session.create_cell("x")
        assert session.status().session_id == notebook_id
        session.stop()
    with face.session(notebook_id) as again:
        assert again.get_cell_ids()[-1] == cell_id


@pytest.mark.parametrize("notebook_id", [" ", "a/b\n", "\ta", "line\nfeed\x1b[31m\x00", "a\u202eb"])
def test_a_new_session_gets_no_id_that_people_cannot_read_or_type(face, notebook_id):
    why = "^The id of a new session (is one line of plain text|must not begin or end with white space)"
    with face.session(notebook_id) as session:
        for begin in (session.create_cell, lambda: session.start_kernel(env_source="current")):
            with pytest.raises(SessionError, match=why):
                begin()
        with pytest.raises(SessionNotFound):
            session.status()


@pytest.mark.parametrize("notebook_id", ["", "x" * 1025, 5, "a\ud800"])
def test_what_cannot_name_a_session_is_refused_in_a_sentence(face, notebook_id):
    with pytest.raises(SessionError, match="session id"):
        face.session(notebook_id)


@pytest.mark.parametrize("name", ["timeout_minutes", "max_duration_minutes", "keep_alive"])
def test_a_duration_that_is_none_is_refused(face, name):
    for value in (-1, "5", True, float("nan")):
        with pytest.raises(SessionError, match=name):
            face.session("s", **{name: value})


@pytest.mark.parametrize("duration", [None, float("inf"), 3e6, sys.maxsize, 10**400], ids=repr)
def test_a_session_may_last_as_long_as_one_likes(face, duration):
    durations = dict.fromkeys(("timeout_minutes", "max_duration_minutes", "keep_alive"), duration)
    session = face.session(**durations)
    session.create_cell("1")
    status = session.status()
    as_told = 3e6 if duration == 3e6 else None
    assert (status.timeout_minutes, status.max_duration_minutes) == (as_told, as_told)
    session.stop()


def test_a_large_notebook_is_read_in_pages(session):
    source = "é" * 2**20
    ids = [session.create_cell(source + str(n)) for n in range(9)]

    assert session.get_cell_ids() == ids
    assert [cell.source for cell in session.get_cells()] == [source + str(n) for n in range(9)]
