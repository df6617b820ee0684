"""Stores environments: one folder each, named by the digest of its recipe, made once for all, used only when complete.

An environment is made in its final place, since its files contain the path. A marker is written last: a folder without
one is unfinished, and is made again. Nothing here knows how an environment is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from runtimed.environments.recipes import Progress, Recipe, Report
from runtimed.errors import EnvironmentFailed

__all__ = ["MARKER", "Build", "EnvironmentStore"]

logger = logging.getLogger(__name__)

MARKER: Final = "runtimed.json"
"""File that marks an environment as complete, and describes it. Its modification time is that of the last use; users of
the environment hold a shared lock on it.
"""

LOCK_POLL: Final = 0.05
"""Seconds between two attempts to take a lock that another process holds."""

Build = Callable[[Path, Report, int], Awaitable[None]]
"""Makes an environment in an empty place that does not exist yet. Gets the folder, whom to tell, and the descriptor of
the lock, which every process that writes to the folder must inherit: so the lock outlives a daemon that is killed as
long as anything of the making does."""


@dataclass
class _Making:
    """An environment that is being made, and its waiters."""

    reports: list[Report] = field(default_factory=list)
    last: Progress | None = None
    task: asyncio.Task[Path] | None = None

    def report(self, progress: Progress) -> None:
        self.last = progress
        for report in list(self.reports):
            report(progress)


class EnvironmentStore:
    """The environments below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._making: dict[str, _Making] = {}
        self._tasks: set[asyncio.Task[Path]] = set()

    def find(self, digest: str) -> Path | None:
        """Return the folder of a complete environment; None if it has to be made."""
        folder = self._folder / digest
        python = folder / "bin" / "python"
        # A part of it, or the Python that it is built on, may have been deleted.
        if not (folder / MARKER).is_file() or not os.access(python, os.X_OK):
            return None
        kernel = None
        # An environment that is being removed vanishes folder by folder, and is not found either.
        with contextlib.suppress(FileNotFoundError):
            kernel = next(folder.glob("lib/python3*/site-packages/ipykernel/__init__.py"), None)
        return None if kernel is None else folder

    async def get(self, recipe: Recipe, build: Build, report: Report) -> Path:
        """Return the folder of an environment, made if missing; concurrent callers share one making.

        When all waiters are cancelled, the making ends and its leftovers are removed.

        Raises:
            EnvironmentFailed: If it cannot be made; nothing of it is left.
        """
        digest = recipe.digest
        ready = self._claim(digest)
        if ready is not None:
            return ready
        making = self._making.get(digest)
        if making is None:
            making = self._making[digest] = _Making()
            task = making.task = asyncio.get_running_loop().create_task(self._make(recipe, build, making.report))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif making.last is not None:
            report(making.last)
        assert making.task is not None  # noqa: S101  # set above
        making.reports.append(report)
        try:
            return await asyncio.shield(making.task)
        finally:
            making.reports.remove(report)
            if not making.reports:
                # A new waiter must not join a making that is ended or being ended.
                if self._making.get(digest) is making:
                    del self._making[digest]
                making.task.cancel()

    def _claim(self, digest: str) -> Path | None:
        """Find an environment and set its time of use, so that it is not removed before its user has locked it."""
        folder = self.find(digest)
        if folder is None:
            return None
        try:
            fd = os.open(folder / MARKER, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # A removal holds the lock only while it renames the folder.
            fcntl.flock(fd, fcntl.LOCK_SH)
            os.utime(fd)
            return folder if os.path.samestat(os.fstat(fd), os.stat(folder / MARKER)) else None  # noqa: PTH116
        except FileNotFoundError:
            return None
        finally:
            os.close(fd)

    async def close(self) -> None:
        """Cancel all makings, and wait for their end."""
        for task in self._tasks:
            # A making without waiters is being ended already; that must not be cancelled, too.
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _make(self, recipe: Recipe, build: Build, report: Report) -> Path:
        folder = self._folder / recipe.digest
        try:
            self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            lock = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise _cannot_write(folder, exc) from exc
        try:
            await self._wait_for(lock, report)
            # The previous holder of the lock may have made it.
            ready = self._claim(recipe.digest)
            if ready is None:
                await self._make_alone(folder, recipe, build, report, lock)
        finally:
            os.close(lock)
        return folder

    async def _make_alone(self, folder: Path, recipe: Recipe, build: Build, report: Report, lock: int) -> None:
        complete = False
        try:
            await asyncio.to_thread(_remove, folder)
            await build(folder, report, lock)
            _mark(folder, recipe)
            complete = True
        except OSError as exc:
            raise _cannot_write(folder, exc) from exc
        finally:
            if not complete:
                # The lock is released after it, though this task is being cancelled.
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    @staticmethod
    async def _wait_for(lock: int, report: Report) -> None:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    report(Progress(step="resolve", message="Waiting for another process that makes this environment"))
                    told = True
                await asyncio.sleep(LOCK_POLL)
            else:
                return


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _mark(folder: Path, recipe: Recipe) -> None:
    """Mark an environment as complete, atomically even across a power cut."""
    facts: dict[str, Any] = {"made_at": time.time(), "kind": type(recipe).__name__, **_summary(recipe)}
    scratch = folder / f"{MARKER}.part"
    with scratch.open("w") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(folder / MARKER)


def _summary(recipe: Recipe) -> dict[str, Any]:
    # Lock files are long, and `digest` identifies them already.
    return {key: value for key, value in asdict(recipe).items() if key not in {"files", "lock"}}


def _cannot_write(folder: Path, exc: OSError) -> EnvironmentFailed:
    return EnvironmentFailed(
        f"The environment cannot be made in {folder}: {exc.strerror or exc}; make room there, or name another data "
        "folder with RUNTIMED_DATA_DIR",
        path=str(folder),
    )
