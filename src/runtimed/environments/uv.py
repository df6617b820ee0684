"""Makes environments with uv, which runs as a process of its own and is killed with all it started when nobody waits.

Each environment begins as a copy of the plain one of its Python, which holds ipykernel and is byte-compiled: links
instead of files, so it takes a fraction of the time, and only what is new has to be compiled.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tomllib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from packaging.specifiers import SpecifierSet

from runtimed.environments.processes import kill_group
from runtimed.environments.recipes import Progress, Report, UvRecipe
from runtimed.environments.uv_messages import (
    Plan,
    ProgressReader,
    failure,
    has_begun_to_download,
    is_network_failure,
    read_plan,
)
from runtimed.errors import EnvironmentFailed
from runtimed.transport.home import uv_patience

__all__ = ["UvBuilder"]

KERNEL: Final = "ipykernel>=6.20"
"""What is added to what was asked for, and takes part in the choice of versions."""

_STALL: Final = {"UV_HTTP_TIMEOUT": "30"}
"""uv's own timeout, for an index that is known to answer and stalls in the middle of a file."""

_MISLEADING: Final = frozenset(
    {
        "CONDA_PREFIX",
        "PYTHONHOME",
        "PYTHONPATH",
        "UV_FROZEN",
        "UV_LOCKED",
        "UV_NO_SYNC",
        "UV_PROJECT",
        "UV_PROJECT_ENVIRONMENT",
        "UV_PYTHON",
        "UV_SYSTEM_PYTHON",
        "UV_WORKING_DIR",
        "UV_WORKING_DIRECTORY",
        "VIRTUAL_ENV",
    }
)
"""Variables of the client that mean its own environment or project, not the one that is made."""

_KEPT_LINES: Final = 400

GetBase = Callable[[UvRecipe], Awaitable[Path]]
"""Gives the folder of a plain environment, made if need be."""


