"""Environments are made once, are used only when complete, and leave nothing behind when they fail."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtimed import EnvironmentFailed
from runtimed.environments.recipes import Progress, UvRecipe
from runtimed.environments.store import MARKER, EnvironmentStore

RECIPE = UvRecipe(dependencies=("alpha",), files=(("uv.lock", "long"),))
STEP = Progress(step="install", message="Installing 1 package")


def fill(folder: Path) -> None:
    """Write what a complete environment has."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    (folder / "lib/python3.11/site-packages/ipykernel").mkdir(parents=True)
    (folder / "lib/python3.11/site-packages/ipykernel/__init__.py").touch()


class Maker:
    """Makes environments when it is told to, and counts."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.made = 0
        self.ended = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self._error = error

    async def __call__(self, folder: Path, report: Any, lock: int) -> None:
        self.made += 1
        os.mkdir(folder)  # noqa: PTH102  # fails if there is one
        report(STEP)
        self.begun.set()
        try:
            await self.go_on.wait()
        finally:
            self.ended += 1
        if self._error is not None:
            raise self._error
        fill(folder)


class Ear:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Progress] = []
        self.first = asyncio.Event()

    def __call__(self, progress: Progress) -> None:
        self.heard.append(progress)
        self.first.set()


def nobody(_progress: Progress) -> None:
    pass


def test_ten_who_ask_at_once_share_one_making_and_all_hear_of_it(tmp_path):
    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker()
        heard: list[list[Progress]] = [[] for _ in range(10)]
        asking = [asyncio.create_task(store.get(RECIPE, maker, hears.append)) for hears in heard[:9]]
        await maker.begun.wait()
        asking.append(asyncio.create_task(store.get(RECIPE, maker, heard[9].append)))
        await asyncio.sleep(0)
        maker.go_on.set()

        assert set(await asyncio.gather(*asking)) == {tmp_path / RECIPE.digest}
        assert (maker.made, heard) == (1, [[STEP]] * 10)
        assert await store.get(RECIPE, maker, nobody) == tmp_path / RECIPE.digest
        assert maker.made == 1

    asyncio.run(scene())


def test_a_marker_says_what_it_is_and_when_it_was_used(tmp_path):
    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker()
        maker.go_on.set()
        marker = await store.get(RECIPE, maker, nobody) / MARKER
        facts = json.loads(marker.read_text())
        assert facts.pop("made_at") == pytest.approx(marker.stat().st_mtime, abs=5)
        assert facts == {
            "kind": "UvRecipe",
            "dependencies": ["alpha"],
            "requires_python": None,
            "project": None,
            "python": None,
            "script": None,
            "folder": "",
        }
        os.utime(marker, (1, 1))
        await store.get(RECIPE, maker, nobody)
        assert marker.stat().st_mtime > 1

    asyncio.run(scene())


@pytest.mark.parametrize("error", [EnvironmentFailed("no such package"), OSError(28, "No space left on device")])
def test_what_fails_fails_for_all_who_wait_and_leaves_nothing(tmp_path, error):
    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker(error=error)
        maker.go_on.set()
        results = await asyncio.gather(*(store.get(RECIPE, maker, nobody) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [EnvironmentFailed] * 3
        assert all(str(error.args[-1]) in str(result) for result in results)
        assert (maker.made, [path.name for path in tmp_path.iterdir()]) == (1, [f"{RECIPE.digest}.lock"])

        again = Maker()
        again.go_on.set()
        assert (await store.get(RECIPE, again, nobody)).is_dir()

    asyncio.run(scene())


def test_it_is_made_on_while_one_of_those_who_asked_still_waits(tmp_path):
    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker()
        first, second = (asyncio.create_task(store.get(RECIPE, maker, nobody)) for _ in range(2))
        await maker.begun.wait()
        first.cancel()
        await asyncio.wait([first])
        assert maker.ended == 0
        maker.go_on.set()
        assert (await second).is_dir()

    asyncio.run(scene())


def test_when_nobody_waits_any_more_it_is_ended_and_what_was_made_is_removed(tmp_path):
    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker()
        asking = [asyncio.create_task(store.get(RECIPE, maker, nobody)) for _ in range(2)]
        await maker.begun.wait()
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        # Whoever comes now does not join what is being ended.
        newcomer = Maker()
        newcomer.go_on.set()
        folder = await store.get(RECIPE, newcomer, nobody)
        assert (maker.ended, newcomer.made) == (1, 1)
        assert store.find(RECIPE.digest) == folder

    asyncio.run(scene())


def test_closing_ends_what_is_in_the_making(tmp_path):
    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker()
        asking = asyncio.create_task(store.get(RECIPE, maker, nobody))
        await maker.begun.wait()
        await store.close()
        assert (maker.ended, (tmp_path / RECIPE.digest).exists()) == (1, False)
        await asyncio.wait([asking])

    asyncio.run(scene())


def test_closing_lets_a_making_end_that_is_being_ended_already(tmp_path):
    async def scene() -> None:
        store, begun, ending, ended = EnvironmentStore(tmp_path), asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slow_to_end(_folder: Path, _report: Any, _lock: int) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ending.set()
                await asyncio.sleep(0.05)
                ended.set()

        asking = asyncio.create_task(store.get(RECIPE, slow_to_end, nobody))
        await begun.wait()
        asking.cancel()
        await ending.wait()
        await store.close()
        assert ended.is_set()
        await asyncio.wait([asking])

    asyncio.run(scene())


@pytest.mark.parametrize("lost", ["marker", "interpreter", "kernel", "folder"])
def test_what_is_not_complete_is_made_anew(tmp_path, lost):
    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker()
        maker.go_on.set()
        folder = await store.get(RECIPE, maker, nobody)
        match lost:
            case "marker":
                (folder / MARKER).unlink()
            case "interpreter":
                (folder / "bin/python").unlink()
                (folder / "bin/python").symlink_to("/not/there")
            case "kernel":
                (folder / "lib/python3.11/site-packages/ipykernel/__init__.py").unlink()
            case "folder":
                folder.rename(tmp_path / "gone")
        assert store.find(RECIPE.digest) is None
        assert await store.get(RECIPE, maker, nobody) == folder
        assert (maker.made, store.find(RECIPE.digest)) == (2, folder)

    asyncio.run(scene())


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "environments").touch()
    store = EnvironmentStore(tmp_path / "environments")
    with pytest.raises(EnvironmentFailed, match=r"cannot be made in .*: .*; make room there, or name another data"):
        asyncio.run(store.get(RECIPE, Maker(), nobody))


DAEMON = """
import asyncio, subprocess, sys
from pathlib import Path
from runtimed.environments.recipes import UvRecipe
from runtimed.environments.store import EnvironmentStore

