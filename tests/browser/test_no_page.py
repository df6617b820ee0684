"""Addresses that lead to something else than a page."""

from pathlib import Path

import pytest

from tests.browser.server import FOLDER


@pytest.mark.parametrize(
    ("path", "name", "content"),
    [("paper.pdf", "paper.pdf", b"%PDF-1.4\n"), ("download/report.txt", "report.txt", b"a report\n")],
)
def test_a_file_is_downloaded_and_its_path_is_given(browser, site, path, name, content):
    browser.goto(f"{site.url}/plain")

    result = browser.do("goto", url=f"{site.url}/{path}")

    file = Path(result.data["download"]["path"])
    assert file.read_bytes() == content
    assert file.suffix == Path(name).suffix
    assert result.data == {
        "url": f"{site.url}/plain",
        "status": None,
        "download": {
            "path": str(file), "suggested_filename": name, "url": f"{site.url}/{path}", "size": len(content),
        },
    }  # fmt: skip
    size = f"{len(content)} bytes"
    assert result.message.startswith(f"The address leads to a file. Downloaded {file.name} ({size}); ")
    assert result.message.endswith(f" stays at {site.url}/plain")
    assert browser.observe().title == "Plain"


def test_an_answer_without_a_page_is_told(browser, site):
    browser.goto(f"{site.url}/plain")

    result = browser.do("goto", url=f"{site.url}/nothing")

    assert result.data == {"url": f"{site.url}/plain", "status": 204}
    assert "The address answers 204, with no page; " in result.message
    assert browser.observe().title == "Plain"


def test_a_tab_that_is_opened_for_a_file_stays_empty(browser, site):
    result = browser.do("new_tab", url=f"{site.url}/paper.pdf")

    assert result.message.startswith(f"Opened {result.data}. The address leads to a file. Downloaded paper")
    assert browser.addresses() == ["about:blank"]


def test_the_file_that_a_tab_shows_is_saved(browser, site):
    browser.goto(f"{site.url}/leaks.js")

    result = browser.do("download_file")

    assert result.data["url"] == f"{site.url}/leaks.js"
    assert Path(result.data["path"]).read_bytes() == (FOLDER / "leaks.js").read_bytes()