class UvBuilder:
    """Makes one environment after its recipe.

    Args:
        uv: The uv executable.
        recipe: What to make.
        environment: The client's environment variables: its settings of uv, pip and proxies.
        get_base: Where the plain environment comes from.
    """

    def __init__(self, uv: str, recipe: UvRecipe, environment: Mapping[str, str], get_base: GetBase) -> None:
        self._uv = uv
        self._recipe = recipe
        self._get_base = get_base
        self._variables = {name: value for name, value in environment.items() if name not in _MISLEADING}
        patience = uv_patience(environment)
        self._has_timeout = "UV_HTTP_TIMEOUT" not in patience
        self._variables = {**patience, **self._variables, "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
        self._lock: int | None = None

    async def build(self, folder: Path, report: Report, lock: int) -> None:
        """Make the environment in a folder that does not exist; see `store.Build`.

        Raises:
            EnvironmentFailed: If it cannot be had: which package, what uv said, and what to do.
        """
        self._lock = lock
        recipe = self._recipe
        python = await self._find_python(report)
        base = UvRecipe(python=python)
        if recipe == base:
            report(Progress(step="resolve", message="Making the plain Python environment, once"))
            await self._run("venv", "--no-project", "--relocatable", "--python", python, str(folder))
            await self._install(folder, [], report)
            return
        template = await self._get_base(base)
        await asyncio.to_thread(_copy, template, folder)
        report(Progress(step="resolve", message=f"Resolving {_describe(recipe)}"))
        if recipe.project is None:
            await self._install(folder, list(recipe.dependencies), report)
        elif any(name == "uv.lock" for name, _text in recipe.files):
            await self._sync(folder, recipe.project, report)
        else:
            await self._install(folder, _project_arguments(recipe), report, cwd=recipe.project)

    async def plan(self, environment: Path) -> Plan:
        """Find out what the recipe's dependencies mean for an environment that is complete; nothing is changed.

        Raises:
            EnvironmentFailed: If they cannot be had.
        """
        said: deque[str] = deque(maxlen=_KEPT_LINES)
        python = str(environment / "bin/python")
        arguments = ("pip", "install", "--dry-run", "--python", python, *self._recipe.dependencies, KERNEL)
        await self._with_network_or_without(*arguments, cwd="/", said=said)
        return read_plan(said)

    async def install_beside(self, environment: Path, packages: Sequence[str], target: Path, report: Report) -> None:
        """Install packages into a folder of their own, for a kernel that runs in an environment.

        Raises:
            EnvironmentFailed: If they cannot be had.
        """
        where = ("--python", str(environment / "bin/python"), "--target", str(target))
        arguments = ("pip", "install", "--no-deps", "--compile-bytecode", *where, *packages)
        await self._with_network_or_without(*arguments, report=report, cwd="/")

    # --- Python ---

    async def _find_python(self, report: Report) -> str:
        """Return the interpreter to build on: the client's if it fits, else one that is installed, else a download."""
        recipe = self._recipe
        pin = _pinned(dict(recipe.files).get(".python-version", ""))
        if pin is None and recipe.python is not None and await self._fits(recipe.python):
            return recipe.python
        wanted = pin or recipe.requires_python or ">=3.10"
        what = f"an environment with Python {wanted}"
        find = ("python", "find", "--no-project", "--system", "--", wanted)
        try:
            return _real(await self._run(*find, what=what, UV_PYTHON_DOWNLOADS="never"))
        except EnvironmentFailed:
            if self._variables.get("UV_PYTHON_DOWNLOADS", "automatic") != "automatic":
                raise
        report(Progress(step="download", message=f"Downloading Python {wanted}"))
        await self._run("python", "install", "--no-bin", "--", wanted, what=what)
        return _real(await self._run(*find, what=what))

    async def _fits(self, python: str) -> bool:
        if self._recipe.requires_python is None:
            return True
        show = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
        try:
            version = (await self._process(python, "-I", "-c", show)).strip()
        except (EnvironmentFailed, OSError):
            return False
        return SpecifierSet(self._recipe.requires_python).contains(version, prereleases=True)

    # --- packages ---

    async def _install(self, folder: Path, what: Sequence[str], report: Report, cwd: str = "/") -> None:
        arguments = ("pip", "install", "--python", str(folder / "bin/python"), "--compile-bytecode", *what, KERNEL)
        await self._with_network_or_without(*arguments, report=report, cwd=cwd)

    async def _sync(self, folder: Path, project: str, report: Report) -> None:
        """Install what the lock file says, then the kernel, which may change none of it."""
        python = str(folder / "bin/python")
        await self._with_network_or_without(
            *("sync", "--project", project, "--locked", "--inexact", "--compile-bytecode", "--python", python),
            report=report,
            cwd=project,
            UV_PROJECT_ENVIRONMENT=str(folder),
        )
        locked = await self._run(
            *("export", "--project", project, "--frozen", "--no-hashes", "--no-header", "--no-annotate"),
            *("--no-emit-local", "--python", python),
            cwd=project,
        )
        constraints = folder / "uv-lock.txt"
        constraints.write_text(locked)
        await self._install(folder, ["--constraint", str(constraints)], report, cwd=project)

    async def _with_network_or_without(
        self,
        *arguments: str,
        cwd: str,
        report: Report | None = None,
        said: deque[str] | None = None,
        **variables: str,
    ) -> None:
        """Run uv; where the network fails it, again with more time if it was downloading, or with what it has."""
        try:
            await self._run(*arguments, report=report, cwd=cwd, said=said, **variables)
        except EnvironmentFailed as exc:
            log = exc.data.get("log", "")
            if not is_network_failure(log) or "UV_OFFLINE" in self._variables:
                raise
            if has_begun_to_download(log) and not self._has_timeout:
                await self._run(*arguments, report=report, cwd=cwd, said=said, **variables, **_STALL)
                return
            try:
                await self._run(*arguments, report=report, cwd=cwd, said=said, **variables, UV_OFFLINE="1")
            except EnvironmentFailed:
                raise exc from None

    # --- processes ---

    async def _run(
        self,
        *arguments: str,
        report: Report | None = None,
        cwd: str = "/",
        what: str | None = None,
        said: deque[str] | None = None,
        **variables: str,
    ) -> str:
        what = what or f"the environment of {_describe(self._recipe)}"
        return await self._process(self._uv, *arguments, report=report, cwd=cwd, what=what, said=said, **variables)

    async def _process(
        self,
        *command: str,
        report: Report | None = None,
        cwd: str = "/",
        what: str = "the environment",
        said: deque[str] | None = None,
        **variables: str,
    ) -> str:
        """Run a process to its end and return what it printed; when cancelled, kill it with all its children.

        Its last lines on standard error go to `said`.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=cwd,
                env={**self._variables, **variables},
                pass_fds=() if self._lock is None else (self._lock,),
                start_new_session=True,
            )
        except OSError as exc:
            raise EnvironmentFailed(f"{command[0]} cannot be started: {exc.strerror or exc}") from exc
        said = deque(maxlen=_KEPT_LINES) if said is None else said
        said.clear()
        try:
            printed, _ = await asyncio.gather(_read_all(process.stdout), _read_lines(process.stderr, said, report))
            code = await process.wait()
        except BaseException:
            await kill_group(process)
            raise
        if code != 0:
            raise failure(what, "\n".join(said) or f"(nothing; exit code {code})")
        return printed


def _pinned(text: str) -> str | None:
    """Return the Python that a .python-version asks for, None if it asks for none.

    Source: uv, `PythonVersionFile`: the first line that is neither empty nor a comment.
    """
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), None)


def _real(printed: str) -> str:
    return os.path.realpath(printed.strip())


async def _read_all(stream: Any) -> str:
    return (await stream.read()).decode(errors="replace")  # type: ignore[no-any-return]  # a StreamReader


async def _read_lines(stream: Any, said: deque[str], report: Report | None) -> None:
    reader = ProgressReader()
    rest = b""
    while data := await stream.read(65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            said.append(line.decode(errors="replace"))
            progress = reader.read(said[-1])
            if progress is not None and report is not None:
                report(progress)
    if rest:
        said.append(rest.decode(errors="replace"))


# --- what a project asks for ------------------------------------------------------------------------------------------


def _project_arguments(recipe: UvRecipe) -> list[str]:
    """Return what installs a project that has no lock file, as `uv sync` would, but without writing one."""
    path = f"{recipe.project}/pyproject.toml"
    table = tomllib.loads(dict(recipe.files)["pyproject.toml"])
    settings = table.get("tool", {}).get("uv", {})
    groups = table.get("dependency-groups", {})
    chosen = settings.get("default-groups", ["dev"] if "dev" in groups else [])
    arguments = [f"--group={path}:{group}" for group in (groups if chosen == "all" else chosen)]
    if settings.get("package", "build-system" in table):
        return [*arguments, "--editable", str(recipe.project)]
    return [*arguments, "--requirements", path] if "project" in table else arguments


def _describe(recipe: UvRecipe) -> str:
    if recipe.project is not None:
        return f"the project {recipe.project}"
    if not recipe.dependencies:
        return "a plain Python"
    shown = ", ".join(recipe.dependencies[:5])
    return shown if len(recipe.dependencies) <= 5 else f"{shown} and {len(recipe.dependencies) - 5} more"


# --- the copy ---------------------------------------------------------------------------------------------------------


def _copy(template: Path, folder: Path) -> None:
    """Make an environment like another one of uv's, with links to its packages' files.

    Like uv's own links into its cache they are safe: installers replace files, they never write into them.
    """
    shutil.copytree(
        template,
        folder,
        symlinks=True,
        ignore=lambda place, _names: {"lib", "lib64", ".lock", "runtimed.json"} if Path(place) == template else set(),
    )
    shutil.copytree(template / "lib", folder / "lib", symlinks=True, copy_function=_link)
    if (template / "lib64").is_symlink():
        (folder / "lib64").symlink_to("lib")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as exc:
        # So many links to one file are not possible, or none on this file system.
        if exc.errno not in {errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV}:
            raise
        shutil.copy2(source, target, follow_symlinks=False)
