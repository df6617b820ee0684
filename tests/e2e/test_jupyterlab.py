"""The magics in JupyterLab, and what is left when notebooks and servers end: real ones, and a person at the buttons."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from playwright.sync_api import Browser, expect

from runtimed import Session
from runtimed.models import Cell
from tests.conftest import wait_until
from tests.e2e.lab import CHROMIUM, LOAD, TIMEOUT, Lab, Notebook, Opener, serving, write_notebook

# A server and its notebooks take long to start on a machine that has more to do.
pytestmark = [pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium"), pytest.mark.timeout(240)]


GATED = """%%runtimed
import os, time
print('first')
while not os.path.exists({!r}): time.sleep(0.01)
print('last')"""
STOPPED = """%%runtimed
import time
print('begun')
try:
    time.sleep(600)
finally:
    print('cleaned up')"""
CELLS = {
    "load": LOAD,
    "live": GATED,
    "again": "%%runtimed\nprint(1)",
    "stop": STOPPED,
    "never": "print('never')",
    "plot": "%%runtimed\n%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);",
    "table": "%%runtimed\nimport pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})",
    "input": "%%runtimed\nprint('hello', input('name? '))",
    "display": "%%runtimed\nhandle = display('old', display_id=True)\nprint('below')",
    "update": "%%runtimed\nhandle.update('new')",
    "tab": "%%runtimed --sil",
}
"""The cells of the notebook, for each test its own."""

(LIVE, AGAIN, STOP, NEVER, PLOT, TABLE, INPUT, DISPLAY, UPDATE, TAB) = range(1, len(CELLS))


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file at which the first cell ends."""
    return tmp_path_factory.mktemp("gates") / "gate"


class Desk:
    """A server and the page in which all notebooks are opened; both begin anew where a test has ended the server."""

    def __init__(self, browser: Browser, new_folder: Callable[[str], Path], stack: contextlib.ExitStack) -> None:
        self._browser, self._new_folder, self._stack = browser, new_folder, stack
        self._opened: tuple[Lab, Opener] | None = None
        self._magics: Notebook | None = None

    def open(self, name: str, *sources: str) -> Notebook:
        """Write a notebook and open it."""
        if self._opened is None:
            self._stack.close()
            folder = self._new_folder("notebooks").resolve()
            lab = self._stack.enter_context(serving(folder, self._new_folder("home")))
            self._opened = lab, Opener(lab, folder, self._browser, self._stack)
        return self._opened[1](name, *sources)

    def magics(self, gate: Path) -> Notebook:
        """Show the notebook with all cells, of which the first has run."""
        if self._opened is None or self._magics is None:
            sources = [source.format(str(gate)) if source is GATED else source for source in CELLS.values()]
            self._magics = self.open("all.ipynb", *sources)
            self._magics.run(0)
            self._magics.see_end(0)
        else:
            self._magics.show()
        return self._magics

    def end_server(self) -> None:
        """Ask the server to end."""
        assert self._opened is not None
        lab, _opener = self._opened
        self._opened = self._magics = None
        lab.server.terminate()


