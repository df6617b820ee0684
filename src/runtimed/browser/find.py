"""Finds a Chromium on this machine, and says where it searched. Nothing here starts or downloads one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from runtimed.errors import BrowserUnavailable

__all__ = ["ADVICE", "Found", "find_chromium"]

ADVICE: Final = """\
Get a Chromium:
  Debian, Ubuntu:  sudo apt-get install --no-install-recommends chromium
  Fedora:          sudo dnf install chromium
  macOS:           brew install --cask chromium
  anywhere:        python -m playwright install chromium
or name one: RUNTIMED_CHROMIUM=/path/to/chromium"""

_NAMES: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "microsoft-edge-stable",
)

_APPLICATIONS: Final = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)


class Found(msgspec.Struct, frozen=True):
    """A Chromium.

    Attributes:
        program: Path of the program.
        why: Where it comes from: `RUNTIMED_CHROMIUM`, `Playwright`, `PATH`.
    """

    program: Path
    why: str


def find_chromium(asked: str | None = None, environment: Mapping[str, str] | None = None) -> Found:
    """Return the Chromium to use: the configured one, RUNTIMED_CHROMIUM, Playwright's own, or an installed one.

    Raises:
        BrowserUnavailable: If there is none, or the named one does not exist (attribute `program`).
    """
    env = os.environ if environment is None else environment
    for name, why in (
        (asked, "the argument chromium"),
        (env.get("RUNTIMED_CHROMIUM", "").strip(), "RUNTIMED_CHROMIUM"),
    ):
        if name:
            named = shutil.which(_expanded(name, env), path=env.get("PATH"))
            if named is None:
                raise BrowserUnavailable(f"{why} names {name!r}, which is no program of this machine", program=name)
            return Found(Path(named), why)
    for program in _of_playwright(env):
        if _runs(program):
            return Found(program, "Playwright")
    on_path = next(filter(None, (shutil.which(name, path=env.get("PATH")) for name in _NAMES)), None)
    if on_path is not None:
        return Found(Path(on_path), "PATH")
    if sys.platform == "darwin":
        for place in map(Path, _APPLICATIONS):
            if _runs(place):
                return Found(place, "Applications")
    raise BrowserUnavailable(f"There is no Chromium, Chrome or Edge on this machine. {ADVICE}", program=None)


def _runs(program: Path) -> bool:
    return program.is_file() and os.access(program, os.X_OK)


def _expanded(path: str, env: Mapping[str, str]) -> Path:
    """Expand `~/` by the home folder of the environment."""
    home = env.get("HOME")
    return Path(home, path[2:]) if home and path.startswith("~/") else Path(path).expanduser()


def _of_playwright(env: Mapping[str, str]) -> list[Path]:
    """Return Playwright's browsers, the newest first.

    Source: playwright.dev, "Browsers", "Managing browser binaries".
    """
    caches = _expanded("~/Library/Caches" if sys.platform == "darwin" else "~/.cache", env)
    folder = Path(env.get("PLAYWRIGHT_BROWSERS_PATH") or caches / "ms-playwright")
    revisions = sorted(folder.glob("chromium-*"), key=lambda path: (len(path.name), path.name), reverse=True)
    patterns = ("chrome-linux*/chrome", "chrome-mac*/*.app/Contents/MacOS/*")
    return [program for revision in revisions for pattern in patterns for program in sorted(revision.glob(pattern))]
