"""Outputs shown in plain Python, in a terminal IPython and in a real notebook kernel."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pexpect
import pytest

from runtimed import display
from runtimed.display import WIDGET_MIME_TYPE, OutputStream, bundle_for_display, show_output
from runtimed.models import Output

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PRELUDE = f"""\
from runtimed.display import OutputStream, show_output
from runtimed.ids import CellId, ExecutionId
from runtimed.models import ExecutionResult, Output
PNG = {PNG!r}
def stream(text, name="stdout"):
    return Output(output_type="stream", name=name, text=text)
def shown(display_id=None, **data):
    return Output(
        output_type="display_data",
        data={{mime.replace("_", "/"): value for mime, value in data.items()}},
        metadata={{"image/png": {{"width": 40}}}} if "image_png" in data else {{}},
        display_id=display_id,
    )
ERROR = Output(
    output_type="error", ename="ValueError", evalue="no", traceback=("\\x1b[31m---\\x1b[0m", "ValueError: no")
)
remote = OutputStream("runtimed:s1:")
"""


# --- without IPython --------------------------------------------------------------------------------------------------


def test_bundles_are_in_the_form_of_jupyter_messages() -> None:
    data = {
        "image/png": PNG,
        "application/json": {"a": ["\ud800", 1, None], "\udc80": True},
        "text/plain": "\udfff é",
        WIDGET_MIME_TYPE: {"model_id": "1"},
    }
    assert bundle_for_display(data) == {
        "image/png": base64.b64encode(PNG).decode(),
        "application/json": {"a": ["\\ud800", 1, None], "\\udc80": True},
        "text/plain": "\\udfff é",
    }
    assert bundle_for_display({WIDGET_MIME_TYPE: {"model_id": "1"}}) == {WIDGET_MIME_TYPE: {"model_id": "1"}}


def test_plain_python_prints(capsys: pytest.CaptureFixture[str]) -> None:
    remote = OutputStream("p:")
    remote.show(Output(output_type="stream", name="stdout", text="a\ud800"))
    remote.show(Output(output_type="stream", name="stderr", text="b"))
    remote.show(Output(output_type="display_data", data={"text/plain": "c"}, display_id="d"))
    remote.update(Output(output_type="display_data", data={"image/png": PNG}, display_id="d"))
    remote.update(Output(output_type="display_data", data={"text/plain": "ignored"}))
    remote.clear()
    show_output(Output(output_type="error", ename="E", evalue="e", traceback=("1", "2")))
    show_output(Output(output_type="error", ename="E", evalue="e"))
    assert tuple(capsys.readouterr()) == ("a\\ud800c\n<image/png>\n", "b1\n2\nE: e\n")


def test_showing_does_not_import_ipython() -> None:
    code = """
        import sys
        from runtimed.display import show_output
        from runtimed.models import Output
        show_output(Output(output_type="display_data", data={"text/plain": "x"}))
        print("IPython.core.getipython" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "x\nFalse\n"


def test_an_encoding_without_the_character_gets_an_escape() -> None:
    code = """
        from runtimed.display import show_output
        from runtimed.models import Output
        show_output(Output(output_type="stream", name="stdout", text="50%|█|"))
    """
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, check=True, timeout=60, env=environment
    )
    assert done.stdout == rb"50%|\u2588|"


def test_all_names_what_the_module_offers() -> None:
    own = {
        name
        for name, value in vars(display).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == display.__name__
    }
    assert own == set(display.__all__) - {"WIDGET_MIME_TYPE"}


# --- in a terminal IPython --------------------------------------------------------------------------------------------


def in_terminal(code: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    script = folder / "script.ipy"
    script.write_text(PRELUDE + dedent(code))
    return subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", str(script)],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "IPYTHONDIR": str(folder / "ipython")},
    )


def test_a_terminal_writes_a_new_version_over_what_it_printed_last(tmp_path: Path) -> None:
    script = tmp_path / "script.ipy"
    code = """
        print("begin")
        remote.show(shown("d", text_plain="one"))
        remote.update(shown("d", text_plain="two\\n" + "x" * 81))
        remote.update(shown("d", text_plain="three"))
        remote.show(stream("text\\n"))
        remote.update(shown("d", text_plain="four"))
        remote.update(shown("other", text_plain="five"))
        remote.update(shown("other", text_plain="long\\n" * 30))
        remote.update(shown("other", text_plain="six"))
        remote.leave_line()
        remote.update(shown("other", text_plain="seven"))
        print("end")
        """
    script.write_text(PRELUDE + dedent(code))
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", str(script)]
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython"), "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    environment.pop("LINES", None)
    terminal = pexpect.spawn(
        command[0], command[1:], env=environment, dimensions=(24, 80), timeout=60, encoding="utf-8"
    )
    printed = str(terminal.read()).replace("\r\n", "\n").partition("begin\n")[2].partition("end\n")[0]
    terminal.close()
    wide, tall = "x" * 81, "long\n" * 30
    assert printed == (
        f"one\n\r\x1b[1A\x1b[Jtwo\n{wide}\n\r\x1b[3A\x1b[Jthree\ntext\nfour\nfive\n\r\x1b[1A\x1b[J{tall}\nsix\nseven\n"
    )


