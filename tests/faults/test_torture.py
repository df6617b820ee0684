"""Every file of a data folder is damaged in every way: the daemon starts, says so, and serves the rest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from runtimed import AsyncSession, Client, DaemonUnavailable, Session, StorageError
from runtimed.cli.doctor import examine
from runtimed.daemon.serving.daemon import Daemon
from runtimed.daemon.serving.server import own_data_folder, serve
from runtimed.ids import SessionId, stored_name
from runtimed.settings import read_settings
from tests.conftest import own_daemon, wait_until

pytestmark = pytest.mark.slow

LARGE = (
    "from IPython.display import display\ndisplay({'text/plain': 'large', 'text/x-large': 'y' * 2_000_000}, raw=True)"
)
PRINT = "for n in range(500): print('line', n, flush=True)"
SLOWLY = "import time\nfor n in range(200):\n    print('line', n, flush=True)\n    time.sleep(0.01)"

Cells = list[tuple[str, Any]]


@dataclass(frozen=True)
class Folder:
    """A data folder as its daemon and one host left it when they were killed.

    Attributes:
        path: Where it belongs; paths in it say so.
        copy: A copy of it.
        cells: By session, what everybody saw of its cells before.
    """

    path: Path
    copy: Path
    cells: dict[str, Cells]

    def restore(self) -> None:
        """Make everything as it was."""
        for path in self.path.iterdir():
            _remove(path)
        shutil.copytree(self.copy, self.path, dirs_exist_ok=True)

    def files(self) -> list[str]:
        """All files, as relative paths."""
        return sorted(str(path.relative_to(self.copy)) for path in self.copy.rglob("*") if path.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def cells_of(session: Session) -> Cells:
    return [(cell.source, cell.outputs) for cell in session.get_cells()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """The folder of three sessions: one ended, one that nobody uses, one whose host was killed with events to tell."""
    path, copy = Path(tempfile.mkdtemp(prefix="rt")), tmp_path_factory.mktemp("copy") / "data"
    cells: dict[str, Cells] = {}
    with own_daemon(path):
        with Session("ended") as session:
            for code in ("print('one')", LARGE, PRINT, "1 / 0"):
                session.run(code)
            session.stop()
            session.connect()
            cells["ended"] = cells_of(session)
        Client().shutdown()
        wait_until(lambda: not Client().is_running(), "the daemon lives on")
        with Session("quiet") as session:
            for n in range(20):
                session.create_cell(f"cell {n}")
            cells["quiet"] = cells_of(session)
        with Session("killed") as session:
            session.run("print('told')")
            execution_id = session.queue_cell(session.create_cell(SLOWLY))
            wait_until(lambda: session.get_cells()[1].outputs, "the cell does not begin")
            host, daemon = session.status().host_pid, Client().status()
            assert host is not None
            assert daemon is not None
            os.kill(daemon.pid, signal.SIGSTOP)
            spool = next(path.glob("run/*/*.events"))
            size = spool.stat().st_size
            wait_until(lambda: spool.stat().st_size > size + 5000, "the host keeps nothing")
            for pid in (daemon.pid, host):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: _is_gone(daemon.pid) and _is_gone(host), "a killed process lives on")
            for sock in path.glob("run/**/*"):
                if sock.is_socket():
                    sock.unlink()
            shutil.copytree(path, copy)
            assert not session.wait(execution_id).success
            cells["killed"] = cells_of(session)
    yield Folder(path, copy, cells)
    shutil.rmtree(path, ignore_errors=True)


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Daemon]:
    """A daemon in this process."""
    settings = read_settings()
    with own_data_folder(settings):
        daemon = Daemon(settings)
        ready = asyncio.Event()
        running = asyncio.create_task(serve(daemon, on_ready=ready.set))
        try:
            await asyncio.wait(
                {running, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED, timeout=20
            )
            yield daemon
        finally:
            daemon.request_end()
            await running


# --- damages ----------------------------------------------------------------------------------------------------------


def cut(share: float, less: int = 0) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        os.truncate(path, max(int(path.stat().st_size * share) - less, 0))

    return damage


def flip(where: Callable[[int], int]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        if data:
            data[min(max(where(len(data)), 0), len(data) - 1)] ^= 0x10
            path.write_bytes(data)

    return damage


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def at_random(seed: int) -> Callable[[int], int]:
    return lambda size: random.Random(seed).randrange(size)


DAMAGES: Final[dict[str, Callable[[Path], None]]] = {
    "emptied": cut(0),
    "half": cut(0.5),
    "one byte short": cut(1, 1),
    "a bit of the header": flip(lambda _size: 20),
    "a bit of the first page": flip(lambda _size: 110),
    "a bit of the middle": flip(lambda size: size // 2),
    "the last bit": flip(lambda size: size),
    **{f"a random bit, {n}": flip(at_random(n)) for n in range(2)},
    "a folder": become_folder,
}

TORN: Final = ("emptied", "half", "one byte short")
"""What a log looks like whose writer was killed: nobody can tell whether there was more."""

UNIMPORTANT: Final = ("lock", "daemon.log", "daemon.start", "host.log", "host.err", "kernel.json", "owner.json")
"""Files that hold nothing of the sessions, as long as the registry is there."""


async def look(name: str) -> tuple[list[str], Cells]:
    """Read a session as a client does, once more if that fails; return what was said, and its cells."""
    said: list[str] = []
    while True:
        session = AsyncSession(name)
        try:
            await session.connect()
            cells = await session.get_cells()
        except StorageError as exc:
            said.append(exc.message)
            assert len(said) == 1, said
        else:
            # It can be used, whatever it has lost.
            added = await session.create_cell("added")
            assert (await session.get_cell_ids()) == [*(cell.id for cell in cells), added]
            return said, [(cell.source, cell.outputs) for cell in cells]
        finally:
            await session.close()


def owner(file: str) -> str | None:
    """The session that a file belongs to; None for those that belong to all."""
    stem = Path(file).name.split(".")[0]
    names = {stored_name(SessionId(name)): name for name in ("ended", "quiet", "killed")}
    return names.get(stem) or ("ended" if file.startswith("blobs") else "killed" if file.endswith(".events") else None)


def problem_with(cells: Cells, expected: Cells, *, is_torn: bool, is_noticed: bool) -> str | None:
    """Say what is wrong with the cells of the session whose file was damaged."""
    if len(cells) > len(expected) or any(cell[0] != other[0] for cell, other in zip(cells, expected, strict=False)):
        return f"there are other cells than before: {cells}"
    if cells == expected or is_torn:
        return None
    if len(cells) < len(expected):
        return None if is_noticed else "cells are missing, and nobody says so"
    for (source, outputs), (_source, before) in zip(cells, expected, strict=True):
        names = [output.ename for output in outputs]
        if outputs != before and "StorageError" not in names and not is_noticed:
            return f"the outputs of {source!r} are others, and nobody says so: {outputs}"
    return None


@pytest.mark.timeout(600)
def test_whatever_is_damaged_the_daemon_starts_says_so_and_serves_the_rest(folder: Folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(folder.path))
    monkeypatch.delenv("RUNTIMED_SOCKET_PATH", raising=False)
    wrong: list[str] = []
    cases = [(file, kind) for file in folder.files() for kind in DAMAGES]
    cases = [
        (file, kind)
        for file, kind in cases
        if Path(file).name not in UNIMPORTANT or kind in ("emptied", "a bit of the middle", "a folder")
    ]
    for file, kind in cases:
        folder.restore()
        DAMAGES[kind](folder.path / file)
        if (file, kind) == ("lock", "a folder"):
            continue  # see below
        wrong += [f"{file}, {kind}: {problem}" for problem in asyncio.run(examine_sessions(folder, file, kind))]

    assert wrong == []
    assert {owner(file) for file, _kind in cases} == {None, "ended", "quiet", "killed"}
    assert len(cases) >= 100


async def examine_sessions(folder: Folder, file: str, kind: str) -> list[str]:
    """Start a daemon and look at every session; return what is wrong."""
    path = folder.path / file
    damaged = None if path.is_dir() else path.read_bytes()
    wrong: list[str] = []
    is_lost = False
    async with serving() as daemon:
        for name, expected in folder.cells.items():
            said, cells = await asyncio.wait_for(look(name), 20)
            if owner(file) != name:
                if said or cells != expected:
                    wrong.append(f"{name} is another one: said {said}, cells {cells}")
                continue
            is_lost = cells != expected
            is_torn = kind in TORN and file.endswith(("-wal", ".events"))
            problem = problem_with(cells, expected, is_torn=is_torn, is_noticed=bool(said or daemon.problems))
            if problem is not None:
                wrong.append(f"{name}: {problem}")
        is_told = bool(daemon.problems)
    aside = list(folder.path.rglob("*.damaged-*"))
    if is_told and is_lost and damaged:
        # Nothing that may still be of use was written over.
        files = [each for path in aside for each in (path.iterdir() if path.is_dir() else [path])]
        if damaged not in [each.read_bytes() for each in files]:
            wrong.append(f"what is damaged was not kept: {files}")
    if len([check for check in examine(read_settings()) if check.name == "damaged"]) != len(
        [path for path in aside if not path.name.endswith("-wal")]
    ):
        wrong.append(f"doctor does not name {aside}")
    return wrong


@pytest.mark.parametrize("file", ["lock", "daemon.log", "run/daemon.start"])
def test_what_stands_in_the_daemon_s_way_is_named(data_dir: Path, file: str):
    (data_dir / file).parent.mkdir(mode=0o700, exist_ok=True)
    (data_dir / file).mkdir()
    with pytest.raises(DaemonUnavailable) as info:
        Session("s").connect()
    assert str(data_dir / file) in str(info.value)
    assert "move it away" in str(info.value)
    _remove(data_dir / file)
    with Session("s") as session:
        session.create_cell("")
