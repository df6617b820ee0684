"""The Chromium that the tests drive: the one that browser sessions take, installed first where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from runtimed.browser.find import ADVICE, find_chromium
from runtimed.errors import BrowserUnavailable

__all__ = ["Missing", "ensure_chromium"]


class Missing(Exception):
    """There is no Chromium, and it cannot be installed from here; the text says how to get one."""


def ensure_chromium() -> Path:
    """Return the program of a Chromium, installed first where that is possible (as root with apt-get).

    Raises:
        Missing: If there is none afterwards.
    """
    try:
        found = find_chromium().program
    except BrowserUnavailable as exc:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise Missing(f"The tests drive a real Chromium. {exc.message}") from exc
        found = _install()
    # Ubuntu's chromium-browser without its snap is a script that only says so.
    answer = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise Missing(f"{found} does not run: {answer.stderr.strip() or answer.stdout.strip()}\n{ADVICE}")
    return found


def _install() -> Path:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"],
    ):
        print("$", *command, flush=True)
        if subprocess.run(command, env=environment, check=False).returncode:
            raise Missing(f"`{' '.join(command)}` failed.\n{ADVICE}")
    try:
        return find_chromium().program
    except BrowserUnavailable as exc:
        raise Missing(exc.message) from exc