def test_a_terminal_shows_text(tmp_path: Path) -> None:
    done = in_terminal(
        """
        remote.show(stream("one\\r"))
        remote.show(stream("warning\\n", "stderr"))
        remote.show(shown("d", text_plain="<Figure>", image_png=PNG))
        remote.show(shown(image_png=PNG))
        remote.update(shown("d", text_plain="<new Figure>"))
        remote.clear(wait=True)
        show_output(ERROR)
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr) == (
        b"one\r<Figure>\n<image/png>\n<new Figure>\n\x1b[2K\r\x1b[2K\r\x1b[31m---\x1b[0m\nValueError: no\n",
        b"warning\n",
    )


# --- in a notebook ----------------------------------------------------------------------------------------------------

CELLS = {
    "streams keep their order": """
        for text in ("a", "b", "c"):
            remote.show(stream(text))
            remote.show(stream(text.upper(), "stderr"))
    """,
    "many pieces": """
        for n in range(5000):
            remote.show(stream(f"{n}\\n"))
    """,
    "display": """
        remote.show(shown("d", text_plain="old", image_png=PNG))
        show_output(shown("d", application_json={"a": [1]}))
    """,
    "local display": """
        from IPython.display import display
        display({"text/plain": "local"}, raw=True, display_id="d");
    """,
    "update": 'remote.update(shown("d", text_plain="new"))',
    "clear": """
        remote.show(stream("gone"))
        remote.clear()
        remote.show(stream("old"))
        remote.clear(wait=True)
        remote.show(stream("kept"))
    """,
    "error": "remote.show(stream('before'))\nremote.show(ERROR)",
    "result": """
        ExecutionResult(
            cell_id=CellId("c"), execution_id=ExecutionId("e"), success=False,
            outputs=(stream("text"), shown(text_plain="x", image_png=PNG), ERROR),
        )
    """,
    "output": "shown(text_html='<b>x</b>')",
    "surrogates": """
        remote.show(stream("\\ud800"))
        remote.show(shown(text_plain="\\ud800", application_json=["\\udc80"]))
        remote.show(Output(output_type="error", ename="E\\ud800", evalue="\\ud800", traceback=("\\ud800",)))
    """,
    "capture": "%%capture captured\nremote.show(stream('text'))\nremote.show(shown('d', image_png=PNG))",
    "captured": """
        (captured.stdout, captured._outputs)
    """,
}


@pytest.fixture(scope="module")
def notebook() -> dict[str, list[dict[str, Any]]]:
    """Outputs of CELLS by their names, as a notebook frontend ends up with them."""
    # Each worker collects all tests, and this takes it seconds.
    import nbclient
    import nbformat

    sources = [PRELUDE, *(dedent(source).strip() for source in CELLS.values())]
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbclient.NotebookClient(document, kernel_name="python3", timeout=60).execute()
    return {
        name: [dict(output) for output in cell.outputs] for name, cell in zip(CELLS, document.cells[1:], strict=True)
    }


def text(value: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": value}


def bundle(metadata: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    named = {mime.replace("_", "/"): value for mime, value in data.items()}
    return {"output_type": "display_data", "data": named, "metadata": metadata or {}}


PICTURE = base64.b64encode(PNG).decode()
ERROR = {
    "output_type": "error",
    "ename": "ValueError",
    "evalue": "no",
    "traceback": ["\x1b[31m---\x1b[0m", "ValueError: no"],
}
EXPECTED = {
    "streams keep their order": [
        text("a"),
        text("A", "stderr"),
        text("b"),
        text("B", "stderr"),
        text("c"),
        text("C", "stderr"),
    ],
    "display": [bundle(text_plain="new"), bundle(application_json={"a": [1]})],
    "local display": [bundle(text_plain="local")],
    "update": [],
    "clear": [text("kept")],
    "error": [text("before"), ERROR],
    "result": [
        text("text"),
        bundle({"image/png": {"width": 40}}, text_plain="x", image_png=PICTURE),
        ERROR,
    ],
    "output": [bundle(text_html="<b>x</b>")],
    "surrogates": [
        text("\\ud800"),
        bundle(text_plain="\\ud800", application_json=["\\udc80"]),
        {"output_type": "error", "ename": "E\\ud800", "evalue": "\\ud800", "traceback": ["\\ud800"]},
    ],
    "capture": [],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_notebook_shows_outputs(notebook: dict[str, list[dict[str, Any]]], name: str) -> None:
    assert notebook[name] == EXPECTED[name]


def test_many_pieces_make_few_messages(notebook: dict[str, list[dict[str, Any]]]) -> None:
    outputs = notebook["many pieces"]
    assert "".join(output["text"] for output in outputs) == "".join(f"{n}\n" for n in range(5000))
    assert len(outputs) < 100


def test_outputs_can_be_captured(notebook: dict[str, list[dict[str, Any]]]) -> None:
    captured = {
        "data": {"image/png": PICTURE},
        "metadata": {"image/png": {"width": 40}},
        "transient": {"display_id": "runtimed:s1:d"},
        "update": False,
    }
    (output,) = notebook["captured"]
    assert eval(output["data"]["text/plain"]) == ("text", [captured])
