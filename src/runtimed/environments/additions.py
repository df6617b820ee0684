"""Adds packages to a running kernel, into a folder of its own: other kernels of the environment do not see them.

Only packages that change nothing which the kernel may have imported can be added; this module names the obstacle
otherwise. The caller decides what to do then.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from runtimed.environments.dependencies import package_name
from runtimed.environments.recipes import CondaRecipe, Recipe, Report, UvRecipe
from runtimed.environments.uv import UvBuilder
from runtimed.errors import EnvironmentFailed

__all__ = ["Addition", "add_packages", "obstacle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """The result of adding packages to a running kernel.

    Attributes:
        packages: The added packages, as exact requirements.
        obstacle: Why nothing was added, a clause without its full stop; None on success.
    """

    packages: tuple[str, ...] = ()
    obstacle: str | None = None


def obstacle(marker: Path, recipe: Recipe) -> str | None:
    """Return why additions cannot turn a running environment into another, as far as the recipes say; else None.

    Args:
        marker: Marker of the running environment.
        recipe: The wanted recipe.
    """
    try:
        running: dict[str, Any] = json.loads(marker.read_text())
    except (OSError, ValueError):
        return "the environment of the kernel is gone"
    if isinstance(recipe, CondaRecipe) or running["kind"] != UvRecipe.__name__:
        return "packages of conda are not added to a running kernel"
    if recipe.script is not None or running["script"] is not None:
        return "what a script block tells uv counts when a kernel starts"
    if recipe.project is not None or running["project"] is not None:
        return "a project's environment is not changed under a running kernel"
    if (recipe.python, recipe.requires_python) != (running["python"], running["requires_python"]):
        return "another Python is asked for"
    removed = _names(running["dependencies"]) - _names(recipe.dependencies)
    return _removed(removed) if removed else None


async def add_packages(builder: UvBuilder, environment: Path, target: Path, report: Report) -> Addition:
    """Install a kernel's missing packages into its folder.

    Args:
        builder: Knows the recipe.
        environment: The kernel's environment.
        target: The kernel's own folder of additions.
        report: Called with each step.

    Raises:
        EnvironmentFailed: If the packages cannot be installed.
    """
    plan = await builder.plan(environment)
    if plan.changed:
        return Addition(obstacle=f"{_listed(plan.changed)} would change under the running kernel")
    wanted = {package_name(package): package for package in plan.added}
    if "pip" in wanted:
        return Addition(obstacle="pip has to be in the environment itself")
    there = _versions(target)
    if there.keys() - wanted.keys():
        return Addition(obstacle=_removed(there.keys() - wanted.keys()))
    other = [name for name, version in there.items() if "==" in wanted[name] and wanted[name] != f"{name}=={version}"]
    if other:
        return Addition(obstacle=f"{_listed(other)} would change under the running kernel")
    lacking = tuple(package for name, package in wanted.items() if name not in there)
    if not lacking:
        return Addition()
    scratch = Path(tempfile.mkdtemp(prefix="adding-", dir=target.parent))
    try:
        await builder.install_beside(environment, lacking, scratch, report)
        hooks = await asyncio.to_thread(_hooks, scratch)
        if hooks:
            return Addition(obstacle=f"{_listed(hooks)} must be read when Python starts")
        await asyncio.to_thread(_move_in, scratch, target)
    except OSError as exc:
        raise EnvironmentFailed(
            f"Packages cannot be added in {target}: {exc.strerror or exc}", path=str(target)
        ) from exc
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True))
    return Addition(packages=lacking)


def _move_in(scratch: Path, target: Path) -> None:
    """Move files to where the kernel finds them; a package's metadata come last, in case of an interruption."""
    if not target.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the kernel has ended")
    files = [path for path in scratch.rglob("*") if path.is_file() and path != scratch / ".lock"]
    for path in sorted(files, key=lambda path: path.relative_to(scratch).parts[0].endswith(".dist-info")):
        place = target / path.relative_to(scratch)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    # Python compares times to learn that a folder has changed, and a file system's clock may stand for milliseconds.
    os.utime(target)


def _hooks(scratch: Path) -> list[str]:
    return sorted(path.name for path in scratch.glob("*.pth"))


def _versions(target: Path) -> dict[str, str]:
    """Return the versions of the added packages, by name."""
    found = (path.name.removesuffix(".dist-info").split("-") for path in target.glob("*-*.dist-info"))
    return {canonicalize_name(name): version for name, version in found}


def _names(dependencies: Sequence[str]) -> set[str]:
    names = set()
    for dependency in dependencies:
        try:
            names.add(package_name(dependency))
        except EnvironmentFailed:
            # uv takes more than PEP 508 knows, such as the path of a wheel.
            names.add(dependency)
    return names


def _removed(names: Any) -> str:
    return f"{_listed(sorted(names))} would have to be removed"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
