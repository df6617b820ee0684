"""A session's file has what the session has, and the session what others write into the file."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from runtimed import Client, NotebookFileError, Session
from runtimed.daemon.registry import Registry
from runtimed.daemon.upkeep.autosave import Autosave
from runtimed.ids import SessionId
from runtimed.notebook_file.merging import FileRecord
from runtimed.settings import read_settings
from runtimed.storage.notebook_files import lock_saving
from runtimed.storage.registry_store import RegistryStore
from tests.conftest import own_daemon, processes_of, wait_until
from tests.small_disk import SmallDisk, on_a_small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@contextlib.contextmanager
def kept_elsewhere() -> Iterator[Path]:
    """A data folder whose daemon keeps the files of its sessions."""
    folder = Path(tempfile.mkdtemp(prefix="rt"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIMED_AUTOSAVE", "on")
        with own_daemon(folder):
            yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def keeping() -> Iterator[Path]:
    """As `kept_elsewhere`, for all tests."""
    with kept_elsewhere() as folder:
        yield folder


@pytest.fixture
def session(keeping: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Session]:
    """A session whose file is `nb.ipynb` in the test's folder, with one cell, `1 + 1`."""
    with Session(request.node.name) as session:
        session.create_cell("1 + 1", cell_id="first")
        session.save(tmp_path / "nb.ipynb")
        yield session
        session.stop()


