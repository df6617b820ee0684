"""Closing a notebook, restarting its kernel and ending the server leave the session alone, in a real JupyterLab."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from runtimed import Session
from runtimed.models import Cell
from tests.conftest import wait_until
from tests.e2e.lab import CHROMIUM, LOAD, Lab, Notebook, Opener, serving

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks are."""
    return tmp_path_factory.mktemp("notebooks").resolve()


@pytest.fixture(scope="module")
def lab(shared_daemon: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with serving(folder, tmp_path_factory.mktemp("home")) as lab:
        yield lab


@pytest.fixture
def open_notebook(lab: Lab, folder: Path, browser: Browser) -> Iterator[Opener]:
    with contextlib.ExitStack() as stack:
        yield Opener(lab, folder, browser, stack)


def ending_at(gate: Path) -> str:
    """Code that runs until a file exists."""
    return f"import os, time\nprint('begun')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('end')"


class Job:
    """A notebook whose session runs a job, while the notebook itself waits for a cell.

    Attributes:
        notebook: The open notebook.
    """

    def __init__(self, notebook: Notebook, gate: Path, *, queued: bool) -> None:
        """Start the job.

        Args:
            notebook: Opened by `open_for_jobs`; its kernel is new.
            gate: The file at which its jobs end.
            queued: Whether the notebook's cell waits in the session's queue, behind a job that was started without
                waiting; else its cell is the job.
        """
        self._gate = gate
        self._gate.unlink(missing_ok=True)
        numbers = [2, 3] if queued else [1]
        self._expected = ["begun\nend\n", "second\n"][: len(numbers)]
        self.notebook = notebook
        with Session(str(notebook.path)) as session:
            before = {cell.execution_id for cell in session.get_cells()}
            for number in [0, *numbers]:
                notebook.run(number)

            def started() -> list[Cell]:
                return [cell for cell in session.get_cells() if cell.execution_id not in {None, *before}]

            wait_until(lambda: len(started()) == len(numbers), "not all of it is queued")
            wait_until(lambda: started()[0].outputs, "the job does not run")
            self._cell = started()[0].id
            self._executions = [cell.execution_id for cell in started()]
            self._peers = session.status().peers

    def check_it_runs_on(self) -> None:
        """See that the notebook's kernel is gone, that the job still runs, and that everything ends well."""
        with Session(str(self.notebook.path)) as session:
            wait_until(lambda: session.status().peers == self._peers - 1, "the notebook's kernel is still there")
            assert [output.text for output in session.get_cell(self._cell).outputs] == ["begun\n"]
            self._gate.touch()
            results = [session.wait(str(execution_id)) for execution_id in self._executions]
            assert [(result.success, result.stdout) for result in results] == [(True, text) for text in self._expected]


def open_for_jobs(open_notebook: Opener, name: str, gate: Path) -> Notebook:
    """Open a notebook with the cells of either kind of job."""
    code = ending_at(gate)
    return open_notebook(
        name, LOAD, f"%%runtimed\n{code}", f"%%runtimed --no-wait\n{code}", "%%runtimed\nprint('second')"
    )


def restart(notebook: Notebook) -> None:
    notebook.press("restart")
    notebook.page.get_by_role("button", name="Confirm Kernel Restart").click()


def close_and_shut_down(notebook: Notebook) -> None:
    notebook.page.get_by_role("menuitem", name="File", exact=True).click()
    notebook.page.get_by_role("menuitem", name="Close and Shut Down Notebook").click()
    confirm = notebook.page.locator(".jp-Dialog .jp-mod-accept")
    confirm.first.click()


# A server and its notebooks take long to start on a machine that has more to do.
@pytest.mark.timeout(240)
def test_what_ends_the_notebook_s_kernel_leaves_its_job_alone(open_notebook: Opener, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    notebook = open_for_jobs(open_notebook, "first.ipynb", gate)
    for queued in (False, True):
        job = Job(notebook, gate, queued=queued)
        restart(notebook)
        job.check_it_runs_on()
        notebook.see_idle()
    job = Job(notebook, gate, queued=False)
    close_and_shut_down(notebook)
    job.check_it_runs_on()

    notebook = open_for_jobs(open_notebook, "second.ipynb", gate)
    job = Job(notebook, gate, queued=True)
    close_and_shut_down(notebook)
    job.check_it_runs_on()


def check_the_end_of_the_server(
    lab: Lab, open_notebook: Opener, folder: Path, number: signal.Signals, variants: tuple[bool, ...]
) -> None:
    """End a server with a signal, and see that the jobs of its notebooks run on."""
    gates = {queued: folder / f"{number.name}-{queued}" for queued in variants}
    jobs = [
        Job(open_for_jobs(open_notebook, f"{gate.name}.ipynb", gate), gate, queued=queued)
        for queued, gate in gates.items()
    ]
    lab.server.send_signal(number)
    if number == signal.SIGINT:
        # The first Ctrl-C asks whether it was meant.
        wait_until(lambda: "Shut down this Jupyter server" in lab.log, "it does not ask")
        lab.server.send_signal(number)
    # Not for the end of the server's process, which is its own business: it may stay, its kernels gone.
    for job in jobs:
        job.check_it_runs_on()


@pytest.mark.timeout(240)
def test_ctrl_c_at_the_server_leaves_the_jobs_of_its_notebooks_alone(
    shared_daemon: Path, browser: Browser, tmp_path: Path
) -> None:
    for name in ("notebooks", "home"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "notebooks", tmp_path / "home") as lab, contextlib.ExitStack() as stack:
        opener = Opener(lab, tmp_path / "notebooks", browser, stack)
        check_the_end_of_the_server(lab, opener, tmp_path, signal.SIGINT, (False,))


# It is the last: it ends the server of the others.
@pytest.mark.timeout(240)
def test_the_end_of_the_server_leaves_the_jobs_of_its_notebooks_alone(
    lab: Lab, open_notebook: Opener, tmp_path: Path
) -> None:
    check_the_end_of_the_server(lab, open_notebook, tmp_path, signal.SIGTERM, (False, True))
