"""What a kernel asks of the frontend: a next input, an end. In a session, whoever ran the cell learns of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed import Session
from runtimed.host.executions import EXITS


@pytest.fixture(scope="module")
def session(shared_daemon: Path) -> Iterator[Session]:
    with Session("payloads") as joined:
        joined.start_kernel()
        yield joined
        joined.stop()


@pytest.mark.parametrize("code", ["exit()", "quit", "get_ipython().ask_exit()"])
def test_after_an_exit_the_queue_goes_on_in_a_fresh_kernel(session: Session, code: str) -> None:
    """As in Jupyter, which starts a kernel again that ended itself; here no cell gets lost between the two."""
    before = session.run("import os; name = 1; print(os.getpid())").stdout
    cells = [
        session.create_cell(source) for source in (code, "print('name' in dir())", "import os; print(os.getpid())")
    ]
    queued = [session.queue_cell(cell) for cell in cells]
    ended, first, second = (session.wait(execution_id) for execution_id in queued)
    assert (ended.success, ended.stderr) == (True, EXITS)
    assert [entry["source"] for entry in ended.payload] == ["ask_exit"]
    assert (first.stdout, first.execution_count) == ("False\n", 1)
    assert second.success
    assert second.stdout != before
    assert session.env_source == "current"
    assert session.status().status == "active"


def test_an_exit_that_keeps_the_kernel_keeps_it(session: Session) -> None:
    before = session.run("import os; print(os.getpid())").stdout
    result = session.run("exit(keep_kernel=True)")
    assert (result.success, result.stderr) == (True, "")
    assert result.payload == ({"source": "ask_exit", "keepkernel": True},)
    assert session.run("print(os.getpid())").stdout == before


def test_a_next_input_is_in_the_result(session: Session, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("print('loaded')\n")
    loaded = session.run(f"%load {tmp_path}/f.py")
    text = f"# %load {tmp_path}/f.py\nprint('loaded')\n"
    assert loaded.payload == ({"source": "set_next_input", "text": text, "replace": True},)
    session.run("1 + 41")
    recalled = session.run("%recall")
    assert recalled.payload == ({"source": "set_next_input", "text": "42", "replace": False},)
    assert session.run("1").payload == ()


def test_what_is_left_out_is_said(session: Session) -> None:
    result = session.run("get_ipython().set_next_input('x' * 2_000_000)")
    assert result.payload == ()
    assert result.stderr.startswith("[set_next_input was left out: it has 2000")