def sources(path: Path) -> dict[str, str]:
    """Id and source of each cell in a file; none if it is no notebook at the moment."""
    try:
        return {cell["id"]: "".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"]}
    except (ValueError, LookupError, OSError):
        return {}


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit a file as an editor does, which replaces it."""
    notebook = json.loads(path.read_text("utf-8"))
    change(notebook)
    other = path.with_name("other")
    other.write_text(json.dumps(notebook))
    other.replace(path)


def set_source(cell_id: str, source: str) -> Callable[[dict[str, Any]], object]:
    return lambda notebook: next(cell for cell in notebook["cells"] if cell["id"] == cell_id).update(source=source)


def notice_of(session: Session) -> str | None:
    return session.status().file_notice


def test_what_runs_is_in_the_file_soon_also_when_nobody_is_here(keeping, tmp_path):
    path = tmp_path / "nb.ipynb"
    with Session("left alone") as session:
        session.save(path)
        session.queue_cell(session.create_cell("import time; time.sleep(1); print('at last')"))
    wait_until(lambda: "at last\\n" in path.read_text("utf-8"), "the output is not in the file", timeout=40)
    status = Client().sessions.get("left alone")
    assert (status.peers, status.file, status.file_notice) == (0, str(path), None)
    Client().sessions.stop("left alone")


def test_a_file_that_has_everything_is_not_written_again(session, tmp_path):
    session.set_source("first", "2")
    wait_until(lambda: sources(tmp_path / "nb.ipynb") == {"first": "2"}, "it was not saved", timeout=40)
    before = (tmp_path / "nb.ipynb").stat()
    session.set_source("first", "3")
    session.set_source("first", "2")
    time.sleep(4)
    after = (tmp_path / "nb.ipynb").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_outside_edit_is_merged_with_what_the_session_changes_meanwhile(session, tmp_path):
    path = tmp_path / "nb.ipynb"
    session.create_cell("mine", cell_id="second")
    wait_until(lambda: "second" in sources(path), "it was not saved", timeout=40)

    edit(path, set_source("first", "1 + 2"))
    session.set_source("second", "still mine")

    wait_until(lambda: session.get_cell_source("first") == "1 + 2", "it was not merged", timeout=40)
    wait_until(lambda: sources(path) == {"first": "1 + 2", "second": "still mine"}, "they are not the same", timeout=40)
    assert notice_of(session) is None


def test_where_both_changed_a_cell_both_versions_stay_and_the_status_says_so(session, tmp_path):
    path = tmp_path / "nb.ipynb"
    session.set_source("first", "here")
    edit(path, set_source("first", "there"))

    wait_until(lambda: len(session.get_cell_ids()) == 2, "it was not merged", timeout=40)
    first, twin = session.get_cells()
    assert (first.source, twin.source) == ("here", "there")
    wait_until(lambda: list(sources(path).values()) == ["here", "there"], "they are not the same", timeout=40)
    assert notice_of(session) == (
        f"Cell first differs in the session and the file: the file's version is cell {twin.id}, behind it"
    )


@pytest.mark.parametrize(
    "content", ["", "{", '{"cells": [', "not a notebook", '{"nbformat": 9, "cells": []}', "\0" * 9]
)
def test_what_is_no_notebook_is_neither_taken_nor_overwritten(session, tmp_path, content):
    path = tmp_path / "nb.ipynb"
    whole = path.read_text("utf-8")
    path.write_text(content)
    wait_until(lambda: notice_of(session) is not None, "nobody was told", timeout=40)
    assert str(path) in str(notice_of(session))

    session.set_source("first", "2")
    time.sleep(3.5)

    assert path.read_text("utf-8") == content
    assert session.get_cell_source("first") == "2"
    path.write_text(whole)
    wait_until(lambda: sources(path) == {"first": "2"}, "it does not go on", timeout=40)
    # The file is there a moment before the daemon hears of it.
    wait_until(lambda: notice_of(session) is None, "it is said still", timeout=40)


def test_a_file_that_is_deleted_is_not_written_again_by_itself(session, tmp_path):
    path = tmp_path / "nb.ipynb"
    path.unlink()
    wait_until(lambda: notice_of(session) is not None, "nobody was told", timeout=40)
    assert "was deleted or moved" in str(notice_of(session))
    listed = subprocess.run([sys.executable, "-m", "runtimed", "sessions"], capture_output=True, text=True, check=True)
    assert f"{session.notebook_id}: {notice_of(session)}" in listed.stdout
    session.set_source("first", "2")
    time.sleep(3.5)
    assert not path.exists()

    session.save()

    assert sources(path) == {"first": "2"}
    wait_until(lambda: notice_of(session) is None, "it is said still", timeout=40)


def test_a_file_that_is_renamed_is_named_and_may_be_followed(session, tmp_path):
    new = tmp_path / "new.ipynb"
    session.set_source("first", "0")
    wait_until(lambda: sources(tmp_path / "nb.ipynb") == {"first": "0"}, "it was not saved", timeout=40)
    time.sleep(1)  # the process knows the file that it has written
    (tmp_path / "nb.ipynb").rename(new)
    wait_until(lambda: notice_of(session) is not None, "nobody was told", timeout=40)
    assert f"was renamed to new.ipynb: open_notebook({str(new)!r}) makes it" in str(notice_of(session))

    session.open_notebook(new)

    session.set_source("first", "2")
    wait_until(lambda: sources(new) == {"first": "2"}, "it was not followed", timeout=40)
    assert not (tmp_path / "nb.ipynb").exists()


@pytest.mark.parametrize("kind", ["folder", "link to another notebook", "link to itself"])
def test_a_file_that_is_replaced_by_something_else_is_left_alone(session, tmp_path, kind):
    path, other = tmp_path / "nb.ipynb", tmp_path / "another.ipynb"
    shutil.copy(path, other)
    edit(other, set_source("first", "theirs"))
    before = other.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(other if "another" in kind else path)

    session.create_cell("2", cell_id="second")
    time.sleep(4)

    assert other.read_bytes() == before
    assert path.is_symlink() or path.is_dir()
    wait_until(lambda: str(path) in str(notice_of(session)), "nobody was told", timeout=40)
    assert session.get_cell_ids() == ["first", "second"]


def test_what_an_editor_writes_itself_is_written_by_nobody_else_as_long_as_it_is_here(session, tmp_path):
    path = tmp_path / "nb.ipynb"
    (tmp_path / "link").symlink_to(tmp_path)
    editor = Session(session.notebook_id, label="an editor", writes_file=str(tmp_path / "link" / "nb.ipynb"))
    editor.connect()
    before = path.read_bytes()

    session.create_cell("2", cell_id="second")
    time.sleep(4)

    assert path.read_bytes() == before
    edit(path, set_source("first", "typed in the editor"))
    wait_until(lambda: session.get_cell_source("first") == "typed in the editor", "it was not merged", timeout=40)
    editor.close()
    wait_until(lambda: sources(path).get("second") == "2", "it was not saved", timeout=40)
    assert sources(path)["first"] == "typed in the editor"


def test_why_a_file_was_not_saved_is_not_said_where_an_editor_writes_it(session, tmp_path):
    path = tmp_path / "nb.ipynb"
    whole = path.read_text("utf-8")
    path.write_text("{")
    session.set_source("first", "2")
    time.sleep(3.5)  # nobody can save it
    wait_until(lambda: notice_of(session) is not None, "nobody was told", timeout=40)
    with Session(session.notebook_id, label="an editor", writes_file=str(path)):
        path.write_text(whole)
        wait_until(lambda: notice_of(session) is None, "it is said still", timeout=40)


def test_a_file_belongs_to_one_active_session(session, tmp_path):
    path = tmp_path / "nb.ipynb"
    with Session("another one") as other:
        other.create_cell("x", cell_id="theirs")
        with pytest.raises(NotebookFileError, match="is the file of the session .*, which is active: join that one"):
            other.open_notebook(path)
        with pytest.raises(NotebookFileError, match="is the file of the session"):
            other.save(path)
        assert other.get_cell_ids() == ["theirs"]
        assert other.status().file is None
        session.stop()

        other.open_notebook(path)

        assert other.status().file == str(path)
        wait_until(lambda: set(sources(path)) == {"theirs", "first"}, "it was not saved", timeout=40)
        session.connect()
        assert session.status().file is None
        assert notice_of(session) == (
            f"{path} is the file of the session 'another one' now: join that one, or save this one to another path"
        )
        session.save(tmp_path / "mine.ipynb")
        assert notice_of(session) is None
        other.stop()


def test_a_session_that_is_stopped_is_saved_before_the_call_returns(session, tmp_path):
    session.set_source("first", "the last word")
    session.stop()
    assert sources(tmp_path / "nb.ipynb") == {"first": "the last word"}


def test_what_changes_in_a_session_that_has_ended_is_saved_before_it_is_deleted(keeping, tmp_path):
    with Session("to be deleted") as session:
        session.create_cell("1 + 1", cell_id="first")
        session.save(tmp_path / "nb.ipynb")
        session.stop()
        session.connect()
        session.set_source("first", "the last word")
        Client().sessions.delete("to be deleted")
    assert sources(tmp_path / "nb.ipynb") == {"first": "the last word"}


def test_a_session_that_ends_by_itself_is_saved_at_once(keeping, tmp_path):
    path = tmp_path / "nb.ipynb"
    with Session(keep_alive=0.1) as session:
        session.run("0")
        session.create_cell("1", cell_id="first")
        session.save(path)
        with lock_saving(read_settings().files_dir, session.notebook_id):
            session.set_source("first", "2")
            time.sleep(5)  # the save waits for the lock, and is followed by ten times as long without one
        wait_until(lambda: sources(path).get("first") == "2", "it was not saved", timeout=40)
        session.set_source("first", "the last word")
    wait_until(lambda: sources(path).get("first") == "the last word", "it was not saved", timeout=15)


def test_saving_by_hand_and_by_itself_do_not_disturb_each_other(session, tmp_path):
    path, end, failures = tmp_path / "nb.ipynb", time.monotonic() + 12, []

    def save_by_hand() -> None:
        with Session(session.notebook_id) as other:
            while time.monotonic() < end:
                try:
                    other.save()
                except NotebookFileError as exc:
                    failures.append(exc)

    saver = threading.Thread(target=save_by_hand)
    saver.start()
    number = 0
    while time.monotonic() < end:
        number += 1
        session.set_source("first", f"edit {number}")
        time.sleep(0.05)
    saver.join()
    wait_until(lambda: sources(path) == {"first": f"edit {number}"}, "it was not saved", timeout=40)
    assert failures == []
    assert session.get_cell_ids() == ["first"]


def keepers(folder: Path) -> list[psutil.Process]:
    return [process for process in processes_of(folder) if "runtimed.autosave" in process.cmdline()]


def test_another_process_takes_over_if_one_is_killed(keeping, session, tmp_path):
    wait_until(lambda: len(keepers(keeping)) == 1, "there is none", timeout=40)
    (first,) = keepers(keeping)
    first.kill()
    session.set_source("first", "2")
    wait_until(lambda: sources(tmp_path / "nb.ipynb") == {"first": "2"}, "it was not saved", timeout=60)


def test_the_next_daemon_saves_what_a_killed_one_has_not(keeping, session, tmp_path):
    session.run("0")
    wait_until(lambda: len(keepers(keeping)) == 1, "there is none", timeout=40)
    (keeper,) = keepers(keeping)
    session.set_source("first", "2")
    daemon = Client().status()
    assert daemon is not None
    os.kill(daemon.pid, 9)
    keeper.wait(20)
    assert sources(tmp_path / "nb.ipynb")["first"] == "1 + 1"
    edit(tmp_path / "nb.ipynb", lambda notebook: notebook["metadata"].update(team="a"))
    Client().sessions.list()  # a kernel runs, so the next daemon comes, or is here
    session.connect()
    wait_until(lambda: sources(tmp_path / "nb.ipynb").get("first") == "2", "it was not saved", timeout=60)
    assert json.loads(str(session.get_metadata("notebook_metadata")))["team"] == "a"


def test_a_daemon_that_ends_saves_everything_first(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIMED_AUTOSAVE", "on")
    for number in range(3):
        with Session(f"s{number}") as session:
            session.create_cell("1", cell_id="first")
            session.save(tmp_path / f"{number}.ipynb")
            session.set_source("first", "2")
    Client().shutdown()
    assert [sources(tmp_path / f"{number}.ipynb") for number in range(3)] == [{"first": "2"}] * 3
    wait_until(lambda: not processes_of(data_dir), "a process lives on")


@on_a_small_disk
def test_a_full_or_read_only_disk_is_told_and_what_was_not_saved_is_saved_when_it_is_over(disk: SmallDisk) -> None:
    path = disk.folder / "nb.ipynb"
    with kept_elsewhere() as data, Session("s") as session:  # the data folder has room
        session.create_cell("1", cell_id="first")
        session.save(path)
        whole = path.read_bytes()
        disk.leave(0)
        session.set_source("first", "#" * 2**20)
        wait_until(lambda: notice_of(session) is not None, "nobody was told", timeout=40)
        assert re.search("nb.ipynb cannot be written: .*. What was there is unchanged", str(notice_of(session)))
        notices, tries, end = {notice_of(session)}, set[int](), time.monotonic() + 12
        while time.monotonic() < end:
            notices.add(notice_of(session))
            tries.add(disk.folder.stat().st_mtime_ns)
            time.sleep(0.1)
        (notice,) = notices
        assert len(tries) <= 3, "the one before, one after ten seconds, perhaps while it is tried"
        assert (data / "daemon.log").read_text("utf-8").count(str(notice)) == 1
        assert path.read_bytes() == whole
        disk.make_room()
        wait_until(lambda: sources(path) == {"first": "#" * 2**20}, "it was not saved", timeout=60)
        wait_until(lambda: notice_of(session) is None, "it is said still", timeout=40)

        disk.be(read_only=True)
        session.set_source("first", "2")
        wait_until(lambda: "ead-only" in str(notice_of(session)), "nobody was told", timeout=40)
        disk.be(read_only=False)
        wait_until(lambda: sources(path) == {"first": "2"}, "it was not saved", timeout=60)
        assert [one.name for one in disk.folder.iterdir() if "nb" in one.name] == ["nb.ipynb"]


def test_no_file_is_kept_where_that_is_turned_off(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIMED_AUTOSAVE", "off")
    with Session("s") as session:
        session.create_cell("1", cell_id="first")
        session.save(tmp_path / "nb.ipynb")
        session.set_source("first", "2")
        time.sleep(3)
        assert sources(tmp_path / "nb.ipynb") == {"first": "1"}
    assert keepers(data_dir) == []


def test_a_command_for_a_process_that_has_just_died_disturbs_nobody(tmp_path, monkeypatch):
    async def tell_the_dead(registry: Registry) -> None:
        process = await asyncio.create_subprocess_exec("true", stdin=PIPE)
        assert process.stdin is not None
        await process.wait()
        while not process.stdin.is_closing():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="closed"):
            process.stdin.write(b"x")
        autosave = Autosave(registry, time.time, lambda _session_id, _path: False, enabled=True)
        monkeypatch.setattr(autosave, "_process", process)  # its end is not noticed yet
        record = FileRecord(path="/a.ipynb", cells=[], metadata={})
        autosave.set_file(SessionId("s"), "/a.ipynb", record.text())
        assert registry.file("s") == record

    with RegistryStore(tmp_path / "registry.db") as store:
        uvloop.run(tell_the_dead(Registry(store, time.time, 10)))
