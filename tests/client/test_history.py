"""The history of a notebook: who edited it, when, and how."""

import os
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runtimed import CellNotFound, Client, InvalidArgument, NotebookEdit, Session, VersionNotFound
from tests.client.faces import on_one_face
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


def plain(cells: Any) -> list[tuple[Any, ...]]:
    return [
        (cell.id, cell.cell_type, cell.source, cell.metadata, cell.position, cell.execution_id, cell.execution_count)
        for cell in cells
    ]


def said(session: Any) -> list[tuple[Any, ...]]:
    return plain(session.get_cells(outputs=False))


def last_of(edits: Any) -> NotebookEdit:
    last: NotebookEdit = list(edits)[-1]
    return last


def version_of(session: Any) -> int:
    return next((edit.version for edit in session.history()), 0)


def changed(session: Any) -> list[tuple[int, Any, Any]]:
    """Edit a notebook in all ways; return each version, its cells and an entry of its metadata."""
    versions = [(0, said(session), None)]

    def note() -> None:
        versions.append((version_of(session), said(session), session.get_metadata("k")))

    first = session.create_cell("a = 1\nb = 2\n")
    note()
    second = session.create_cell("# title", "markdown", 0)
    session.set_cell_metadata(second, "tags", ["x"])
    note()
    session.set_source(first, "a = 1\nb = 22\n")
    session.move_cell(second, first)
    session.set_cell_metadata(first, "more", {"deep": [None, 1.5]})
    session.delete_cell_metadata(second, "tags")
    note()
    session.set_cell_type(second, "raw")
    session.set_metadata("k", "v")
    third = session.create_cell("3")
    note()
    session.delete_cell(first)
    session.set_metadata("k", "w")
    note()
    session.delete_cell(second)
    session.append_source(third, "4" * 1_200_000)
    note()
    return versions


@on_one_face
def test_each_version_can_be_read(session):
    versions = changed(session)
    for version, cells, value in versions:
        found = session.get_version(version)
        assert found.version == version
        assert plain(found.cells) == cells
        assert found.metadata.get("k") == value


@on_one_face
def test_each_version_can_be_restored(session, face):
    versions = changed(session)
    for version, cells, value in reversed(versions):
        before = version_of(session)
        edits = session.restore(version)
        assert said(session) == cells
        assert session.get_metadata("k") == value
        # Nothing is lost: a restore is edits like any other.
        assert version_of(session) == before + edits
    assert session.restore(0) == 0
    assert [edit.version for edit in session.history()] == list(range(version_of(session), 0, -1))
    session.restore(versions[-1][0])
    with face.session(session.notebook_id) as other:
        assert said(other) == versions[-1][1]


def test_other_clients_see_a_restore_as_ordinary_edits(session, face):
    with face.session(session.notebook_id, label="bob") as bob:
        first = session.create_cell("1")
        second = session.create_cell("2")
        wanted = version_of(session)
        bob.set_source(first, "one")
        bob.delete_cell(second)
        third = bob.create_cell("3")
        bob.set_cell_type(first, "raw")
        events = session.subscribe(event_types=["cell_changed"])
        assert bob.restore(wanted) == 4
        seen = [(event.cell_id, event.status, event.author) for _, event in zip(range(4), events, strict=False)]
        assert seen == [
            (first, "source", bob.client_id),
            (first, "type", bob.client_id),
            (second, "added", bob.client_id),
            (third, "deleted", bob.client_id),
        ]
        assert told(session.history())[:4] == [
            ("bob", "cell_deleted", third, None),
            ("bob", "cell_added", second, "code"),
            ("bob", "cell_type_set", first, "code"),
            ("bob", "cell_edited", first, "+1 -3"),
        ]
        (entry,) = [one for one in Client().sessions.log(session.notebook_id) if one.action == "notebook_restored"]
        assert (entry.label, entry.detail) == ("bob", f"version {wanted}")
        # The others' next edits merge as ever.
        session.get_cell(first)
        session.append_source(first, "0")
        assert bob.get_cell_source(first) == "10"


def blamed(session: Any, *arguments: Any) -> list[tuple[str, str | None, int]]:
    return [(line.text, line.edit.label, line.edit.version) for line in session.blame(*arguments)]


@on_one_face
def test_each_line_of_a_cell_has_the_edit_that_wrote_it(session, face):
    name = session.notebook_id
    with face.session(name, label="ann") as ann, face.session(name, label="bob") as bob:
        cell_id = ann.create_cell("import math\nradius = 1\narea = math.pi\n")
        bob.get_cell(cell_id)
        bob.set_source(cell_id, "import math\nradius = 2\narea = math.pi * radius ** 2\n")
        ann.append_source(cell_id, "print(area)\n")
        assert blamed(session, cell_id) == [
            ("import math", "ann", 1),
            ("radius = 2", "bob", 2),
            ("area = math.pi * radius ** 2", "bob", 2),
            ("print(area)", "ann", 3),
        ]
        edits = {edit.version: edit for edit in session.history(cell_id)}
        assert [line.edit for line in session.blame(cell_id)] == [edits[1], edits[2], edits[2], edits[3]]
        assert blamed(session, cell_id, 1)[1] == ("radius = 1", "ann", 1)
        # Others' edits do not count, and long lists of edits are searched for the first one.
        for number in range(600):
            bob.append_source(cell_id, "#") if number else bob.create_cell("")
        assert blamed(session, cell_id)[0] == ("import math", "ann", 1)
        assert blamed(session, cell_id)[-1] == ("#" * 599, "bob", 603)
        ann.delete_cell(cell_id)
        with pytest.raises(CellNotFound, match="Cell not found"):
            session.blame(cell_id)
        assert len(session.blame(cell_id, 603)) == 5
    with pytest.raises(CellNotFound, match="Cell not found: nobody"):
        session.blame("nobody")
    with pytest.raises(VersionNotFound, match="has no version 9999"):
        session.blame(cell_id, 9999)
    with pytest.raises(InvalidArgument, match="version is an int"):
        session.blame(cell_id, -1)
    assert session.blame(session.create_cell("")) == []


