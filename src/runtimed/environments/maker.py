"""The environments of one data folder: takes a decision, and returns where a kernel starts.

Nothing here chooses the environment.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Final

from runtimed.environments import conda
from runtimed.environments.additions import Addition, add_packages, obstacle
from runtimed.environments.conda_files import with_channels
from runtimed.environments.decision import Decision
from runtimed.environments.pip_settings import uv_variables
from runtimed.environments.recipes import CondaRecipe, Report, UvRecipe
from runtimed.environments.stand_ins import stand_in
from runtimed.environments.store import MARKER, EnvironmentStore
from runtimed.environments.trust import Trust
from runtimed.environments.uv import UvBuilder
from runtimed.errors import EnvironmentFailed

__all__ = ["Environments", "Prepared", "refusal", "with_settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A complete environment.

    Attributes:
        interpreter: Its Python.
        environment: The environment variables for a kernel in it.
        marker: The file on which its users hold a shared lock.
    """

    interpreter: str
    environment: dict[str, str] = field(repr=False)
    marker: str


def with_settings(decision: Decision, environment: Mapping[str, str]) -> Decision:
    """Return a decision with the client's configured channels, if its recipe names none.

    Raises:
        EnvironmentFailed: If the configuration of conda cannot be read.
    """
    if not isinstance(decision.recipe, CondaRecipe):
        return decision
    return replace(decision, recipe=with_channels(decision.recipe, conda.configured(environment)))


def refusal(decision: Decision, folder: Path) -> str | None:
    """Return why an environment would not be made, and what to do; None if no reason is known.

    Args:
        decision: The decision, with the client's settings.
        folder: Folder of the existing environments.
    """
    recipe = decision.recipe
    if recipe is None or EnvironmentStore(folder).find(recipe.digest) is not None:
        return None
    if isinstance(recipe, UvRecipe) and decision.uv is None:
        return (
            f"{decision.source} needs uv, which is not installed ({decision.reason}); install it with "
            "`pip install 'ipython-runtimed[uv]'`, or ask for the interpreter that is there: env_source=\"current\", "
            "`--env current`"
        )
    return conda.MISSING if isinstance(recipe, CondaRecipe) and not conda.is_available() else None


