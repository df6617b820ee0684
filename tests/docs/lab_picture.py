"""`python -m tests.docs.lab_picture` draws docs/images/lab.png: a notebook in JupyterLab joins a script's session."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from runtimed import Session
from tests.conftest import own_daemon
from tests.docs.pages import ROOT
from tests.e2e.lab import CHROMIUM, LOAD, TIMEOUT, Opener, serving

PICTURE = ROOT / "docs" / "images" / "lab.png"

SCRIPT = 'import pandas as pd\nweeks = pd.read_csv("mauna_loa_co2.csv", parse_dates=["date"])'
PLOT = """%%runtimed co2
%matplotlib inline
weeks.plot(x="date", y="co2_ppm", figsize=(7, 2), grid=True);"""
REPORT = """%%runtimed co2
import time
for year, mean in weeks.groupby(weeks.date.dt.year).co2_ppm.mean().items():
    print(f"{year}  {mean:.1f} ppm", flush=True)
    time.sleep(0.5)"""


def draw(folder: Path, home: Path) -> None:
    """Let a script load the data; then run the notebook's cells, and take the picture while the last one runs."""
    shutil.copy(ROOT / "notebooks" / "data" / "mauna_loa_co2.csv", folder)
    with contextlib.chdir(folder), Session("co2", label="script") as session:
        session.run(SCRIPT).raise_for_error()
    with serving(folder, home) as lab, sync_playwright() as playwright, contextlib.ExitStack() as stack:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), chromium_sandbox=os.getuid() != 0)
        stack.callback(browser.close)
        notebook = Opener(lab, folder, browser, stack)("carbon dioxide.ipynb", LOAD, PLOT, REPORT)
        notebook.page.set_viewport_size({"width": 1000, "height": 680})
        notebook.page.keyboard.press("Control+B")  # the list of files
        for number in range(2):
            notebook.run(number)
            notebook.see_end(number)
        notebook.run(2)
        expect(notebook.outputs(2)).to_contain_text("1965", timeout=TIMEOUT)
        notebook.page.screenshot(path=PICTURE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="rt") as data:
        places = [Path(data) / name for name in ("data", "notebooks", "home")]
        for place in places:
            place.mkdir(mode=0o700)
        os.environ["RUNTIMED_ENV"] = "current"
        with own_daemon(places[0]):
            draw(places[1].resolve(), places[2])
    print(PICTURE)
