"""Files whose cells have large outputs: they come in pieces, and a cell shows them whole or not at all."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from runtimed import Client, OpenedNotebook, Session
from runtimed.client.calls.files import PIECE, Contents, Imports, Outputs, imports_of, take_in
from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Ask
from runtimed.ids import SessionId
from runtimed.notebook_file.merging import merge
from runtimed.notebook_file.reading import FileCell, NotebookFile
from runtimed.protocol.document_operations import ImportedCell, ImportOutputs, PutBlob
from tests.client.test_files import code, stream, write

MIB = 2**20


def picture(size: int) -> tuple[dict[str, Any], bytes]:
    """Return an output, and the bytes that it shows."""
    content = random.Random(size).randbytes(size)
    data = {"image/png": base64.b64encode(content).decode(), "text/plain": "<Figure>"}
    return {"output_type": "display_data", "data": data, "metadata": {}}, content


def test_a_picture_of_20_mib_is_opened_shown_and_saved(session, tmp_path: Path):
    shown, content = picture(20 * MIB)
    path = write(tmp_path / "a.ipynb", code("a", "plot()", shown, stream("done\n"), count=3), code("b", "2"))
    before = path.read_bytes()
    opened = session.open_notebook(path)
    assert opened.added == ("a", "b")
    cell = session.get_cell("a")
    assert cell.execution_count == 3
    assert [output.output_type for output in cell.outputs] == ["display_data", "stream"]
    assert cell.outputs[0].data == {"image/png": content, "text/plain": "<Figure>"}
    assert session.open_notebook(path) == OpenedNotebook(path=path)
    session.save()
    assert json.loads(path.read_bytes()) == json.loads(before)


def test_many_outputs_of_one_cell_keep_their_order(session, tmp_path: Path):
    texts = [stream(f"{number}\n" * 50_000) | {"name": ("stdout", "stderr")[number % 2]} for number in range(30)]
    failure = {"output_type": "error", "ename": "E", "evalue": "e", "traceback": ["E: e"]}
    path = write(tmp_path / "a.ipynb", code("a", "1", *texts, failure))
    session.open_notebook(path)
    cell = session.get_cell("a")
    assert [output.text for output in cell.outputs[:-1]] == [one["text"] for one in texts]
    (execution,) = Client().sessions.find_executions(session.notebook_id, cell.execution_id)
    assert (cell.outputs[-1].ename, execution.status) == ("E", "error")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_200_mb_of_output_are_opened(shared_daemon, tmp_path: Path):
    size = 200_000_000
    path = write(tmp_path / "a.ipynb", code("a", "1", stream("a line of output\n" * (size // 17))))
    with Session("200 MB") as session:
        session.open_notebook(path)
        cell = session.get_cell("a")
    shown = cell.outputs[0].text
    assert shown is not None
    assert len(shown) + cell.omitted_bytes == pytest.approx(size, rel=0.01)


def test_no_request_has_much_more_than_a_piece():
    sizes = (10, PIECE // 2, 10, PIECE - 10, 5 * PIECE, PIECE // 2, 10)
    outputs = tuple(stream("x" * size) for size in sizes)
    file = NotebookFile(metadata={}, cells=(FileCell(id="a", cell_type="code", source="1", outputs=outputs),))
    contents = Contents(SessionId("s"), NotebookFile(metadata={}, cells=()), {}, None)
    imports = imports_of(contents, merge(None, contents.notebook, file), None)
    assert [request.cells[0].events for request in imports.requests] == [[]]
    flow = take_in(Notebook(SessionId("s")), imports)
    step, pieces = next(flow), []
    with contextlib.suppress(StopIteration):
        while True:
            assert isinstance(step, Ask)
            reply = {}
            if isinstance(step.operation, ImportOutputs):
                pieces.append(step.operation)
                reply = {"stored": step.operation.first + len(step.operation.events)}
            step = flow.send(reply)
    assert [piece.source for piece in pieces] == ["1", *[""] * (len(pieces) - 1)]
    assert [event for piece in pieces for event in piece.events] == list(imports.outputs[0].events)
    assert all(len(piece.events) == 1 or sum(map(len, piece.events)) <= PIECE for piece in pieces)
    assert max(len(piece.events) for piece in pieces) > 1


def test_what_a_daemon_has_already_is_not_sent_again():
    value, events = bytes(3 * PIECE), [bytes(PIECE)] * 3
    outputs = Outputs(ImportedCell(cell_id="a", cell_type="code", source="1", execution_id="e"), events, {"f": value})
    flow = take_in(Notebook(SessionId("s")), Imports((outputs,), (), (), (), None))
    sent = []
    step = next(flow)
    # A daemon that has some, one that was replaced and has none, and one that has all.
    for stored in (2 * PIECE, 0, 3 * PIECE, 2, 0):
        operation = step.operation
        assert isinstance(operation, PutBlob | ImportOutputs)
        sent.append(operation.offset if isinstance(operation, PutBlob) else operation.first)
        step = flow.send({"stored": stored})
    with pytest.raises(StopIteration):
        flow.send({"stored": 3})
    assert sent == [0, 2 * PIECE, 0, 0, 2]


@pytest.mark.parametrize("seed", range(4))
def test_a_cell_shows_its_outputs_whole_or_not_at_all_though_the_daemon_is_killed(
    seed: int, data_dir: Path, tmp_path: Path
):
    shown, content = picture(3 * MIB)
    former = write(tmp_path / "a.ipynb", code("a", "1", stream("former")))
    with Session("s") as session, Session("s") as reader:
        session.open_notebook(former)
        path = write(former, code("a", "2", shown, *[stream("x" * MIB) | {"name": str(n)} for n in range(20)]))
        status = Client().status()
        assert status is not None
        thread = threading.Thread(target=session.open_notebook, args=(path,))
        thread.start()
        time.sleep(random.Random(seed).random() * 0.4)  # wherever it is then
        os.kill(status.pid, signal.SIGKILL)
        while thread.is_alive():
            assert len(reader.get_cell("a").outputs) in (1, 21)
        outputs = reader.get_cell("a").outputs
        assert (len(outputs), outputs[0].data) == (21, {"image/png": content, "text/plain": "<Figure>"})
