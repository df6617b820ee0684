"""Finds a Chromium on this machine: one on PATH, an application of macOS, or one that Playwright installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["Missing", "ensure_chromium", "find_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)

ADVICE = """\
The tests drive a real Chromium and there is none on this machine. Get one:
  Debian, Ubuntu:  sudo apt-get install --no-install-recommends chromium
  Fedora:          sudo dnf install chromium
  macOS:           brew install --cask chromium
  anywhere:        python -m playwright install chromium"""


class Missing(Exception):
    """There is no Chromium, and it cannot be installed from here; the text says how to get one."""


def find_chromium() -> Path | None:
    """Return the program of a Chromium or Chrome, None if there is none."""
    on_path = next(filter(None, map(shutil.which, NAMES)), None)
    if on_path is not None:
        return Path(on_path)
    places = [Path(place) for place in APPLICATIONS] if sys.platform == "darwin" else []
    places += _of_playwright()
    return next((place for place in places if os.access(place, os.X_OK) and place.is_file()), None)


def ensure_chromium() -> Path:
    """Return the program of a Chromium, installed first where that is possible (as root with apt-get).

    Raises:
        Missing: If there is none afterwards.
    """
    found = find_chromium()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-q"],
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"],
        ):
            print("$", *command, flush=True)
            if subprocess.run(command, env=environment, check=False).returncode:
                raise Missing(f"`{' '.join(command)}` failed.\n{ADVICE}")
        found = find_chromium()
    if found is None:
        raise Missing(ADVICE)
    # Ubuntu's chromium-browser without its snap is a script that only says so.
    answer = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise Missing(f"{found} does not run: {answer.stderr.strip() or answer.stdout.strip()}\n{ADVICE}")
    return found


def _of_playwright() -> list[Path]:
    """Return where Playwright puts its browsers, the newest first.

    Source: playwright.dev, "Browsers", "Managing browser binaries".
    """
    caches = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or caches / "ms-playwright")
    revisions = sorted(folder.glob("chromium-*"), key=lambda path: (len(path.name), path.name), reverse=True)
    patterns = ("chrome-linux*/chrome", "chrome-mac*/*.app/Contents/MacOS/*")
    return [program for revision in revisions for pattern in patterns for program in sorted(revision.glob(pattern))]
