"""A session becomes an .ipynb file, whole or not at all, on both faces."""

import io
import json
import os
import random
import stat
import string
import uuid
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimed import EnvironmentFailed, InvalidArgument, NotebookFileError, OpenedNotebook, RuntimedError, Session
from runtimed.client import files
from runtimed.client.files import export
from runtimed.document.notebook import NotebookDocument
from runtimed.ids import CellId
from runtimed.notebook_file.outputs import normal
from runtimed.notebook_file.reading import FileCell, NotebookFile, read_notebook
from tests.client.faces import on_one_face
from tests.conftest import wait_until
from tests.notebook_file.test_writing import METADATA, notebook_cells

PICTURE = """
from IPython.display import display
print("1 %\\r2 %")
display({"text/plain": "x", "image/png": b"\\x89PNG", "application/json": {"a": [1, None]}}, raw=True)
6 * 7
"""


def jupyters(path: Path) -> bytes:
    """Return the bytes that Jupyter would write over a file."""
    file = io.StringIO()
    nbformat.write(nbformat.read(path, as_version=4), file)
    return file.getvalue().encode()


def cells_in(path: Path) -> tuple[FileCell, ...]:
    return read_notebook(path.read_text("utf-8"), path).cells


@on_one_face
def test_what_ran_is_saved_with_jupyter_s_bytes_and_stays_as_it_is(face, shared_daemon, tmp_path):
    session = face.session("saved with all outputs")
    session.set_metadata("notebook_metadata", json.dumps({"kernelspec": {"name": "python3", "display_name": "Py"}}))
    title = session.create_cell("# é 😀\n![](attachment:a.png)", "markdown")
    session.set_cell_metadata(title, "attachments", {"a.png": {"image/png": "aGk="}})
    session.set_cell_metadata(title, "tags", ["intro"])
    good = session.run(PICTURE)
    bad = session.run("1 / 0")
    path = tmp_path / "é.ipynb"

    assert session.save(path) == path

    assert path.read_bytes() == jupyters(path)
    nbformat.validate(nbformat.read(path, as_version=4))
    first, second, third = cells_in(path)
    assert (first.metadata, first.attachments) == ({"tags": ["intro"]}, {"a.png": {"image/png": "aGk="}})
    assert (second.id, second.execution_count) == (good.cell_id, good.execution_count)
    assert second.outputs == (
        {"output_type": "stream", "name": "stdout", "text": "2 %\n"},
        {
            "output_type": "display_data",
            "data": {"text/plain": "x", "image/png": "iVBORw==", "application/json": {"a": [1, None]}},
            "metadata": {},
        },
        {
            "output_type": "execute_result",
            "data": {"text/plain": "42"},
            "metadata": {},
            "execution_count": good.execution_count,
        },
    )
    assert (third.id, third.outputs[0]["ename"]) == (bad.cell_id, "ZeroDivisionError")

    written = path.stat()
    assert session.save() == path
    assert path.stat() == written
    session.set_source(title, "# title")
    other = face.session("saved with all outputs")
    assert other.save() == path
    other.close()
    assert [cell.source for cell in cells_in(path)] == ["# title", PICTURE, "1 / 0"]
    session.stop()


@pytest.mark.parametrize("how", ["indented", "lines"])
def test_a_file_that_means_the_same_is_not_touched(session, tmp_path, how):
    path = tmp_path / "a.ipynb"
    session.create_cell("1\n2", cell_id="a")
    session.save(path)
    content = json.loads(path.read_bytes())
    if how == "lines":
        content["cells"][0]["source"] = "1\n2"
    path.write_text(json.dumps(content, indent=4))
    before = path.read_bytes()
    session.save()
    assert path.read_bytes() == before


