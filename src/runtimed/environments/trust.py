"""Stores the user's consents: the sets of dependencies that may be installed. Nothing here asks or installs."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import threading
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from runtimed.environments.recipes import CondaRecipe, Recipe, UvRecipe
from runtimed.environments.uv_settings import declared_places, default_group
from runtimed.errors import StorageError

__all__ = ["Trust", "dependency_set", "origins", "packages"]

_KEY_SIZE: Final = 32
_PYPI: Final = "https://pypi.org/simple"
_INDEXES: Final = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_DEFAULT_INDEXES: Final = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")


class Trust:
    """The consents of one data folder, a small file each, signed with a key that is made here and never leaves it.

    A consent from elsewhere, with a document or a backup, is void: it was signed with another key.

    Args:
        folder: Made when something is first written, mode 0700.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = threading.Lock()

    def has(self, dependencies: str) -> bool:
        """Whether the user has consented to a `dependency_set`."""
        key = self._key()
        if key is None:
            return False
        try:
            signature = (self._folder / dependencies).read_bytes()
        except OSError:
            # Not there, or not to be read: to ask once more is safe.
            return False
        return hmac.compare_digest(signature, _sign(key, dependencies))

    def give(self, dependencies: str) -> None:
        """Note that the user has consented to a `dependency_set`; once more is harmless.

        Raises:
            StorageError: If it cannot be written.
        """
        if self.has(dependencies):
            return
        try:
            with self._writing:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                key = self._key()
                if key is None:
                    key = secrets.token_bytes(_KEY_SIZE)
                    self._write("key", key)
                self._write(dependencies, _sign(key, dependencies))
        except OSError as exc:
            raise StorageError(
                f"The consent to install dependencies cannot be stored in {self._folder}: {exc.strerror or exc}",
                path=str(self._folder),
            ) from exc

    def _key(self) -> bytes | None:
        """Return the key; None if there is none, or one that somebody else may know."""
        try:
            with (self._folder / "key").open("rb") as file:
                info = os.fstat(file.fileno())
                key = file.read(_KEY_SIZE + 1)
        except OSError:
            return None
        private = info.st_uid == os.getuid() and not info.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        return key if private and len(key) == _KEY_SIZE else None

    def _write(self, name: str, data: bytes) -> None:
        # Only the one daemon of the data folder writes here, one thread at a time.
        scratch = self._folder / f"{name}.part"
        scratch.unlink(missing_ok=True)
        file = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, data)
            os.fsync(file)
        finally:
            os.close(file)
        scratch.rename(self._folder / name)


def dependency_set(recipe: Recipe) -> str:
    """Return the name of a set of dependencies; the Python that it is installed for does not matter.

    Args:
        recipe: As the document or the project has it, without the settings of a client.
    """
    if isinstance(recipe, UvRecipe):
        return dataclasses.replace(recipe, python=None, folder="").digest
    if not recipe.variables:
        return recipe.digest
    return hashlib.sha256(json.dumps([recipe.digest, recipe.variables]).encode()).hexdigest()[:32]


def packages(recipe: Recipe) -> list[str]:
    """Return everything that a recipe asks for; what this needs in turn is not known before it is resolved."""
    match recipe:
        case UvRecipe(dependencies=dependencies, project=None):
            return list(dependencies)
        case UvRecipe(dependencies=dependencies, project=project):
            table = tomllib.loads(dict(recipe.files).get("pyproject.toml", ""))
            return [*dependencies, *default_group(table), f"the project in {project}"]
        case CondaRecipe(dependencies=dependencies, pip=pip, variables=variables):
            return [*dependencies, *map(_public, pip), *(f"the variable {name}" for name, _value in variables)]


def origins(recipe: Recipe, variables: Mapping[str, str]) -> list[str]:
    """Return where the packages would come from, without user names and passwords.

    Args:
        recipe: With the channels that the client has configured.
        variables: What uv would be told.
    """
    if isinstance(recipe, CondaRecipe) and not recipe.pip:
        return [_public(channel) for channel in recipe.channels]
    default = next((variables[name] for name in _DEFAULT_INDEXES if variables.get(name)), _PYPI)
    more = [url for name in _INDEXES for url in re.split(r"[\s,]+", variables.get(name, "")) if url]
    channels = recipe.channels if isinstance(recipe, CondaRecipe) else declared_places(recipe)
    return [_public(url) for url in dict.fromkeys((*channels, *more, default))]


def _public(text: str) -> str:
    """Leave out who logs in, and with what."""
    head, _, url = text.rpartition(" ")
    if "://" not in url:
        return text
    # An index may have a name: `mine=https://…`.
    name, separator, rest = url.partition("=") if "=" in url.partition("://")[0] else ("", "", url)
    parts = urlsplit(rest)
    shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return f"{head} {name}{separator}{shown}".strip()


def _sign(key: bytes, dependencies: str) -> bytes:
    return hmac.digest(key, f"runtimed consent 1 {dependencies}".encode(), "sha256")
