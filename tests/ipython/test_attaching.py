"""A cell that runs already, one that waits for others, and what says so; with real kernels on both sides."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtimed import Cell, CellNotFound, QueuedExecution, Session
from runtimed.ids import CellId
from runtimed.ipython import magics
from runtimed.ipython.followed import Followed
from runtimed.ipython.queue import Queue, read_queue
from tests.conftest import wait_until
from tests.ipython.conftest import Shell, last_stdout
from tests.ipython.test_in_a_kernel import TIMEOUT, Frontend, Message, start, text_of


class Job:
    """Code that prints `begun`, and `end` once its gate is open."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate
        self.code = f"import os, time\nprint('begun')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
        self.code += "\nprint('end')"


@pytest.fixture
def job(work: Session, tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path / "gate")
    yield job
    job.gate.touch()
    wait_until(lambda: not work.get_queue(), "the kernel still works")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks") / "report.ipynb"


@pytest.fixture(scope="module")
def frontend(world: Path, notebook: Path) -> Iterator[Frontend]:
    frontend = start(notebook.parent, notebook)
    frontend.run("%runtimed connect work")
    yield frontend
    frontend.close()


def read_until(frontend: Frontend, msg_id: str, text: str) -> str:
    """Return what a cell shows up to a text."""
    shown: list[Message] = []
    while text not in text_of(shown):
        shown.append(frontend.next(msg_id))
    return text_of(shown)


def test_a_cell_that_is_asked_for_again_while_its_kernel_is_busy_runs_once(
    work: Session, job: Job, frontend: Frontend, tmp_path: Path
) -> None:
    counted = f"{job.code}\nopen({str(tmp_path / 'runs')!r}, 'a').write('x')"
    code = f"%%runtimed work --out result\n{counted}"
    first = frontend.send(code, "again")
    read_until(frontend, first, "begun")
    (running,) = work.get_queue()
    # As from a page that was closed and opened again: it waits in the kernel of the notebook.
    second, third = frontend.send(code, "again"), frontend.send("%%runtimed work\nprint('other')", "again")
    job.gate.touch()
    assert frontend.rest(first)[1]["status"] == "ok"
    shown, reply = frontend.rest(second)
    assert reply["status"] == "ok"
    assert text_of(shown) == (
        f"This cell was asked for again while execution {running.execution_id} ran; `--again` starts another one\n"
        "begun\nend\n"
    )
    assert text_of(frontend.rest(third)[0]) == "other\n", "other code is another wish"
    assert text_of(frontend.run("print(result.execution_id, result.stdout)")) == (
        f"{running.execution_id} begun\nend\n\n"
    )
    assert (tmp_path / "runs").read_text() == "x"
    assert text_of(frontend.run(code, "again")) == "begun\nend\n", "it is asked for after the end"
    assert (tmp_path / "runs").read_text() == "xx"


class Request:
    """What `Followed` asks of a shell: the header of the request that is handled."""

    def __init__(self) -> None:
        self.sent = 0.0

    def get_parent(self) -> dict[str, object]:
        return {"header": {"date": datetime.fromtimestamp(self.sent, UTC)}}


@pytest.mark.parametrize("skew", [0.0, 3600.0, -3600.0])
def test_the_clock_of_a_frontend_may_be_another_one(skew: float) -> None:
    shell, now = Request(), 1e9
    followed = Followed(shell, lambda: now)
    shell.sent = now + skew
    assert followed.asked_meanwhile("c", "code") is None
    now += 60
    followed.ended("c", "e", "code")
    shell.sent = now - 1 + skew
    now += 5
    assert followed.asked_meanwhile("c", "code") == "e"
    assert followed.asked_meanwhile("c", "other code") is None
    assert followed.asked_meanwhile("d", "code") is None
    shell.sent = now - 4 + skew
    assert followed.asked_meanwhile("c", "code") is None, "it was asked for after the end"


def test_each_request_may_have_taken_a_while_on_a_busy_machine() -> None:
    shell, now = Request(), 1e9
    followed = Followed(shell, lambda: now)
    shell.sent, now = now, now + 0.7
    assert followed.asked_meanwhile("c", "code") is None
    shell.sent, now = now, now + 0.5
    followed.ended("c", "e", "code")
    now += 0.7
    assert followed.asked_meanwhile("c", "code") == "e"


def test_nobody_knows_when_a_terminal_asked() -> None:
    followed = Followed(object(), lambda: 1e9)
    followed.ended("c", "e", "code")
    assert followed.asked_meanwhile("c", "code") is None


ATTACHED = r"Attached to execution (\S+) of this cell, running for \d+ s; `--again` queues another one\n"


