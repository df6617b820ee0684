"""Named profiles: copies of a browser's profile folder that later sessions begin with.

A profile's name is a symbolic link to the folder that holds its latest version, so that storing it is one step for
every reader. Nothing here talks to a browser.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from runtimed.errors import BrowserError

__all__ = [
    "check_profile_name",
    "kept_profile",
    "list_profiles",
    "load_profile",
    "profiles_folder",
    "remove_profile",
    "store_profile",
]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TRIES: Final = 5
_LEFT_OUT: Final = frozenset({
    # What Chromium makes again by itself, or what belongs to a running one.
    "Cache", "Code Cache", "Crashpad", "DawnCache", "DawnGraphiteCache", "DawnWebGPUCache", "DevToolsActivePort",
    "GPUCache", "GrShaderCache", "GraphiteDawnCache", "ShaderCache", "SingletonCookie", "SingletonLock",
    "SingletonSocket", "component_crx_cache", "segmentation_platform",
})  # fmt: skip


def check_profile_name(name: str) -> str:
    """Check and return the name of a profile.

    Raises:
        BrowserError: If it is invalid.
    """
    if not _NAME.fullmatch(name):
        raise BrowserError(
            f"A profile's name has up to 100 letters, digits, '.', '_' and '-', and begins with a letter or digit; "
            f"not {name!r}",
            profile=name,
        )
    return name


def profiles_folder(folder: str | None, name: str) -> Path:
    """Return the folder of profiles that a browser's config names, to load or store a profile in it.

    Args:
        folder: The config's `profiles_dir`.
        name: The profile's name.

    Raises:
        BrowserError: If the config names no folder, or the name cannot be a profile's.
    """
    check_profile_name(name)
    if folder is None:
        raise BrowserError("A profile needs a folder of profiles (profiles_dir)", profile=name)
    return Path(folder)


def kept_profile(config: Mapping[str, Any]) -> str | None:
    """Return the name under which a browser stores its profile at its end; None for none.

    Args:
        config: The fields of its `BrowserConfig`.
    """
    return config.get("profile") if config.get("persist_profile", True) else None


def load_profile(profiles: Path, name: str, into: Path) -> bool:
    """Copy a profile into a folder, which is emptied first; return whether there was one.

    Raises:
        OSError: If it cannot be copied.
    """
    link = profiles / check_profile_name(name)
    for attempt in range(_TRIES):
        shutil.rmtree(into, ignore_errors=True)
        try:
            version = link.resolve(strict=True)
        except FileNotFoundError:
            into.mkdir(mode=0o700, parents=True)
            return False
        try:
            shutil.copytree(version, into, symlinks=True)
        except (FileNotFoundError, shutil.Error):
            if attempt == _TRIES - 1 or version == link.resolve():
                raise
            continue  # a newer version has replaced it meanwhile
        into.chmod(0o700)
        return True
    raise BrowserError(f"The profile {name!r} is stored anew faster than it can be read", profile=name)


def store_profile(folder: Path, profiles: Path, name: str) -> None:
    """Store a copy of a profile folder under a name, and replace the previous one.

    Args:
        folder: Profile folder of a Chromium that has ended or is stopped.

    Raises:
        OSError: If it cannot be written; the stored profile is unchanged.
    """
    link = profiles / check_profile_name(name)
    profiles.mkdir(mode=0o700, parents=True, exist_ok=True)
    version = profiles / f".{name}-{secrets.token_hex(6)}"
    try:
        shutil.copytree(folder, version, symlinks=True, ignore=_ignore)
        version.chmod(0o700)
        new = version.with_name(f"{version.name}-link")
        new.symlink_to(version.name)
        new.replace(link)
    except BaseException:
        shutil.rmtree(version, ignore_errors=True)
        raise
    for other in profiles.glob(f".{name}-*"):
        if re.fullmatch(rf"\.{re.escape(name)}-[0-9a-f]{{12}}", other.name) and other.name != link.readlink().name:
            shutil.rmtree(other, ignore_errors=True)


def list_profiles(profiles: Path) -> list[str]:
    """Return the names of the profiles."""
    return sorted(path.name for path in profiles.glob("*") if path.is_symlink() and _NAME.fullmatch(path.name))


def remove_profile(profiles: Path, name: str) -> None:
    """Remove a profile.

    Raises:
        BrowserError: If there is none.
    """
    link = profiles / check_profile_name(name)
    version = link.resolve()
    try:
        link.unlink()
    except FileNotFoundError:
        others = ", ".join(list_profiles(profiles)) or "none"
        raise BrowserError(f"There is no profile {name!r}; there are: {others}", profile=name) from None
    shutil.rmtree(version, ignore_errors=True)


def _ignore(folder: str, names: Iterable[str]) -> set[str]:
    del folder
    return {name for name in names if name in _LEFT_OUT}
