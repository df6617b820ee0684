"""Closing a notebook, restarting its kernel and ending the server leave the session alone, in a real JupyterLab."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from runtimed import Session
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


class Job:
    """A notebook whose session runs a job, while the notebook itself waits for a cell.

    Attributes:
        notebook: The open notebook.
    """

    def __init__(self, open_notebook: Opener, name: str, folder: Path, *, queued: bool) -> None:
        """Open the notebook and start the job.

        Args:
            open_notebook: Opens it.
            name: Its file's name.
            folder: An empty one.
            queued: Whether the notebook's cell waits in the session's queue, behind a job that was started without
                waiting; else its cell is the job.
        """
        self._gate = folder / name
        code = f"import os, time\nprint('begun')\nwhile not os.path.exists({str(self._gate)!r}): time.sleep(0.01)"
        cells = [f"%%runtimed{' --no-wait' * queued}\n{code}\nprint('end')"]
        cells += ["%%runtimed\nprint('second')"] * queued
        self._expected = ["begun\nend\n", "second\n"][: len(cells)]
        self.notebook = open_notebook(name, LOAD, *cells)
        for number in range(len(cells) + 1):
            self.notebook.run(number)
        with Session(str(self.notebook.path)) as session:
            wait_until(lambda: session.get_cells() and session.get_cells()[0].outputs, "the job does not run")
            wait_until(lambda: all(self._running(session, len(cells))), "not all of it is queued")
            self._executions = self._running(session, len(cells))
            self._peers = session.status().peers

    @staticmethod
    def _running(session: Session, number: int) -> list[str | None]:
        executions: list[str | None] = [cell.execution_id for cell in session.get_cells()]
        return executions + [None] * (number - len(executions))

    def check_it_runs_on(self) -> None:
        """See that the notebook's kernel is gone, that the job still runs, and that everything ends well."""
        with Session(str(self.notebook.path)) as session:
            wait_until(lambda: session.status().peers == self._peers - 1, "the notebook's kernel is still there")
            assert [output.text for output in session.get_cells()[0].outputs] == ["begun\n"]
            self._gate.touch()
            results = [session.wait(str(execution_id)) for execution_id in self._executions]
            assert [(result.success, result.stdout) for result in results] == [(True, text) for text in self._expected]
            session.stop()


def restart(notebook: Notebook) -> None:
    notebook.press("restart")
    notebook.page.get_by_role("button", name="Confirm Kernel Restart").click()


def close_and_shut_down(notebook: Notebook) -> None:
    notebook.page.get_by_role("menuitem", name="File", exact=True).click()
    notebook.page.get_by_role("menuitem", name="Close and Shut Down Notebook").click()
    confirm = notebook.page.locator(".jp-Dialog .jp-mod-accept")
    confirm.first.click()


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("way", [restart, close_and_shut_down])
def test_what_ends_the_notebook_s_kernel_leaves_its_job_alone(
    open_notebook: Opener, tmp_path: Path, way: Callable[[Notebook], None], queued: bool
) -> None:
    job = Job(open_notebook, f"{way.__name__}-{queued}.ipynb", tmp_path, queued=queued)
    way(job.notebook)
    job.check_it_runs_on()


# A server and its notebooks take long to start on a machine that has more to do.
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("number", "variants"), [(signal.SIGTERM, (False, True)), (signal.SIGINT, (False,))])
def test_the_end_of_the_server_leaves_the_jobs_of_its_notebooks_alone(
    shared_daemon: Path, browser: Browser, tmp_path: Path, number: signal.Signals, variants: tuple[bool, ...]
) -> None:
    for name in ("notebooks", "home", "gates"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "notebooks", tmp_path / "home") as lab, contextlib.ExitStack() as stack:
        opener = Opener(lab, tmp_path / "notebooks", browser, stack)
        jobs = [Job(opener, f"{number.name}-{queued}.ipynb", tmp_path / "gates", queued=queued) for queued in variants]
        lab.server.send_signal(number)
        if number == signal.SIGINT:
            # The first Ctrl-C asks whether it was meant.
            wait_until(lambda: "Shut down this Jupyter server" in lab.log, "it does not ask")
            lab.server.send_signal(number)
        lab.server.wait(30)
        for job in jobs:
            job.check_it_runs_on()
