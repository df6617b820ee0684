"""Reads and edits the dependencies and kernelspec in a notebook's metadata: text in, text out. Nothing here installs.

The text is the metadata value `notebook_metadata`: the notebook-level metadata of an .ipynb file, as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from runtimed.errors import EnvironmentFailed, SessionError

__all__ = ["NOTEBOOK_METADATA", "Manager", "add", "named", "package_name", "remove", "with_kernelspec"]

NOTEBOOK_METADATA: Final = "notebook_metadata"
"""Key of the metadata value that this module edits."""

Manager = Literal["uv", "conda"]
"""The package manager: each has its own list, in its own notation."""

# Source: conda's documentation, "Package match specifications": [channel::]name, then a version after a blank or an
# operator, or a bracket with more.
_MATCH_SPEC: Final = re.compile(
    r"(?:[^\s:\[\]]+::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)(?:\s*[=<>!~\[].*|\s+[\d*].*)?"
)


def named(metadata: str | None, manager: Manager) -> list[str]:
    """Return the dependencies as written.

    Raises:
        SessionError: If the metadata cannot be understood.
    """
    return _dependencies(_parsed(metadata), manager)


def add(metadata: str | None, manager: Manager, packages: Sequence[str]) -> str:
    """Return the metadata with these dependencies; each replaces an earlier one of its package.

    Raises:
        EnvironmentFailed: If one of them is none (attribute `package`).
        SessionError: If the metadata cannot be understood.
    """
    table = _parsed(metadata)
    # By name, so that thousands do not take quadratic time.
    added = {package_name(package, manager): package.strip() for package in packages}
    dependencies: list[str] = []
    placed: set[str] = set()
    for other in _dependencies(table, manager):
        name = _name_of(other, manager)
        if name is None or name not in added:
            dependencies.append(other)
        elif name not in placed:
            placed.add(name)
            dependencies.append(added[name])
    dependencies += [package for name, package in added.items() if name not in placed]
    return _with(table, manager, dependencies)


def remove(metadata: str | None, manager: Manager, package: str) -> str | None:
    """Return the metadata without a package's dependency; None if there was none.

    Args:
        metadata: The present metadata.
        manager: The package manager.
        package: The package's name; a version behind it is ignored.

    Raises:
        EnvironmentFailed: If this is no name.
        SessionError: If the metadata are invalid.
    """
    table = _parsed(metadata)
    dependencies = _dependencies(table, manager)
    name = package_name(package, manager)
    kept = [other for other in dependencies if _name_of(other, manager) != name]
    return _with(table, manager, kept) if len(kept) < len(dependencies) else None


def with_kernelspec(metadata: str | None, name: str, display_name: str, language: str | None) -> str:
    """Return the metadata with this kernelspec; everything else stays.

    Raises:
        SessionError: If the metadata cannot be understood.

    Source: nbformat 4, notebook metadata `kernelspec`.
    """
    spec = {"name": name, "display_name": display_name}
    if language is not None:
        spec["language"] = language
    return json.dumps({**_parsed(metadata), "kernelspec": spec})


def package_name(package: str, manager: Manager = "uv") -> str:
    """Return the normalized package name of a dependency.

    Raises:
        EnvironmentFailed: If it is no dependency.

    Source: PEP 508 (dependencies) and PEP 503 (names) for uv; conda's match specifications.
    """
    if manager == "uv":
        try:
            return canonicalize_name(Requirement(package).name)
        except InvalidRequirement as exc:
            reason = str(exc).partition("\n")[0]
            raise EnvironmentFailed(
                f"{package!r} is no dependency such as 'pandas' or 'pandas[excel]>=2.1' (PEP 508): {reason}",
                package=package,
            ) from exc
    match = _MATCH_SPEC.fullmatch(package.strip())
    if match is None:
        raise EnvironmentFailed(
            f"{package!r} is no match spec of conda such as 'pandas', 'pandas>=2.1' or 'conda-forge::pandas'",
            package=package,
        )
    return match["name"].lower()


def _name_of(dependency: str, manager: Manager) -> str | None:
    try:
        return package_name(dependency, manager)
    except EnvironmentFailed:
        # A user wrote it into the metadata by hand, and has to correct it.
        return None


def _parsed(metadata: str | None) -> dict[str, Any]:
    try:
        table = json.loads(metadata) if metadata is not None else {}
    except (ValueError, RecursionError) as exc:
        raise SessionError(f"The metadata value 'notebook_metadata' is no JSON: {exc}") from exc
    return _table(table, "notebook_metadata")


def _dependencies(table: dict[str, Any], manager: Manager) -> list[str]:
    where = f"notebook_metadata: runt.{manager}"
    runt = _table(table.get("runt", {}), "notebook_metadata: runt")
    dependencies = _table(runt.get(manager, {}), where).get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(item, str) for item in dependencies):
        raise SessionError(f"The metadata value {where}.dependencies must be a list of texts")
    return list(dependencies)


def _with(table: dict[str, Any], manager: Manager, dependencies: list[str]) -> str:
    runt = table.get("runt", {})
    changed = {**runt, manager: {**runt.get(manager, {}), "dependencies": dependencies}}
    return json.dumps({**table, "runt": changed})


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SessionError(f"The metadata value {where} must be a table, not {type(value).__name__}")
    return value
