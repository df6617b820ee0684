"""The magics in JupyterLab: a real server, a real Chromium, and a person at the buttons."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from runtimed import Session
from tests.e2e.lab import CHROMIUM, LOAD, TIMEOUT, Lab, Opener, serving

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
    pressed = time.time()
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
        ended = session.wait(str(session.get_cells()[0].execution_id)).ended_at
        assert ended is not None
        assert ended.timestamp() - pressed < 2.0, "half a second on a machine that has nothing else to do"
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
