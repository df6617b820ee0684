"""An execution with more outputs than the limit: its result is marked, its end comes, and its pages have everything."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtimed import Client, ExecutionNotFound, Output, Session
from runtimed.notebook_file.reading import read_notebook
from tests.conftest import own_daemon, wait_until

pytestmark = pytest.mark.slow

LIMIT = 200_000
LINES = """
import sys
for n in range({}):
    print(f"{{n:06d}}" + "x" * 393, flush=True)
"""


def lines(count: int) -> str:
    return "".join(f"{n:06d}{'x' * 393}\n" for n in range(count))


@pytest.fixture(scope="module")
def limited_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="rt"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIMED_MAX_OUTPUT_BYTES", str(LIMIT))
        with own_daemon(folder):
            yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def session(limited_daemon: Path) -> Iterator[Session]:
    with Session("limited") as session:
        session.start_kernel()
        yield session


def pages(session: Any, execution_id: str, after: int | None = 0) -> tuple[list[Output], int]:
    """All outputs from `after` on, and the number of pages."""
    found: list[Output] = []
    count = 0
    while after is not None:
        page = session.read_outputs(execution_id, after)
        found += page.outputs
        after, count = page.next, count + 1
    return found, count


def text_of(outputs: list[Output], name: str = "stdout") -> str:
    return "".join(output.text or "" for output in outputs if output.name == name)


def test_a_result_within_the_limit_is_whole(session):
    result = session.run(LINES.format(125))
    assert result.stdout == lines(125)
    assert (result.truncated, result.omitted_bytes, result.omitted_after) == (False, 0, None)
    assert repr(result) == f"ExecutionResult(cell={result.cell_id}, status=ok, outputs=1)"


def test_a_result_beyond_the_limit_is_marked_and_its_pages_have_everything(session):
    result = session.run(LINES.format(2_500), timeout_secs=110)

    assert (result.success, result.truncated) == (True, True)
    assert LIMIT / 4 < len(result.stdout) <= LIMIT
    assert lines(2_500).startswith(result.stdout)
    assert result.omitted_bytes > 2_500 * 400 - LIMIT
    assert repr(result).endswith(f"status=ok, outputs=1, omitted={result.omitted_bytes / 2**20:.4g} MiB)")
    everything, count = pages(session, result.execution_id)
    assert text_of(everything) == lines(2_500)
    assert 1 <= count < 10
    rest, _count = pages(session, result.execution_id, result.omitted_after)
    assert result.stdout + text_of(rest) == lines(2_500)

    cell = session.get_cell(result.cell_id)
    assert (cell.outputs, cell.omitted_bytes, cell.omitted_after, cell.execution_id) == (
        result.outputs,
        result.omitted_bytes,
        result.omitted_after,
        result.execution_id,
    )
    assert cell.truncated
    assert [cell for cell in session.get_cells() if cell.id == result.cell_id] == [cell]
    assert session.get_cell_outputs(result.cell_id) == list(result.outputs)
    assert session.wait(result.execution_id) == result


def test_the_error_and_the_end_come_after_any_amount_of_output(session):
    result = session.run(LINES.format(1_250) + "raise ValueError('at the end')", timeout_secs=110)

    assert (result.success, result.truncated) == (False, True)
    assert result.error is not None
    assert (result.error.ename, result.error.evalue) == ("ValueError", "at the end")
    assert result.ended_at is not None
    assert [output.output_type for output in result.outputs] == ["stream", "error"]


def test_a_stream_of_events_is_never_cut(session):
    cell_id = session.create_cell(LINES.format(1_250))
    events = list(session.stream_execute(cell_id, timeout_secs=110))
    assert "".join(event.output.text or "" for event in events if event.output) == lines(1_250)
    assert events[-1].event_type == "done"


def test_what_is_shown_in_one_place_again_and_again_is_its_latest_state(session):
    result = session.run(
        "from IPython.display import clear_output, display\n"
        "for n in range(100):\n"
        "    clear_output(wait=True)\n"
        "    print(f'{n} ' * 5000)\n"
        "handle = display('x' * 50_000, display_id=True)\n"
        "for n in range(100):\n"
        "    handle.update(str(n) * 20_000)",
        timeout_secs=110,
    )
    assert not result.truncated
    assert result.stdout == "99 " * 5000 + "\n"
    assert [output.data for output in result.display_data] == [{"text/plain": repr("99" * 20_000)}]


def test_large_values_count_as_what_they_are(session):
    result = session.run(
        "from IPython.display import display\n"
        "for n in range(3):\n"
        "    display({'text/plain': str(n), 'application/octet-stream': 'AAAA' * 400_000}, raw=True)",
        timeout_secs=110,
    )
    assert (result.outputs, result.truncated) == ((), True)
    assert result.omitted_bytes > 3 * 1_200_000
    shown, _count = pages(session, result.execution_id)
    assert [(output.data or {})["text/plain"] for output in shown] == ["0", "1", "2"]
    assert {(output.data or {})["application/octet-stream"] for output in shown} in (
        {bytes(1_200_000)},
        {"AAAA" * 400_000},
    )


def test_pages_give_outputs_as_the_kernel_sent_them(session):
    result = session.run(
        "import sys\n"
        "from IPython.display import clear_output, display\n"
        "print('10 %', end='\\r', flush=True); print('20 %', flush=True)\n"
        "print('oops', file=sys.stderr, flush=True)\n"
        "handle = display(1, display_id='d')\n"
        "handle.update(2)\n"
        "clear_output()\n"
        "print('end', flush=True)\n"
        "1 / 0"
    )
    page = session.read_outputs(result.execution_id)
    assert [(o.output_type, o.name, o.text, o.data, o.display_id, o.ename) for o in page.outputs] == [
        ("stream", "stdout", "10 %\r20 %\n", None, None, None),
        ("stream", "stderr", "oops\n", None, None, None),
        ("display_data", None, None, {"text/plain": "1"}, "d", None),
        ("display_data", None, None, {"text/plain": "2"}, "d", None),
        ("stream", "stdout", "end\n", None, None, None),
        ("error", None, None, None, None, "ZeroDivisionError"),
    ]
    assert page.next is None
    assert result.stdout == "end\n"


def test_the_outputs_of_an_execution_that_runs_are_read_so_far(session):
    cell_id = session.create_cell("import time\nprint('begun', flush=True)\ntime.sleep(1000)")
    execution_id = session.queue_cell(cell_id)
    wait_until(lambda: text_of(list(session.read_outputs(execution_id).outputs)) == "begun\n", "nothing is printed")
    session.interrupt()
    session.wait(execution_id)


def test_an_execution_that_is_not_there_is_named(session):
    with pytest.raises(ExecutionNotFound, match="has no execution 'nothing'"):
        session.read_outputs("nothing")


def test_a_client_that_waits_gets_the_same_result_though_the_daemon_dies(session):
    results: list[Any] = []
    code = LINES.format(750) + "import time; time.sleep(2)\nprint('late', flush=True)\n1 / 0"
    cell_id = session.create_cell(code)
    thread = threading.Thread(target=lambda: results.append(session.execute_cell(cell_id, timeout_secs=100)))
    thread.start()
    with Session(session.notebook_id) as other:
        wait_until(lambda: (cell := other.get_cell(cell_id)) and cell.truncated, "the limit is not reached")
        status = Client().status()
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(status.pid), "the daemon lives on")
        thread.join()
        (result,) = results
        assert other.wait(result.execution_id).outputs == result.outputs
    assert result.truncated
    assert [output.output_type for output in result.outputs] == ["stream", "error"]
    assert lines(750).startswith(result.stdout)


def test_a_file_has_all_outputs(session: Session, tmp_path: Path):
    result = session.run(LINES.format(3000))
    assert result.truncated
    path = session.save(tmp_path / "a.ipynb")
    saved = {cell.id: cell.outputs for cell in read_notebook(path.read_text(), path).cells}
    assert saved[result.cell_id] == ({"output_type": "stream", "name": "stdout", "text": lines(3000)},)
