"""A real JupyterLab server, a real Chromium, and a person at the notebooks' buttons."""

import contextlib
import json
import os
import pty
import re
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from runtimed import Session
from tests.conftest import wait_until

CHROMIUM = Path("/usr/bin/chromium")
TIMEOUT = 60_000.0
LOAD = "%load_ext runtimed"
KERNELS = {"python3": "Python 3 (ipykernel)", "runtimed": "Shared session (runtimed)"}
"""The kernels of notebooks, as JupyterLab calls them."""

SHOWN = ".jp-NotebookPanel:not(.lm-mod-hidden)"
"""The notebook that is seen, of all that are open."""


class Lab:
    """A JupyterLab server with a token and nothing of this user's.

    Attributes:
        server: Its process.
        url: Its address, with a place for the path of a notebook.
    """

    def __init__(self, folder: Path, home: Path, *options: str) -> None:
        """Start it.

        Args:
            folder: Where the notebooks are.
            home: An empty folder for everything else.
            options: Further options of the server.
        """
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
            # Without Node.js: asking yarn for its registry takes more than the rest of the server's start.
            "PATH": str(Path(sys.executable).parent),
            "JUPYTER_PREFER_ENV_PATH": "0",  # what is installed is older than the source in whose place it is
        }
        # As the wheel installs them.
        top = Path(__file__).parents[2]
        shutil.copytree(top / "jupyter-config" / "kernels", home / "data" / "kernels")
        shutil.copytree(top / "jupyter-config" / "server-config", home / "config" / "jupyter_server_config.d")
        built = top / "src" / "runtimed" / "jupyter" / "labextension" / "built"
        shutil.copytree(built, home / "data" / "labextensions" / "runtimed")
        # Answers the question whether to fetch news from jupyter.org.
        settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text(
            json.dumps({"fetchNews": "false", "checkForUpdates": False})
        )
        # Else only those cells are there that are to be seen.
        settings = settings.with_name("notebook-extension")
        settings.mkdir()
        (settings / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
        arguments = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={folder}"]
        arguments += ["--ServerApp.port_retries=0", "--allow-root", *options]
        self._home = home
        self._log = home / "server.log"
        # Without a terminal it has no answer of its own to Ctrl-C.
        self._screen, terminal = pty.openpty()
        with self._log.open("wb") as output:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *arguments],
                env=environment,
                stdin=terminal,
                stdout=output,
                stderr=output,
                cwd=home,
            )
        os.close(terminal)
        self._api = f"http://127.0.0.1:{port}/api/{{}}?token={token}"
        self.url = f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset"

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text()

    def answers(self) -> bool:
        """Whether it serves."""
        assert self.server.poll() is None, self.log
        with contextlib.suppress(urllib.error.URLError):
            self._ask("status")
            return True
        return False

    def is_idle(self, path: str) -> bool:
        """Whether a notebook has a kernel that waits for cells."""
        return any(
            session["path"] == path and session["kernel"]["execution_state"] == "idle"
            for session in self._ask("sessions")
        )

    def start_kernel(self, path: str) -> Path:
        """Start a notebook's kernel as the page of the notebook does; return its connection file."""
        wanted = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        started = self._ask("sessions", json.dumps(wanted).encode())
        return self._home / "runtime" / f"kernel-{started['kernel']['id']}.json"

    def _ask(self, what: str, content: bytes | None = None) -> Any:
        with urllib.request.urlopen(self._api.format(what), content) as reply:
            return json.load(reply)

    def close(self) -> None:
        """End it; it ends its kernels first.

        Where a request had a thread of AnyIO's when the server's loop was stopped, the process waits for that thread
        for ever, with stock notebooks as well.
        """
        self.server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.wait(30)
        self.server.kill()
        self.server.wait()
        os.close(self._screen)


@contextlib.contextmanager
def serving(folder: Path, home: Path, *options: str) -> Iterator[Lab]:
    """A JupyterLab server for the notebooks of a folder."""
    lab = Lab(folder, home, *options)
    try:
        wait_until(lab.answers, "JupyterLab does not answer", timeout=60.0)
        yield lab
    finally:
        lab.close()


def write_notebook(path: Path, *sources: str, kernel: str = "python3") -> None:
    """Write a notebook, and start the kernel of its session: a cell that starts one says so above its outputs."""
    # Each worker collects all tests, and this takes it seconds.
    import nbformat

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources],
        metadata={"kernelspec": {"name": kernel, "display_name": KERNELS[kernel], "language": "python"}},
    )
    nbformat.write(notebook, path)
    with Session(str(path)) as session:
        session.start_kernel(env_source="current")


class Notebook:
    """An open notebook."""

    def __init__(self, page: Page, path: Path, kernel: str = "python3") -> None:
        self.page = page
        self.path = path
        self._kernel = KERNELS[kernel]

    def show(self) -> None:
        """Open it from the list of files, or turn to it if it is open."""
        self.page.locator(".jp-DirListing-item", has_text=self.path.name).dblclick()

    def cell(self, number: int) -> Locator:
        return self.page.locator(f"{SHOWN} .jp-CodeCell").nth(number)

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
        self.page.locator(f"{SHOWN} .jp-NotebookPanel-toolbar [data-jp-item-name='{button}']").click()

    def see_idle(self) -> None:
        """Wait until the kernel can be given cells."""
        # The notebook's own indicator says "idle" before there is a kernel, and cells that are run then are lost.
        expect(self.page.get_by_text(f"{self._kernel} | Idle")).to_be_visible(timeout=TIMEOUT)

    def see_end(self, number: int) -> None:
        """Wait until a cell that was started has ended."""
        expect(self.prompt(number)).to_have_text(re.compile(r"\[\d+\]:"), timeout=TIMEOUT)

    def picture(self, name: str) -> None:
        folder = os.environ.get("RUNTIMED_TEST_PICTURES")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png")


class Opener:
    """Writes notebooks and opens them, all in one page: a page takes longer to load than all that follows in it."""

    def __init__(
        self, lab: Lab, folder: Path, browser: Browser, stack: contextlib.ExitStack, kernel: str = "python3"
    ) -> None:
        self._kernel = kernel
        self._lab, self._folder, self._browser, self._stack = lab, folder, browser, stack
        self._page: Page | None = None

    def __call__(self, name: str, *sources: str) -> Notebook:
        path = self._folder / name
        write_notebook(path, *sources, kernel=self._kernel)
        if self._page is None:
            opened = self.again(name)
        else:
            opened = Notebook(self._page, path, self._kernel)
            self._page.locator(".jp-FileBrowser-toolbar [data-jp-item-name='refresh']").click()
            opened.show()
        expect(opened.cell(len(sources) - 1)).to_be_visible(timeout=TIMEOUT)
        wait_until(lambda: self._lab.is_idle(name), "the notebook has no kernel", timeout=60.0)
        opened.see_idle()
        return opened

    def leave(self) -> None:
        """Close the page, as a person closes a tab."""
        if self._page is not None:
            self._page.close()
            self._page = None

    def again(self, name: str) -> Notebook:
        """Open a notebook that is there in a new page."""
        self.leave()
        self._page = self._browser.new_page(viewport={"width": 1400, "height": 1000})
        self._stack.callback(self._page.close)
        self._page.set_default_timeout(TIMEOUT)
        self._page.goto(self._lab.url.format(name))
        return Notebook(self._page, self._folder / name, self._kernel)