def test_a_link_is_followed_and_the_mode_is_kept(session, tmp_path):
    (tmp_path / "data").mkdir()
    path, link = tmp_path / "data" / "a.ipynb", tmp_path / "link.ipynb"
    link.symlink_to(path)
    session.create_cell("1")
    assert session.save(link) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask()
    path.chmod(0o640)
    session.create_cell("2")
    session.save(link)
    assert link.is_symlink()
    assert [cell.source for cell in cells_in(path)] == ["1", "2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list((tmp_path / "data").iterdir()) == [path]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_session_without_a_file_says_what_to_give(session):
    with pytest.raises(NotebookFileError, match=r"has no file yet: give the path"):
        session.save()


NEWER = {"nbformat": 4, "nbformat_minor": 9, "metadata": {}, "cells": []}
OTHER = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [], "more": 1}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is no notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "cells": [{"cell_ty', "it is no notebook"),
        ("# a script", "it is no notebook"),
        (b"\xff", "it is not UTF-8 at byte 0"),
        (json.dumps({"nbformat": 5, "cells": []}), "it is a damaged notebook"),
        (json.dumps(NEWER), "was not overwritten: it has the format 4.9, which is newer"),
        (json.dumps(OTHER), "was not overwritten: it is not the file of the session"),
    ],
)
def test_a_file_that_is_not_the_session_s_is_never_overwritten(session, tmp_path, content, why):
    path = tmp_path / "a.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    session.create_cell("1")
    with pytest.raises(NotebookFileError, match=why) as caught:
        session.save(path)
    assert caught.value.path == str(path)
    assert path.read_bytes() == before
    with pytest.raises(NotebookFileError, match="has no file yet"):
        session.save()


@pytest.mark.parametrize("change", ["source", "order", "metadata"])
def test_a_file_that_was_changed_since_is_not_overwritten(session, tmp_path, change):
    path = tmp_path / "a.ipynb"
    session.create_cell("1")
    session.create_cell("2")
    session.save(path)
    content = json.loads(path.read_bytes())
    if change == "source":
        content["cells"][0]["source"] = "edited elsewhere"
    elif change == "order":
        content["cells"].reverse()
    else:
        content["metadata"]["title"] = "edited elsewhere"
    path.write_text(json.dumps(content))
    before = path.read_bytes()
    session.create_cell("3")
    with pytest.raises(NotebookFileError, match="it was changed since the session"):
        session.save()
    assert path.read_bytes() == before


