"""What is written has the bytes that Jupyter would write, and means what it meant before."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.ids import CellId
from runtimed.models import Cell, Output
from runtimed.notebook_file.outputs import file_outputs, normal
from runtimed.notebook_file.reading import FileCell, NotebookFile, read_notebook
from runtimed.notebook_file.writing import file_cell, file_id, with_former_outputs, write_notebook

PATH = Path("/home/ann/note.ipynb")
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
MAPS = st.dictionaries(TEXTS, JSON, max_size=3)
COUNTS = st.none() | st.integers(0, 1000)
BUNDLES = st.fixed_dictionaries(
    {},
    optional={
        "text/plain": TEXTS,
        "image/png": st.just("aGk="),
        "image/svg+xml": TEXTS,
        "application/json": JSON,
        "application/vnd.x.v1+json": JSON,
        "application/x-latex": TEXTS,
    },
)
SHOWN = {"data": BUNDLES, "metadata": MAPS}
OUTPUTS = st.one_of(
    st.fixed_dictionaries({"output_type": st.just("display_data"), **SHOWN}),
    st.fixed_dictionaries({"output_type": st.just("execute_result"), "execution_count": COUNTS, **SHOWN}),
    st.fixed_dictionaries(
        {"output_type": st.just("stream"), "name": st.sampled_from(["stdout", "stderr"]), "text": TEXTS}
    ),
    st.fixed_dictionaries(
        {"output_type": st.just("error"), "ename": TEXTS, "evalue": TEXTS, "traceback": st.lists(TEXTS, max_size=3)}
    ),
)
_STRIPPED = {"trusted", "signature", "orig_nbformat", "orig_nbformat_minor"}
"""What Jupyter's writer leaves out."""
METADATA = st.dictionaries(TEXTS.filter(bool), JSON, max_size=3).filter(lambda entries: not _STRIPPED & entries.keys())

ATTACHMENTS = st.dictionaries(TEXTS, st.dictionaries(st.sampled_from(["image/png", "text/plain"]), TEXTS), max_size=2)


@st.composite
def notebook_cells(draw: Any) -> dict[str, Any]:
    kind = draw(st.sampled_from(["code", "markdown", "raw"]))
    cell = {"cell_type": kind, "source": draw(TEXTS), "metadata": draw(METADATA)}
    if kind == "code":
        return cell | {"execution_count": draw(COUNTS), "outputs": draw(st.lists(OUTPUTS, max_size=3))}
    attachments = draw(ATTACHMENTS)
    return cell | ({"attachments": attachments} if attachments else {})


@given(st.lists(notebook_cells(), max_size=4), METADATA)
def test_what_is_read_and_written_has_the_bytes_that_jupyter_writes(contents: list[Any], metadata: dict[str, Any]):
    import nbformat

    for number, cell in enumerate(contents):
        cell["id"] = f"id-{number}"
    notebook = nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": contents})
    file = io.StringIO()
    nbformat.v4.nbjson.write(notebook, file)
    jupyters = f"{file.getvalue()}\n"

    assert write_notebook(read_notebook(jupyters, PATH)) == jupyters.encode()


@given(st.lists(OUTPUTS, max_size=5))
def test_outputs_that_a_session_has_taken_stay_as_they_are_from_then_on(outputs: list[Any]):
    assert normal(normal(outputs)) == normal(outputs)


