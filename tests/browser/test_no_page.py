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
    browser.execute("goto", url="http://127.0.0.1:1/")
    again = browser.do("goto", url=f"{site.url}/nothing").message
    assert again == f"The address answers 204, with no page; {browser.observe().tab} shows no page"


def test_a_tab_that_is_opened_for_a_file_stays_empty(browser, site):
    result = browser.do("new_tab", url=f"{site.url}/paper.pdf")

    assert result.message.startswith(f"Opened {result.data}. The address leads to a file. Downloaded paper")
    assert browser.addresses() == ["about:blank"]


def test_the_file_that_a_tab_shows_is_saved(browser, site):
    browser.goto(f"{site.url}/leaks.js")

    result = browser.do("download_file")

    assert result.data["url"] == f"{site.url}/leaks.js"
    assert Path(result.data["path"]).read_bytes() == (FOLDER / "leaks.js").read_bytes()


DOWNLOADS_IN_A_LOOP = """let count = 0; setInterval(() => {
  const link = document.createElement('a');
  [link.href, link.download] = [`/download/loop${count}.txt`, `loop${count += 1}.txt`];
  link.click();
}, 150); 1"""
"""Few enough: of a frame Chromium begins ten downloads in a second, and says nothing of any other."""


@pytest.mark.parametrize("path", ["download/report.txt", "moved?/download/report.txt"])
def test_a_file_to_which_an_address_leads_is_not_what_the_page_downloads_meanwhile(browser, site, path):
    browser.goto(f"{site.url}/plain")
    browser.js(DOWNLOADS_IN_A_LOOP)

    result = browser.do("goto", url=f"{site.url}/{path}")

    assert result.data["download"]["url"] == f"{site.url}/download/report.txt"
    browser.goto("about:blank")  # the page ends, and its downloads with it


def test_an_address_leads_to_its_page_whatever_the_page_before_downloads(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.js(DOWNLOADS_IN_A_LOOP)

    result = browser.do("goto", url=f"{site.url}/late")

    assert (result.data, browser.observe().title) == ({"url": f"{site.url}/late", "status": 200}, "Late")


def test_what_a_tab_shows_is_saved_and_not_what_it_downloads_meanwhile(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.js(DOWNLOADS_IN_A_LOOP)

    assert browser.do("download_file").data["url"] == f"{site.url}/plain"
    browser.goto("about:blank")  # the page ends, and its downloads with it


def test_what_begins_no_download_is_told_with_what_came_instead(browser, site, monkeypatch):
    monkeypatch.setattr("runtimed.browser.fetching._BEGINS", 0.2)
    browser.goto(f"{site.url}/plain")
    browser.js("document.body.innerHTML = '<a href=/nothing>Nothing</a><a href=/form>Form</a>'")

    nothing = browser.execute("download_file", selector="text=Nothing")
    page = browser.execute("download_file", selector="text=Form")
    browser.do("goto", url="about:blank")
    blank = browser.execute("download_file")

    begins = "That begins no download:"
    assert [result.message for result in (nothing, page, blank)] == [
        f"{begins} the answer was 204, with no file; timeout= waits longer",
        f"{begins} the tab is at {site.url}/form; timeout= waits longer",
        f"{browser.observe().tab} shows nothing that could be saved: no address was loaded there",
    ]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("javascript:document.title = 1", "javascript: addresses are not opened; evaluate_js runs code in the page"),
        ("", "There is no address: url is empty"),
        ("foo bar", "'foo bar' is no address: a host has no spaces"),
        ("mailto:a@b.c", "mailto:a@b.c was not opened: mailto: addresses are not opened"),
    ],
)
def test_an_address_that_leads_to_no_page_is_refused(browser, url, says):
    result = browser.execute("goto", url=url)

    assert (result.success, result.error, result.message) == (False, "Refused", says)
