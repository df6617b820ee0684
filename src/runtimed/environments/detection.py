"""Decides which environment a kernel gets, and says why: facts in, a decision out. Nothing here looks at a file."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from runtimed.environments.conda_files import (
    ReadFile,
    read_environment_yml,
    read_notebook,
    read_pixi_toml,
    read_pyproject,
)
from runtimed.environments.dependencies import package_name
from runtimed.environments.facts import PROJECT_FILES, Facts, FoundFile
from runtimed.environments.recipes import CondaRecipe, Recipe, UvRecipe
from runtimed.environments.script_block import SCRIPT, flaw_in, script_blocks
from runtimed.environments.uv_settings import told_to_uv
from runtimed.errors import EnvironmentFailed

__all__ = ["Decision", "asked_in", "decide", "explain", "sentence"]

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
"""The labels of what may be found, the first one that applies wins."""

_PREWARMED: Final = ("uv:prewarmed", "conda:prewarmed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which environment a kernel gets.

    Attributes:
        source: Its label, as `env_source` reads it back.
        reason: Why this one, in a sentence without its full stop.
        file: The project file that decided, None if it was none.
        recipe: What it is made of; None for one that is there already, or is none of Python's.
        doubt: Why the file, or one that belongs to it, may say what somebody else wants; None if it cannot.
        notes: What was seen and passed over, a sentence each.
        interpreter: The Python of the client, if that is the one.
        uv: The uv executable of the client that asks, which makes what uv can make; None if it has none.
    """

    source: str
    reason: str
    file: str | None = None
    recipe: Recipe | None = None
    doubt: str | None = None
    notes: tuple[str, ...] = ()
    interpreter: str = ""
    uv: str | None = None


