"""Evicts environments: those unused for long, and the least recently used (LRU) beyond the limits; never one in use.

Three rules keep removal and use apart. A user of an environment holds a shared lock on its marker; removal takes
that lock exclusively, and the lock of the making. A user first sets the marker's time, under the shared lock; removal
checks that time under its own lock, and skips what was used just now. A folder is renamed before
anything in it is deleted, so what is found is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runtimed.environments.store import MARKER
from runtimed.settings import Settings

__all__ = ["Keep", "Pruned", "StoredEnvironment", "list_environments", "prune"]

JUST_USED: Final = 60.0
"""Seconds after its last use in which an environment is not removed: its next kernel may be on its way."""

_DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_REMOVED: Final = ".removed-"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEnvironment:
    """A complete environment.

    Attributes:
        name: The name of its folder.
        kind: `uv` or `conda`.
        packages: What was asked for.
        project: The folder of the project that is installed in it, None for none.
        size: Bytes that its files take on the disk, a file with several names once; those that are linked into uv's
            cache or into other environments are included.
        own_size: Bytes of those among them that are in no environment that stands before it in the list; so the sum
            over a list is what all take together. Files that are in uv's cache, too, stay there when it is removed.
        used_at: When a kernel was last started in it, as Unix seconds.
        in_use: Whether a session uses it now.
    """

    name: str
    kind: str
    packages: tuple[str, ...]
    project: str | None
    size: int
    own_size: int
    used_at: float
    in_use: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """The limits; None for no limit. The least recently used go first.

    Attributes:
        seconds: Since the last use.
        count: Of all environments, those in use included.
        size: Of all together, in bytes.
    """

    seconds: float | None = None
    count: int | None = None
    size: int | None = None

    @classmethod
    def by_settings(cls, settings: Settings) -> Keep:
        """Return what the settings say."""
        days = settings.env_keep_days
        return cls(
            seconds=None if days is None else days * 86400, count=settings.env_max_count, size=settings.env_max_bytes
        )


@dataclass(slots=True, kw_only=True)
class Pruned:
    """The result of a removal.

    Attributes:
        removed: The removed environments, or those that would be.
        kept: Those that stay.
        problems: One sentence per environment that could not be removed.
    """

    removed: list[StoredEnvironment] = field(default_factory=list)
    kept: list[StoredEnvironment] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def list_environments(folder: Path) -> list[StoredEnvironment]:
    """Return the complete environments below a folder: those in use first, then most recently used."""
    found = []
    for path in _folders(folder):
        marker = path / MARKER
        try:
            facts = json.loads(marker.read_text())
            found.append((_is_locked(marker), marker.stat().st_mtime, path, facts))
        except (OSError, ValueError):
            # Not complete, or being removed just now.
            continue
    found.sort(key=lambda entry: entry[:2], reverse=True)
    seen: set[tuple[int, int]] = set()
    return [_describe(path, facts, used_at, in_use, seen) for in_use, used_at, path, facts in found]


def prune(folder: Path, keep: Keep, *, now: float | None = None, dry_run: bool = False) -> Pruned:
    """Remove what is beyond the limits, and the leftovers of killed makings and removals.

    Args:
        folder: Holds the environments.
        keep: The limits.
        now: Unix seconds.
        dry_run: Only say what would be removed.
    """
    now = time.time() if now is None else now
    result = Pruned()
    size = 0
    for environment in list_environments(folder):
        size += environment.own_size
        is_beyond = (
            (keep.seconds is not None and now - environment.used_at > keep.seconds)
            or (keep.count is not None and len(result.kept) >= keep.count)
            or (keep.size is not None and size > keep.size)
        )
        used_before = now - JUST_USED
        if not is_beyond or environment.in_use or environment.used_at > used_before:
            result.kept.append(environment)
            continue
        with _problems(result, environment.name):
            if dry_run or _remove(folder / environment.name, used_before):
                result.removed.append(environment)
                size -= environment.own_size
            else:
                result.kept.append(environment)
    if not dry_run:
        _remove_remains(folder, result)
    return result


def _remove_remains(folder: Path, result: Pruned) -> None:
    for path in _folders(folder):
        if not (path / MARKER).exists():
            with _problems(result, path.name):
                _remove(path, None)
    for path in folder.glob(f"{_REMOVED}*"):
        with _problems(result, path.name):
            _delete(path)


@contextlib.contextmanager
def _problems(result: Pruned, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        result.problems.append(f"The environment {name} cannot be removed: {exc}")


def _remove(path: Path, used_before: float | None) -> bool:
    """Remove an environment unless it is in use or being made; return whether it is gone.

    Args:
        path: Its folder.
        used_before: A later use keeps it; None for one that has no marker.
    """
    with contextlib.ExitStack() as stack:
        if not _lock_alone(stack, Path(f"{path}.lock"), os.O_RDWR | os.O_CREAT):
            return False
        marker = path / MARKER
        if used_before is None:
            if marker.exists():
                return False
        elif not _lock_alone(stack, marker, os.O_RDONLY) or marker.stat().st_mtime > used_before:
            return False
        gone = path.with_name(f"{_REMOVED}{path.name}-{os.getpid()}-{time.monotonic_ns()}")
        path.rename(gone)
    _delete(gone)
    return True


def _lock_alone(stack: contextlib.ExitStack, path: Path, flags: int) -> bool:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return False
    stack.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(marker: Path) -> bool:
    with contextlib.ExitStack() as stack:
        return not _lock_alone(stack, marker, os.O_RDONLY)


def _delete(path: Path) -> None:
    while path.exists():
        # Two may delete the same remains at the same time.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if _DIGEST.fullmatch(path.name) and path.is_dir()]
    except FileNotFoundError:
        return []


def _describe(
    path: Path, facts: dict[str, Any], used_at: float, in_use: bool, seen: set[tuple[int, int]]
) -> StoredEnvironment:
    size, own_size = _sizes(path, seen)
    return StoredEnvironment(
        name=path.name,
        kind=str(facts.get("kind", "")).removesuffix("Recipe").lower(),
        packages=tuple(facts.get("dependencies", ())),
        project=facts.get("project"),
        size=size,
        own_size=own_size,
        used_at=used_at,
        in_use=in_use,
    )


def _sizes(path: Path, seen: set[tuple[int, int]]) -> tuple[int, int]:
    """Return the bytes of a folder, and the bytes of its files not counted before."""
    size = own_size = 0
    here: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(path):
        for name in (*folders, *files):
            try:
                status = os.lstat(os.path.join(place, name))  # noqa: PTH118  # tens of thousands of files
            except FileNotFoundError:
                continue
            taken = status.st_blocks * 512
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                key = status.st_dev, status.st_ino
                if key in here:
                    continue
                here.add(key)
                if key not in seen:
                    own_size += taken
            else:
                own_size += taken
            size += taken
    seen |= here
    return size, own_size
