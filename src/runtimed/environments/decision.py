"""The choice of a kernel's environment as a value, and its text for people."""

from __future__ import annotations

from dataclasses import dataclass

from runtimed.environments.recipes import CondaRecipe, Recipe, UvRecipe
from runtimed.environments.uv_settings import told_to_uv

__all__ = ["Decision", "explain", "sentence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The environment of a kernel.

    Attributes:
        source: Its label, as `env_source` reads it back.
        reason: Why it was chosen, a sentence without its full stop.
        file: The project file that decided, if any.
        recipe: Its recipe; None for one that exists already, or is not Python's.
        doubt: Why another user may have written the file, or one that belongs to it; None if none can.
        notes: Sentences about what was found and skipped.
        interpreter: The client's Python, if that is chosen.
        uv: The client's uv executable, for what uv can make; None if it has none.
    """

    source: str
    reason: str
    file: str | None = None
    recipe: Recipe | None = None
    doubt: str | None = None
    notes: tuple[str, ...] = ()
    interpreter: str = ""
    uv: str | None = None


def sentence(decision: Decision) -> str:
    """Return the sentence for each start of a kernel."""
    if decision.file is not None:
        return f"kernel: {decision.source} of {decision.file}"
    return f"kernel: {decision.source}, since {decision.reason}"


def explain(decision: Decision) -> str:
    """Return a decision as lines of text for people."""
    lines = [f"{decision.source}: {decision.reason}"]
    if decision.interpreter:
        lines.append(f"  interpreter: {decision.interpreter}")
    match decision.recipe:
        case UvRecipe(dependencies=dependencies, requires_python=python, project=project):
            if dependencies:
                lines.append(f"  packages: {', '.join(dependencies)}")
            if python is not None:
                lines.append(f"  Python: {python}")
            if decision.recipe.script is not None:
                lines.append(f"  uv is told: {', '.join(told_to_uv(decision.recipe))}")
            if project is not None:
                locked = any(name == "uv.lock" for name, _text in decision.recipe.files)
                lines.append(
                    f"  versions: {'those of uv.lock' if locked else 'the latest that fit; there is no uv.lock'}"
                )
        case CondaRecipe(dependencies=dependencies, channels=channels, pip=pip, lock=lock):
            if dependencies:
                lines.append(f"  packages: {', '.join(dependencies)}")
            if pip:
                lines.append(f"  from a Python index: {', '.join(pip)}")
            if lock is not None:
                lines.append("  versions: those of pixi.lock")
            if channels:
                lines.append(f"  channels: {', '.join(channels)}")
            if decision.recipe.variables:
                lines.append(f"  variables: {', '.join(name for name, _value in decision.recipe.variables)}")
        case _:
            pass
    if decision.doubt is not None:
        lines.append(f"  consent: needed once, because {decision.doubt}")
    return "\n".join([*lines, *(f"  note: {note}" for note in decision.notes)])