def decide(facts: Facts) -> Decision:
    """Choose the environment: what the notebook or its nearest project declares, else the interpreter that asks.

    What was asked for by name is taken, `auto` looks in this order: the notebook's metadata, a script block in one of
    its code cells (PEP 723), the nearest project file, and without any of them the interpreter of the client.

    Raises:
        EnvironmentFailed: If it is unknown, or what describes it cannot be understood.
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


def sentence(decision: Decision) -> str:
    """Return what is said at every start of a kernel."""
    if decision.file is not None:
        return f"kernel: {decision.source} of {decision.file}"
    return f"kernel: {decision.source}, since {decision.reason}"


def explain(decision: Decision) -> str:
    """Return a decision as text for people, in lines."""
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


def asked_in(*, metadata: str | None = None, source: str | None = None) -> Recipe | None:
    """Return what a notebook's metadata or a cell's source ask for; None for nothing, or nothing that makes sense."""
    facts = Facts(metadata=metadata, sources=() if source is None else (source,))
    try:
        decision = _from_metadata(facts) or _from_script(facts)
    except EnvironmentFailed:
        return None
    return None if decision is None else decision.recipe


# --- auto -------------------------------------------------------------------------------------------------------------


def _detect(facts: Facts) -> Decision:
    notes: list[str] = []
    found = _from_metadata(facts) or _from_script(facts) or _from_project(facts, notes)
    if found is not None:
        return replace(found, notes=(*found.notes, *notes))
    nothing = f"no dependencies in the notebook, no project file from {facts.folder} up ({facts.stopped})"
    return Decision(source="current", reason=nothing, interpreter=facts.interpreter, notes=tuple(notes))


def _named(facts: Facts, label: str) -> Decision:
    """Find what was asked for by a label that `auto` gives."""
    notes: list[str] = []
    found = (_from_metadata(facts), _from_script(facts), _from_project(facts, notes))
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


# --- 1: what the notebook says ----------------------------------------------------------------------------------------


def _from_metadata(facts: Facts) -> Decision | None:
    if facts.metadata is None:
        return None
    try:
        metadata = json.loads(facts.metadata)
    except (ValueError, RecursionError) as exc:
        raise EnvironmentFailed(f"The metadata value 'notebook_metadata' is no JSON: {exc}") from exc
    metadata = _table(metadata, "notebook_metadata")
    runt = _table(metadata.get("runt", {}), "notebook_metadata: runt")
    uv = _table(runt.get("uv", {}), "notebook_metadata: runt.uv")
    unknown = sorted(uv.keys() - {"dependencies", "requires-python"})
    if unknown:
        raise EnvironmentFailed(
            f"notebook_metadata: runt.uv has {', '.join(map(repr, unknown))}, and only dependencies and "
            "requires-python are understood there; a script block (PEP 723) with a table [tool.uv] can say more"
        )
    if uv.get("dependencies") or uv.get("requires-python"):
        return Decision(
            source="uv:inline",
            reason="the notebook's metadata name dependencies for uv",
            recipe=UvRecipe(
                dependencies=_requirements(uv.get("dependencies", []), "notebook_metadata: runt.uv.dependencies"),
                requires_python=_specifier(uv.get("requires-python"), "notebook_metadata: runt.uv.requires-python"),
                python=facts.base,
            ),
        )
    conda = read_notebook(metadata)
    if conda is not None and (conda.dependencies or conda.pip):
        return Decision(
            source="conda:inline", reason="the notebook's metadata name dependencies for conda", recipe=conda
        )
    if "deno" in runt:
        return Decision(source="deno", reason="the notebook's metadata have settings for Deno")
    spec = metadata.get("kernelspec")
    if isinstance(spec, dict) and (spec.get("name") == "deno" or str(spec.get("language")).lower() == "typescript"):
        return Decision(source="deno", reason=f"the notebook's kernelspec is {spec.get('name')!r}")
    return None


def _from_script(facts: Facts) -> Decision | None:
    """Read the block of a PEP 723 script: that of the first code cell that has one."""
    found = ""
    others = False
    named = "The script block"
    for source in facts.sources:
        if SCRIPT not in source:
            continue
        blocks = [content for name, content in script_blocks(source) if name == "script"]
        if found:
            others = others or any(block != found for block in blocks)
            continue
        flaw = flaw_in(source)
        if flaw is not None:
            raise EnvironmentFailed(f"{named} cannot be read: {flaw} (PEP 723)")
        if len(blocks) > 1:
            raise EnvironmentFailed(f"{named} is not the only one in its cell; PEP 723 allows one")
        found = blocks[0] if blocks else ""
    if not found:
        return None
    content = "".join(f"{line[2:] if line.startswith('# ') else line[1:]}\n" for line in found.split("\n")[:-1])
    table = _toml(content, named)
    tool = _table(table.get("tool", {}), f"{named}: tool")
    has_settings = bool(_table(tool.get("uv", {}), f"{named}: tool.uv"))
    unknown = sorted(table.keys() - {"dependencies", "requires-python", "tool"})
    notes = [f"{named} has the keys {', '.join(unknown)}, which mean nothing"] if unknown else []
    if others:
        notes.append("of several code cells with a script block the first one counts")
    return Decision(
        source="uv:pep723",
        reason="the notebook or the file has a script block (PEP 723)",
        recipe=UvRecipe(
            dependencies=_requirements(table.get("dependencies", []), f"{named}: dependencies"),
            requires_python=_specifier(table.get("requires-python"), f"{named}: requires-python"),
            python=facts.base,
            script=content if has_settings else None,
            folder=facts.folder if has_settings else "",
        ),
        notes=tuple(notes),
    )


# --- 2: what the project says -----------------------------------------------------------------------------------------


def _from_project(facts: Facts, notes: list[str]) -> Decision | None:
    for file in facts.files:
        if PurePath(file.path).name in PROJECT_FILES:
            decision = _from_file(facts, file, notes)
            if decision is not None:
                return decision
    return None


def _from_file(facts: Facts, file: FoundFile, notes: list[str]) -> Decision | None:
    if file.problem is not None:
        raise EnvironmentFailed(f"{file.path} cannot be read: {file.problem}", file=file.path)
    reason = f"{file.path} is the nearest project file"
    folder = Path(file.path).parent
    match PurePath(file.path).name:
        case "pyproject.toml":
            table = _toml(file.text, file.path)
            tool = _table(table.get("tool", {}), f"{file.path}: tool")
            if "pixi" in tool:
                lock = _pixi_lock(facts, folder)
                return Decision(
                    source="conda:pyproject",
                    reason=f"{reason}; it has a [tool.pixi] table",
                    file=file.path,
                    recipe=read_pyproject(
                        file.text, folder=folder, lock=None if lock is None else lock.text, name=file.path
                    ),
                    doubt=_doubt(file, lock),
                )
            uv = _table(tool.get("uv", {}), f"{file.path}: tool.uv")
            if not ({"project", "dependency-groups"} & table.keys() or {"workspace", "dev-dependencies"} & uv.keys()):
                notes.append(f"{file.path} has no [project] table, so it describes no environment")
                return None
            project = _table(table.get("project", {}), f"{file.path}: project")
            _table(table.get("dependency-groups", {}), f"{file.path}: dependency-groups")
            groups = uv.get("default-groups", [])
            _texts([] if groups == "all" else groups, f"{file.path}: tool.uv.default-groups")
            _texts(uv.get("dev-dependencies", []), f"{file.path}: tool.uv.dev-dependencies")
            if uv.get("managed") is False:
                raise EnvironmentFailed(
                    f"{file.path} says `managed = false`, so uv must not make its environment; name one that is there: "
                    'env_source="current" or "python:/path/to/python"',
                    file=file.path,
                )
            found = _project_files(facts, file)
            files = {name: one.text for name, one in found.items()}
            return Decision(
                source="uv:pyproject",
                reason=reason,
                file=file.path,
                recipe=UvRecipe(
                    dependencies=_requirements(project.get("dependencies", []), f"{file.path}: project.dependencies"),
                    requires_python=_specifier(project.get("requires-python"), f"{file.path}: project.requires-python"),
                    project=str(PurePath(file.path).parent),
                    files=tuple(files.items()),
                    python=facts.base,
                ),
                doubt=_doubt(*found.values()),
            )
        case "pixi.toml":
            lock = _pixi_lock(facts, folder)
            return Decision(
                source="conda:pixi",
                reason=reason,
                file=file.path,
                recipe=read_pixi_toml(
                    file.text, folder=folder, lock=None if lock is None else lock.text, name=file.path
                ),
                doubt=_doubt(file, lock),
            )
        case _:
            return Decision(
                source="conda:env_yml",
                reason=reason,
                file=file.path,
                recipe=read_environment_yml(file.text, folder=folder, read=_reader(file), name=file.path),
                doubt=_doubt(file, *(included for _name, included in file.includes)),
            )


def _doubt(*files: FoundFile | None) -> str | None:
    return next((file.doubt for file in files if file is not None and file.doubt is not None), None)


def _project_files(facts: Facts, project: FoundFile) -> dict[str, FoundFile]:
    """Return what decides what is installed, by name: the project's own files, and those of its workspace."""
    folder = PurePath(project.path).parent
    found = {"pyproject.toml": project, **dict(project.includes)}
    for file in facts.files:
        place = PurePath(file.path).parent
        is_above = place != folder and folder.is_relative_to(place)
        if is_above and PurePath(file.path).name == "pyproject.toml" and _is_workspace(facts, place):
            found[os.path.relpath(file.path, folder)] = file
            break
    for name in ("uv.lock", ".python-version"):
        nearest = next((file for file in facts.files if PurePath(file.path).name == name), None)
        if nearest is None:
            continue
        place = PurePath(nearest.path).parent
        if place != folder and not (folder.is_relative_to(place) and _is_workspace(facts, place)):
            continue
        found[name] = nearest
    for one in found.values():
        if one.problem is not None:
            raise EnvironmentFailed(f"{one.path} cannot be read: {one.problem}", file=one.path)
    return found


