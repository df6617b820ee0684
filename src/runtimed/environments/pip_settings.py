"""Translates pip's configuration for uv, which does not read it: a company's index is often configured there.

Files are read and variables translated; nothing here runs pip.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from runtimed.environments.recipes import UvRecipe
from runtimed.environments.uv_settings import replaces_default_index, restricts_indexes

__all__ = ["uv_variables"]

_UV_INDEXES: Final = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_CONFIG_FILE",
)
"""Variables that tell uv where packages come from."""

_SECTIONS: Final = ("global", "install")
"""The sections of a pip.conf that count for `pip install`, lowest precedence first."""


def uv_variables(
    environment: Mapping[str, str], interpreter: str = "", recipe: UvRecipe | None = None
) -> dict[str, str]:
    """Return the variables that make uv use pip's sources; none if uv has settings of its own.

    pip takes the best version of all its indexes, so uv is told to do the same.

    Args:
        environment: The client's environment variables.
        interpreter: The client's interpreter, whose environment may have a pip.conf, too.
        recipe: May name package sources for uv, which take precedence over pip's.

    Source: pip 26, "Configuration"; uv 0.13, "Environment variables" and "Compatibility with pip".
    """
    variables: dict[str, str] = {}
    pip = _pip_settings(environment, interpreter)
    is_told = recipe is not None and replaces_default_index(recipe)
    if not (is_told or any(environment.get(name) for name in _UV_INDEXES) or _has_uv_file(environment)):
        if "index-url" in pip:
            variables["UV_DEFAULT_INDEX"] = pip["index-url"]
        extra = pip.get("extra-index-url", "").split()
        if extra:
            variables["UV_EXTRA_INDEX_URL"] = " ".join(extra)
            if recipe is None or not restricts_indexes(recipe):
                variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        links = pip.get("find-links", "").split()
        if links:
            variables["UV_FIND_LINKS"] = ",".join(links)
        if pip.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
            variables["UV_OFFLINE"] = "1"
        if "constraint" in pip:
            variables["UV_CONSTRAINT"] = " ".join(pip["constraint"].split())
    hosts = pip.get("trusted-host", "").split()
    if hosts:
        variables["UV_INSECURE_HOST"] = " ".join(hosts)
    if "cert" in pip:
        variables["SSL_CERT_FILE"] = pip["cert"]
    if "proxy" in pip:
        variables["ALL_PROXY"] = pip["proxy"]
    return {name: value for name, value in variables.items() if not environment.get(name)}


def _pip_settings(environment: Mapping[str, str], interpreter: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    for path in _pip_files(environment, interpreter):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(path.read_text(encoding="utf-8", errors="replace"))
        except (OSError, configparser.Error):
            # pip itself reports what is wrong with it; most people have no such file.
            continue
        for section in _SECTIONS:
            if parser.has_section(section):
                settings |= {key.replace("_", "-"): value for key, value in parser.items(section) if value}
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return settings


def _pip_files(environment: Mapping[str, str], interpreter: str) -> Iterator[Path]:
    """Yield the files that pip reads, lowest precedence first."""
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path(environment.get("HOME") or "/")
    if sys.platform == "darwin":
        yield Path("/Library/Application Support/pip/pip.conf")
    for folder in (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
        yield Path(folder) / "pip/pip.conf"
    yield Path("/etc/pip.conf")
    yield home / ".pip/pip.conf"
    if sys.platform == "darwin" and (home / "Library/Application Support/pip").is_dir():
        yield home / "Library/Application Support/pip/pip.conf"
    else:
        yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"
    if interpreter:
        yield Path(interpreter).parent.parent / "pip.conf"
    if named:
        yield Path(named)


def _has_uv_file(environment: Mapping[str, str]) -> bool:
    """Whether the user or the machine has a uv.toml: then uv is configured on purpose."""
    home = Path(environment.get("HOME") or "/")
    user = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    folders = [user, *map(Path, (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)), Path("/etc")]
    return any((folder / "uv/uv.toml").is_file() for folder in folders)
