"""Interprets uv's standard error: its progress, and why it failed. Nothing here runs uv."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from runtimed.environments.recipes import Progress
from runtimed.errors import EnvironmentFailed

__all__ = ["Plan", "ProgressReader", "failure", "has_begun_to_download", "is_network_failure", "read_plan"]

_LINES: Final = 12
"""Most lines of uv in an error's message: the first, which says what failed, and the last, which say why."""

_UNITS: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DOWNLOADING: Final = re.compile(r"^Downloading (\S+)(?: \(([\d.]+)(B|KiB|MiB|GiB)\))?")
_DOWNLOADED: Final = re.compile(r"^Downloaded (\S+)")
_BUILDING: Final = re.compile(r"^Building (\S+)")
_RESOLVED: Final = re.compile(r"^Resolved (\d+) packages?")
_INSTALLED: Final = re.compile(r"^Installed (\d+) packages?")

_ADDED: Final = re.compile(r"^ \+ (?P<what>(?P<name>[\w.-]+)(?:==\S+| @ \S+))(?: \(from (?P<url>.+)\))?$")
_CHANGED: Final = re.compile(r"^ [-~] ([\w.-]+)")

_NETWORK: Final = re.compile(
    r"error sending request|dns error|Connection refused|Connection reset|operation timed out|tcp connect error"
    r"|Failed to fetch|network was disabled|Network is unreachable|increasing\s+UV_HTTP_TIMEOUT"
)
_PYTHON_DOWNLOAD: Final = re.compile(r"Failed to (?:install|download) [`']?(?:cpython|pypy|graalpy)-")
_CAUSES: Final = (
    (r"No space left on device", "The disk is full; make room, or name another data folder with RUNTIMED_DATA_DIR"),
    (
        r"(?P<package>[\w.-]+) was not found in the package registry",
        "There is no package {package!r}; check its name, and the index that uv uses (UV_DEFAULT_INDEX, uv.toml, "
        "pip.conf)",
    ),
    (
        r"(?P<package>[\w.-]+) was not found in the provided package locations",
        "There is no package {package!r} in the places where uv looks (UV_FIND_LINKS, pip.conf)",
    ),
    (
        r"there (?:is|are) no versions? of (?P<package>[\w.\[\]-]+)",
        "No version of {package!r} fits; ask for one that exists",
    ),
    (r"lockfile.* needs to be updated", "uv.lock does not fit pyproject.toml any more; run `uv lock` in the project"),
    (
        r"No interpreter found|No download found|does not satisfy Python|is incompatible with the project's Python"
        r"|Python requirement|current Python version",
        "No Python that fits can be had here; install one (`uv python install`), or ask for another version",
    ),
    (
        r"Failed to build [`']?(?P<package>[\w.-]+)",
        "The package {package!r} does not build; its last words are below",
    ),
    (r"Failed to parse [`']?uv\.lock", "uv.lock cannot be read; make it anew with `uv lock` in the project"),
    (r"TOML parse error|Failed to parse|malformed", "What describes the packages cannot be understood; mend it"),
    (
        r"requirements are unsatisfiable|No solution found",
        "These packages do not go together; loosen or change a version",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What uv would do to an environment.

    Attributes:
        added: Exact requirements of what it would install.
        changed: Names of installed packages that it would replace or remove.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def read_plan(lines: Iterable[str]) -> Plan:
    """Parse uv's output of a dry run."""
    added, changed = [], []
    for line in lines:
        if match := _CHANGED.match(line):
            changed.append(match[1])
        elif match := _ADDED.match(line):
            added.append(match["what"] if match["url"] is None else f"{match['name']} @ {match['url']}")
    return Plan(added=tuple(added), changed=tuple(changed))


class ProgressReader:
    """Translates uv's lines into progress; sizes are known for what uv calls large."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._done = 0

    def read(self, line: str) -> Progress | None:
        """Return the progress that a line reports; None for none."""
        line = line.strip()
        if match := _DOWNLOADING.match(line):
            name, number, unit = match.groups()
            self._sizes[name] = int(float(number) * _UNITS[unit]) if number else 0
            return self._download(name)
        if match := _DOWNLOADED.match(line):
            self._done += self._sizes.get(match[1], 0)
            return self._download(match[1])
        if match := _BUILDING.match(line):
            return Progress(step="install", message=f"Building {match[1]}")
        if match := _RESOLVED.match(line):
            return Progress(step="install", message=f"Installing {_packages(match[1])}")
        if match := _INSTALLED.match(line):
            return Progress(step="install", message=f"Byte-compiling {_packages(match[1])}")
        return None

    def _download(self, name: str) -> Progress:
        total = sum(self._sizes.values())
        return Progress(step="download", message=f"Downloading {name}", done=self._done, total=total)


def _packages(number: str) -> str:
    return f"{number} package" if number == "1" else f"{number} packages"


def is_network_failure(said: str) -> bool:
    """Whether uv failed because it could not reach a server."""
    return _NETWORK.search(said) is not None


def has_begun_to_download(said: str) -> bool:
    """Whether the first bytes of a large download had come when uv stopped."""
    return any(_DOWNLOADING.match(line.strip()) for line in said.splitlines())


def failure(what: str, said: str) -> EnvironmentFailed:
    """Return the error for a failed run of uv.

    Args:
        what: What was to be made, for people.
        said: uv's output.
    """
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    start = next(
        (index for index, line in enumerate(lines) if line.lstrip().startswith(("error", "\N{MULTIPLICATION SIGN}"))), 0
    )
    # An explanation that wraps is one sentence.
    flat = " ".join(line.strip() for line in lines[start:])
    package, mend = None, "What uv said is below"
    if is_network_failure(flat) and _PYTHON_DOWNLOAD.search(flat):
        mend = (
            "No Python that fits is installed here, and none can be downloaded; install one, check the network and the "
            "proxy (HTTPS_PROXY, UV_PYTHON_INSTALL_MIRROR), or ask for another version"
        )
    elif is_network_failure(flat) and "No space left" not in flat:
        mend = (
            "The package index cannot be reached; check the network, and the settings of index and proxy "
            "(UV_DEFAULT_INDEX, HTTPS_PROXY, pip.conf). With UV_OFFLINE=1 only what was downloaded earlier is used; "
            "an index that is slow to answer gets more seconds with UV_HTTP_TIMEOUT=60"
        )
    else:
        for pattern, sentence in _CAUSES:
            if match := re.search(pattern, flat):
                package = match.groupdict().get("package")
                mend = sentence.format(package=package)
                break
    shown = lines[start:]
    if len(shown) > _LINES:
        shown = [shown[0], "  …", *shown[1 - _LINES :]]
    sentence = "\n".join([f"Cannot make {what}. {mend}.", "uv said:", *shown])
    return EnvironmentFailed(sentence, package=package, log="\n".join(lines))
