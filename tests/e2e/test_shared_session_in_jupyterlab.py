"""The kernel "Shared session (runtimed)" in JupyterLab: a real server, a real Chromium, and no magic word."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, expect

from runtimed import Client, Session
from tests.conftest import wait_until
from tests.e2e.lab import CHROMIUM, TIMEOUT, Notebook, Opener, serving

pytestmark = [pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium"), pytest.mark.timeout(240)]

CELLS = {
    "live": "import os, time\nprint('first')\nwhile not os.path.exists({!r}): time.sleep(0.01)\nprint('last')",
    "stop": "print('begun')\ntime.sleep(600)",
    "never": "print('never')",
    "plot": "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);",
    "input": "print('hello', input('name? '))",
    "display": "handle = display('old', display_id=True)\nprint('below')",
    "update": "handle.update('new')",
    "tab": "a_long_name = a_long_other = 1",
    "widgets": "import ipywidgets\nslider = ipywidgets.IntSlider(max=10)\nlabel = ipywidgets.Label('at 0')\n"
    "slider.observe(lambda change: setattr(label, 'value', f'at {{change.new}}'), 'value')\n"
    "ipywidgets.VBox([slider, label])",
    "captured": "box, bar = ipywidgets.Output(), ipywidgets.IntProgress(max=10)\ndisplay(box, bar)\nbar.value = 5\n"
    "with box:\n    print('in the box')\n    while not os.path.exists({!r}): time.sleep(0.01)\nbar.value = 10",
    "numbered": "import os, time\nnumber = 0\nwhile not os.path.exists({!r}):\n"
    "    print(number)\n    number += 1\n    time.sleep(0.05)",
}
LIVE, STOP, NEVER, PLOT, INPUT, DISPLAY, UPDATE, TAB, WIDGETS, CAPTURED, NUMBERED = range(len(CELLS))


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gates") / "gate"


@pytest.fixture(scope="module")
def notebook(
    shared_daemon: Path, browser: Browser, gate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Notebook]:
    """An open notebook with all cells."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("RUNTIMED_AUTOSAVE", "on")
        folder = tmp_path_factory.mktemp("notebooks").resolve()
        lab = stack.enter_context(serving(folder, tmp_path_factory.mktemp("home")))
        opener = Opener(lab, folder, browser, stack, "runtimed")
        yield opener("all.ipynb", *(source.format(str(gate)) for source in CELLS.values()))


def test_output_appears_before_the_cell_ends(notebook: Notebook, gate: Path) -> None:
    notebook.run(LIVE)
    expect(notebook.outputs(LIVE)).to_have_text(["first\n"], timeout=TIMEOUT)
    expect(notebook.prompt(LIVE)).to_have_text("[*]:")
    notebook.picture("shared-live")
    gate.touch()
    notebook.see_end(LIVE)
    expect(notebook.outputs(LIVE)).to_have_text(["first\nlast\n"])


def test_the_cells_of_the_notebook_are_the_sessions(notebook: Notebook) -> None:
    ids = [cell.id for cell in nbformat.read(notebook.path, as_version=4).cells]
    with Session(str(notebook.path)) as session:
        (cell,) = session.get_cells()
    assert (cell.id, cell.outputs[0].text) == (ids[LIVE], "first\nlast\n")


def test_the_stop_button_interrupts_and_what_is_behind_is_aborted(notebook: Notebook) -> None:
    for number in (STOP, NEVER):
        notebook.run(number)
    expect(notebook.outputs(STOP)).to_have_text(["begun\n"], timeout=TIMEOUT)
    notebook.press("interrupt")
    notebook.see_end(STOP)
    expect(notebook.outputs(STOP).nth(1)).to_contain_text("KeyboardInterrupt")
    expect(notebook.prompt(NEVER)).to_have_text("[ ]:")
    expect(notebook.outputs(NEVER)).to_have_count(0)


def test_plots_inputs_displays_and_completions_are_the_kernels(notebook: Notebook) -> None:
    notebook.run(PLOT)
    expect(notebook.outputs(PLOT).locator("img")).to_be_visible(timeout=TIMEOUT)
    notebook.run(INPUT)
    notebook.cell(INPUT).locator(".jp-Stdin-input").fill("Ada")
    notebook.page.keyboard.press("Enter")
    expect(notebook.outputs(INPUT).last).to_contain_text("hello Ada", timeout=TIMEOUT)
    for number in (DISPLAY, UPDATE):
        notebook.run(number)
    notebook.see_end(UPDATE)
    expect(notebook.outputs(DISPLAY)).to_have_text(["'new'", "below\n"])
    notebook.run(TAB)
    notebook.see_end(TAB)
    notebook.cell(TAB).locator(".cm-content").click()
    notebook.page.keyboard.press("Control+End")
    notebook.page.keyboard.insert_text(" + a_lon")
    notebook.page.keyboard.press("Tab")
    offer = notebook.page.locator(".jp-Completer-item")
    expect(offer).to_contain_text(["a_long_name", "a_long_other"], timeout=TIMEOUT)
    notebook.page.keyboard.press("Escape")


def move(notebook: Notebook) -> None:
    """Move the slider by one."""
    notebook.outputs(WIDGETS).locator(".noUi-handle").focus()
    notebook.page.keyboard.press("ArrowRight")