def test_a_blame_of_many_lines_comes_in_pieces(session):
    lines = [f"{number:07}" for number in range(300_000)]
    cell_id = session.create_cell("\n".join(lines))
    session.append_source(cell_id, "!")
    found = session.blame(cell_id)
    assert [line.text for line in found] == [*lines[:-1], lines[-1] + "!"]
    assert [line.edit.version for line in found] == [1] * 299_999 + [2]


def test_a_restored_session_still_knows_its_file(session, tmp_path: Path):
    path = tmp_path / "n.ipynb"
    cell_id = session.create_cell("1")
    session.save(path)
    session.set_source(cell_id, "2")
    session.save()
    session.restore(1)
    session.save()
    assert '"1"' in path.read_text()


def test_a_version_that_the_history_does_not_have_is_refused_with_a_sentence(session):
    session.create_cell("1")
    for use in (session.get_version, session.restore):
        with pytest.raises(VersionNotFound, match=r"has no version 9: it goes from version 0 to 1$") as refused:
            use(9)
        assert (refused.value.version, refused.value.oldest, refused.value.newest) == (9, 0, 1)
        for wrong in (-1, 1.5, None, True, "1"):
            with pytest.raises(InvalidArgument, match="version is an int, at least 0"):
                use(wrong)
        with pytest.raises(InvalidArgument):
            use(2**60)
    assert version_of(session) == 1


def test_a_restored_cell_shows_its_outputs_again(with_kernel):
    first = with_kernel.run("print('first')")
    with_kernel.create_cell("")
    wanted = version_of(with_kernel)
    count = first.execution_count
    with_kernel.set_source(first.cell_id, "print('second')")
    assert with_kernel.execute_cell(first.cell_id).stdout == "second\n"
    with_kernel.delete_cell(first.cell_id)

    with_kernel.restore(version_of(with_kernel) - 1)
    assert [output.text for output in with_kernel.get_cell(first.cell_id).outputs] == ["second\n"]
    with_kernel.restore(wanted)
    cell = with_kernel.get_cell(first.cell_id)
    assert (cell.source, cell.execution_id, cell.execution_count) == ("print('first')", first.execution_id, count)
    assert [output.text for output in cell.outputs] == ["first\n"]


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


def test_the_versions_behind_a_compaction_are_there_and_those_before_it_are_not(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "20")
    with Session("s") as session:
        cell_id = session.create_cell("")
        for _ in range(30):
            session.append_source(cell_id, "x")
        wait_until(
            lambda: list(session.history(cell_id))[-1].action == "history_begins", "the document is not compacted"
        )
        oldest = last_of(session.history()).version
        for version in range(oldest, 32):
            assert session.get_version(version).cells[0].source == "x" * (version - 1)
        with pytest.raises(VersionNotFound, match=f"has no version {oldest - 1}: it goes from version {oldest} to 31"):
            session.get_version(oldest - 1)
        assert blamed(session, cell_id) == [("x" * 30, None, 31)]
        assert [line.edit for line in session.blame(cell_id, oldest)] == [last_of(session.history())]
        session.restore(oldest)
        assert session.get_cell_source(cell_id) == "x" * (oldest - 1)


def test_a_restore_goes_on_while_others_edit_and_takes_nothing_of_theirs(data_dir: Path):
    with Session("s") as session, Session("s") as other:
        cells = [session.create_cell(f"{number}") for number in range(300)]
        wanted = version_of(session)
        for number, cell_id in enumerate(cells):
            session.append_source(cell_id, "!") if number % 3 else session.delete_cell(cell_id)
        added: list[str] = []
        done = threading.Event()

        def edit() -> None:
            while not done.is_set():
                added.append(other.create_cell("of another"))

        thread = threading.Thread(target=edit)
        thread.start()
        wait_until(lambda: added, "nobody edits")
        session.restore(wanted)
        done.set()
        thread.join()
        kept = [cell_id for cell_id in session.get_cell_ids() if cell_id not in cells]
        # Those that were there when the restore began are gone, and in the history.
        assert kept == added[len(added) - len(kept) :]
        assert [session.get_cell_source(cell_id) for cell_id in cells] == [str(number) for number in range(300)]
        assert {edit.cell_id for edit in session.history() if edit.action == "cell_added"} == {*cells, *added}


def test_a_restore_outlives_a_daemon_that_is_killed(data_dir: Path):
    with Session("s") as session:
        cells = [session.create_cell(f"{number}") for number in range(500)]
        wanted = version_of(session)
        for cell_id in cells:
            session.append_source(cell_id, "!")
        status = Client().status()
        assert status is not None
        thread = threading.Thread(target=session.restore, args=(wanted,))
        with Session("s") as other:
            thread.start()
            wait_until(lambda: other.get_cell_source(cells[0]) == "0", "it does not begin")
            os.kill(status.pid, signal.SIGKILL)
            thread.join()
            assert [cell.source for cell in other.get_cells()] == [str(number) for number in range(500)]
