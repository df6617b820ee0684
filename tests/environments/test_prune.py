"""Environments that nobody needs are removed, those that somebody uses or makes never; what is found is whole."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtimed.environments.prune import Keep, list_environments, prune
from runtimed.environments.recipes import UvRecipe
from runtimed.environments.store import MARKER, EnvironmentStore
from tests.environments.test_store import Maker, fill, nobody

NOW = 1_000_000_000.0
DAY = 86400.0

HOLDER = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


def make(folder: Path, name: str, days_ago: float = 0.0, size: int = 0, at: float = NOW) -> Path:
    """Write an environment; its name is a digit or letter that makes a digest."""
    path = folder / (name * 32)
    fill(path)
    (path / "payload").write_bytes(b"x" * size)
    facts = {"kind": "UvRecipe", "dependencies": [name], "project": None}
    (path / MARKER).write_text(json.dumps(facts))
    os.utime(path / MARKER, (at - days_ago * DAY, at - days_ago * DAY))
    return path


@contextmanager
def held_by_a_process(marker: Path) -> Iterator[None]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(marker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()


def names(folder: Path) -> str:
    return "".join(sorted(path.name[0] for path in folder.iterdir() if path.is_dir()))


def test_a_list_says_what_there_is_and_counts_each_file_once(tmp_path):
    new, old, used = make(tmp_path, "a", 1, 2**20), make(tmp_path, "b", 3, 2**19), make(tmp_path, "c", 9)
    os.link(new / "payload", new / "again")
    os.link(new / "payload", old / "linked")
    (tmp_path / ("d" * 32)).mkdir()
    with held_by_a_process(used / MARKER):
        found = list_environments(tmp_path)
    assert [(one.name[0], one.kind, one.packages, one.project, one.in_use) for one in found] == [
        ("c", "uv", ("c",), None, True),
        ("a", "uv", ("a",), None, False),
        ("b", "uv", ("b",), None, False),
    ]
    sizes = {one.name[0]: (one.size, one.own_size) for one in found}
    rest = sizes["c"][0]
    assert sizes["c"] == (rest, rest)
    assert sizes["a"] == pytest.approx((rest + 2**20, rest + 2**20), abs=2**15)
    assert sizes["b"] == pytest.approx((rest + 2**20 + 2**19, rest + 2**19), abs=2**15)
    assert found[1].used_at == NOW - DAY


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (Keep(), "abcd"),
        (Keep(seconds=5 * DAY), "abd"),
        (Keep(seconds=0), "d"),
        (Keep(count=3), "abd"),
        (Keep(count=0), "d"),
        (Keep(size=11 * 2**18), "abd"),
        (Keep(size=0), "d"),
    ],
)
def test_what_is_beyond_a_limit_goes_the_longest_unused_first_and_what_was_used_just_now_stays(tmp_path, keep, left):
    for name, days in (("a", 1.0), ("b", 3.0), ("c", 9.0), ("d", 10 / DAY)):
        make(tmp_path, name, days, 2**19 if name == "d" else 2**20)
    would = prune(tmp_path, keep, now=NOW, dry_run=True)
    assert names(tmp_path) == "abcd"
    did = prune(tmp_path, keep, now=NOW)
    assert (did, "".join(sorted(one.name[0] for one in did.kept))) == (would, left)
    assert (names(tmp_path), did.problems) == (left, [])


def test_what_a_process_uses_or_makes_stays_until_it_ends(tmp_path):
    used, made = make(tmp_path, "a", 99), make(tmp_path, "b", 99)
    (tmp_path / ("c" * 32)).mkdir()
    locks = [Path(f"{made}.lock"), tmp_path / f"{'c' * 32}.lock"]
    for lock in locks:
        lock.touch()
    with held_by_a_process(used / MARKER), held_by_a_process(locks[0]), held_by_a_process(locks[1]):
        assert prune(tmp_path, Keep(count=0), now=NOW).removed == []
        assert names(tmp_path) == "abc"
    assert len(prune(tmp_path, Keep(count=0), now=NOW).removed) == 2
    assert names(tmp_path) == ""


def test_what_a_killed_making_or_removal_has_left_goes_too(tmp_path):
    make(tmp_path, "a")
    fill(tmp_path / ("b" * 32))
    fill(tmp_path / f".removed-{'c' * 32}-1-2")
    (tmp_path / "of somebody else").mkdir()
    assert prune(tmp_path, Keep(), now=NOW).removed == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["a" * 32, "of somebody else"]


def test_where_nothing_was_made_there_is_nothing_to_do(tmp_path):
    assert (list_environments(tmp_path / "no"), prune(tmp_path / "no", Keep(count=0)).removed) == ([], [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
def test_what_cannot_be_removed_is_said(tmp_path):
    make(tmp_path, "a", 9)
    tmp_path.chmod(0o500)
    try:
        result = prune(tmp_path, Keep(count=0), now=NOW)
    finally:
        tmp_path.chmod(0o700)
    assert [problem.partition(": ")[0] for problem in result.problems] == [
        f"The environment {'a' * 32} cannot be removed"
    ]


def test_an_environment_that_is_asked_for_is_whole_whatever_is_removed_meanwhile(tmp_path):
    recipe = UvRecipe(dependencies=("alpha",))
    store = EnvironmentStore(tmp_path)
    ended = threading.Event()
    removed: list[object] = []

    def remove() -> None:
        while not ended.is_set():
            removed.extend(prune(tmp_path, Keep(count=0)).removed)

    async def build(folder: Path, report: object, lock: int) -> None:
        fill(folder)

    async def scene() -> None:
        for _ in range(200):
            folder = await store.get(recipe, build, nobody)
            # Used just now: from here on nobody removes it.
            marker = folder / MARKER
            with marker.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                assert os.path.samestat(os.fstat(file.fileno()), marker.stat())
                assert store.find(recipe.digest) == folder
                os.utime(marker, (1, 1))

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        asyncio.run(scene())
    finally:
        ended.set()
        thread.join()
    assert removed


def test_an_environment_that_was_removed_is_made_anew(tmp_path):
    async def scene() -> None:
        store, maker = EnvironmentStore(tmp_path), Maker()
        maker.go_on.set()
        recipe = UvRecipe(dependencies=("alpha",))
        folder = await store.get(recipe, maker, nobody)
        assert prune(tmp_path, Keep(count=0)).removed == []
        os.utime(folder / MARKER, (1, 1))
        assert [one.name for one in prune(tmp_path, Keep(count=0)).removed] == [recipe.digest]
        assert await store.get(recipe, maker, nobody) == folder
        assert maker.made == 2

    asyncio.run(scene())