def test_outputs_of_every_type_are_those_that_the_format_knows():
    shown = {"text/plain": "2\n", "image/png": b"\x89PNG", "application/json": {"a": [1]}, "image/svg+xml": "<svg/>"}
    outputs = [
        Output(output_type="stream", name="stderr", text="a\nb"),
        Output(output_type="display_data", data=shown, metadata={"image/png": {"width": 7}}, display_id="d"),
        Output(output_type="execute_result", data={"text/plain": "2"}, execution_count=3),
        Output(output_type="error", ename="E", evalue="e", traceback=("\x1b[31mE", "e")),
    ]
    written = file_outputs(outputs)
    assert written == (
        {"output_type": "stream", "name": "stderr", "text": "a\nb"},
        {
            "output_type": "display_data",
            "data": {**shown, "image/png": "iVBORw=="},
            "metadata": {"image/png": {"width": 7}},
        },
        {"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {}, "execution_count": 3},
        {"output_type": "error", "ename": "E", "evalue": "e", "traceback": ["\x1b[31mE", "e"]},
    )
    assert normal(written) == written

    import nbformat

    content = json.loads(
        write_notebook(
            NotebookFile(metadata={}, cells=(FileCell(id="a", cell_type="code", source="1", outputs=written),))
        )
    )
    nbformat.validate(content)


@pytest.mark.parametrize(
    ("there", "session_s"),
    [
        (
            [{"output_type": "stream", "name": "stdout", "text": "1 %\r2 %"}],
            [Output(output_type="stream", name="stdout", text="2 %")],
        ),
        (
            [{"output_type": "stream", "name": "stdout", "text": text} for text in "ab"],
            [Output(output_type="stream", name="stdout", text="ab")],
        ),
        (
            [{"output_type": "display_data", "data": {"image/png": "aG\nk=\n"}, "metadata": {}}],
            [Output(output_type="display_data", data={"image/png": b"hi"})],
        ),
        (
            [{"output_type": "display_data", "data": {"image/png": "no base64!"}, "metadata": {}}],
            [Output(output_type="display_data", data={"image/png": "no base64!"})],
        ),
        (
            [{"output_type": "display_data", "data": {"text/plain": "x" * 2**21}, "metadata": {}}],
            [Output(output_type="display_data", data={"text/plain": "x" * 2**21})],
        ),
    ],
    ids=["progress", "streams", "base64", "not base64", "large"],
)
def test_outputs_that_mean_the_same_stay_as_a_file_has_them(there: list[Any], session_s: list[Output]):
    former = NotebookFile(
        metadata={},
        cells=(
            FileCell(id="a", cell_type="code", source="1", outputs=tuple(there)),
            FileCell(id="b", cell_type="code", source="2", outputs=tuple(there)),
        ),
    )
    other = file_outputs([Output(output_type="stream", name="stdout", text="other")])
    written = file_outputs(session_s)
    now = replace(
        former, cells=tuple(replace(c, outputs=o) for c, o in zip(former.cells, (written, other), strict=True))
    )

    assert with_former_outputs(now, former).cells == (former.cells[0], replace(former.cells[1], outputs=other))


@pytest.mark.parametrize("cell_id", ["a", "cell-5f2b6c1e-7a43-5d0e-9c7b-3f0a4c1d2e68", "A_-9", "x" * 64])
def test_an_id_that_the_format_admits_stays(cell_id: str):
    assert file_id(cell_id) == cell_id


@pytest.mark.parametrize("cell_id", ["", "x" * 65, "a b", "é", "a\n", "/home/ann/note.ipynb#1"])
def test_any_other_id_becomes_one_that_the_format_admits_the_same_each_time(cell_id: str):
    assert file_id(file_id(cell_id)) == file_id(cell_id) != cell_id


def test_a_cell_s_attachments_stand_beside_its_metadata():
    files = {"a.png": {"image/png": "aGk="}}
    cell = Cell(id=CellId("m"), cell_type="markdown", source="x", metadata={"attachments": files, "tags": ["t"]})
    assert file_cell(cell) == FileCell(
        id="m", cell_type="markdown", source="x", metadata={"tags": ["t"]}, attachments=files
    )
    # What only bears the name stays where it is.
    for odd in (replace(cell, metadata={"attachments": ["a"]}), replace(cell, metadata={"attachments": {"a": 1}})):
        assert (file_cell(odd).metadata, file_cell(odd).attachments) == (odd.metadata, {})
    code = replace(cell, cell_type="code", execution_count=4)
    assert (file_cell(code).metadata, file_cell(code).execution_count) == (cell.metadata, 4)


def test_a_nan_of_a_kernel_is_written_as_jupyter_writes_it():
    data = {"application/json": {"a": math.nan}}
    outputs = file_outputs([Output(output_type="display_data", data=data)])
    notebook = NotebookFile(metadata={}, cells=(FileCell(id="a", cell_type="code", source="1\n2", outputs=outputs),))
    content = write_notebook(notebook)
    assert b'"a": NaN\n' in content
    assert content.decode() == json.dumps(json.loads(content), indent=1, sort_keys=True) + "\n"


def test_marks_that_jupyter_keeps_in_no_file_are_in_none():
    cell = Cell(id=CellId("a"), cell_type="raw", source="", metadata={"trusted": True, "tags": []})
    assert file_cell(cell).metadata == {"tags": []}
    marked = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"signature": "x", "a": 1}, "cells": []}
    assert read_notebook(json.dumps(marked), PATH).metadata == {"a": 1}


def test_a_lone_surrogate_is_escaped_and_comes_back():
    outputs = file_outputs([Output(output_type="stream", name="stdout", text="a\ud800b")])
    notebook = NotebookFile(metadata={}, cells=(FileCell(id="a", cell_type="code", source="1", outputs=outputs),))
    assert b"a\\ud800b" in write_notebook(notebook)
    assert read_notebook(write_notebook(notebook).decode(), PATH) == notebook
