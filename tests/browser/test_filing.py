"""Where downloads end: on other file systems, under long names, and where they cannot be stored."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from runtimed.browser import filing
from tests.browser.conftest import browsing


@pytest.fixture
def elsewhere():
    """A folder on another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second file system here")
    folder = Path(tempfile.mkdtemp(prefix="rt", dir=memory))
    yield folder
    shutil.rmtree(folder)


def offer(browser, name):
    """Show a link to a download."""
    link = "Object.assign(document.createElement('a'), {href: 'data:text/plain,x', textContent: 'Get', download: name})"
    browser.js(f"(name => document.body.replaceChildren({link}))({name!r})")


def test_downloads_reach_a_folder_on_another_file_system_and_what_cannot_be_stored_is_said(run, elsewhere):
    folder = elsewhere / "downloads"
    with browsing(run, downloads_dir=str(folder)) as browser:
        partial = browser.folder / "partial"
        offer(browser, "漢" * 120 + ".pdf")
        found = [browser.do("download_file", selector="a").data["path"] for _ in range(2)]
        assert found == [str(folder / ("漢" * count + end)) for count, end in ((83, ".pdf"), (82, " (1).pdf"))]
        assert [Path(path).read_text() for path in found] == ["x", "x"]
        assert sorted(folder.iterdir()) == sorted(map(Path, found))

        shutil.rmtree(folder)
        browser.do("download_file", selector="a")  # into a new one
        shutil.rmtree(folder)
        folder.write_text("in the way")
        failed = browser.execute("download_file", selector="a")

        assert (failed.success, failed.error) == (False, "Refused")
        assert failed.message.endswith(f" failed: it cannot be stored in {folder}: File exists")
        assert failed.message.removeprefix("The download of data:text/plain,x") in browser.heard.entries[-2].text
        assert list(partial.iterdir()) == []


@pytest.mark.parametrize(
    ("suggested", "names"),
    [
        ("report.pdf", ["report.pdf", "report (1).pdf", "report (2).pdf"]),
        ("../../.ssh/authorized_keys", ["_.._.ssh_authorized_keys", "_.._ (1).ssh_authorized_keys"]),
        (".bashrc", ["bashrc", "bashrc (1)"]),
        ("\x00\x1f\x7f\\/", ["_"]),
        ("...", ["download"]),
        ("", ["download", "download (1)"]),
        ("no ending", ["no ending", "no ending (1)"]),
        ("\ud800.txt", ["?.txt"]),
        ("a" * 300, ["a" * 255, "a" * 251 + " (1)"]),
        ("a." + "b" * 300, ["a." + "b" * 253]),
        ("漢" * 120, ["漢" * 85]),
        ("é" * 200 + ".tar.gz", ["é" * 126 + ".gz", "é" * 124 + " (1).gz"]),
        ("🎉" * 100 + ".zip", ["🎉" * 62 + ".zip"]),
    ],
)
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_gets_a_name_that_is_free_harmless_and_short_enough(tmp_path, monkeypatch, suggested, names, links):
    if not links:

        def refuse(path, target):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    found = []
    for number in range(len(names)):
        file = tmp_path / "whole"
        file.write_text(str(number))
        found.append(filing.move_into(tmp_path / "folder", file, suggested))
        assert not file.exists()

    assert [path.name for path in found] == names
    assert [path.read_text() for path in found] == [str(number) for number in range(len(names))]


def test_of_a_file_that_cannot_be_copied_nothing_stays(elsewhere, tmp_path, monkeypatch):
    def fail(source, target):
        Path(target).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fail)
    file = tmp_path / "whole"
    file.write_text("x")

    with pytest.raises(OSError, match="No space left"):
        filing.move_into(elsewhere, file, "report.pdf")

    assert list(elsewhere.iterdir()) == list(tmp_path.iterdir()) == []
