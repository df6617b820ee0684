"""The code blocks of the pages, run in order: scripts, cells of notebooks, and what is typed into a shell."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtimed.browser.find import find_chromium
from runtimed.errors import BrowserUnavailable
from tests.docs.pages import PAGES, ROOT, Block, blocks
from tests.ipython.conftest import Shell, shell, world

pytestmark = pytest.mark.slow

__all__ = ["shell", "world"]

SILENT = {"text"}
"""The language of blocks that say something and do nothing."""

RUN = {name: [block for block in blocks(path) if block.language not in SILENT] for name, path in PAGES.items()}

EXAMPLE = b"<!doctype html><title>Example</title><h1>Example Domain</h1><p><a href='/more'>More information...</a>"
"""What https://example.com shows."""


class _Example(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(EXAMPLE)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the base class calls it so
        pass


@pytest.fixture(scope="module")
def example() -> Iterator[str]:
    """The address of a site that stands for https://example.com: the tests ask nobody on the internet."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Example) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def folder(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data that the pages read, which is the working folder."""
    shutil.copy(ROOT / "notebooks" / "data" / "mauna_loa_co2.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNTIMED_ENV")  # readers have none: `auto` decides
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def needs_chromium(name: str) -> bool:
    return any("BrowserSession" in block.code for block in RUN[name])


def has_chromium() -> bool:
    try:
        find_chromium()
    except BrowserUnavailable:
        return False
    return True


def run_script(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def run_console(text: str) -> None:
    """Type each line behind a `$`, and compare what comes with what stands below it; `…` stands for anything."""
    for typed, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        done = subprocess.run(["bash", "-c", typed], capture_output=True, encoding="utf-8", timeout=90, check=False)
        assert done.returncode == 0, f"{typed}: {done.stdout}{done.stderr}"
        pattern = ".*".join(map(re.escape, expected.strip().split("…")))
        assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), f"{typed}: {done.stdout}"


def runner(block: Block, shell: Shell) -> Callable[[str], object]:
    match block.language:
        case "python" if block.code.startswith("%"):
            return shell.run
        case "python":
            return run_script
        case "console":
            return run_console
    raise AssertionError(f"line {block.line}: nothing here runs {block.language!r}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name, found in RUN.items() if found])
def test_the_blocks_of_a_page_run(name, folder, shell, example):
    if needs_chromium(name) and not has_chromium():
        pytest.skip("needs Chromium")
    for block in RUN[name]:
        if not block.why_not:
            runner(block, shell)(block.code.replace("https://example.com", example))


def test_every_block_has_a_language_and_says_why_it_does_not_run():
    found = [block for name in RUN for block in blocks(PAGES[name])]
    assert [block for block in found if block.language not in SILENT | {"python", "console", "sh"}] == []
    # A shell's block without output shows nothing to compare.
    assert [block for block in found if block.language == "sh" and not block.why_not] == []