@pytest.fixture(scope="module")
def desk(shared_daemon: Path, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with contextlib.ExitStack() as stack:
        yield Desk(browser, tmp_path_factory.mktemp, stack)


# --- the magics -------------------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(desk: Desk, gate: Path) -> Notebook:
    """An open notebook with all cells, of which the first has run."""
    return desk.magics(gate)


def test_output_appears_before_the_cell_ends(notebook: Notebook, gate: Path) -> None:
    notebook.run(LIVE)
    expect(notebook.outputs(LIVE)).to_have_text(["first\n"], timeout=TIMEOUT)
    expect(notebook.prompt(LIVE)).to_have_text("[*]:")
    notebook.picture("live")
    gate.touch()
    notebook.see_end(LIVE)
    expect(notebook.outputs(LIVE)).to_have_text(["first\nlast\n"])


def test_running_a_cell_again_keeps_one_document_cell(notebook: Notebook) -> None:
    with Session(str(notebook.path)) as session:
        before = session.get_cells()
        counts = []
        for number in (1, 2, 3):
            notebook.write(AGAIN, f"%%runtimed\nprint({number} * 10)")
            notebook.run(AGAIN)
            expect(notebook.outputs(AGAIN)).to_have_text([f"{number}0\n"], timeout=TIMEOUT)
            *others, cell = session.get_cells()
            assert (others, cell.source) == (before, f"print({number} * 10)")
            assert cell.execution_count is not None
            counts.append(cell.execution_count)
    assert [count - counts[0] for count in counts] == [0, 1, 2]


def test_the_stop_button_interrupts_and_run_all_stops(notebook: Notebook) -> None:
    for number in (STOP, NEVER):
        notebook.run(number)
    expect(notebook.outputs(STOP)).to_have_text(["begun\n"], timeout=TIMEOUT)
    pressed = time.time()
    notebook.press("interrupt")
    notebook.see_end(STOP)
    expect(notebook.outputs(STOP)).to_have_count(3)
    expect(notebook.outputs(STOP).nth(0)).to_have_text("begun\ncleaned up\n")
    expect(notebook.outputs(STOP).nth(1)).to_contain_text("KeyboardInterrupt")
    expect(notebook.outputs(STOP).nth(2)).to_contain_text("CellFailed: KeyboardInterrupt")
    expect(notebook.outputs(NEVER)).to_have_count(0)
    expect(notebook.prompt(NEVER)).to_have_text("[ ]:")
    notebook.picture("stop")
    with Session(str(notebook.path)) as session:
        (cell,) = [cell for cell in session.get_cells() if "'begun'" in cell.source]
        ended = session.wait(str(cell.execution_id)).ended_at
        assert ended is not None
        assert ended.timestamp() - pressed < 2.0, "half a second on a machine that has nothing else to do"
        assert session.run("'alive'").success


def test_an_image_and_a_table_are_shown(notebook: Notebook) -> None:
    for number in (PLOT, TABLE):
        notebook.run(number)
    image = notebook.cell(PLOT).locator(".jp-RenderedImage img")
    expect(image).to_be_visible(timeout=TIMEOUT)
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    expect(notebook.cell(TABLE).locator("table tbody tr")).to_have_count(2, timeout=TIMEOUT)
    notebook.picture("plot")


def test_input_is_asked_for_under_the_cell(notebook: Notebook) -> None:
    notebook.run(INPUT)
    field = notebook.cell(INPUT).locator(".jp-Stdin-input")
    field.fill("Ann", timeout=TIMEOUT)
    notebook.picture("input")
    field.press("Enter")
    expect(notebook.cell(INPUT).locator(".jp-OutputArea")).to_contain_text("hello Ann", timeout=TIMEOUT)


def test_a_display_is_updated_in_place(notebook: Notebook) -> None:
    for number in (DISPLAY, UPDATE):
        notebook.run(number)
    expect(notebook.outputs(DISPLAY)).to_have_text(["'new'", "below\n"], timeout=TIMEOUT)
    expect(notebook.outputs(UPDATE)).to_have_count(0)


def test_tab_offers_the_options(notebook: Notebook) -> None:
    notebook.cell(TAB).locator(".cm-content").click()
    notebook.page.keyboard.press("Control+End")
    notebook.page.keyboard.press("Tab")
    offer = notebook.page.locator(".jp-Completer-item")
    expect(offer).to_contain_text(["--silent"], timeout=TIMEOUT)
    notebook.picture("tab")
    offer.first.click()
    expect(notebook.cell(TAB).locator(".cm-content")).to_have_text("%%runtimed --silent")


# --- the ends of notebooks and servers --------------------------------------------------------------------------------


def ending_at(gate: Path) -> str:
    """Code that runs until a file exists."""
    return f"import os, time\nprint('begun')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('end')"


def cells_for_jobs(gate: Path) -> tuple[str, ...]:
    """The cells of either kind of job."""
    code = ending_at(gate)
    return LOAD, f"%%runtimed\n{code}", f"%%runtimed --no-wait\n{code}", "%%runtimed\nprint('second')"


class Unseen:
    """A notebook that a program has opened: its kernel is the server's, and no page shows it."""

    def __init__(self, lab: Lab, path: Path, sources: Sequence[str]) -> None:
        self.path = path
        self._sources = sources
        write_notebook(path, *sources)
        self._client = BlockingKernelClient(connection_file=str(lab.start_kernel(path.name)))
        self._client.load_connection_file()
        self._client.start_channels(iopub=False, stdin=False, hb=False)

    def run(self, number: int) -> None:
        """Run a cell, and do not wait for it."""
        self._client.execute(self._sources[number])

    def close(self) -> None:
        self._client.stop_channels()


class Job:
    """A notebook whose session runs a job, while the notebook itself waits for a cell.

    Attributes:
        notebook: The open notebook.
    """

    def __init__(self, notebook: Notebook | Unseen, gate: Path, *, queued: bool) -> None:
        """Start the job.

        Args:
            notebook: Has the cells of `cells_for_jobs`; its kernel is new.
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


def restart(notebook: Notebook) -> None:
    notebook.press("restart")
    notebook.page.get_by_role("button", name="Confirm Kernel Restart").click()


def close_and_shut_down(notebook: Notebook) -> None:
    notebook.page.get_by_role("menuitem", name="File", exact=True).click()
    notebook.page.get_by_role("menuitem", name="Close and Shut Down Notebook").click()
    confirm = notebook.page.locator(".jp-Dialog .jp-mod-accept")
    confirm.first.click()


def test_what_ends_the_notebook_s_kernel_leaves_its_job_alone(desk: Desk, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    notebook = desk.open("first.ipynb", *cells_for_jobs(gate))
    for queued in (False, True):
        job = Job(notebook, gate, queued=queued)
        restart(notebook)
        job.check_it_runs_on()
        notebook.see_idle()
    job = Job(notebook, gate, queued=False)
    close_and_shut_down(notebook)
    job.check_it_runs_on()

    notebook = desk.open("second.ipynb", *cells_for_jobs(gate))
    job = Job(notebook, gate, queued=True)
    close_and_shut_down(notebook)
    job.check_it_runs_on()


def test_ctrl_c_at_the_server_leaves_the_jobs_of_its_notebooks_alone(shared_daemon: Path, tmp_path: Path) -> None:
    folder, home = tmp_path / "notebooks", tmp_path / "home"
    for place in (folder, home):
        place.mkdir()
    gate = tmp_path / "gate"
    with serving(folder, home) as lab:
        notebook = Unseen(lab, folder / "third.ipynb", cells_for_jobs(gate))
        job = Job(notebook, gate, queued=False)
        lab.server.send_signal(signal.SIGINT)
        # The first Ctrl-C asks whether it was meant.
        wait_until(lambda: "Shut down this Jupyter server" in lab.log, "it does not ask")
        lab.server.send_signal(signal.SIGINT)
        job.check_it_runs_on()
        notebook.close()


def test_the_end_of_the_server_leaves_the_jobs_of_its_notebooks_alone(desk: Desk, tmp_path: Path) -> None:
    gates = {queued: tmp_path / f"gate-{queued}" for queued in (False, True)}
    jobs = [
        Job(desk.open(f"{gate.name}.ipynb", *cells_for_jobs(gate)), gate, queued=queued)
        for queued, gate in gates.items()
    ]
    desk.end_server()
    # Not for the end of the server's process, which is its own business: it may stay, its kernels gone.
    for job in jobs:
        job.check_it_runs_on()
