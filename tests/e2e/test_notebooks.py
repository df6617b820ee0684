"""The tutorials: executed from top to bottom by a real kernel, and what is committed is what comes out."""

import re
from pathlib import Path
from typing import Any

import pytest

from runtimed import Client

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NAMES = ("quickstart", "async_and_streaming", "browser")

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PORT = re.compile(r"127\.0\.0\.1:\d+")
SIZE = re.compile(r"'(width|height)': \d+")
MACHINE = re.compile(r"/(?:home|Users|root|tmp|var|private|work|opt|usr|mnt|srv)/")
TIME = re.compile(r"\b20[2-9]\d-\d\d-\d\d|\b\d\d:\d\d:\d\d\b")


def committed(name: str) -> Any:
    # Each worker collects all tests, and this takes it seconds.
    import nbformat

    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def normalised(text: str) -> str:
    """The text without what differs from run to run, or from one version of matplotlib to the next."""
    return PORT.sub("127.0.0.1", SIZE.sub(r"'\1': 0", UUID.sub("<uuid>", text)))


def readable(outputs: list[Any]) -> list[Any]:
    """What a reader sees of outputs, in order: texts, and of images their kind and whether they have a size."""
    found: list[Any] = []
    for output in outputs:
        if output.output_type == "stream":
            # A kernel may send one text in several pieces.
            text = output.text
            if found and found[-1][0] == output.name:
                text = found.pop()[1] + text
            found.append((output.name, text))
        else:
            assert output.output_type in ("display_data", "execute_result"), "\n".join(output.get("traceback", []))
            others = {mime: sorted(output.metadata.get(mime, ())) for mime in output.data if mime != "text/plain"}
            found.append((output.output_type, output.data["text/plain"], others))
    return [tuple(normalised(part) if isinstance(part, str) else part for part in each) for each in found]


@pytest.fixture
def world(shared_daemon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon of these tests' own, nothing of this user's IPython, and no notebook's name from outside."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


# Each starts in another folder: as JupyterLab does, and as a tool does that runs notebooks from the project's folder.
@pytest.mark.parametrize(("name", "folder"), [("quickstart", FOLDER), ("async_and_streaming", ROOT), ("browser", ROOT)])
def test_a_notebook_runs_from_top_to_bottom_and_gives_what_is_committed(name: str, folder: Path, world: None) -> None:
    from nbclient import NotebookClient

    expected = committed(name)
    notebook = committed(name)
    for cell in code_cells(notebook):
        cell.outputs = []

    NotebookClient(notebook, timeout=90, resources={"metadata": {"path": str(folder)}}).execute()

    assert {cell.id: readable(cell.outputs) for cell in code_cells(notebook)} == {
        cell.id: readable(cell.outputs) for cell in code_cells(expected)
    }
    # It cleans up behind itself.
    assert Client().sessions.list(status="active") == []


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_was_executed_once_from_top_to_bottom(name: str) -> None:
    import nbformat

    notebook = committed(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {cell.id for cell in cells if cell.outputs}
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            if output.output_type == "execute_result":
                assert output.execution_count == cell.execution_count


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_tells_nothing_of_the_machine_it_was_made_on(name: str) -> None:
    notebook = committed(name)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert [cell.metadata for cell in notebook.cells] == [{}] * len(notebook.cells)
    for cell in code_cells(notebook):
        texts = [cell.source, *(str(part) for output in readable(cell.outputs) for part in output)]
        assert [text for text in texts if MACHINE.search(text)] == []
        assert [text for text in texts if TIME.search(text)] == []


def test_the_chart_of_the_quickstart_has_a_picture_of_a_given_size_live_and_in_the_replay() -> None:
    pictures = {
        cell.id: (output.data["image/png"][:11], sorted(output.metadata["image/png"]))
        for cell in code_cells(committed("quickstart"))
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    }
    png = "iVBORw0KGgo"
    assert pictures == {"figure": (png, ["height", "width"]), "replay": (png, ["height", "width"])}