async def build(folder, report, lock):
    folder.mkdir()
    child = subprocess.Popen(["sleep", "1000"], pass_fds=(lock,), stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    await asyncio.Event().wait()

recipe = UvRecipe(dependencies=("alpha",), files=(("uv.lock", "long"),))
asyncio.run(EnvironmentStore(Path(sys.argv[1])).get(recipe, build, print))
"""


def test_a_daemon_killed_in_the_middle_leaves_nothing_that_is_used_and_nothing_that_interferes(tmp_path):
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    with daemon.stdout:
        installer = int(daemon.stdout.readline())
    daemon.kill()
    daemon.wait()

    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker()
        maker.go_on.set()
        ear = Ear()
        asking = asyncio.create_task(store.get(RECIPE, maker, ear))
        await ear.first.wait()
        # What the dead daemon started still writes there.
        assert ear.heard == [
            Progress(step="resolve", message="Waiting for another process that makes this environment")
        ]
        assert (maker.made, store.find(RECIPE.digest)) == (0, None)
        os.kill(installer, signal.SIGKILL)
        assert store.find((await asyncio.wait_for(asking, 30)).name) is not None
        assert maker.made == 1

    asyncio.run(scene())


def test_what_another_process_has_made_meanwhile_is_used(tmp_path):
    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker()
        with (tmp_path / f"{RECIPE.digest}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ear = Ear()
            asking = asyncio.create_task(store.get(RECIPE, maker, ear))
            await ear.first.wait()
            fill(tmp_path / RECIPE.digest)
            (tmp_path / RECIPE.digest / MARKER).touch()
        assert await asyncio.wait_for(asking, 30) == tmp_path / RECIPE.digest
        assert maker.made == 0

    asyncio.run(scene())
