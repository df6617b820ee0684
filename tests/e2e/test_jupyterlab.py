"""The magics in JupyterLab: a real server, a real Chromium, and a person at the buttons."""

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from runtimed import Session
from tests.conftest import wait_until

CHROMIUM = Path("/usr/bin/chromium")
TIMEOUT = 60_000.0

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), chromium_sandbox=os.getuid() != 0)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks are."""
    return tmp_path_factory.mktemp("notebooks").resolve()


@pytest.fixture(scope="module")
def lab(shared_daemon: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab server with a token and nothing of this user's; its URL up to the notebook's path."""
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_"))}
    environment |= {
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_TOKEN": token,
    }
    # Answers the question whether to fetch news from jupyter.org.
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    arguments = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={folder}"]
    arguments += ["--ServerApp.port_retries=0", "--allow-root"]
    log = home / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *arguments], env=environment, stdout=output, stderr=output, cwd=home
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{url}/api/status?token={token}"):
            return True
        return False

    try:
        wait_until(answers, "JupyterLab does not answer", timeout=60.0)
        yield f"{url}/lab/tree/{{}}?token={token}&reset"
    finally:
        # The server ends its kernels on SIGTERM.
        server.terminate()
        server.wait(30)


class Notebook:
    """An open notebook."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.path = path

    def cell(self, number: int) -> Locator:
        return self.page.locator(".jp-NotebookPanel .jp-CodeCell").nth(number)

    def outputs(self, number: int) -> Locator:
        return self.cell(number).locator(".jp-OutputArea-output")

    def prompt(self, number: int) -> Locator:
        return self.cell(number).locator(".jp-InputPrompt")

    def write(self, number: int, source: str) -> None:
        """Replace a cell's source."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)

    def run(self, number: int) -> None:
        """Run a cell with Shift+Enter."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")

    def press(self, button: str) -> None:
        self.page.locator(f".jp-NotebookPanel-toolbar [data-jp-item-name='{button}']").click()

    def see_end(self, number: int) -> None:
        """Wait until a cell that was started has ended."""
        expect(self.prompt(number)).to_have_text(re.compile(r"\[\d+\]:"), timeout=TIMEOUT)

    def picture(self, name: str) -> None:
        folder = os.environ.get("RUNTIMED_TEST_PICTURES")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def open_notebook(lab: str, folder: Path, browser: Browser) -> Iterator["Opener"]:
    with contextlib.ExitStack() as stack:
        yield Opener(lab, folder, browser, stack)


class Opener:
    """Writes notebooks and opens them, each in a page of its own."""

    def __init__(self, lab: str, folder: Path, browser: Browser, stack: contextlib.ExitStack) -> None:
        self._lab, self._folder, self._browser, self._stack = lab, folder, browser, stack

    def __call__(self, name: str, *sources: str) -> Notebook:
        path = self._folder / name
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in sources],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(notebook, path)
        page = self._browser.new_page(viewport={"width": 1400, "height": 1000})
        self._stack.callback(page.close)
        page.set_default_timeout(TIMEOUT)
        page.goto(self._lab.format(name))
        opened = Notebook(page, path)
        expect(opened.cell(len(sources) - 1)).to_be_visible(timeout=TIMEOUT)
        # The notebook's own indicator says "idle" before there is a kernel, and cells that are run then are lost.
        expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=TIMEOUT)
        return opened


LOAD = "%load_ext runtimed"


def test_output_appears_before_the_cell_ends(open_notebook: Opener, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = f"import os, time\nprint('first')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('last')"
    notebook = open_notebook("live.ipynb", LOAD, f"%%runtimed\n{code}")
    notebook.run(0)
    notebook.see_end(0)
    notebook.run(1)
    expect(notebook.outputs(1)).to_have_text(["first\n"], timeout=TIMEOUT)
    expect(notebook.prompt(1)).to_have_text("[*]:")
    notebook.picture("live")
    gate.touch()
    notebook.see_end(1)
    expect(notebook.outputs(1)).to_have_text(["first\nlast\n"])


def test_running_a_cell_again_keeps_one_document_cell(open_notebook: Opener) -> None:
    notebook = open_notebook("again.ipynb", LOAD, "%%runtimed\nprint(1)")
    notebook.run(0)
    for number in (1, 2, 3):
        notebook.write(1, f"%%runtimed\nprint({number} * 10)")
        notebook.run(1)
        expect(notebook.outputs(1)).to_have_text([f"{number}0\n"], timeout=TIMEOUT)
    with Session(str(notebook.path)) as session:
        (cell,) = session.get_cells()
        assert (cell.source, cell.execution_count) == ("print(3 * 10)", 3)
        session.stop()


def test_the_stop_button_interrupts_and_run_all_stops(open_notebook: Opener) -> None:
    notebook = open_notebook(
        "stop.ipynb",
        LOAD,
        "%%runtimed\nimport time\nprint('begun')\ntry:\n    time.sleep(600)\nfinally:\n    print('cleaned up')",
        "print('never')",
    )
    for number in range(3):
        notebook.run(number)
    expect(notebook.outputs(1)).to_have_text(["begun\n"], timeout=TIMEOUT)
    notebook.press("interrupt")
    notebook.see_end(1)
    expect(notebook.outputs(1)).to_have_count(3)
    expect(notebook.outputs(1).nth(0)).to_have_text("begun\ncleaned up\n")
    expect(notebook.outputs(1).nth(1)).to_contain_text("KeyboardInterrupt")
    expect(notebook.outputs(1).nth(2)).to_contain_text("CellFailed: KeyboardInterrupt")
    expect(notebook.outputs(2)).to_have_count(0)
    expect(notebook.prompt(2)).to_have_text("[ ]:")
    notebook.picture("stop")
    with Session(str(notebook.path)) as session:
        assert session.run("'alive'").success
        session.stop()


def test_an_image_and_a_table_are_shown(open_notebook: Opener) -> None:
    plot = "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);"
    frame = "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})"
    notebook = open_notebook("plot.ipynb", LOAD, f"%%runtimed\n{plot}", f"%%runtimed\n{frame}")
    for number in range(3):
        notebook.run(number)
    image = notebook.cell(1).locator(".jp-RenderedImage img")
    expect(image).to_be_visible(timeout=TIMEOUT)
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    expect(notebook.cell(2).locator("table tbody tr")).to_have_count(2, timeout=TIMEOUT)
    notebook.picture("plot")


def test_input_is_asked_for_under_the_cell(open_notebook: Opener) -> None:
    notebook = open_notebook("input.ipynb", LOAD, "%%runtimed\nprint('hello', input('name? '))")
    notebook.run(0)
    notebook.run(1)
    field = notebook.cell(1).locator(".jp-Stdin-input")
    field.fill("Ann", timeout=TIMEOUT)
    notebook.picture("input")
    field.press("Enter")
    expect(notebook.cell(1).locator(".jp-OutputArea")).to_contain_text("hello Ann", timeout=TIMEOUT)


def test_a_display_is_updated_in_place(open_notebook: Opener) -> None:
    notebook = open_notebook(
        "update.ipynb",
        LOAD,
        "%%runtimed\nhandle = display('old', display_id=True)\nprint('below')",
        "%%runtimed\nhandle.update('new')",
    )
    for number in range(3):
        notebook.run(number)
    expect(notebook.outputs(1)).to_have_text(["'new'", "below\n"], timeout=TIMEOUT)
    expect(notebook.outputs(2)).to_have_count(0)


def test_tab_offers_the_options(open_notebook: Opener) -> None:
    notebook = open_notebook("tab.ipynb", LOAD, "%%runtimed --sil")
    notebook.run(0)
    notebook.see_end(0)
    notebook.cell(1).locator(".cm-content").click()
    notebook.page.keyboard.press("Control+End")
    notebook.page.keyboard.press("Tab")
    offer = notebook.page.locator(".jp-Completer-item")
    expect(offer).to_contain_text(["--silent"], timeout=TIMEOUT)
    notebook.picture("tab")
    offer.first.click()
    expect(notebook.cell(1).locator(".cm-content")).to_have_text("%%runtimed --silent")