def test_a_folder_a_pipe_and_an_impossible_path_are_refused(session, tmp_path):
    os.mkfifo(tmp_path / "pipe.ipynb")
    for path in (tmp_path, tmp_path / "pipe.ipynb"):
        with pytest.raises(NotebookFileError, match="it is no regular file"):
            session.save(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("a\0b", "\udcff.ipynb", tmp_path / "loop", tmp_path / "none" / "a.ipynb", tmp_path / ("a" * 300)):
        with pytest.raises(NotebookFileError, match=r"is no path|cannot be (read|written)"):
            session.save(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "pipe.ipynb"]


NOTEBOOK = NotebookFile(
    metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    cells=(
        FileCell(id="a", cell_type="markdown", source="# title"),
        FileCell(id="b", cell_type="code", source="6 * 7", metadata={"tags": ["t"]}),
    ),
)


def test_a_session_is_exported_as_what_jupyter_would_write_and_as_a_script(session):
    session.create_cell("# title", "markdown")
    session.create_cell("6 * 7")
    assert [cell.source for cell in read_notebook(session.export().decode(), Path("x")).cells] == ["# title", "6 * 7"]
    assert "# %% [markdown]\n# # title\n\n# %%\n6 * 7\n" in session.export("py").decode()
    with pytest.raises(InvalidArgument, match="format is ipynb, py, md, html or automerge; not 'pdf'"):
        session.export("pdf")


@on_one_face
def test_the_document_is_exported_with_every_edit_and_its_history(session):
    empty = NotebookDocument.load(session.export("automerge"), [])
    assert (empty.notebook_id, empty.cells()) == (session.notebook_id, [])
    cell_id = session.create_cell("a")
    for n in range(20):
        session.append_source(cell_id, f"{n}")
    session.set_cell_metadata(cell_id, "tags", ["t"])
    large = session.create_cell("".join(random.Random(1).choices(string.ascii_letters, k=3 * 2**20)))

    document = NotebookDocument.load(session.export("automerge"), [])

    (first, second) = document.cells()
    assert (first.source, first.metadata) == (f"a{''.join(map(str, range(20)))}", {"tags": '["t"]'})
    assert (second.id, second.source) == (large, session.get_cell_source(large))
    assert len(document.history()) > 20


def test_a_notebook_becomes_markdown_and_a_script_in_its_language():
    assert '# title\n\n```python tags=["t"]\n6 * 7\n```' in export(NOTEBOOK, "md").decode()
    r = NotebookFile(
        metadata={"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}, cells=NOTEBOOK.cells
    )
    assert "# %%" in export(r, "py").decode()


def write(path: Path, *cells: dict[str, Any], minor: int = 5, **metadata: Any) -> Path:
    content = {"nbformat": 4, "nbformat_minor": minor, "metadata": metadata, "cells": list(cells)}
    path.write_text(json.dumps(content, indent=1))
    return path


def code(
    cell_id: str, source: str, *outputs: dict[str, Any], count: int | None = None, **metadata: Any
) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": cell_id,
        "source": source,
        "metadata": metadata,
        "outputs": list(outputs),
        "execution_count": count,
    }


def ids(*texts: str) -> tuple[CellId, ...]:
    return tuple(map(CellId, texts))


def stream(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": text}


def test_a_file_becomes_a_session_with_everything_in_it(session, tmp_path):
    large = "x" * 2**21
    shown = {
        "output_type": "display_data",
        "data": {"image/png": "aGk=", "text/plain": large, "application/json": {"a": [1]}},
        "metadata": {"image/png": {"width": 3}},
    }
    picture = {"a": {"image/png": "aGk="}}
    failed = {"output_type": "error", "ename": "E", "evalue": "e", "traceback": ["E: e"]}
    path = write(
        tmp_path / "a.ipynb",
        {
            "cell_type": "markdown",
            "id": "m",
            "source": "# é",
            "metadata": {},
            "attachments": {"a": {"image/png": "aGk="}},
        },
        code("one", "1\n2", stream("a"), shown, count=7, tags=["t"], jupyter={"source_hidden": True}, nothing=None),
        code("two", "3", failed),
        code("three", "4", count=9),
        {"cell_type": "raw", "id": "r", "source": "raw", "metadata": {}},
        kernelspec={"name": "python3", "display_name": "Python 3"},
    )
    before = path.read_bytes()

    opened = session.open_notebook(path)

    assert opened == OpenedNotebook(path=path, added=ids("m", "one", "two", "three", "r"))
    cells = session.get_cells()
    assert [cell.id for cell in cells] == ["m", "one", "two", "three", "r"]
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "code", "code", "raw"]
    assert [cell.execution_count for cell in cells] == [None, 7, None, 9, None]
    assert cells[0].metadata == {"attachments": picture}
    assert cells[1].metadata == {"tags": ["t"], "jupyter": {"source_hidden": True}, "nothing": None}
    first, second = cells[1].outputs
    assert first.text == "a"
    assert second.data == {"image/png": b"hi", "text/plain": large, "application/json": {"a": [1]}}
    assert second.metadata == {"image/png": {"width": 3}}
    assert [output.ename for output in cells[2].outputs] == ["E"]
    assert session.wait(cells[1].execution_id).success
    assert not session.wait(cells[2].execution_id).success
    assert session.get_kernelspec() == {"name": "python3", "display_name": "Python 3"}

    executions = [cell.execution_id for cell in cells]
    assert session.open_notebook(path) == OpenedNotebook(path=path)
    session.save()
    assert path.read_bytes() == before
    assert [cell.execution_id for cell in session.get_cells()] == executions


def test_a_file_that_was_edited_outside_merges_cell_by_cell(session, tmp_path):
    path = write(tmp_path / "a.ipynb", code("a", "1"), code("b", "2", stream("old")), code("c", "3"), code("d", "4"))
    session.open_notebook(path)
    session.set_source("a", "here")
    session.set_source("d", "here")
    session.create_cell("mine", cell_id="x")

    write(
        path,
        code("a", "there"),
        code("new", "5"),
        code("b", "there", stream("new"), kept=True),
        code("d", "4"),
        title="t",
    )
    with pytest.raises(NotebookFileError, match="it was changed since"):
        session.save()
    opened = session.open_notebook(path)

    twin = opened.conflicts["a"]
    assert opened == OpenedNotebook(
        path=path, added=ids("new"), changed=ids("b"), deleted=ids("c"), conflicts={CellId("a"): twin}
    )
    cells = session.get_cells()
    assert [(cell.id, cell.source) for cell in cells] == [
        ("a", "here"),
        (twin, "there"),
        ("new", "5"),
        ("b", "there"),
        ("d", "here"),
        ("x", "mine"),
    ]
    assert (cells[3].metadata, cells[3].outputs[0].text) == ({"kept": True}, "new")
    assert json.loads(session.get_metadata("notebook_metadata")) == {"title": "t"}
    session.save()
    assert [cell.source for cell in cells_in(path)] == ["here", "there", "5", "there", "here", "mine"]
    assert session.open_notebook(path) == OpenedNotebook(path=path)


def test_outputs_that_another_kernel_has_written_into_the_file_are_taken(session, tmp_path):
    path = write(tmp_path / "a.ipynb", code("a", "1"), code("b", "2"))
    session.open_notebook(path)
    here = session.execute_cell("b").execution_count
    session.save()

    write(path, code("a", "1", stream("theirs"), count=7), code("b", "2", stream("theirs"), count=8))
    session.execute_cell("b")
    with pytest.raises(NotebookFileError, match="it was changed since"):
        session.save()
    assert session.open_notebook(path) == OpenedNotebook(path=path, changed=ids("a"))

    a, b = session.get_cells()
    assert (a.outputs[0].text, a.execution_count) == ("theirs", 7)
    assert (b.outputs[0].data["text/plain"], b.execution_count) == ("2", here + 1)
    session.save()
    assert [cell.execution_count for cell in cells_in(path)] == [7, here + 1]


def test_a_cell_that_runs_goes_on_showing_it_whatever_the_file_says(session, tmp_path):
    path, gate = tmp_path / "a.ipynb", tmp_path / "gate"
    slow = f"import os, time\nprint('begun')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('end')"
    write(path, code("a", slow), code("b", "1"))
    session.open_notebook(path)
    running, waiting = session.queue_cell("a"), session.queue_cell("b")
    wait_until(lambda: session.get_cell("a").outputs, "it does not run")
    write(path, code("a", "another", stream("old"), count=3), code("b", "1", stream("old"), count=4))
    session.open_notebook(path)
    assert [cell.execution_id for cell in session.get_cells()] == [running, waiting]
    gate.touch()
    session.wait(waiting)
    assert session.get_cell("a").outputs[0].text == "begun\nend\n"
    assert session.get_cell_source("a") == "another"


def test_an_id_that_the_format_does_not_admit_is_the_same_cell_when_it_comes_back(session, tmp_path):
    path = write(tmp_path / "a.ipynb", code("my.cell", "1"), code("b", "2"))
    before = path.read_bytes()
    session.open_notebook(path)
    assert session.get_cell_ids() == ["my.cell", "b"]
    session.set_source("b", "3")
    session.save()
    assert cells_in(path)[0].id.startswith("cell-")

    path.write_bytes(before.replace(b'"1"', b'"edited"'))
    assert session.open_notebook(path) == OpenedNotebook(path=path, changed=ids("my.cell", "b"))

    assert [(cell.id, cell.source) for cell in session.get_cells()] == [("my.cell", "edited"), ("b", "2")]


def test_a_file_that_is_put_back_to_what_it_was_before_a_save_is_an_outside_edit(session, tmp_path):
    path = write(tmp_path / "a.ipynb", code("a", "1"))
    session.open_notebook(path)
    before = path.read_bytes()
    session.set_source("a", "2")
    session.save()
    path.write_bytes(before)
    assert session.open_notebook(path).changed == ids("a")
    assert session.get_cell_source("a") == "1"


def test_cells_that_were_moved_in_the_file_are_moved(session, tmp_path):
    path = write(tmp_path / "a.ipynb", code("a", "1"), code("b", "2"), code("c", "3"))
    session.open_notebook(path)
    write(path, code("c", "3"), code("new", "4"), code("a", "1"), code("b", "2"))
    session.open_notebook(path)
    assert session.get_cell_ids() == ["c", "new", "a", "b"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "There is no file"),
        ('{"nbformat": 4, "nbformat_minor": 5, "cells": [{"cell_ty', "it is no notebook"),
        (json.dumps(NEWER), "has the format 4.9; this version knows formats up to 4.5"),
        (json.dumps({**OTHER, "cells": [code("a", "1"), code("a", "2")]}), "two of its cells have the id 'a'"),
        (json.dumps({**OTHER, "cells": [code("a", "1"), code("b", "\ud800")]}), "was not opened: .* lone surrogate"),
        (
            json.dumps({**OTHER, "cells": [code("a", "1"), code("b", "2", x=float("nan"))]}),
            "must be a JSON value",
        ),
        (json.dumps({**OTHER, "cells": [code("a", "1"), code("b", "2", count=-1)]}), "was not opened: .* count"),
    ],
    ids=["none", "half", "newer", "double", "surrogate", "nan", "count"],
)
def test_a_file_that_cannot_be_taken_in_leaves_the_session_as_it_is(session, tmp_path, content, why):
    path = tmp_path / "a.ipynb"
    if content is not None:
        path.write_text(content)
    session.create_cell("mine")
    with pytest.raises(NotebookFileError, match=why):
        session.open_notebook(path)
    assert [cell.source for cell in session.get_cells()] == ["mine"]
    assert session.get_metadata("notebook_metadata") is None