def test_a_cell_that_still_runs_is_attached_to_after_a_restart(work: Session, job: Job, notebook: Path) -> None:
    first = start(notebook.parent, notebook)
    code = f"%%runtimed work --out result\n{job.code}\ndisplay('shown')"
    read_until(first, first.send(code, "x"), "begun")
    first.close()
    (running,) = work.get_queue()

    second = start(notebook.parent, notebook)
    msg_id = second.send(code, "x")
    said = read_until(second, msg_id, "begun")
    found = re.fullmatch(ATTACHED + "begun\n", said)
    assert found is not None, said
    assert found[1] == running.execution_id
    job.gate.touch()
    shown, reply = second.rest(msg_id)
    assert reply["status"] == "ok"
    assert text_of(shown) == "end\n"
    assert shown[-1]["content"]["data"] == {"text/plain": "'shown'"}
    assert text_of(second.run("print(result.execution_id, result.success, [str(o) for o in result.outputs])")) == (
        f"{running.execution_id} True ['begun\\nend\\n', \"'shown'\"]\n"
    )
    assert work.get_queue() == [], "it ran once"
    # It has ended: the next run is another one.
    assert "Attached" not in text_of(second.run(code, "x"))
    second.close()


def test_a_cell_that_two_clients_start_at_once_runs_once(
    in_work: Shell, work: Session, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell_id = work.create_cell(f"{job.code}\nopen({str(tmp_path / 'runs')!r}, 'a').write('x')")
    started: list[str] = []

    def read_before_another_client_starts_it(session: Session) -> Queue:
        queue = read_queue(session)
        if not started:
            started.append(work.queue_cell(cell_id))
            assert queue.executions == ()
        return queue

    monkeypatch.setattr(magics, "read_queue", read_before_another_client_starts_it)
    said = in_work.run(f"%runtimed_cell {cell_id} --no-wait")
    found = re.fullmatch(ATTACHED.replace("running", "(running|queued)"), said)
    assert found is not None, said
    assert [entry.execution_id for entry in work.get_queue()] == [found[1]] == started

    started.clear()
    work.cancel(found[1])
    assert not work.wait(found[1]).success
    opener = threading.Timer(0.5, job.gate.touch)
    opener.start()
    said = in_work.run(f"%runtimed_cell {cell_id}")
    opener.join()
    assert said.endswith("begun\nend\n")
    assert (tmp_path / "runs").read_text() == "x"


def test_the_daemon_queues_the_same_code_of_a_cell_once_unless_it_is_told_otherwise(work: Session, job: Job) -> None:
    def ask(cell_id: str, execution_id: str, source: str | None = None, *, unless_queued: bool = True) -> str:
        return other.submit(cell_id, code=source, execution_id=execution_id, unless_queued=unless_queued).id

    cell_id, another = (work.create_cell(job.code) for _ in range(2))
    with Session("work") as other:
        assert ask(cell_id, "e1") == "e1"
        assert ask(cell_id, "e1") == "e1", "it is sent again after a connection broke"
        assert ask(cell_id, "e2") == ask(cell_id, "e3", job.code) == "e1"
        assert ask(another, "e4") == "e4", "another cell"
        assert ask(cell_id, "e5", "print()") == "e5", "other code"
        assert ask(cell_id, "e6", job.code) == "e6", "what the cell executes last is other code"
        assert ask(cell_id, "e7", unless_queued=False) == "e7"
        assert [entry.execution_id for entry in work.get_queue()] == ["e1", "e4", "e5", "e6", "e7"]
        job.gate.touch()
        assert work.wait("e7").success
        assert ask(cell_id, "e8") == "e8", "it has ended"
        assert work.wait("e8").success


def test_again_queues_another_one_and_other_code_waits_behind_the_earlier(
    frontend: Frontend, work: Session, job: Job
) -> None:
    assert "Queued" in text_of(frontend.run(f"%%runtimed --no-wait\n{job.code}", "y"))
    assert re.fullmatch(
        ATTACHED.replace("running", "(running|queued)"), text_of(frontend.run(f"%%runtimed --no-wait\n{job.code}", "y"))
    )
    assert len(work.get_queue()) == 1
    assert "Queued" in text_of(frontend.run(f"%%runtimed --no-wait --again\n{job.code}", "y"))
    said = text_of(frontend.run("%%runtimed --no-wait\nprint('other')", "y"))
    assert re.match(r"The cell's earlier code is queued for \d+ s; this one waits behind it\nQueued execution ", said)
    assert [entry.source for entry in work.get_queue()] == ["import os, time …", "import os, time …", "print('other')"]


def test_an_interrupt_of_a_cell_that_is_attached_interrupts_it(frontend: Frontend, work: Session) -> None:
    code = "%%runtimed --no-wait\nimport time\nprint('begun')\ntime.sleep(60)"
    frontend.run(code, "z")
    wait_until(lambda: last_stdout(work) == "begun\n", "it does not run")
    msg_id = frontend.send(code.replace(" --no-wait", ""), "z")
    read_until(frontend, msg_id, "begun\n")
    frontend.manager.interrupt_kernel()
    shown, reply = frontend.rest(msg_id)
    assert reply["ename"] == "CellFailed"
    assert [m["content"]["ename"] for m in shown if m["msg_type"] == "error"] == ["KeyboardInterrupt", "CellFailed"]


def test_a_question_is_asked_again_where_its_cell_is_attached(work: Session, notebook: Path) -> None:
    first = start(notebook.parent, notebook)
    code = "%%runtimed work\nprint('<' + input('name? ') + '>')"
    first.send(code, "q", stdin=True)
    first.client.get_stdin_msg(timeout=TIMEOUT)
    first.close()
    (running,) = work.get_queue()
    assert running.is_asking

    second = start(notebook.parent, notebook)
    msg_id = second.send(code, "q", stdin=True)
    assert second.client.get_stdin_msg(timeout=TIMEOUT)["content"]["prompt"] == "name? "
    second.client.input("Ann")
    assert text_of(second.rest(msg_id)[0]).endswith("<Ann>\n")
    second.close()


def test_a_cell_that_waits_says_for_whom(frontend: Frontend, work: Session, job: Job) -> None:
    cell_id = work.create_cell("train = None\n" + job.code)
    work.queue_cell(cell_id)
    msg_id = frontend.send("%%runtimed\nprint('mine')", "w")
    waiting = frontend.next(msg_id)
    assert re.fullmatch(
        r'Waiting behind "train = None …" of observer, running for \d+ s …', waiting["content"]["data"]["text/plain"]
    )
    job.gate.touch()
    shown, _ = frontend.rest(msg_id)
    assert shown[0]["msg_type"] == "update_display_data"
    assert shown[0]["content"]["data"]["text/plain"].startswith('Waited behind "train = None …" of observer, running')
    assert text_of(shown) == "mine\n"


def test_the_queue_is_public(work: Session, job: Job) -> None:
    assert work.get_queue() == []
    cells = [work.create_cell(source) for source in ("\n" + job.code, "x" * 200)]
    executions = [work.queue_cell(cell_id) for cell_id in cells]
    wait_until(lambda: last_stdout_of(work, cells[0]) == "begun\n", "it does not run")
    running, waiting = work.get_queue()
    assert [entry.execution_id for entry in (running, waiting)] == executions
    assert isinstance(running, QueuedExecution)
    assert (running.cell_id, running.status, running.label) == (cells[0], "running", "observer")
    assert (running.source, running.client_id) == ("import os, time …", work.client_id)
    assert running.started_at is not None
    assert running.queued_at <= running.started_at
    assert (waiting.status, waiting.started_at, waiting.source) == ("queued", None, "x" * 100 + " …")
    work.cancel(waiting.execution_id)


def last_stdout_of(session: Session, cell_id: CellId) -> str:
    cell = session.get_cell(cell_id)
    return "".join(output.text or "" for output in cell.outputs) if isinstance(cell, Cell) else ""


def test_cells_say_which_runs_since_when_and_for_whom(in_work: Shell, work: Session, job: Job) -> None:
    running, waiting = (work.create_cell(source) for source in (job.code, "print('next')"))
    for cell_id in (running, waiting):
        work.queue_cell(cell_id)
    wait_until(lambda: last_stdout_of(work, running) == "begun\n", "it does not run")
    rows = {row.split()[0]: row for row in in_work.run("%runtimed cells").splitlines()}
    assert re.search(r"  running for \d+ s, by observer  import os, time …$", rows[running])
    assert re.search(r"  queued for \d+ s, by observer   print\('next'\)$", rows[waiting])


def test_replay_needs_no_id_and_takes_the_beginning_of_one(in_work: Shell, work: Session, job: Job) -> None:
    with Session("fresh") as fresh:
        fresh.create_cell("1")
        assert in_work.run("%runtimed cells fresh").count("\n") == 2
    done = work.run("print('done')")
    assert in_work.run("%runtimed replay") == f"Cell {done.cell_id}:\ndone\n"
    assert in_work.run(f"%runtimed replay {done.cell_id[:-2]}") == "done\n"
    error, _ = in_work.fail("%runtimed replay cell-")
    assert isinstance(error, CellNotFound)
    assert re.match(r"\d+ cells have ids that begin with cell-: cell-", str(error))
    error, _ = in_work.fail("%runtimed replay nothing")
    assert str(error) == "Cell not found: nothing"

    running = work.create_cell(job.code)
    work.queue_cell(running)
    wait_until(lambda: last_stdout_of(work, running) == "begun\n", "it does not run")
    work.queue_cell(work.create_cell("print('behind')"))
    opener = threading.Timer(0.5, job.gate.touch)
    opener.start()
    said = in_work.run("%runtimed replay")
    opener.join()
    assert re.fullmatch(rf'Cell {running}: "import os, time …" of observer, running for \d+ s\nbegun\nend\n', said)


def test_a_session_that_has_executed_nothing_has_nothing_to_replay(in_work: Shell) -> None:
    with Session("fresh") as fresh:
        fresh.create_cell("1")
        in_work.run("%runtimed connect fresh")
        assert in_work.run("%runtimed replay") == "Session fresh has executed nothing yet.\n"
        in_work.run("%runtimed connect work")
        fresh.stop()
