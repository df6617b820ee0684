"""Text helpers of the conda worker: names from declarations, sentences from errors."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from runtimed.errors import EnvironmentFailed

__all__ = ["check_space", "fail", "hidden", "listed", "normal_name", "one_line", "requirement_name", "spec_name"]


def fail(message: str, **data: Any) -> NoReturn:
    """Raise EnvironmentFailed without secrets; the data become its attributes, also behind the pipe."""
    raise EnvironmentFailed(
        hidden(message), **{name: hidden(value) if isinstance(value, str) else value for name, value in data.items()}
    )


def check_space(words: str, folder: Path) -> None:
    """Fail if this error message means a full disk."""
    if "No space left on device" not in words and "Disk quota exceeded" not in words:
        return
    places = {_mount_point(Path(name)) for name in [str(folder), *re.findall(r"(?<![\w.])/[^\s`':]+", words)]}
    free, place = min((shutil.disk_usage(place).free, str(place)) for place in places)
    fail(
        f"The disk is full: {place} has {free / 2**20:.0f} MiB left, and the environment needs more; make room and try "
        "again",
        path=place,
        free=free,
    )


def _mount_point(path: Path) -> Path:
    while not path.is_mount():
        path = path.parent
    return path


def one_line(error: Exception) -> str:
    """Return the first and the last cause of a py-rattler error."""
    lines = [line.removeprefix("Caused by: ") for line in str(error).splitlines() if line.strip()]
    return lines[0] if len(lines) < 2 else f"{lines[0]}: {lines[-1]}"


def hidden(text: str) -> str:
    """Remove tokens and passwords from URLs: the sentence reaches logs and other people's screens."""
    return re.sub(r"/t/[^/\s]+", "/t/…", re.sub(r"://[^/\s@]+@", "://", text))


def listed(names: Sequence[str]) -> str:
    """Return names as part of a sentence."""
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def spec_name(spec: str) -> str:
    """Return the package name of a match spec."""
    match = re.match(r"[\w.\-]+", spec.rsplit("::", 1)[-1].strip())
    return match[0].lower() if match else spec


def requirement_name(line: str) -> str:
    """Return the package name in a line of a requirements file; empty for an option or a path."""
    match = re.match(r"[A-Za-z0-9][\w.\-]*(?=\s*([\[@<>=!~;]|$))", line)
    return normal_name(match[0]) if match else ""


def normal_name(name: str) -> str:
    """Return the name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
