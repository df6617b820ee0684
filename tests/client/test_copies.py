"""A copy of a session's document that was edited elsewhere, and is imported again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from runtimed import Client, NotebookFileError, Session
from runtimed.ids import CellId, ClientId, SessionId
from runtimed.protocol.document_operations import MAX_COPY
from tests.client.faces import on_one_face
from tests.conftest import wait_until
from tests.document.edited import EditedDocument

OTHER = ClientId("b" * 32)


def copy_of(session) -> EditedDocument:
    return EditedDocument.load(session.export("automerge"), [])


def saved(copy: EditedDocument, folder: Path, name: str = "copy.automerge") -> Path:
    path = folder / name
    path.write_bytes(copy.save())
    return path


def told(session) -> list[tuple[str | None, str, str | None]]:
    return [(edit.label, edit.action, edit.cell_id) for edit in session.history()]


def is_its_document(session) -> bool:
    """Whether the document says the same as the session: each edit was written into it exactly once."""
    document = copy_of(session)
    cells = [(cell.id, cell.source, cell.cell_type, cell.position, dict(cell.metadata)) for cell in session.get_cells()]
    return cells == [
        (cell.id, cell.source, cell.cell_type, cell.position, {key: cell.metadata[key][1:-1] for key in cell.metadata})
        for cell in document.cells()
    ]


def test_edits_here_and_in_the_copy_both_stay(session, face, tmp_path: Path):
    first, second = session.create_cell("one\ntwo\n"), session.create_cell("gone")
    copy = copy_of(session)
    copy.set_source(first, "zero\none\ntwo\n", base=None, author=OTHER)
    copy.delete_cell(second, author=OTHER)
    copy.add_cell(CellId(f"{first} new"), "# new", "markdown", 0, author=OTHER)
    copy.set_cell_metadata(first, "tag", '"t"', author=OTHER)
    path = saved(copy, tmp_path)
    session.append_source(first, "three\n")
    with face.session(session.notebook_id, label="ann") as ann:
        events = session.subscribe(event_types=["cell_changed"])
        opened = ann.import_notebook(path)
        assert (opened.path, opened.added, opened.changed, opened.deleted) == (
            path,
            (f"{first} new",),
            (first,),
            (second,),
        )
        seen = [next(events) for _ in range(4)]
        assert [(event.cell_id, event.status, event.author) for event in seen] == [
            (second, "deleted", ann.client_id),
            (f"{first} new", "added", ann.client_id),
            (first, "source", ann.client_id),
            (first, "metadata", ann.client_id),
        ]
        again = ann.import_notebook(path)
        assert (again.added, again.changed, again.deleted) == ((), (), ())
    assert session.get_cell_ids() == [f"{first} new", first]
    assert session.get_cell_source(first) == "zero\none\ntwo\nthree\n"
    assert told(session)[:4] == [
        ("ann", "cell_metadata_set", first),
        ("ann", "cell_edited", first),
        ("ann", "cell_added", f"{first} new"),
        ("ann", "cell_deleted", second),
    ]
    session.append_source(first, "four\n")
    assert is_its_document(session)
    blamed = session.blame(first)
    assert [(line.text, line.edit.label) for line in blamed[:2]] == [("zero", "ann"), ("one", None)]


@on_one_face
def test_random_edits_in_several_copies_all_arrive(session, tmp_path: Path):
    numbers, signs = random.Random(1), map(chr, range(0x4E00, 0x9FFF))
    cells = [session.create_cell(f"cell {number}\n") for number in range(5)]
    made: list[str] = []
    for _ in range(2):
        copies = [copy_of(session) for _ in range(2)]
        for number, copy in enumerate(copies):
            cell, sign = numbers.choice(cells), next(signs)
            (source,) = (one.source for one in copy.cells() if one.id == cell)
            at = numbers.randint(0, len(source))
            copy.set_source(cell, source[:at] + sign + source[at:], base=None, author=ClientId(str(number) * 32))
            made.append(sign)
        session.append_source(numbers.choice(cells), sign := next(signs))
        made.append(sign)
        for number, copy in enumerate(copies):
            session.import_notebook(saved(copy, tmp_path, f"{number}.automerge"))
        text = "".join(map(session.get_cell_source, cells))
        assert sorted(sign for sign in text if sign > "z") == sorted(made)
    assert is_its_document(session)


def test_what_is_no_copy_is_refused_and_changes_nothing(session, tmp_path: Path):
    cell = session.create_cell("one")
    whole = copy_of(session).save()
    before = list(session.history())

    def refusal(name: str, content: bytes | None) -> str:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(NotebookFileError) as refused:
            session.import_notebook(path)
        assert refused.value.path == str(path)
        return refused.value.message

    assert refusal("none.automerge", None) == f"There is no file {tmp_path}/none.automerge"
    damaged = f"{tmp_path}/cut.automerge was not imported: it is no whole Automerge document that this version reads"
    assert refusal("cut.automerge", whole[:-7]).startswith(damaged)
    foreign = EditedDocument.create(SessionId("elsewhere")).save()
    assert refusal("foreign.automerge", foreign).endswith(
        f"it is a copy of the notebook 'elsewhere', not of {session.notebook_id!r}"
    )
    large = tmp_path / "large.AUTOMERGE"
    with large.open("wb") as file:
        file.truncate(MAX_COPY + 1)
    assert refusal("large.AUTOMERGE", None).endswith(f"it has {MAX_COPY + 1} bytes; at most {MAX_COPY} are read")
    large.write_bytes(bytes(MAX_COPY))
    assert "no whole Automerge document" in refusal("large.AUTOMERGE", None)
    assert (list(session.history()), session.get_cell_source(cell)) == (before, "one")


def test_a_copy_is_merged_while_others_edit_and_nothing_of_theirs_is_lost(data_dir: Path, tmp_path: Path):
    with Session("s") as session, Session("s") as other:
        cell = session.create_cell("one\n")
        copy = copy_of(session)
        copy.set_source(cell, "zero\none\n", base=None, author=OTHER)
        path = saved(copy, tmp_path)
        done, edits = threading.Event(), 0

        def edit() -> None:
            nonlocal edits
            while not done.is_set():
                other.append_source(cell, ".")
                edits += 1

        thread = threading.Thread(target=edit)
        thread.start()
        wait_until(lambda: edits > 10, "nobody edits")
        session.import_notebook(path)
        before = edits
        wait_until(lambda: edits > before + 10, "nobody edits any more")
        done.set()
        thread.join()
        assert session.get_cell_source(cell) == "zero\none\n" + "." * edits
        assert is_its_document(session)


@pytest.mark.parametrize("seed", range(4))
def test_a_merge_outlives_a_daemon_that_is_killed(seed: int, data_dir: Path, tmp_path: Path):
    numbers = random.Random(seed)
    with Session("s") as session:
        cells = [session.create_cell(f"{number}") for number in range(50)]
        copy = copy_of(session)
        for cell in cells:
            copy.append_source(cell, "!", author=OTHER)
        path = saved(copy, tmp_path)
        status = Client().status()
        assert status is not None
        thread = threading.Thread(target=session.import_notebook, args=(path,))
        thread.start()
        time.sleep(numbers.random() * 0.6)  # wherever it is then
        os.kill(status.pid, signal.SIGKILL)
        thread.join()
        wanted = [f"{number}!" for number in range(50)]
        assert [cell.source for cell in session.get_cells()] == wanted
        assert session.import_notebook(path).changed == ()
        assert [cell.source for cell in session.get_cells()] == wanted
        assert is_its_document(session)


def test_a_copy_from_before_a_compaction_is_refused(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "20")
    with Session("s") as session:
        cell = session.create_cell("")
        before = saved(copy_of(session), tmp_path, "before.automerge")
        for _ in range(30):
            session.append_source(cell, "x")
        wait_until(lambda: list(session.history())[-1].action == "history_begins", "the document is not compacted")
        with pytest.raises(NotebookFileError, match="export it again, and make the edits in the new copy"):
            session.import_notebook(before)
        copy = copy_of(session)
        copy.append_source(cell, "y", author=OTHER)
        session.import_notebook(saved(copy, tmp_path))
        assert session.get_cell_source(cell) == "x" * 30 + "y"
        assert is_its_document(session)
        oldest = list(session.history())[-1].version
        assert session.get_version(oldest).cells[0].source.strip("x") == ""