def test_an_older_format_is_named_and_written_as_the_present_one(session, tmp_path):
    from nbformat import v3

    cells = [v3.new_code_cell(input="1", outputs=[v3.new_output("stream", output_text="a")])]
    path = tmp_path / "a.ipynb"
    path.write_text(v3.writes_json(v3.new_notebook(worksheets=[v3.new_worksheet(cells=cells)])))
    assert session.open_notebook(path).upgraded_from == "3.0"
    assert session.open_notebook(path).added == ()
    session.save()
    assert nbformat.read(path, as_version=4).nbformat_minor == 5
    assert session.open_notebook(path) == OpenedNotebook(path=path)
    assert [(cell.source, cell.outputs[0].text) for cell in session.get_cells()] == [("1", "a")]


def test_opening_a_file_is_no_consent_to_its_dependencies(session, tmp_path, monkeypatch):
    monkeypatch.delenv("RUNTIMED_ENV", raising=False)  # `auto` decides
    script = '# /// script\n# dependencies = ["no-such-package-from-a-file"]\n# ///'
    session.open_notebook(write(tmp_path / "a.ipynb", code("a", script)))
    with pytest.raises(EnvironmentFailed, match="asks for dependencies that you have not consented to"):
        session.start_kernel()
    runt = {"uv": {"dependencies": ["no-such-package-from-a-file"]}}
    session.open_notebook(write(tmp_path / "a.ipynb", code("a", "1"), runt=runt))
    with pytest.raises(EnvironmentFailed, match="asks for dependencies that you have not consented to"):
        session.start_kernel()