def test_widgets_live_in_two_tabs_at_once_and_after_a_reload(notebook: Notebook, browser: Browser) -> None:
    notebook.run(WIDGETS)
    expect(notebook.outputs(WIDGETS).locator(".noUi-handle")).to_be_visible(timeout=TIMEOUT)
    move(notebook)
    expect(notebook.outputs(WIDGETS)).to_contain_text("at 1", timeout=TIMEOUT)
    notebook.page.keyboard.press("Control+S")
    wait_until(lambda: "widget-view+json" in notebook.path.read_text("utf-8"), "the notebook is not saved")

    here = notebook.page.context
    with contextlib.closing(browser.new_context(storage_state=here.storage_state())) as there:
        page = there.new_page()
        page.set_default_timeout(TIMEOUT)
        page.goto(notebook.page.url)
        second = Notebook(page, notebook.path, "runtimed")
        for shown in ("at 1", "at 2"):
            expect(second.outputs(WIDGETS)).to_contain_text(shown, timeout=TIMEOUT)
            move(notebook)
        expect(second.outputs(WIDGETS).locator(".widget-readout")).to_have_text("3", timeout=TIMEOUT)
        move(second)
        # The slider of the tab that moved it before follows the other's, too.
        expect(notebook.outputs(WIDGETS).locator(".widget-readout")).to_have_text("4", timeout=TIMEOUT)
        expect(notebook.outputs(WIDGETS)).to_contain_text("at 4", timeout=TIMEOUT)
        page.reload()
        expect(second.outputs(WIDGETS)).to_contain_text("at 4", timeout=TIMEOUT)


def test_an_output_widget_and_a_progress_bar_show_what_happens_meanwhile(notebook: Notebook, gate: Path) -> None:
    gate.unlink()
    notebook.run(CAPTURED)
    expect(notebook.outputs(CAPTURED).first).to_contain_text("in the box", timeout=TIMEOUT)
    bar = notebook.outputs(CAPTURED).locator(".progress-bar")
    expect(bar).to_have_attribute("style", re.compile("width: 50%"))
    expect(notebook.prompt(CAPTURED)).to_have_text("[*]:")
    notebook.picture("shared-widgets")
    gate.touch()
    notebook.see_end(CAPTURED)
    expect(bar).to_have_attribute("style", re.compile("width: 100%"))
    expect(notebook.outputs(CAPTURED).first).to_have_text(re.compile("^in the box\n?$"))


def test_the_page_goes_on_when_the_daemon_is_killed(notebook: Notebook, gate: Path) -> None:
    gate.unlink(missing_ok=True)

    def lines() -> list[str]:
        return (notebook.outputs(NUMBERED).first.text_content() or "").splitlines()

    def kill_the_daemon() -> None:
        status = Client().status()
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)
        before = len(lines())
        wait_until(lambda: len(lines()) > before + 20, "the page does not go on")

    notebook.run(NUMBERED)
    notebook.run(NEVER)
    expect(notebook.outputs(NUMBERED)).to_contain_text("3\n", timeout=TIMEOUT)
    kill_the_daemon()
    notebook.page.reload()
    expect(notebook.prompt(NUMBERED)).to_have_text("[*]:", timeout=TIMEOUT)
    expect(notebook.outputs(NUMBERED)).to_contain_text("3\n", timeout=TIMEOUT)
    kill_the_daemon()  # now the page is attached to what it did not start
    gate.touch()
    notebook.see_end(NUMBERED)
    assert lines() == [str(number) for number in range(len(lines()))]
    expect(notebook.outputs(NEVER)).to_have_text(["never\n"], timeout=TIMEOUT)
    notebook.see_end(NEVER)
    notebook.see_idle()
    notebook.run(LIVE)
    expect(notebook.outputs(LIVE)).to_have_text(["first\nlast\n"], timeout=TIMEOUT)
    notebook.see_end(LIVE)


def test_a_restart_restarts_the_sessions_kernel(notebook: Notebook) -> None:
    with Session(str(notebook.path)) as session:
        before = session.run("import os; os.getpid()").value
        notebook.press("restart")
        notebook.page.get_by_role("button", name="Confirm Kernel Restart").click()
        wait_until(
            lambda: session.kernel_started and session.run("import os; os.getpid()").value != before, "no restart"
        )
        notebook.see_idle()
        notebook.run(NEVER)
        expect(notebook.outputs(NEVER)).to_have_text(["never\n"], timeout=TIMEOUT)
        expect(notebook.prompt(NEVER)).to_have_text(re.compile(r"\[\d+\]:"))


def test_a_file_that_is_kept_is_written_by_jupyterlab_alone_and_has_what_others_did_when_it_leaves(
    notebook: Notebook,
) -> None:
    path = notebook.path
    with Session(str(path), label="a colleague") as colleague:
        colleague.open_notebook(path)
        added = colleague.run("'by a colleague'").cell_id
        before = path.read_bytes()
        notebook.write(NEVER, "'typed in JupyterLab'")
        notebook.run(NEVER)
        expect(notebook.outputs(NEVER)).to_have_text(["'typed in JupyterLab'"], timeout=TIMEOUT)
        time.sleep(4)
        assert path.read_bytes() == before  # no question about a file that has changed on disk

        notebook.page.keyboard.press("Control+S")

        wait_until(lambda: "typed in JupyterLab" in path.read_text("utf-8"), "JupyterLab did not save")
        notebook.page.wait_for_timeout(2000)
        assert notebook.page.locator(".jp-Dialog").count() == 0
        sources = [cell.source for cell in colleague.get_cells()]
        assert "'typed in JupyterLab'" in sources
        assert colleague.status().file_notice is None
        assert added not in path.read_text("utf-8")
        assert colleague.get_cell_source(added) == "'by a colleague'"
