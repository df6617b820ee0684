"""Deletion with a daemon that dies in the midst of it: the session is there, or nothing of it."""

import asyncio
import functools
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from runtimed import AsyncClient, AsyncSession, BrowserSession, Client, RuntimedError, Session, StorageError
from runtimed.daemon.hosting.folder import new_host_folder
from runtimed.daemon.hosting.launcher import Owner
from runtimed.daemon.upkeep import deletion
from runtimed.daemon.upkeep.retention import GRACE
from runtimed.errors import SessionNotFound
from runtimed.ids import SessionId, stored_name
from runtimed.settings import read_settings
from runtimed.storage.registry_store import RegistryStore
from tests.daemon.conftest import daemon_with_a_clock, look


def files_of(folder: Path, session_id: str) -> list[Path]:
    return sorted(folder.rglob(f"*{stored_name(SessionId(session_id))}*"))


async def make(name: str) -> None:
    async with AsyncSession(name) as session:
        await session.create_cell("its cell")
        await session.stop()


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(test(*arguments, **fixtures))

    return run


DYING = """
import os, signal, sys
from runtimed.daemon.upkeep import deletion
from runtimed.daemon.registry import Registry
from runtimed.daemon.__main__ import main

def die(*_args):
    os.kill(os.getpid(), signal.SIGKILL)

place, name = {place!r}
target = {{"deletion": deletion, "registry": Registry}}[place]
setattr(target, name, die)
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("place", "stays"),
    [(("registry", "delete"), True), (("deletion", "_remove_files"), False), (("deletion", "_remove_folders"), False)],
    ids=["before it counts", "before the files", "before the folders"],
)
def test_a_daemon_that_is_killed_leaves_all_of_it_or_nothing(place: tuple[str, str], stays: bool, data_dir: Path):
    for name in ("gone", "kept"):
        with Session(name) as session:
            session.create_cell(f"a cell of what is {name}")
            session.stop()
    Client().shutdown()
    code = DYING.format(place=place)
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    with pytest.raises(RuntimedError):
        Client().sessions.delete("gone")
    assert not Client().is_running()
    if stays:
        with Session("gone") as session:
            assert [cell.source for cell in session.get_cells()] == ["a cell of what is gone"]
        Client().sessions.delete("gone")
    with Session("kept") as session:
        assert [cell.source for cell in session.get_cells()] == ["a cell of what is kept"]
        with pytest.raises(SessionNotFound):
            Client().sessions.get("gone")
    assert files_of(data_dir, "gone") == []
    with Session("gone") as session:
        assert session.get_cells() == []


@in_a_loop
async def test_what_cannot_be_removed_is_said_and_removed_by_the_next_daemon(data_dir: Path, monkeypatch):
    async with daemon_with_a_clock() as (_clock, daemon):
        await make("gone")
        with monkeypatch.context() as patch:

            def refuse(*_arguments: object) -> list[Path]:
                raise PermissionError(13, "Permission denied")

            patch.setattr(deletion, "_remove_files", refuse)
            with pytest.raises(StorageError, match="'gone' is deleted, but not all of its files can be removed"):
                await AsyncClient().sessions.delete("gone")
        assert any("'gone' is deleted" in problem for problem in daemon.problems)
    assert files_of(data_dir, "gone") != []
    async with daemon_with_a_clock() as (_clock, daemon):
        assert files_of(data_dir, "gone") == []
        assert list(daemon.problems) == []


@in_a_loop
async def test_an_id_that_was_begun_anew_keeps_its_files_at_the_next_start(data_dir: Path):
    async with daemon_with_a_clock():
        await make("again")
        await AsyncClient().sessions.delete("again")
        await make("again")
    async with daemon_with_a_clock(), AsyncSession("again") as session:
        assert [cell.source for cell in await session.get_cells()] == ["its cell"]
    # Not even if its row is lost.
    with RegistryStore(data_dir / "registry.db") as store:
        assert store.deleted() == []
    with sqlite3.connect(data_dir / "registry.db") as raw:
        raw.execute("DELETE FROM sessions")
    raw.close()
    async with daemon_with_a_clock(), AsyncSession("again") as session:
        assert [cell.source for cell in await session.get_cells()] == ["its cell"]


@in_a_loop
async def test_what_was_set_aside_and_what_a_dead_host_has_left_go_too(data_dir: Path):
    settings = read_settings()
    async with daemon_with_a_clock():
        await make("gone")
        name = stored_name(SessionId("gone"))
        (data_dir / "sessions" / f"{name}.db.damaged-20260101T000000.000000Z").write_bytes(b"damaged")
        owner = Owner(notebook_id="gone", epoch="e", kernel_type="python", env_source="current")
        folder = new_host_folder(settings.hosts_dir, owner)
        other = new_host_folder(settings.hosts_dir, Owner(notebook_id="x", epoch="f", kernel_type="", env_source=""))
        await AsyncClient().sessions.delete("gone")
        assert files_of(data_dir, "gone") == []
        assert (folder.exists(), other.exists()) == (False, True)


@in_a_loop
async def test_its_large_values_go_a_day_later_but_for_those_that_another_session_has(data_dir: Path, monkeypatch):
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "1e12")
    show = "from IPython.display import display\ndisplay({{'text/plain': {!r} * 400_000}}, raw=True)"
    async with daemon_with_a_clock() as (clock, daemon):
        async with AsyncSession("gone") as session:
            await session.run(show.format("own"))
            await session.run(show.format("our"))
            await session.stop()
        async with AsyncSession("kept") as session:
            await session.run(show.format("our"))
        assert len(set(daemon.blobs.older_than(float("inf")))) == 2
        await AsyncClient().sessions.delete("gone")
        clock.now += GRACE + 60
        await look(daemon)
        async with AsyncSession("kept") as session:
            (blob,) = daemon.blobs.older_than(float("inf"))
            assert (await session.get_cells())[0].outputs[0].data == {"text/plain": "our" * 400_000}
        assert daemon.blobs.size(blob) == 1_200_000


def test_a_browser_session_goes_with_its_profile(data_dir: Path):
    with BrowserSession("shop") as session:
        session.execute(type="goto", url="data:text/html,<title>One</title>")
    assert files_of(data_dir, "shop") != []
    Client().sessions.delete("shop")
    assert files_of(data_dir, "shop") == []
    assert list((data_dir / "browsers").iterdir()) == []
    with pytest.raises(SessionNotFound):
        Client().sessions.get("shop")
    with Session("shop") as session:  # of the other kind, as if the id had never been used
        session.create_cell("1")
    assert Client().sessions.get("shop").kind == "kernel"


@in_a_loop
async def test_a_session_whose_host_is_out_of_reach_is_not_deleted(data_dir: Path, monkeypatch):
    monkeypatch.setattr(deletion, "ENDING_DEADLINE", 0.2)
    settings = read_settings()
    async with daemon_with_a_clock():
        await make("lost")
        owner = Owner(notebook_id="lost", epoch="e", kernel_type="python", env_source="current")
        folder = new_host_folder(settings.hosts_dir, owner)
        code = (
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
            "print('locked', flush=True); sys.stdin.read()"
        )
        holder = await asyncio.create_subprocess_exec(sys.executable, "-c", code, folder / "lock", stdin=-1, stdout=-1)
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"locked\n"
        with pytest.raises(RuntimedError, match="its host is out of reach and still runs"):
            await AsyncClient().sessions.delete("lost")
        holder.kill()
        await holder.wait()
        assert (await AsyncClient().sessions.get("lost")).status == "closed"
        await AsyncClient().sessions.delete("lost")
        assert not folder.exists()
