"""`python -m tests.docs.lab_picture` draws docs/images/lab.png: a notebook and a terminal in one session."""

import contextlib
import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.conftest import own_daemon
from tests.docs.pages import ROOT
from tests.e2e.lab import CHROMIUM, TIMEOUT, Opener, serving

PICTURE = ROOT / "docs" / "images" / "lab.png"

NAME = "carbon dioxide.ipynb"
LOAD = 'import pandas as pd\nweeks = pd.read_csv("mauna_loa_co2.csv", parse_dates=["date"])'
PLOT = 'weeks.plot(x="date", y="co2_ppm", figsize=(6, 2), grid=True);'
REPORT = """import time
for year, mean in weeks.groupby(weeks.date.dt.year).co2_ppm.mean().items():
    print(f"{year}  {mean:.1f} ppm", flush=True)
    time.sleep(0.5)"""
ASKED = "weeks.co2_ppm.describe()"

TERMINAL = """async () => {
    const app = window.jupyterapp;
    const terminal = await app.commands.execute('terminal:create-new');
    app.shell.add(terminal, 'main', { mode: 'split-right', ref: app.shell.currentWidget.id });
    app.shell.activateById(terminal.id);
}"""
"""Opens JupyterLab's own terminal beside the notebook."""


def draw(folder: Path, home: Path) -> None:
    """Run a notebook's cells, ask something in a terminal, and take the picture while the last cell runs."""
    shutil.copy(ROOT / "notebooks" / "data" / "mauna_loa_co2.csv", folder)
    with (
        contextlib.chdir(folder),
        serving(folder, home, "--LabApp.expose_app_in_browser=True") as lab,
        sync_playwright() as playwright,
        contextlib.ExitStack() as stack,
    ):
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), chromium_sandbox=os.getuid() != 0)
        stack.callback(browser.close)
        notebook = Opener(lab, folder, browser, stack, "runtimed")(NAME, LOAD, PLOT, REPORT)
        page = notebook.page
        page.set_viewport_size({"width": 1400, "height": 620})
        page.keyboard.press("Control+B")  # the list of files
        for number in range(2):
            notebook.run(number)
            notebook.see_end(number)
        page.evaluate(TERMINAL)
        page.wait_for_timeout(2000)  # the terminal draws its text, and says nothing of it
        scripts = sysconfig.get_path("scripts")  # a login shell has a PATH of its own
        page.keyboard.type(f"cd '{folder}'; PATH='{scripts}':$PATH; PS1='$ '; clear\n")
        page.keyboard.type(f'runtimed console "$PWD/{NAME}"\n')
        page.wait_for_timeout(6000)
        page.keyboard.type(f"{ASKED}\n")
        page.wait_for_timeout(2000)
        notebook.run(2)
        expect(notebook.outputs(2)).to_contain_text("1963", timeout=TIMEOUT)
        page.screenshot(path=PICTURE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="rt") as data:
        places = [Path(data) / name for name in ("data", "notebooks", "home")]
        for place in places:
            place.mkdir(mode=0o700)
        os.environ["RUNTIMED_ENV"] = "current"
        with own_daemon(places[0]):
            draw(places[1].resolve(), places[2])
    print(PICTURE)
