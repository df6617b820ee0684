"""Which notebook, which cell: what the frontends say, and the ids that follow from it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtimed.ids import MAX_SESSION_ID
from runtimed.ipython.naming import document_cell_id, frontend_cell_id, notebook_file
from runtimed.notebook_names import session_id_of, short_name


def kernel_shell(metadata: Any = None, **variables: Any) -> Any:
    return SimpleNamespace(get_parent=lambda: {"metadata": metadata}, user_ns=variables, kernel=object())


def terminal_shell(**variables: Any) -> Any:
    return SimpleNamespace(user_ns=variables)


def test_a_frontend_names_the_cell_in_the_metadata_of_its_request() -> None:
    assert frontend_cell_id(kernel_shell({"cellId": "a"})) == "a"
    assert frontend_cell_id(kernel_shell({"cell_id": "b"})) == "b"
    assert frontend_cell_id(kernel_shell({})) is None
    assert frontend_cell_id(kernel_shell({"cellId": 3})) is None
    assert frontend_cell_id(kernel_shell(None)) is None
    assert frontend_cell_id(terminal_shell()) is None


def test_jupyter_server_names_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ann/a/../b.ipynb")
    assert notebook_file(kernel_shell()) == Path("/home/ann/b.ipynb")
    assert notebook_file(terminal_shell()) is None, "inherited from the kernel that started this terminal"


def test_a_console_is_no_notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "Console 1"))
    assert notebook_file(kernel_shell()) is None
    monkeypatch.setenv("JPY_SESSION_NAME", "relative.ipynb")
    assert notebook_file(kernel_shell()) is None


def test_a_text_notebook_is_one_if_the_file_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "notebook.md"
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    assert notebook_file(kernel_shell()) is None
    path.touch()
    assert notebook_file(kernel_shell()) == path


def test_vs_code_names_the_notebook_in_the_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/somewhere/else.ipynb")
    assert notebook_file(kernel_shell(__vsc_ipynb_file__="/home/ann/b.ipynb")) == Path("/home/ann/b.ipynb")


def test_a_session_is_named_after_the_notebook() -> None:
    assert session_id_of(Path("/home/ann/b.ipynb")) == "/home/ann/b.ipynb"


@pytest.mark.parametrize("path", ["/" + "x" * MAX_SESSION_ID, "/\udcff.ipynb", "/two\nlines.ipynb"])
def test_a_path_that_is_no_id_is_hashed(path: str) -> None:
    session_id = session_id_of(Path(path))
    assert session_id.startswith("notebook-")
    assert len(session_id) == len("notebook-") + 32
    assert session_id == session_id_of(Path(path))


def test_a_cell_of_a_notebook_has_one_document_cell_for_ever() -> None:
    cell_id = document_cell_id(Path("/home/ann/b.ipynb"), "abc")
    assert cell_id == "cell-b0408801-54af-5450-87ce-f75e031414f5"
    others = {document_cell_id(Path("/home/ann/c.ipynb"), "abc"), document_cell_id(None, "abc")}
    others.add(document_cell_id(Path("/home/ann/b.ipynb"), "abd"))
    others.add(document_cell_id(Path("/home/ann/\udcff.ipynb"), "\ud800"))
    assert len(others | {cell_id}) == 5


def test_a_whole_cell_in_the_notebook_s_own_session_is_the_notebook_s_cell() -> None:
    path = Path("/home/ann/b.ipynb")
    hashed = document_cell_id(path, "abc")
    assert document_cell_id(path, "abc", session_id_of(path)) == "abc"
    assert document_cell_id(path, "abc", "work") == hashed, "others may send cells there"
    assert document_cell_id(None, "abc", "work") == document_cell_id(None, "abc")


@pytest.mark.parametrize(
    ("session_id", "name"),
    [
        ("co2", "co2"),
        ("/home/ada/co2 study.ipynb", "co2 study.ipynb"),
        ("/", "/"),
        ("a/b", "a/b"),
        ("/folder/", "/folder/"),
    ],
)
def test_a_session_that_is_named_after_a_file_is_called_by_the_files_name(session_id: str, name: str) -> None:
    assert short_name(session_id) == name
