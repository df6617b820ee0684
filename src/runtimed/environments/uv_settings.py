"""Reads what a project or a script block tells uv in its table `[tool.uv]`. uv itself follows it; nothing here does."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from packaging.dependency_groups import resolve_dependency_groups

from runtimed.environments.recipes import UvRecipe

__all__ = ["declared_places", "default_group", "replaces_default_index", "restricts_indexes", "told_to_uv"]

_INDEXES: Final = ("index-url", "extra-index-url", "find-links")
_PLACES: Final = ("url", "git", "path")
"""Keys of a source that name the origin of a package."""


def told_to_uv(recipe: UvRecipe) -> list[str]:
    """Return the names of all settings in a script block, sorted."""
    return sorted(key for table in _tables(recipe) for key in table)


def declared_places(recipe: UvRecipe) -> list[str]:
    """Return the indexes and the sources of single packages that a project or a script block names."""
    found: list[str] = []
    for table in _tables(recipe):
        indexes = _list(table.get("index"))
        found += [str(index["url"]) for index in indexes if isinstance(index, dict) and "url" in index]
        for key in _INDEXES:
            found += map(str, _list(table.get(key)))
        sources = table.get("sources")
        for source in sources.values() if isinstance(sources, dict) else ():
            for one in _list(source):
                if isinstance(one, dict):
                    found += [str(one[key]) for key in _PLACES if key in one]
    return list(dict.fromkeys(found))


def default_group(table: Mapping[str, Any]) -> list[str]:
    """Return the requirements of the group `dev` of a pyproject.toml: uv installs it by default.

    A group that cannot be resolved, which uv may refuse or read in its own way, gives its texts.

    Source: PEP 735; uv, "Development dependencies" and "Legacy dev-dependencies".
    """
    groups, tool = table.get("dependency-groups"), table.get("tool")
    uv = tool.get("uv") if isinstance(tool, dict) else None
    group = _list(groups.get("dev") if isinstance(groups, dict) else None)
    with contextlib.suppress(ExceptionGroup):
        group = [*resolve_dependency_groups(groups if isinstance(groups, dict) else {}, "dev")]
    older = _list(uv.get("dev-dependencies") if isinstance(uv, dict) else None)
    return [one for one in (*group, *older) if isinstance(one, str)]


def replaces_default_index(recipe: UvRecipe) -> bool:
    """Whether it replaces PyPI as the default index."""
    return any(
        "index-url" in table
        or table.get("no-index") is True
        or any(isinstance(index, dict) and index.get("default") is True for index in _list(table.get("index")))
        for table in _tables(recipe)
    )


def restricts_indexes(recipe: UvRecipe) -> bool:
    """Whether it names indexes, in an order that counts, or sets how they count."""
    return any(key in table for table in _tables(recipe) for key in ("index", "index-strategy", "extra-index-url"))


def _tables(recipe: UvRecipe) -> Iterator[Mapping[str, Any]]:
    texts = [text for name, text in recipe.files if name.endswith("pyproject.toml")]
    for text in texts if recipe.script is None else [recipe.script]:
        tool = tomllib.loads(text).get("tool")
        table = tool.get("uv") if isinstance(tool, dict) else None
        if isinstance(table, dict):
            yield table


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
