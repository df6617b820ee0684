"""Files and folders of this machine that are given to pages: by inputs, by choosers, dropped on zones."""

from pathlib import Path

import pytest

from runtimed.actions import DropFiles, UploadFile


@pytest.fixture
def page(browser, site):
    browser.goto(f"{site.url}/handing")
    return browser


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two files, one of them in a folder of its own."""
    (tmp_path / "folder" / "deeper").mkdir(parents=True)
    (tmp_path / "folder" / "one.txt").write_text("1")
    (tmp_path / "folder" / "deeper" / "two.txt").write_text("2")
    return tmp_path / "folder"


def given(page, element):
    return page.js(f"[...{element}.files].map(file => file.webkitRelativePath || file.name).sort()")


def test_files_are_given_to_an_input_and_to_what_opens_a_chooser_as_texts_and_as_paths(page, files):
    one, two = files / "one.txt", files / "deeper" / "two.txt"

    page.do("upload_file", selector="#papers", path=[str(one), two])
    assert given(page, "papers") == ["one.txt", "two.txt"]
    page.do(UploadFile(role="button", name="Choose papers", path=two))
    assert given(page, "papers") == ["two.txt"]
    assert page.do("upload_file", selector="#papers", path=[]).message == "Took all files from #papers"
    assert given(page, "papers") == []


def test_a_folder_is_given_to_an_input_and_to_what_opens_a_chooser_for_one(page, files):
    whole = ["folder/deeper/two.txt", "folder/one.txt"]

    page.do("upload_file", selector="#album", path=files)
    assert given(page, "album") == whole
    page.do("upload_file", selector="#album", path=[])
    page.do("upload_file", role="button", name="Choose album", path=files)
    assert given(page, "album") == whole


def test_what_cannot_be_given_is_refused_and_says_why(page, site, files):
    says = {
        ("upload_file", "#papers", "three.txt"): "There is no file or folder '",
        ("upload_file", "#papers", "."): "#papers takes files, and no folders: '",
        ("upload_file", "text=Choose papers", "."): "text=Choose papers takes files, and no folders: '",
        (
            "upload_file",
            "#album",
            "one.txt",
        ): "#album takes one folder, and no files: give the path of a folder",
        (
            "upload_file",
            "#zone",
            "one.txt",
        ): "#zone is no file input, and a click on it opens no file chooser; drop_files",
        ("drop_files", "#zone", "three.txt"): "There is no file or folder '",
        (
            "drop_files",
            "#none",
            "one.txt",
        ): "The page takes no files at #none: nothing there accepts what is dragged",
        ("drop_files", "#refusing", "one.txt"): "The page takes no files at #refusing: nothing there accepts what",
    }

    for (action, selector, path), sentence in says.items():
        result = page.execute(action, selector=selector, path=files / path, timeout=3)

        assert (result.success, result.error) == (False, "Refused")
        assert sentence in result.message
        assert page.observe().url == f"{site.url}/handing"
        assert page.js("got") == [], sentence
        assert given(page, "papers") == given(page, "album") == [], sentence


def test_files_and_folders_are_dropped_as_a_person_does_wherever_the_zone_is(page, files):
    done = page.do(DropFiles(selector="#zone", path=[files / "one.txt", files / "deeper"]))
    page.do("drop_files", selector="#below", path=files / "one.txt")
    page.do("drop_files", selector="#inside", path=files / "one.txt")

    assert done.message == "Dropped one.txt, deeper on #zone"
    page.do("drop_files", selector="#page", path=files / "one.txt")
    arrived = "new Promise(done => { const look = () => got.length > 3 ? done(got) : setTimeout(look, 5); look() })"
    assert sorted(page.js(arrived), key=lambda one: one[0]) == [
        ["below", True, ["1"], ["/one.txt"]],
        ["inside", "one.txt"],
        ["late", "one.txt"],
        ["zone", True, ["1", None], ["/one.txt", "/deeper/two.txt"]],
    ]
