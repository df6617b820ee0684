"""A tab that is closed while its cell runs, and opened again: every line is there once, and the cell goes on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from runtimed import Session
from tests.conftest import wait_until
from tests.e2e.lab import CHROMIUM, TIMEOUT, Notebook, Opener, serving

pytestmark = [pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium"), pytest.mark.timeout(240)]

LOOP = """import os, time
number = 0
while not os.path.exists({!r}):
    print(number)
    number += 1
    time.sleep(0.05)
print('last', number)"""


def shown(notebook: Notebook, cell: int) -> list[str]:
    """The lines of a cell, as they are on the page."""
    return (notebook.outputs(cell).first.text_content() or "").splitlines()


def lines_shown(notebook: Notebook) -> int:
    """How many lines of the loop are on the page."""
    return len(shown(notebook, 0))


def printed(session: Session) -> int:
    """How many lines the loop has printed, whoever watches."""
    (cell,) = (cell for cell in session.get_cells() if cell.source.startswith("import os"))
    return sum((output.text or "").count("\n") for output in cell.outputs)


def goes_on(count: Callable[[], int], message: str, more: int) -> None:
    """Wait until so many more are counted."""
    before = count()
    wait_until(lambda: count() > before + more, message)


def test_every_line_is_there_once_and_the_cell_goes_on_though_the_server_dies(
    shared_daemon: Path, browser: Browser, tmp_path: Path
) -> None:
    gate, folder = tmp_path / "gate", (tmp_path / "notebooks").resolve()
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(serving(folder, tmp_path / "first"))
        opener = Opener(lab, folder, browser, stack, "runtimed")
        notebook = opener("loop.ipynb", LOOP.format(str(gate)), "'done'", "print('later')")
        session = stack.enter_context(Session(str(notebook.path)))
        notebook.run(1)
        notebook.see_end(1)
        for cell in (0, 2):
            notebook.run(cell)
        expect(notebook.outputs(0)).to_contain_text("3\n", timeout=TIMEOUT)
        for server_dies in (False, True):
            opener.leave()
            if server_dies:
                lab.server.kill()
                lab.server.wait()
                lab = stack.enter_context(serving(folder, tmp_path / "second"))
                opener = Opener(lab, folder, browser, stack, "runtimed")
            goes_on(partial(printed, session), "the cell does not go on without a page", 20)
            notebook = opener.again("loop.ipynb")
            expect(notebook.outputs(1)).to_have_text(["'done'"], timeout=TIMEOUT)  # was never saved
            expect(notebook.prompt(0)).to_have_text("[*]:", timeout=TIMEOUT)
            expect(notebook.outputs(0)).to_contain_text("0\n1\n2\n", timeout=TIMEOUT)
            status = notebook.page.locator(".runtimed-status")
            expect(status).to_have_text(
                re.compile(r"session loop\.ipynb · \d peers? · 2 cells run or wait"), timeout=TIMEOUT
            )
            notebook.picture(f"reopened-{server_dies}")
            goes_on(partial(lines_shown, notebook), "the cell does not go on in the page", 5)
        gate.touch()
        notebook.see_end(0)
        *numbers, last = shown(notebook, 0)
        assert numbers == [str(number) for number in range(len(numbers))]
        assert last == f"last {len(numbers)}"
        expect(notebook.outputs(2)).to_have_text(["later\n"], timeout=TIMEOUT)
        notebook.see_end(2)
        session.stop()
