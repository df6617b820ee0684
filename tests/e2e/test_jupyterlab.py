"""The magics in JupyterLab: a real server, a real Chromium, and a person at the buttons."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from runtimed import Session
from tests.e2e.lab import CHROMIUM, LOAD, TIMEOUT, Notebook, Opener, serving

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")


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


@pytest.fixture(scope="module")
def notebook(
    shared_daemon: Path, gate: Path, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Notebook]:
    """An open notebook with all cells, of which the first has run."""
    folder = tmp_path_factory.mktemp("notebooks").resolve()
    sources = [source.format(str(gate)) if source is GATED else source for source in CELLS.values()]
    with serving(folder, tmp_path_factory.mktemp("home")) as lab, contextlib.ExitStack() as stack:
        notebook = Opener(lab, folder, browser, stack)("all.ipynb", *sources)
        notebook.run(0)
        notebook.see_end(0)
        yield notebook


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