def test_many_cells_in_several_messages_keep_their_order(session, tmp_path):
    cells = [code(f"id-{n}", f"{n}", stream("x" * 20_000)) for n in range(250)]
    session.open_notebook(write(tmp_path / "a.ipynb", *cells))
    assert [cell.source for cell in session.iter_cells()] == [f"{n}" for n in range(250)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(notebook_cells(), max_size=4), METADATA)
def test_any_notebook_is_the_same_after_a_session(shared_daemon, tmp_path, contents, metadata):
    for number, cell in enumerate(contents):
        cell["id"] = f"id-{number}"
        # What a session has of outputs is what it would write of them.
        cell.update({"outputs": list(normal(cell["outputs"]))} if cell["cell_type"] == "code" else {})
    path = write(tmp_path / "a.ipynb", *contents, **metadata)
    with Session(f"property-{uuid.uuid4()}") as session:
        session.open_notebook(path)
        exported = session.export()
        session.stop()
    assert exported == jupyters(path)


@on_one_face
def test_a_notebook_is_created_with_its_session_and_a_kernel_in_its_folder(face, shared_daemon, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    path = tmp_path / "a.ipynb"
    session = face.client().create_notebook(tmp_path / "link" / "a.ipynb")
    assert session.notebook_id == str(path)
    assert session.run("import os; os.getcwd()").value == str(tmp_path)
    assert nbformat.read(path, as_version=4).metadata["kernelspec"] == {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    session.save()
    assert len(cells_in(path)) == 1
    with pytest.raises(NotebookFileError, match="a.ipynb exists already"):
        face.client().create_notebook(path)
    session.stop()


@on_one_face
def test_a_new_notebook_s_kernel_works_where_it_is_told_and_without_a_kernel_there_is_no_file(
    face, shared_daemon, tmp_path
):
    (tmp_path / "data").mkdir()
    session = face.client().create_notebook(tmp_path / "a.ipynb", working_dir=tmp_path / "data")
    assert session.run("import os; os.getcwd()").value == str(tmp_path / "data")
    session.stop()
    with pytest.raises(RuntimedError):
        face.client().create_notebook(tmp_path / "b.ipynb", kernel_type="no such kernel")
    assert not (tmp_path / "b.ipynb").exists()


class Died(Exception):
    """Stands for the end of the client's process."""


@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
def test_a_save_whose_client_dies_before_or_after_it_has_written_leaves_a_file_that_is_known(
    session, tmp_path, monkeypatch, written
):
    path = tmp_path / "a.ipynb"
    session.create_cell("1", cell_id="a")
    session.save(path)

    def die(save: files.Save) -> None:
        if written:
            write_file(save)
        raise Died

    session.set_source("a", "2")
    write_file = files.write_file
    for module in ("session", "async_session"):
        monkeypatch.setattr(f"runtimed.client.{module}.write_file", die)
    with pytest.raises(Died):
        session.save()
    assert [cell.source for cell in cells_in(path)] == ["2" if written else "1"]

    monkeypatch.undo()
    session.set_source("a", "3")
    assert session.open_notebook(path) == OpenedNotebook(path=path)
    assert session.get_cell_source("a") == "3"
    session.save()
    assert [cell.source for cell in cells_in(path)] == ["3"]


@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
def test_an_edit_of_a_file_whose_save_was_broken_off_takes_nothing_back(session, tmp_path, monkeypatch, written):
    path = tmp_path / "a.ipynb"
    for cell_id in "ab":
        session.create_cell("1", cell_id=cell_id)
    session.save(path)
    session.set_source("a", "2")
    session.create_cell("new", cell_id="c")

    def die(save: files.Save) -> None:
        if written:
            write_file(save)
        raise Died

    write_file = files.write_file
    for module in ("session", "async_session"):
        monkeypatch.setattr(f"runtimed.client.{module}.write_file", die)
    with pytest.raises(Died):
        session.save()
    monkeypatch.undo()
    content = json.loads(path.read_text("utf-8"))
    content["cells"][1]["source"] = ["edited"]
    path.write_text(json.dumps(content), "utf-8")

    assert session.open_notebook(path).changed == ids("b")

    assert [cell.source for cell in session.get_cells()] == ["2", "edited", "new"]
    session.save()
    assert [cell.source for cell in cells_in(path)] == ["2", "edited", "new"]


def test_a_save_that_fails_leaves_the_session_with_the_file_that_it_had(session, tmp_path):
    session.create_cell("1")
    with pytest.raises(NotebookFileError, match="cannot be written"):
        session.save(tmp_path / "none" / "a.ipynb")
    with pytest.raises(NotebookFileError, match="has no file yet"):
        session.save()
    session.save(tmp_path / "a.ipynb")
    with pytest.raises(NotebookFileError, match="cannot be written"):
        session.save(tmp_path / "none" / "a.ipynb")
    assert session.save() == tmp_path / "a.ipynb"


def test_of_two_sessions_with_one_file_none_overwrites_what_the_other_wrote(face, session, tmp_path):
    path = write(tmp_path / "a.ipynb", code("a", "1"), code("b", "2"))
    other = face.session(f"{session.notebook_id} other")
    session.open_notebook(path)
    with pytest.raises(NotebookFileError, match="is the file of the session .*, which is active") as caught:
        other.open_notebook(path)
    assert caught.value.session_id == session.notebook_id
    session.set_source("a", "by one")
    session.save()
    session.stop()

    other.open_notebook(path)

    other.set_source("b", "by the other")
    other.save()
    assert [cell.source for cell in cells_in(path)] == ["by one", "by the other"]
    session.connect()
    with pytest.raises(NotebookFileError, match="has no file yet"):
        session.save()
    other.stop()
