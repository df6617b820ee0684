"""The recipes of environments, as frozen values. Nothing here reads a file, waits, or starts a process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["CondaRecipe", "Progress", "Recipe", "Report", "UvRecipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UvRecipe:
    """An environment that uv makes from packages of a Python index.

    Attributes:
        dependencies: Requirements as PEP 508 has them, in the order in which they were written.
        requires_python: A version specifier (`>=3.11`), None for any that ipykernel takes.
        project: Folder of the pyproject.toml whose project is installed as well, as a text; None for none.
        files: The name and the text of each file of the project that decides what is installed.
        python: The interpreter to build on, if it is one that `requires_python` admits; None leaves the choice to uv.
        script: The content of a script block that has a table `[tool.uv]`, which uv reads itself; None for none.
        folder: Where the relative paths of that block begin; empty without one.
    """

    dependencies: tuple[str, ...] = ()
    requires_python: str | None = None
    project: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    python: str | None = None
    script: str | None = None
    folder: str = ""

    @property
    def digest(self) -> str:
        """Names the environment: equal recipes make equal environments."""
        return _digest("uv", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaRecipe:
    """An environment of conda packages.

    Attributes:
        dependencies: Match specs, as conda has them.
        channels: Names or URLs (`file://` included), the preferred one first; empty for the configured default.
        pip: Requirements that are installed on top from a Python index.
        lock: The text of a pixi.lock that says exactly what to install, None to solve anew.
        variables: Environment variables of its kernels, each with a value in which `$NAME` stands for another one.
    """

    dependencies: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    lock: str | None = None
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """Names the environment: equal recipes make equal environments, whatever variables their kernels get."""
        return _digest("conda", self)


Recipe = UvRecipe | CondaRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step in the making of an environment.

    Attributes:
        step: What is being done.
        message: The same for people, one line.
        done: Bytes of a download so far, None where that is unknown.
        total: Bytes of the whole download, None where that is unknown.
    """

    step: Literal["resolve", "download", "install", "start"]
    message: str
    done: int | None = None
    total: int | None = None


Report = Callable[[Progress], None]
"""Hears of each step; called on the event loop."""


def _digest(kind: str, recipe: Any) -> str:
    made_of = {name: value for name, value in asdict(recipe).items() if name != "variables"}
    text = json.dumps([kind, made_of], sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
