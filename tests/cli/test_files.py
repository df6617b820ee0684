"""`runtimed open`, `import` and `export`: files as sessions, and sessions as files in each format."""

import json
from pathlib import Path

import nbformat
import pytest

from runtimed import Client, NotebookFileError, Session
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def exported(shared_daemon: Path) -> str:
    with Session("to be exported") as session:
        session.create_cell("# A *title*", "markdown")
        session.run("print('é'); 6 * 7")
        session.stop()
    return session.notebook_id


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a.ipynb", '"text/plain": [\n       "42"'),
        ("a.PY", "# %% [markdown]\n# # A *title*\n\n# %%\nprint('é'); 6 * 7\n"),
        ("a.md", "# A *title*\n\n```python\nprint('é'); 6 * 7\n```"),
        ("a.html", "<em>title</em>"),
        ("a.txt", '"nbformat": 4'),
    ],
)
def test_an_ended_session_becomes_what_the_suffix_says(
    exported: str, in_process: Command, tmp_path: Path, name: str, part: str
):
    path = tmp_path / name
    path.write_bytes(b"\xff an earlier one")
    path.chmod(0o640)
    done = in_process("export", exported, "-o", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}  {path.stat().st_size} bytes, ")
    assert part in path.read_text("utf-8")
    assert path.stat().st_mode & 0o777 == 0o640
    assert Client().sessions.get(exported).status == "closed"


def test_standard_output_has_the_bytes_of_the_file(exported: str, tmp_path: Path):
    import subprocess

    from tests.cli.conftest import RUNTIMED

    done = subprocess.run([*RUNTIMED, "export", exported], capture_output=True, check=True)
    notebook = nbformat.reads(done.stdout.decode(), as_version=4)
    nbformat.validate(notebook)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code"]
    script = subprocess.run([*RUNTIMED, "export", exported, "--format", "py"], capture_output=True, check=True)
    assert "print('é')" in script.stdout.decode()


def test_a_file_that_cannot_be_written_and_an_unknown_session_are_said(
    exported: str, in_process: Command, tmp_path: Path
):
    done = in_process("export", exported, "-o", str(tmp_path / "none" / "a.ipynb"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{tmp_path}/none/a.ipynb cannot be written: No such file or directory")
    done = in_process("export", exported, "-o", str(tmp_path))
    assert done.returncode == 1
    assert "Is a directory" in done.stderr
    assert in_process("export", "no such session").returncode == 4


def notebook(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source, id=f"id-{n}") for n, source in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_a_file_opens_in_the_session_that_is_named_after_it_and_merges(
    shared_daemon: Path, in_process: Command, tmp_path: Path
):
    path = notebook(tmp_path / "a.ipynb", "1", "2", "3")
    (tmp_path / "link.ipynb").symlink_to(path)
    done = in_process("open", str(tmp_path / "link.ipynb"))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"session  {path}\n3 cells added\n", "")
    with Session(str(path)) as session:
        session.set_source("id-0", "here")
        session.set_source("id-1", "here")
        notebook(path, "there")
        done = in_process("open", str(path))
        assert done.stdout == (
            f"session  {path}\n1 cell deleted\n"
            f"Cell id-0 differs in the session and the file: the file's version is cell {session.get_cell_ids()[1]}, "
            "behind it\nCell id-1 is gone from the file and was changed in the session, which keeps it\n"
        )
        assert [cell.source for cell in session.get_cells()] == ["here", "there", "here"]
        found = json.loads(in_process("open", str(path), "--json").stdout)
        assert (found["session_id"], found["path"], found["added"]) == (str(path), str(path), [])
        session.stop()


def test_a_script_and_markdown_become_cells_of_a_session_that_stays(
    shared_daemon: Path, in_process: Command, tmp_path: Path
):
    script = '# %% [markdown]\n# # Title\n\n# %% tags=["t"]\n6 * 7\n'
    (tmp_path / "a.py").write_text(script)
    found = json.loads(in_process("import", str(tmp_path / "a.py"), "--json").stdout)
    session = Session(found["session_id"])
    assert session.export("py").decode().endswith(script)
    assert [cell.metadata for cell in session.get_cells()] == [{}, {"tags": ["t"]}]
    with pytest.raises(NotebookFileError, match="has no file yet"):
        session.save()

    (tmp_path / "b.md").write_text("# More\n\n```python\n1 + 1\n```\n")
    done = in_process("import", str(tmp_path / "b.md"), "--session", session.notebook_id)
    assert (done.returncode, done.stdout) == (0, f"session  {session.notebook_id}\n2 cells added\n")
    assert [(cell.cell_type, cell.source) for cell in session.get_cells()] == [
        ("markdown", "# Title"),
        ("code", "6 * 7"),
        ("markdown", "# More"),
        ("code", "1 + 1"),
    ]
    assert in_process("import", str(tmp_path / "b.md"), "--session", session.notebook_id).stdout.count("\n") == 1
    session.close()


def test_what_cannot_be_opened_is_said(shared_daemon: Path, in_process: Command, tmp_path: Path):
    (tmp_path / "half.ipynb").write_text("{")
    (tmp_path / "loop.ipynb").symlink_to("loop.ipynb")
    for command in ("open", "import"):
        done = in_process(command, str(tmp_path / "none.ipynb"))
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"There is no file {tmp_path}/none.ipynb\n")
        done = in_process(command, str(tmp_path / "half.ipynb"))
        assert done.returncode == 2
        assert done.stderr.startswith(f"{tmp_path}/half.ipynb cannot be read: it is no notebook: ")
        assert in_process(command, str(tmp_path / "loop.ipynb")).returncode == 2
    assert in_process("export", f"{tmp_path}/half.ipynb").returncode == 4
