"""Gathers the facts for the choice of an environment: reads files, runs nothing, and decides nothing.

No file can block it: only regular files are read, up to a fixed number of bytes each, and a loop of links counts as no
file.
"""

from __future__ import annotations

import contextlib
import grp
import itertools
import json
import os
import pwd
import shutil
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from runtimed.environments.conda_files import read_environment_yml
from runtimed.errors import EnvironmentFailed, NotebookFileError
from runtimed.notebook_file.reading import read_notebook

__all__ = [
    "PROJECT_FILES",
    "Facts",
    "FoundFile",
    "base_interpreter",
    "gather",
    "nearest_folder",
    "read_document",
]

PROJECT_FILES: Final = ("pyproject.toml", "pixi.toml", "environment.yml", "environment.yaml")
"""The names of files that make their folder a project's, in the order in which one folder's are considered."""

_BESIDE: Final = ("uv.lock", ".python-version", "pixi.lock")
"""Files that say more about a project."""

MAX_FILE: Final = 2**20
"""Most bytes of a project file."""

MAX_LOCK: Final = 64 * 2**20
"""Most bytes of a lock file."""

MAX_MEMBERS: Final = 1000
"""Most members of a workspace that one pattern names."""

MAX_DOCUMENT: Final = 256 * 2**20
"""Most bytes of a notebook's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file that concerns the choice.

    Attributes:
        path: Its path, as it was reached.
        text: Its content; empty if it cannot be read.
        problem: Why it cannot be read; None if it can.
        doubt: Why somebody else may have written it; None if only this user can have.
        includes: The files that it names: the requirement files of an environment.yml, the pyproject.toml of each
            member of a workspace. The name that each has there, and the file.
    """

    path: str
    text: str = ""
    problem: str | None = None
    doubt: str | None = None
    includes: tuple[tuple[str, FoundFile], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts for the choice of an environment.

    Attributes:
        asked: The `env_source` that was asked for.
        kernel_type: The kernel type that was asked for.
        override: What the client's variable RUNTIMED_ENV says that `auto` means; None if it is not set.
        metadata: What an .ipynb file holds at notebook level, as JSON; None if the document has none.
        sources: The sources of the code cells.
        folder: Where the search for project files began.
        files: The project files from that folder upwards, the nearest first, and those beside them.
        stopped: Why the search went no further.
        uv: The uv executable, None if there is none.
        interpreter: The asking client's interpreter; empty if it named none.
        base: The interpreter that `interpreter` is built on: itself, if it is no virtual environment's.
        program: What `python:NAME` and `python:~/path` mean for this client; None if they were not asked for, or mean
            nothing.
    """

    asked: str = "auto"
    kernel_type: str = "python"
    override: str | None = None
    metadata: str | None = None
    sources: tuple[str, ...] = ()
    folder: str = "/"
    files: tuple[FoundFile, ...] = ()
    stopped: str = "the top of the file system"
    uv: str | None = None
    interpreter: str = ""
    base: str | None = None
    program: str | None = None


def gather(
    *,
    asked: str,
    kernel_type: str = "python",
    metadata: str | None = None,
    sources: Sequence[str] = (),
    folder: str,
    environment: Mapping[str, str],
    interpreter: str,
    uv: str | None,
) -> Facts:
    """Read the files that concern the choice.

    Args:
        asked: The `env_source` that was asked for.
        kernel_type: The kernel type that was asked for.
        metadata: The document's value `notebook_metadata`, None if it has none.
        sources: The sources of the code cells.
        folder: Where the search for project files begins; need not exist.
        environment: The asking client's environment variables.
        interpreter: The asking client's interpreter.
        uv: The uv executable that this client has found, None if it has none.
    """
    start = nearest_folder(folder)
    files, stopped = _search(start, environment.get("HOME", ""))
    override = environment.get("RUNTIMED_ENV", "").strip() or None
    return Facts(
        asked=asked,
        kernel_type=kernel_type,
        override=override,
        metadata=metadata,
        sources=tuple(sources),
        folder=str(start),
        files=tuple(files),
        stopped=stopped,
        uv=uv,
        interpreter=interpreter,
        base=base_interpreter(interpreter),
        program=_find_program(override if asked == "auto" and override else asked, environment),
    )


def _find_program(asked: str, environment: Mapping[str, str]) -> str | None:
    scheme, _, name = asked.partition(":")
    if scheme != "python" or not name:
        return None
    if name.startswith("~/") and environment.get("HOME"):
        return environment["HOME"] + name[1:]
    if "/" in name:
        return None
    # Another part of the PATH would mean a folder below the daemon's.
    places = [part for part in environment.get("PATH", "").split(os.pathsep) if os.path.isabs(part)]  # noqa: PTH117
    return shutil.which(name, path=os.pathsep.join(places))


def nearest_folder(path: str | Path) -> Path:
    """Return the folder at a path, or the nearest existing one above it."""
    start = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100  # `..` goes up from the link, as in a shell
    # `Path.is_dir` raises where a name is too long or a folder may not be entered.
    return next((place for place in (start, *start.parents) if os.path.isdir(place)), Path("/"))  # noqa: PTH112


def _search(start: Path, home: str) -> tuple[list[FoundFile], str]:
    found: list[FoundFile] = []
    for folder in (start, *start.parents):
        here = [file for name in PROJECT_FILES if (file := _read(folder / name, MAX_FILE)) is not None]
        # What stands beside counts for the projects below it, too: a workspace has one lock file for all members.
        if here:
            here += [file for name in _BESIDE if (file := _read(folder / name, MAX_LOCK)) is not None]
        found += [_with_includes(file) for file in here]
        if os.path.exists(folder / ".git"):  # noqa: PTH110  # `Path.exists` raises where it may not look
            return found, f"{folder} holds a .git"
        if home and _same_folder(folder, home):
            return found, f"{folder} is the home folder"
    return found, "the top of the file system"


def _with_includes(file: FoundFile) -> FoundFile:
    if file.path.endswith((".yml", ".yaml")):
        return _with_requirements(file)
    return _with_members(file) if file.path.endswith("/pyproject.toml") else file


def _with_members(file: FoundFile) -> FoundFile:
    """Add the members of a workspace whose root is no project: the root stands for all of them.

    Source: uv, "Using workspaces" and "Workspace roots".
    """
    # Whether it makes sense is asked when it is chosen.
    with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError):
        table = tomllib.loads(file.text)
        match table:
            case {"tool": {"uv": {"workspace": {"members": list(members), **more}}}} if "project" not in table:
                excluded = more.get("exclude")
                places = _folders(file, members) - _folders(file, excluded if isinstance(excluded, list) else [])
                found = ((place, _read(Path(file.path).parent / place, MAX_FILE)) for place in sorted(places))
                return replace(file, includes=tuple((place, one) for place, one in found if one is not None))
    return file


def _folders(root: FoundFile, patterns: Sequence[Any]) -> set[str]:
    """Return the names, relative to a root, of the pyproject.toml in each folder that fits one of these patterns."""
    found: set[str] = set()
    folder = Path(root.path).parent
    for pattern in patterns:
        # An empty or an absolute pattern is one that uv refuses; it says so itself.
        with contextlib.suppress(ValueError, NotImplementedError, OSError):
            for place in itertools.islice(folder.glob(f"{pattern}/pyproject.toml"), MAX_MEMBERS):
                found.add(str(place.relative_to(folder)))
    return found


def _with_requirements(file: FoundFile) -> FoundFile:
    """Add the files that an environment.yml includes, which may include further ones."""
    found: dict[str, FoundFile] = {}
    folder = Path(file.path).parent

    def read(name: str) -> str:
        included = _read(folder / name, MAX_FILE)
        if included is None:
            raise FileNotFoundError(name)
        found[name] = included
        return included.text

    # Whether it makes sense is asked when it is chosen.
    with contextlib.suppress(EnvironmentFailed):
        read_environment_yml(file.text, folder=folder, read=read)
    return replace(file, includes=tuple(found.items()))


def _same_folder(folder: Path, other: str) -> bool:
    try:
        return folder.samefile(other)
    except OSError:
        return False


def _read(path: Path, limit: int) -> FoundFile | None:
    """Read a regular file; None if there is none."""
    try:
        info = path.stat()
    except OSError:
        # Not there, a link that leads nowhere or in a circle, or a folder that may not be entered.
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    if info.st_size > limit:
        return FoundFile(path=str(path), problem=f"it has {info.st_size} bytes; at most {limit} are read")
    try:
        with path.open("rb") as file:
            text = file.read(limit).decode("utf-8-sig")
            return FoundFile(path=str(path), text=text, doubt=_doubt(path, os.fstat(file.fileno())))
    except UnicodeDecodeError as exc:
        return FoundFile(path=str(path), problem=f"it is no UTF-8 text (byte {exc.start})")
    except OSError as exc:
        return FoundFile(path=str(path), problem=exc.strerror or str(exc))


def _doubt(path: Path, info: os.stat_result) -> str | None:
    """Return why somebody else may have written a file, None if only this user can have."""
    if info.st_uid != os.getuid():
        return f"{path} belongs to {_user(info.st_uid)}"
    if _others_write(info):
        return f"{path} can be written to by others"
    for folder in dict.fromkeys((path.parent, path.resolve().parent)):
        place = folder.stat()
        if place.st_uid not in {os.getuid(), 0}:
            return f"{folder} belongs to {_user(place.st_uid)}"
        if _others_write(place):
            return f"{folder} can be written to by others"
    return None


def _others_write(info: os.stat_result) -> bool:
    if info.st_mode & stat.S_IWOTH:
        return True
    if not info.st_mode & stat.S_IWGRP:
        return False
    # Where each user has a group of their own, all that they make can be written to by it.
    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(info.st_gid)
    except KeyError:
        return True
    return not (group.gr_gid == user.pw_gid and group.gr_name == user.pw_name and not {*group.gr_mem} - {user.pw_name})


def _user(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user with the id {uid}"


def read_document(path: Path) -> tuple[str | None, tuple[str, ...]]:
    """Return what a file declares about its environment: notebook metadata as JSON, and its code cells.

    A missing file, and one that is neither a notebook nor a Python file, declares nothing.

    Raises:
        NotebookFileError: If it is a notebook that cannot be read.
    """
    if path.suffix not in {".ipynb", ".py"}:
        return None, ()
    file = _read(path, MAX_DOCUMENT)
    if file is None:
        return None, ()
    if file.problem is not None:
        raise NotebookFileError(f"{path} cannot be read: {file.problem}", path=str(path))
    if path.suffix == ".py":
        return None, (file.text,)
    notebook = read_notebook(file.text, path)
    sources = tuple(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return json.dumps(notebook.metadata), sources


def base_interpreter(interpreter: str) -> str | None:
    """Return the base interpreter of a virtual environment; None if there is no interpreter at this path.

    Two environments of one Python have the same base, so what is built for one can be used for the other.

    Source: PEP 405 and the `venv`, `virtualenv` and uv that write `pyvenv.cfg`.
    """
    if not interpreter or not os.access(interpreter, os.X_OK) or Path(interpreter).is_dir():
        return None
    config = _read(Path(interpreter).parent.parent / "pyvenv.cfg", MAX_FILE)
    values = {}
    for line in (config.text if config is not None else "").splitlines():
        key, _, value = line.partition("=")
        values[key.strip().lower()] = value.strip()
    home = values.get("home", "")
    version = ".".join((values.get("version_info") or values.get("version") or "").split(".")[:2])
    candidates = [values.get("executable", ""), values.get("base-executable", "")]
    candidates += [f"{home}/python{version}", f"{home}/python3"] if home else []
    for candidate in [*candidates, interpreter]:
        if candidate and os.access(candidate, os.X_OK):
            return os.path.realpath(candidate)
    return None
