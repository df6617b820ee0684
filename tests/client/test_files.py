"""A session becomes an .ipynb file, whole or not at all, on both faces."""

import io
import json
import os
import stat
from pathlib import Path

import nbformat
import pytest

from runtimed import InvalidArgument, NotebookFileError
from runtimed.client.files import export
from runtimed.notebook_file.reading import FileCell, NotebookFile, read_notebook
from tests.client.faces import on_one_face

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
    with pytest.raises(InvalidArgument, match="format is ipynb, py, md or html; not 'pdf'"):
        session.export("pdf")


def test_a_notebook_becomes_markdown_and_a_script_in_its_language():
    assert '# title\n\n```python tags=["t"]\n6 * 7\n```' in export(NOTEBOOK, "md").decode()
    r = NotebookFile(
        metadata={"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}, cells=NOTEBOOK.cells
    )
    assert "# %%" in export(r, "py").decode()