def _pixi_lock(facts: Facts, folder: Path) -> FoundFile | None:
    lock = next((file for file in facts.files if file.path == str(folder / "pixi.lock")), None)
    if lock is not None and lock.problem is not None:
        raise EnvironmentFailed(f"{lock.path} cannot be read: {lock.problem}", file=lock.path)
    return lock


def _reader(file: FoundFile) -> ReadFile:
    """Return what gives the text of a file that this one includes."""
    includes = dict(file.includes)

    def read(name: str) -> str:
        included = includes.get(name)
        if included is None:
            raise FileNotFoundError("there is no such file")
        if included.problem is not None:
            raise OSError(included.problem)
        return included.text

    return read


def _is_workspace(facts: Facts, folder: PurePath) -> bool:
    text = next((file.text for file in facts.files if file.path == str(folder / "pyproject.toml")), "")
    try:
        return "workspace" in _table(_table(_toml(text, str(folder)).get("tool", {}), "tool").get("uv", {}), "tool.uv")
    except EnvironmentFailed:
        return False


# --- checks -----------------------------------------------------------------------------------------------------------


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise EnvironmentFailed(f"{where} is no valid TOML: {exc}", file=where) from exc


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EnvironmentFailed(f"{where} must be a table, not {type(value).__name__}")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise EnvironmentFailed(f"{where} must be a list of texts")
    return tuple(value)


def _requirements(value: Any, where: str) -> tuple[str, ...]:
    """Return requirements; what is none would be an option or a path to uv, which nobody has consented to."""
    requirements = _texts(value, where)
    for one in requirements:
        try:
            package_name(one)
        except EnvironmentFailed as exc:
            raise EnvironmentFailed(f"{where}: {exc.message}", **exc.data) from exc
    return requirements


def _specifier(value: Any, where: str) -> str | None:
    if value is None:
        return None
    try:
        return str(SpecifierSet(str(value)))
    except InvalidSpecifier as exc:
        raise EnvironmentFailed(f"{where} is no version specifier such as '>=3.11': {value!r}") from exc
