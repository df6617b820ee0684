"""A notebook file is replaced whole, or not at all."""

import os
import time
from pathlib import Path

import pytest

from runtimed.errors import NotebookFileError
from runtimed.storage.notebook_files import read_file, replace_file
from tests.small_disk import SmallDisk, on_a_small_disk


@on_a_small_disk
def test_on_a_full_disk_the_old_file_stays_whole(disk: SmallDisk) -> None:
    folder = disk.folder / "notebooks"
    folder.mkdir()
    path = folder / "a.ipynb"
    path.write_bytes(b"before")
    disk.leave(2**16)
    with pytest.raises(NotebookFileError, match=r"a.ipynb cannot be written: No space left .* is unchanged") as caught:
        replace_file(path, b"x" * 2**20, path.stat())
    assert caught.value.path == str(path)
    assert (path.read_bytes(), list(folder.iterdir())) == (b"before", [path])


@pytest.mark.parametrize("change", ["rewritten", "replaced", "gone", "there"])
def test_a_file_that_changes_while_it_is_saved_is_not_overwritten(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.ipynb"
    if change != "there":
        path.write_bytes(b"before")
    former = path.stat() if path.exists() else None
    if change == "replaced":
        (tmp_path / "new").write_bytes(b"before")
        (tmp_path / "new").replace(path)
    elif change == "gone":
        path.unlink()
    else:
        path.write_bytes(b"by somebody else")
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(NotebookFileError, match="was changed while it was being saved, and was not overwritten"):
        replace_file(path, b"after", former)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files


def test_a_name_of_the_greatest_length_can_be_saved(tmp_path: Path) -> None:
    path = tmp_path / f"{'é' * 124}.ipynb"
    replace_file(path, b"after", None)
    assert path.read_bytes() == b"after"


def test_what_killed_saves_of_the_file_have_left_is_deleted_after_a_minute(tmp_path: Path) -> None:
    path, now = tmp_path / "a+b.ipynb", time.time()
    ages = {
        ".a+b.ipynb.0123456789abcdef.tmp": 70,
        ".a+b.ipynb.1123456789abcdef.tmp": 30,  # somebody may write it still
        ".a+b.ipynb.mine.tmp": 70,
        ".aab.ipynb.0123456789abcdef.tmp": 70,
        ".a+b.ipynb.0123456789abcdef.tmp.ipynb": 70,
    }
    for name, age in ages.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - age, now - age))
    replace_file(path, b"after", None)
    assert {file.name for file in tmp_path.iterdir()} == {"a+b.ipynb", *list(ages)[1:]}


def test_a_folder_that_is_not_there_and_one_that_admits_no_file_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "a.ipynb", tmp_path / "file" / "a.ipynb", Path("/proc/a.ipynb")):
        assert read_file(path) is None
        with pytest.raises(NotebookFileError, match=r"a.ipynb cannot be written: [A-Z].* is unchanged"):
            replace_file(path, b"after", None)
