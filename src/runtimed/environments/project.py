"""The environment that the nearest project file declares: pyproject.toml, pixi.toml or environment.yml."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from runtimed.environments.checks import check_requirements, check_specifier, check_table, check_texts, parse_toml
from runtimed.environments.conda_files import ReadFile, read_environment_yml, read_pixi_toml, read_pyproject
from runtimed.environments.decision import Decision
from runtimed.environments.facts import PROJECT_FILES, Facts, FoundFile
from runtimed.environments.recipes import UvRecipe
from runtimed.errors import EnvironmentFailed

__all__ = ["from_project"]


def from_project(facts: Facts, notes: list[str]) -> Decision | None:
    """Return the environment of the nearest project file, None if there is none.

    Args:
        facts: The facts.
        notes: Collects a sentence for each file that was skipped.

    Raises:
        EnvironmentFailed: If it cannot be read or understood.
    """
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
            return _from_pyproject(facts, file, notes, reason)
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


def _from_pyproject(facts: Facts, file: FoundFile, notes: list[str], reason: str) -> Decision | None:
    table = parse_toml(file.text, file.path)
    tool = check_table(table.get("tool", {}), f"{file.path}: tool")
    if "pixi" in tool:
        folder = Path(file.path).parent
        lock = _pixi_lock(facts, folder)
        return Decision(
            source="conda:pyproject",
            reason=f"{reason}; it has a [tool.pixi] table",
            file=file.path,
            recipe=read_pyproject(file.text, folder=folder, lock=None if lock is None else lock.text, name=file.path),
            doubt=_doubt(file, lock),
        )
    uv = check_table(tool.get("uv", {}), f"{file.path}: tool.uv")
    if not ({"project", "dependency-groups"} & table.keys() or {"workspace", "dev-dependencies"} & uv.keys()):
        notes.append(f"{file.path} has no [project] table, so it describes no environment")
        return None
    where = f"{file.path}: project"
    project = check_table(table.get("project", {}), where)
    check_table(table.get("dependency-groups", {}), f"{file.path}: dependency-groups")
    groups = uv.get("default-groups", [])
    check_texts([] if groups == "all" else groups, f"{file.path}: tool.uv.default-groups")
    check_texts(uv.get("dev-dependencies", []), f"{file.path}: tool.uv.dev-dependencies")
    if uv.get("managed") is False:
        raise EnvironmentFailed(
            f"{file.path} says `managed = false`, so uv must not make its environment; name one that is there: "
            'env_source="current" or "python:/path/to/python"',
            file=file.path,
        )
    found = _project_files(facts, file)
    return Decision(
        source="uv:pyproject",
        reason=reason,
        file=file.path,
        recipe=UvRecipe(
            dependencies=check_requirements(project.get("dependencies", []), f"{where}.dependencies"),
            requires_python=check_specifier(project.get("requires-python"), f"{where}.requires-python"),
            project=str(PurePath(file.path).parent),
            files=tuple((name, one.text) for name, one in found.items()),
            python=facts.base,
        ),
        doubt=_doubt(*found.values()),
    )


def _doubt(*files: FoundFile | None) -> str | None:
    return next((file.doubt for file in files if file is not None and file.doubt is not None), None)


def _project_files(facts: Facts, project: FoundFile) -> dict[str, FoundFile]:
    """Return the files that decide what is installed, by name: the project's own, and its workspace's."""
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
    """Return a reader for the files that this one includes."""
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
        tool = check_table(parse_toml(text, str(folder)).get("tool", {}), "tool")
        return "workspace" in check_table(tool.get("uv", {}), "tool.uv")
    except EnvironmentFailed:
        return False
