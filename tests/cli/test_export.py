"""`runtimed export`: a session as a file, in each format."""

from pathlib import Path

import nbformat
import pytest

from runtimed import Client, Session
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
