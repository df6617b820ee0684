"""What ends a notebook's kernel leaves its session's executions alone; real kernels, managers and nbclient."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyter_client.manager import KernelManager

from runtimed import Cell, Session
from runtimed.ids import CellId
from runtimed.ipython import ending
from tests.conftest import wait_until
from tests.ipython.conftest import last_stdout
from tests.ipython.test_in_a_kernel import TIMEOUT, Frontend, start

pytestmark = pytest.mark.slow

MANAGED = """
import sys
from jupyter_client.manager import KernelManager
from tests.ipython.test_in_a_kernel import Frontend
manager = KernelManager(kernel_name="python3")
manager.start_kernel()
frontend = Frontend(manager)
frontend.run("%load_ext runtimed")
frontend.rest(frontend.send(sys.argv[1]))
"""


class Job:
    """A cell that runs until its gate opens, and another one that the same client has queued behind it."""

    def __init__(self, session: Session, folder: Path) -> None:
        self.session = session
        self.gate = folder / "gate"
        self.code = (
            f"import os, time\nprint('begun')\nwhile not os.path.exists({str(self.gate)!r}): time.sleep(0.01)\n"
            "print('whole')"
        )

    @property
    def cell(self) -> Cell:
        (cell,) = (cell for cell in self.session.get_cells() if cell.source == self.code)
        return cell

    def runs(self) -> bool:
        return any(cell.source == self.code and cell.outputs for cell in self.session.get_cells())

    def wait_until_it_runs(self) -> None:
        # Manager, kernel and daemon start first, which takes long on a machine that has more to do.
        wait_until(self.runs, "it does not run", timeout=90.0)

    def check_it_runs_on(self) -> None:
        """See that nobody has interrupted it, and that it ends well."""
        assert [output.text for output in self.cell.outputs] == ["begun\n"]
        self.gate.touch()
        result = self.session.wait(str(self.cell.execution_id), timeout_secs=30)
        assert (result.success, result.stdout) == (True, "begun\nwhole\n")


@pytest.fixture
def job(work: Session, tmp_path: Path) -> Iterator[Job]:
    job = Job(work, tmp_path)
    yield job
    job.gate.touch()
    wait_until(lambda: work.status().kernel_status == "idle", "the kernel still works")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def notebook(world: Path, folder: Path) -> Iterator[Frontend]:
    """A notebook for the tests that leave it with a kernel, a new one perhaps."""
    frontend = start(folder)
    yield frontend
    frontend.close()


@pytest.fixture
def lasting(notebook: Frontend) -> Frontend:
    """That notebook, whose kernel has the extension."""
    notebook.client.wait_for_ready(TIMEOUT)
    notebook.run("%load_ext runtimed")
    return notebook


def restart(manager: KernelManager) -> None:
    manager.restart_kernel()


def restart_now(manager: KernelManager) -> None:
    manager.restart_kernel(now=True)


def shut_down(manager: KernelManager) -> None:
    manager.shutdown_kernel()


def kill(manager: KernelManager) -> None:
    manager.signal_kernel(signal.SIGKILL)


def terminate(manager: KernelManager) -> None:
    manager.signal_kernel(signal.SIGTERM)


def hang_up(manager: KernelManager) -> None:
    manager.signal_kernel(signal.SIGHUP)


def check_the_end_leaves_it_alone(job: Job, frontend: Frontend, end: Callable[[KernelManager], None]) -> None:
    frontend.send(f"%%runtimed work\n{job.code}")
    job.wait_until_it_runs()
    peers = job.session.status().peers
    end(frontend.manager)
    wait_until(lambda: job.session.status().peers == peers - 1, "the kernel is still there")
    job.check_it_runs_on()


@pytest.mark.parametrize("end", [restart, restart_now])
def test_a_restart_of_the_notebook_s_kernel_leaves_the_running_cell_alone(
    job: Job, lasting: Frontend, end: Callable[[KernelManager], None]
) -> None:
    check_the_end_leaves_it_alone(job, lasting, end)


@pytest.mark.parametrize("end", [shut_down, kill, terminate, hang_up])
def test_the_end_of_the_notebook_s_kernel_leaves_the_running_cell_alone(
    job: Job, folder: Path, end: Callable[[KernelManager], None]
) -> None:
    frontend = start(folder)
    check_the_end_leaves_it_alone(job, frontend, end)
    frontend.close()


def test_a_restart_leaves_cells_that_wait_in_their_queue(job: Job, lasting: Frontend) -> None:
    frontend = lasting
    frontend.run(f"%%runtimed work --no-wait\n{job.code}", "first")
    job.wait_until_it_runs()
    ids = job.session.get_cell_ids()
    frontend.run("%%runtimed work --no-wait\nprint('second')", "second")
    frontend.send("%%runtimed work\nprint('third')", cell_id="third")
    wait_until(lambda: len(job.session.get_cell_ids()) == len(ids) + 2, "the third is not queued")
    begun = time.monotonic()
    frontend.manager.restart_kernel()
    assert time.monotonic() - begun < 2.5, "the kernel had to be killed"
    job.gate.touch()
    cells = [job.session.get_cell(CellId(cell_id)) for cell_id in job.session.get_cell_ids()[len(ids) - 1 :]]
    results = [job.session.wait(str(cell and cell.execution_id)) for cell in cells]
    assert [result.stdout for result in results] == ["begun\nwhole\n", "second\n", "third\n"]


def test_a_restart_at_a_question_answers_nothing(work: Session, lasting: Frontend) -> None:
    frontend = lasting
    frontend.send("%%runtimed work\nprint('<' + input('? ') + '>')", stdin=True)
    frontend.client.get_stdin_msg(timeout=30)
    peers = work.status().peers
    frontend.manager.restart_kernel()
    wait_until(lambda: work.status().peers == peers - 1, "the kernel is still there")
    cell = work.get_cells()[-1]
    assert cell.outputs == (), "nobody answered"
    work.interrupt()
    assert not work.wait(str(cell.execution_id)).success


def test_a_kernel_that_ends_while_the_session_s_one_starts_leaves_its_code_in_the_queue(
    lasting: Frontend, tmp_path: Path
) -> None:
    slow, asked, gate = tmp_path / "python", tmp_path / "asked", tmp_path / "gate"
    slow.write_text(
        f'#!/bin/sh\ntouch {asked}\nuntil test -e {gate}; do sleep 0.05; done\nexec {sys.executable} "$@"\n'
    )
    slow.chmod(0o700)
    frontend = lasting
    frontend.send(f"%%runtimed starting --env python:{slow}\nprint('ran')")
    wait_until(asked.exists, "no kernel starts")
    with Session("starting") as session:
        frontend.manager.restart_kernel()
        gate.touch()
        wait_until(lambda: last_stdout(session) == "ran\n", "the code was lost")
        session.stop()


def test_the_stop_button_reaches_the_code_at_once(work: Session, lasting: Frontend) -> None:
    frontend = lasting
    msg_id = frontend.send("%%runtimed work\nimport time\nprint('begun')\ntime.sleep(60)")
    frontend.next(msg_id)
    begun = time.time()
    frontend.manager.interrupt_kernel()
    frontend.rest(msg_id)
    ended = work.wait(str(work.get_cells()[-1].execution_id)).ended_at
    assert ended is not None
    assert ended.timestamp() - begun < 2.0, "0.3 s on a machine that has nothing else to do"


@pytest.fixture
def overloaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever has started this process's kernel is at work all the time."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as server:
        monkeypatch.setenv("JPY_PARENT_PID", str(server.pid))
        yield
        server.kill()


@pytest.mark.usefixtures("overloaded")
def test_a_request_that_an_overloaded_server_sends_late_ends_the_kernel() -> None:
    shell = SimpleNamespace(kernel=object(), exit_now=False)
    late = threading.Timer(2.5, setattr, (shell, "exit_now", True))
    late.start()
    assert ending.kernel_is_ending(shell)
    assert not late.is_alive()


@pytest.mark.usefixtures("overloaded")
def test_the_stop_button_of_an_overloaded_server_waits_no_longer_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ending, "LONGEST", 0.5)
    begun = time.monotonic()
    assert not ending.kernel_is_ending(SimpleNamespace(kernel=object(), exit_now=False))
    assert 0.5 <= time.monotonic() - begun < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_whoever_started_the_kernel_leaves_the_running_cell_alone(job: Job, number: signal.Signals) -> None:
    script = [sys.executable, "-c", MANAGED, f"%%runtimed work\n{job.code}"]
    with subprocess.Popen(script, stderr=subprocess.DEVNULL) as owner:
        job.wait_until_it_runs()
        peers = job.session.status().peers
        owner.send_signal(number)
        owner.wait(30)
    wait_until(lambda: job.session.status().peers == peers - 1, "the kernel is still there")
    job.check_it_runs_on()


def test_nbclient_that_gives_up_leaves_the_running_cell_alone(job: Job) -> None:
    # Each worker collects all tests, and this takes it seconds.
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError

    sources = ["%load_ext runtimed", f"%%runtimed work\n{job.code}"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    with pytest.raises(CellTimeoutError):
        NotebookClient(notebook, timeout_func=lambda cell: 8 if "%%" in cell.source else 60).execute()
    job.check_it_runs_on()


NBCLIENT = """
import sys, nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(source) for source in ("%load_ext runtimed", sys.argv[1])]
NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=60).execute()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nbclient_that_is_stopped_leaves_the_running_cell_alone(job: Job, number: signal.Signals) -> None:
    script = [sys.executable, "-c", NBCLIENT, f"%%runtimed work\n{job.code}"]
    with subprocess.Popen(script, stderr=subprocess.DEVNULL) as client:
        job.wait_until_it_runs()
        peers = job.session.status().peers
        client.send_signal(number)
        wait_until(lambda: job.session.status().peers == peers - 1, "the kernel is still there")
        client.kill()
    job.check_it_runs_on()
