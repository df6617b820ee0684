"""Checks of values in project files and notebook metadata: each returns the value, or raises EnvironmentFailed.

`where` names the value in that sentence: a file and a key.
"""

from __future__ import annotations

import tomllib
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from runtimed.environments.dependencies import package_name
from runtimed.errors import EnvironmentFailed

__all__ = ["check_requirements", "check_specifier", "check_table", "check_texts", "parse_toml"]


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return the content of a TOML file."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise EnvironmentFailed(f"{where} is no valid TOML: {exc}", file=where) from exc


def check_table(value: Any, where: str) -> dict[str, Any]:
    """Return a table."""
    if not isinstance(value, dict):
        raise EnvironmentFailed(f"{where} must be a table, not {type(value).__name__}")
    return value


def check_texts(value: Any, where: str) -> tuple[str, ...]:
    """Return a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise EnvironmentFailed(f"{where} must be a list of texts")
    return tuple(value)


def check_requirements(value: Any, where: str) -> tuple[str, ...]:
    """Return requirements. Anything else would reach uv as an option or a path, without consent."""
    requirements = check_texts(value, where)
    for one in requirements:
        try:
            package_name(one)
        except EnvironmentFailed as exc:
            raise EnvironmentFailed(f"{where}: {exc.message}", **exc.data) from exc
    return requirements


def check_specifier(value: Any, where: str) -> str | None:
    """Return a version specifier; None for None."""
    if value is None:
        return None
    try:
        return str(SpecifierSet(str(value)))
    except InvalidSpecifier as exc:
        raise EnvironmentFailed(f"{where} is no version specifier such as '>=3.11': {value!r}") from exc
