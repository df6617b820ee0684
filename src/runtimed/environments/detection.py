"""Decides which environment a kernel gets: facts in, a decision out. Nothing here reads a file."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from runtimed.environments.decision import Decision
from runtimed.environments.declared import from_metadata, from_script
from runtimed.environments.facts import Facts
from runtimed.environments.project import from_project
from runtimed.environments.recipes import CondaRecipe, Recipe, UvRecipe
from runtimed.errors import EnvironmentFailed

__all__ = ["asked_in", "decide"]

_DETECTED: Final = (
    "uv:inline",
    "conda:inline",
    "deno",
    "uv:pep723",
    "uv:pyproject",
    "conda:pyproject",
    "conda:pixi",
    "conda:env_yml",
)
"""The labels of what may be found; the first one that applies wins."""

_PREWARMED: Final = ("uv:prewarmed", "conda:prewarmed")


def decide(facts: Facts) -> Decision:
    """Choose the environment: what the notebook or its nearest project declares, else the client's interpreter.

    An environment that is requested by name is taken. `auto` searches in this order: the notebook's metadata, a script
    block in one of its code cells (PEP 723), the nearest project file, and otherwise the interpreter of the client.

    Raises:
        EnvironmentFailed: If it is unknown, or its description is invalid.
    """
    return replace(_decide(facts), uv=facts.uv)


def _decide(facts: Facts) -> Decision:
    asked, why = facts.asked, "it was asked for"
    if asked == "auto" and facts.override is not None:
        asked, why = facts.override, "the variable RUNTIMED_ENV says so"
    if facts.kernel_type == "deno":
        return Decision(source="deno", reason="a Deno kernel was asked for")
    if asked.startswith("kernelspec:"):
        return Decision(source=asked, reason=why)
    if facts.kernel_type != "python":
        raise EnvironmentFailed(
            f"There is no kernel of the type {facts.kernel_type!r} here; kernel_type is python or deno, and a kernel "
            'that is installed on this machine starts with env_source="kernelspec:NAME" (`jupyter kernelspec list` '
            "names them)",
            kernel_type=facts.kernel_type,
        )
    if asked == "current":
        return Decision(source=asked, reason=why, interpreter=facts.interpreter)
    if asked.startswith("python:"):
        return _interpreter(facts, asked, why)
    if asked in _PREWARMED:
        return _prewarmed(facts, asked, why)
    if asked == "auto":
        return _detect(facts)
    if asked in _DETECTED:
        return _named(facts, asked)
    raise EnvironmentFailed(
        f"The environment {asked!r} is not available; use auto, current, uv:prewarmed, conda:prewarmed, "
        "python:/path/to/python, python:python3 or kernelspec:NAME",
        env_source=asked,
    )


def _interpreter(facts: Facts, asked: str, why: str) -> Decision:
    name = asked.removeprefix("python:")
    if name.startswith("/"):
        return Decision(source=asked, reason=why)
    if facts.program is not None:
        return Decision(source=f"python:{facts.program}", reason=f"{why}, as {asked}")
    raise EnvironmentFailed(
        f"There is no {name!r} on this client's PATH; name an interpreter by its full path, python:/path/to/python"
        if name and "/" not in name
        else f"{asked!r} names no interpreter; give its full path, python:/path/to/python, or the name of a program on "
        "the PATH, python:python3",
        env_source=asked,
    )


def asked_in(*, metadata: str | None = None, source: str | None = None) -> Recipe | None:
    """Return the environment that metadata or a cell's source ask for; None for none, or for an invalid one."""
    facts = Facts(metadata=metadata, sources=() if source is None else (source,))
    try:
        decision = from_metadata(facts) or from_script(facts)
    except EnvironmentFailed:
        return None
    return None if decision is None else decision.recipe


# --- auto -------------------------------------------------------------------------------------------------------------


def _detect(facts: Facts) -> Decision:
    notes: list[str] = []
    found = from_metadata(facts) or from_script(facts) or from_project(facts, notes)
    if found is not None:
        return replace(found, notes=(*found.notes, *notes))
    nothing = f"no dependencies in the notebook, no project file from {facts.folder} up ({facts.stopped})"
    return Decision(source="current", reason=nothing, interpreter=facts.interpreter, notes=tuple(notes))


def _named(facts: Facts, label: str) -> Decision:
    """Find the environment requested by one of `auto`'s labels."""
    notes: list[str] = []
    found = (from_metadata(facts), from_script(facts), from_project(facts, notes))
    for decision in found:
        if decision is not None and decision.source == label:
            return decision
    others = [decision for decision in found if decision is not None]
    there = "; there is " + " and ".join(f"{other.source} ({other.reason})" for other in others) if others else ""
    if label == "deno":
        raise EnvironmentFailed(
            'Nothing here asks for Deno; a TypeScript kernel starts with kernel_type="deno"', env_source=label
        )
    raise EnvironmentFailed(
        f"Nothing here describes an environment {label!r}{there}; `runtimed env explain` says what was looked at",
        env_source=label,
    )


def _prewarmed(facts: Facts, label: str, reason: str) -> Decision:
    recipe: Recipe = UvRecipe(python=facts.base) if label == "uv:prewarmed" else CondaRecipe()
    return Decision(source=label, reason=reason, recipe=recipe)
