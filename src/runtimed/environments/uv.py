"""Makes environments with uv, in a process of its own that is killed with all its children when nobody waits any more.

Each environment begins as a copy of the plain environment of its Python, which has ipykernel and is byte-compiled. The
copy consists of links, so it takes a fraction of the time, and only new packages have to be compiled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import tomllib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path, PurePath
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
from runtimed.environments.uv_program import uv_patience
from runtimed.errors import EnvironmentFailed

__all__ = ["UvBuilder"]

KERNEL: Final = "ipykernel>=6.20"
"""Requirements that are added to the recipe's, and take part in the resolution."""

_STALL: Final = {"UV_HTTP_TIMEOUT": "30"}
"""uv's own timeout for an index that answers and then stalls in the middle of a file."""

_MISLEADING: Final = frozenset(
    {
        "CONDA_PREFIX",
        "PYTHONHOME",
        "PYTHONPATH",
        "UV_FROZEN",
        "UV_ISOLATED",
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
"""Variables of the client that name its own environment or project, not the one to be made."""

_KEPT_LINES: Final = 400

GetBase = Callable[[UvRecipe], Awaitable[Path]]
"""Returns the folder of a plain environment, which is made if it does not exist."""


class UvBuilder:
    """Makes one environment from its recipe.

    Args:
        uv: The uv executable.
        recipe: What to make.
        environment: The client's environment variables: its settings of uv, pip and proxies.
        get_base: Returns the plain environment to start from.
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
            EnvironmentFailed: If it cannot be made; names the package, what uv said, and what to do.
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
        if recipe.script is not None:
            await self._run_script(folder, recipe.script, recipe.folder, report)
        elif recipe.project is None:
            await self._install(folder, list(recipe.dependencies), report)
        elif any(name == "uv.lock" for name, _text in recipe.files):
            await self._sync(folder, recipe.project, report)
        else:
            await self._install(folder, _project_arguments(recipe), report, cwd=recipe.project)

    async def plan(self, environment: Path) -> Plan:
        """Resolve the recipe's dependencies against a complete environment; nothing is changed.

        Raises:
            EnvironmentFailed: If they cannot be resolved.
        """
        said: deque[str] = deque(maxlen=_KEPT_LINES)
        python = str(environment / "bin/python")
        arguments = ("pip", "install", "--dry-run", "--python", python, *self._recipe.dependencies, KERNEL)
        await self._with_network_or_without(*arguments, cwd="/", said=said)
        return read_plan(said)

    async def install_beside(self, environment: Path, packages: Sequence[str], target: Path, report: Report) -> None:
        """Install packages into a folder of their own, for a kernel that runs in an environment.

        Raises:
            EnvironmentFailed: If they cannot be installed.
        """
        where = ("--python", str(environment / "bin/python"), "--target", str(target))
        arguments = ("pip", "install", "--no-deps", "--compile-bytecode", *where, *packages)
        await self._with_network_or_without(*arguments, report=report, cwd="/")

    # --- Python ---

    async def _find_python(self, report: Report) -> str:
        """Return the interpreter to build on: the client's if it fits, else an installed one, else a download."""
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

    async def _run_script(self, folder: Path, content: str, cwd: str, report: Report) -> None:
        """Install what `uv run` would for a script with this block, then the kernel's packages, beside the former."""
        python = str(folder / "bin/python")
        before = await self._run("pip", "freeze", "--python", python)
        block = "".join(f"# {line}".rstrip() + "\n" for line in content.splitlines())
        # From its standard input: relative paths begin in this folder, and a project around it has no effect.
        await self._with_network_or_without(
            *("run", "--project", "/", "--active", "--compile-bytecode", "-"),
            report=report,
            cwd=cwd,
            stdin=f"# /// script\n{block}# ///\n",
            UV_NO_ENV_FILE="1",
            VIRTUAL_ENV=str(folder),
        )
        there = set(before.splitlines())
        after = (await self._run("pip", "freeze", "--exclude-editable", "--python", python)).splitlines()
        # `pip freeze` knows an editable package only by its folder, and a constraint needs a name.
        editable = json.loads(await self._run("pip", "list", "--editable", "--format", "json", "--python", python))
        after += [f"{package['name']}=={package['version']}" for package in editable]
        constraints = folder / "uv-script.txt"
        constraints.write_text("".join(f"{line}\n" for line in after if line not in there))
        await self._install(folder, ["--constraint", str(constraints)], report)

    async def _sync(self, folder: Path, project: str, report: Report) -> None:
        """Install what the lock file says, then the kernel's packages, which may change none of it."""
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
        stdin: str = "",
        **variables: str,
    ) -> None:
        """Run uv.

        If the network fails, run it again: after a broken download with more time, else with what is cached.
        """
        try:
            await self._run(*arguments, report=report, cwd=cwd, said=said, stdin=stdin, **variables)
        except EnvironmentFailed as exc:
            log = exc.data.get("log", "")
            if not is_network_failure(log) or "UV_OFFLINE" in self._variables:
                raise
            if has_begun_to_download(log) and not self._has_timeout:
                await self._run(*arguments, report=report, cwd=cwd, said=said, stdin=stdin, **variables, **_STALL)
                return
            try:
                await self._run(*arguments, report=report, cwd=cwd, said=said, stdin=stdin, **variables, UV_OFFLINE="1")
            except EnvironmentFailed:
                raise exc from None

    # --- processes ---

    async def _run(
        self,
        *arguments: str,
        report: Report | None = None,
        cwd: str = "/",
        what: str | None = None,
        **options: Any,
    ) -> str:
        what = what or f"the environment of {_describe(self._recipe)}"
        return await self._process(self._uv, *arguments, report=report, cwd=cwd, what=what, **options)

    async def _process(
        self,
        *command: str,
        report: Report | None = None,
        cwd: str = "/",
        what: str = "the environment",
        said: deque[str] | None = None,
        stdin: str = "",
        **variables: str,
    ) -> str:
        """Run a process to its end and return its standard output; on cancellation kill it with all its children.

        It reads `stdin`; its last lines on standard error go to `said`.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
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
            printed, *_ = await asyncio.gather(
                _read_all(process.stdout), _read_lines(process.stderr, said, report), _write_all(process.stdin, stdin)
            )
            code = await process.wait()
        except BaseException:
            await kill_group(process)
            raise
        if code != 0:
            raise failure(what, "\n".join(said) or f"(nothing; exit code {code})")
        return printed


def _pinned(text: str) -> str | None:
    """Return the Python that a .python-version file asks for; None if it asks for none.

    Source: uv, `PythonVersionFile`: the first line that is neither empty nor a comment.
    """
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), None)


def _real(printed: str) -> str:
    return os.path.realpath(printed.strip())


async def _read_all(stream: Any) -> str:
    return (await stream.read()).decode(errors="replace")  # type: ignore[no-any-return]  # a StreamReader


async def _write_all(stream: asyncio.StreamWriter | None, text: str) -> None:
    if stream is not None:
        # A process that ends without reading it says why on its standard error.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stream.write(text.encode())
            await stream.drain()
            stream.close()
            await stream.wait_closed()


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
    """Return the arguments that install a project without a lock file, as `uv sync` would, but without writing one."""
    root = tomllib.loads(dict(recipe.files)["pyproject.toml"])
    chosen = root.get("tool", {}).get("uv", {}).get("default-groups")
    arguments = []
    for name, text in recipe.files:
        # Further projects below it are those of a workspace whose root has no project.
        if PurePath(name).name != "pyproject.toml" or name.startswith("../"):
            continue
        path = Path(str(recipe.project), name)
        table = tomllib.loads(text)
        settings = table.get("tool", {}).get("uv", {})
        if settings.get("managed") is False:
            continue
        groups = {*table.get("dependency-groups", {}), *(["dev"] if "dev-dependencies" in settings else [])}
        # A member that the root names and lacks is for uv to refuse.
        known = groups if chosen is None or name != "pyproject.toml" else chosen
        wanted = (
            sorted(groups)
            if chosen == "all"
            else [one for one in (["dev"] if chosen is None else chosen) if one in known]
        )
        arguments += [f"--group={path}:{group}" for group in wanted]
        if settings.get("package", "build-system" in table):
            arguments += ["--editable", str(path.parent)]
        elif "project" in table:
            arguments += ["--requirements", str(path)]
    return arguments


def _describe(recipe: UvRecipe) -> str:
    if recipe.project is not None:
        return f"the project {recipe.project}"
    if not recipe.dependencies:
        return "a plain Python"
    shown = ", ".join(recipe.dependencies[:5])
    return shown if len(recipe.dependencies) <= 5 else f"{shown} and {len(recipe.dependencies) - 5} more"


# --- the copy ---------------------------------------------------------------------------------------------------------


def _copy(template: Path, folder: Path) -> None:
    """Copy an environment that uv made, with links to its packages' files.

    As uv's own links into its cache they are safe: installers replace files and never write into them.
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
        # This file system allows no links, or no more links to one file.
        if exc.errno not in {errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV}:
            raise
        shutil.copy2(source, target, follow_symlinks=False)
