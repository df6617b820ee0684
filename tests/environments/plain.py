"""Makes environments with uv, and copies them: one plain environment is enough for the tests of many data folders."""

import asyncio
import os
import shutil
from pathlib import Path

from runtimed.environments.decision import Decision
from runtimed.environments.maker import Environments
from runtimed.environments.recipes import Progress, UvRecipe
from runtimed.environments.store import MARKER
from runtimed.environments.trust import Trust
from runtimed.environments.uv_program import find_uv

__all__ = ["link_environments", "prepare"]


def prepare(folder: Path, recipe: UvRecipe, variables: dict[str, str], heard: list[Progress] | None = None) -> str:
    """Make an environment; return its Python."""
    decision = Decision(source="uv:inline", reason="a test asks for it", recipe=recipe, uv=find_uv())
    heard = [] if heard is None else heard
    prepared = asyncio.run(Environments(folder, Trust(folder / "trust")).prepare(decision, variables, "", heard.append))
    assert prepared is not None
    return prepared.interpreter


def link_environments(source: Path, target: Path) -> None:
    """Copy the complete environments of a folder, with links to their files; each has a marker of its own to lock."""

    def link(path: str, copy: str) -> None:
        if Path(path).name == MARKER:
            shutil.copy2(path, copy)
        else:
            os.link(path, copy, follow_symlinks=False)

    for marker in source.glob(f"*/{MARKER}"):
        shutil.copytree(marker.parent, target / marker.parent.name, symlinks=True, copy_function=link)