class Environments:
    """Makes environments, each once.

    Attributes:
        trust: The consents of the user.
    """

    def __init__(self, folder: Path, trust: Trust) -> None:
        self._folder = folder
        self._store = EnvironmentStore(folder)
        self.trust = trust

    async def prepare(
        self, decision: Decision, environment: Mapping[str, str], interpreter: str, report: Report
    ) -> Prepared | None:
        """Return the environment of a decision, made if missing; None for one that runtimed does not make.

        Args:
            decision: The decision.
            environment: The client's environment variables: uv gets its settings of indexes and proxies.
            interpreter: The client's interpreter, whose environment may have settings for pip.
            report: Called with each step; never if the environment exists.

        Raises:
            EnvironmentFailed: If it cannot be made.
        """
        settled = await asyncio.to_thread(with_settings, decision, environment)
        refused = refusal(settled, self._folder)
        if refused is not None:
            raise EnvironmentFailed(refused, env_source=decision.source)
        declared: tuple[tuple[str, str], ...] = ()
        match settled.recipe:
            case None:
                return None
            case UvRecipe() as recipe:
                folder = await self._uv(recipe, decision.uv or "uv", environment, interpreter, report)
                own = {"VIRTUAL_ENV": str(folder)}
            case CondaRecipe() as recipe:
                folder = await self._conda(recipe, decision.uv, environment, interpreter, report)
                # Its pip would install into what others share.
                own = {"CONDA_PREFIX": str(folder), "PIP_REQUIRE_VIRTUALENV": "1"}
                declared = (*await asyncio.to_thread(_set_by_packages, folder), *recipe.variables)
        variables = _activated(environment, folder, own)
        for name, value in declared:
            variables[name] = Template(value).safe_substitute(variables)
        return Prepared(
            interpreter=str(folder / "bin/python"),
            environment=variables,
            marker=str(folder / MARKER),
        )

    async def extend(
        self,
        decision: Decision,
        marker: str,
        target: Path,
        environment: Mapping[str, str],
        interpreter: str,
        report: Report,
    ) -> Addition:
        """Add the packages of a decision to a running kernel, unless there is an obstacle.

        Args:
            decision: What the kernel should have.
            marker: Marker of its environment; empty for one that runtimed did not make.
            target: The kernel's own folder of additions.
            environment: As for `prepare`.
            interpreter: As for `prepare`.
            report: Called with each step.

        Raises:
            EnvironmentFailed: If the packages cannot be installed.
        """
        recipe = decision.recipe
        if not marker or recipe is None:
            return Addition(obstacle="the kernel runs in an environment that runtimed did not make")
        reason = await asyncio.to_thread(obstacle, Path(marker), recipe)
        if reason is not None or not isinstance(recipe, UvRecipe):
            return Addition(obstacle=reason)
        builder = self._builder(decision.uv or "uv", recipe, environment, interpreter, report)
        return await add_packages(builder, Path(marker).parent, target, report)

    async def close(self) -> None:
        """Cancel all environments that are being made."""
        await self._store.close()

    async def _uv(
        self, recipe: UvRecipe, uv: str, environment: Mapping[str, str], interpreter: str, report: Report
    ) -> Path:
        builder = self._builder(uv, recipe, environment, interpreter, report)

        async def build(folder: Path, report: Report, lock: int) -> None:
            await builder.build(folder, report, lock)
            await asyncio.to_thread(stand_in, folder, "uv")

        return await self._store.get(recipe, build, report)

    def _builder(
        self, uv: str, recipe: UvRecipe, environment: Mapping[str, str], interpreter: str, report: Report
    ) -> UvBuilder:
        base = functools.partial(self._uv, uv=uv, environment=environment, interpreter=interpreter, report=report)
        return UvBuilder(uv, recipe, {**environment, **uv_variables(environment, interpreter, recipe)}, base)

    async def _conda(
        self, recipe: CondaRecipe, uv: str | None, environment: Mapping[str, str], interpreter: str, report: Report
    ) -> Path:
        variables = {**environment, **uv_variables(environment, interpreter)}

        async def build(folder: Path, report: Report, lock: int) -> None:
            await conda.build(recipe, folder, report, environment=variables, uv=uv, lock=lock)
            await asyncio.to_thread(stand_in, folder, "conda")

        return await self._store.get(recipe, build, report)


def _set_by_packages(folder: Path) -> Iterable[tuple[str, str]]:
    """Return the variables that packages set in their environment, as templates.

    Source: conda, "Managing environments": etc/conda/env_vars.d.

    Raises:
        EnvironmentFailed: If a file of them cannot be understood.
    """
    found: dict[str, str] = {}
    for path in sorted((folder / "etc/conda/env_vars.d").glob("*.json")):
        try:
            found |= {name: str(value).replace("$", "$$") for name, value in json.loads(path.read_bytes()).items()}
        except (OSError, ValueError, AttributeError) as exc:
            raise EnvironmentFailed(f"{path}, which sets variables, cannot be read: {exc}", file=str(path)) from exc
    return found.items()


_OTHERS: Final = frozenset({"CONDA_DEFAULT_ENV", "CONDA_PREFIX", "PYTHONHOME", "VIRTUAL_ENV"})
"""Variables that name the environment of the client."""


def _activated(environment: Mapping[str, str], folder: Path, own: Mapping[str, str]) -> dict[str, str]:
    """Return the variables after an activation, so that child processes of a cell find the same packages."""
    variables = {name: value for name, value in environment.items() if name not in _OTHERS}
    path = os.pathsep.join(part for part in (str(folder / "bin"), variables.get("PATH", "")) if part)
    return {**variables, **own, "PATH": path}
